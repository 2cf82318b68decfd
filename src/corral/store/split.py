"""Models in several files: the loader finds the parts by their names, and blobs are named for their content.

So the parts get names that belong together in a folder of links: `<cache>/split/<hex>/model-00001-of-0000N.gguf`, <hex>
being the SHA-256 of the parts' digests in order. The folder can be made again at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from corral.config import cache_home
from corral.errors import CorralError


def link_parts(parts: Sequence[tuple[str, Path]], folder: Path) -> Path:
    """The first part of a split model under a name that leads to the others.

    Args:
        parts: digest and blob of each part, in order; one alone needs no link.
        folder: where folders of links belong.

    Raises:
        CorralError: the links cannot be made.
    """
    if len(parts) == 1:
        return parts[0][1]
    key = hashlib.sha256("\n".join(digest for digest, _ in parts).encode()).hexdigest()
    links = [folder / key / f"model-{n:05d}-of-{len(parts):05d}.gguf" for n in range(1, len(parts) + 1)]
    try:
        (folder / key).mkdir(parents=True, exist_ok=True)
        for link, (_, blob) in zip(links, parts, strict=True):
            _link(link, blob.absolute())
    except OSError as error:
        raise CorralError(f"cannot link the parts of a model in {folder}: {error.strerror or error}") from error
    return links[0]


def _link(link: Path, blob: Path) -> None:
    with contextlib.suppress(OSError):
        if link.readlink() == blob:
            return
    new = link.with_name(f"{link.name}.{os.getpid()}.new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    new.symlink_to(blob)
    new.replace(link)


def model_path(parts: Sequence[tuple[str, Path]]) -> Path:
    """What the loader opens for a model whose files are these blobs, in order."""
    return parts[0][1] if len(parts) == 1 else link_parts(parts, cache_home() / "split")
