"""Model stores with small models in them, and a child process that works on one until it is killed."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from pathlib import Path

from corral.errors import ModelNotFound
from corral.store.library import Library, StoredModel
from corral.store.manifest import CONFIG, MODEL, SYSTEM, Layer, Manifest
from corral.store.names import ModelName, parse_name
from corral.store.prune import prune
from corral.store.status import Status

NAMES = ("one", "two:b", "host:80/ns/three:c")


def quiet(_status: Status) -> None:
    """Progress that nobody wants."""


def add_model(library: Library, name: str, data: bytes = b"GGUF", system: str = "be brief") -> StoredModel:
    """A model of two layers and a config; `data` need not be a GGUF file."""
    config = library.add_bytes(b'{"model_format":"gguf"}', CONFIG)
    layers = (library.add_bytes(data, MODEL), library.add_bytes(system.encode(), SYSTEM))
    return library.write(parse_name(name), Manifest(config, layers))


def blobs(root: Path) -> set[str]:
    """Names of all that lies in the blob folder."""
    folder = root / "blobs"
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def work_for_ever(root: Path, seed: int) -> None:
    """Writes, copies, deletes and prunes at random, and says after each step that it is done."""
    rng = random.Random(seed)
    library = Library(root)
    while True:
        step(library, rng)
        print(".", end="", flush=True)


def work(root: Path, seed: int, steps: int) -> None:
    """A limited number of steps, for two processes at once."""
    rng = random.Random(seed)
    library = Library(root)
    for _ in range(steps):
        step(library, rng)


def step(library: Library, rng: random.Random) -> None:
    """One thing that somebody might do to a store."""
    name, other = (parse_name(rng.choice(NAMES)) for _ in range(2))
    kind = rng.random()
    if kind < 0.5:
        # Few different contents, so that models share blobs and deletes meet writes of the same.
        chunks = [bytes([rng.randrange(8)]) * 10_000] * 40
        digest = hashlib.sha256(b"".join(chunks)).hexdigest()
        library.add_blob(digest, chunks)
        small = (library.add_bytes(b"{}", CONFIG), library.add_bytes(str(rng.randrange(3)).encode(), SYSTEM))
        library.write(name, Manifest(small[0], (Layer(MODEL, f"sha256:{digest}", 400_000), small[1])))
    elif kind < 0.65:
        _if_there(library.copy, name, other)
    elif kind < 0.85:
        _if_there(library.delete, name)
    elif kind < 0.95:
        file = library.root.parent / f"file-{rng.randrange(3)}.gguf"
        if file.exists():
            layer = library.link_file(file, MODEL, quiet)
            library.write(name, Manifest(library.add_bytes(b"{}", CONFIG), (layer,)))
    else:
        prune(library, dry_run=False)


def _if_there(action: object, *names: ModelName) -> None:
    try:
        action(*names)  # type: ignore[operator]
    except ModelNotFound:
        return


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    if arguments["steps"] is None:
        work_for_ever(Path(arguments["root"]), arguments["seed"])
    work(Path(arguments["root"]), arguments["seed"], arguments["steps"])
