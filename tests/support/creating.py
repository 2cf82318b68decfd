"""A child process that makes models until it is killed: from a file, from one another, quantised, with new texts."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from corral.store.create import CreateSpec, create
from corral.store.library import Library
from corral.store.status import Status


def quiet(_status: Status) -> None:
    """Progress that nobody wants."""


def main(root: Path, weights: Path, seed: int) -> None:
    """Says after each model that it is made."""
    rng = random.Random(seed)
    library = Library(root)
    create("base", CreateSpec(files={weights.name: str(weights)}), quiet, library=library)
    while True:
        kind = rng.choice(["Q8_0", "Q4_0", None])
        spec = CreateSpec(from_="base", system=f"speak {rng.randrange(5)}", parameters={"seed": 1}, quantize=kind)
        create(rng.choice(["one", "two:b"]), spec, quiet, library=library)
        print(".", end="", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
