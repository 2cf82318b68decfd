"""Files of this machine: used, and registered, where they lie."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from corral.errors import ModelNotFound
from corral.store.manifest import MODEL, Layer
from corral.store.wanted import LocalPath

if TYPE_CHECKING:
    from corral.store.pulling import Puller

_SPLIT = re.compile(r"(?P<stem>.*)-\d{5}-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def pull(wanted: LocalPath, puller: Puller) -> tuple[Layer, ...]:
    """Layers that are links to the file, or to all parts of a split one.

    Raises:
        ModelNotFound: no such file, or a folder without a single model; says what there is.
    """
    first = model_file(wanted.path)
    return tuple(puller.library.link_file(part, MODEL, puller.on_status) for part in parts_of(first))


def model_file(path: Path) -> Path:
    """The GGUF file that `path` means: itself, or the only model in it, of a split one the first part.

    Raises:
        ModelNotFound: there is none, or more than one.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise ModelNotFound(f"there is no file {path}")
    files = sorted(p for p in path.glob("*.gguf") if "mmproj" not in p.name.lower())
    if files and parts_of(files[0]) == files:
        return files[0]
    if files:
        raise ModelNotFound(
            f"{path} is a folder with {len(files)} .gguf files; name one: {', '.join(p.name for p in files)}"
        )
    if any(path.glob("*.safetensors")):
        raise ModelNotFound(
            f"{path} is a folder of safetensors files; make a model of it first: "
            f"`corral create NAME -f Modelfile`, with the line FROM {path} in the Modelfile"
        )
    raise ModelNotFound(f"{path} is a folder; name the .gguf file; it has no .gguf file")


def parts_of(path: Path) -> list[Path]:
    """All parts of the split model that `path` is of, in order, as far as they are there; else itself."""
    match = _SPLIT.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    parts = [path.with_name(f"{match['stem']}-{n:05d}-of-{count:05d}.gguf") for n in range(1, count + 1)]
    return parts if path in parts else [path]
