"""Where things lie in a model store, which is Ollama's layout and a few folders of ours beside it.

    manifests/<host>/<namespace>/<model>/<tag>   what a name means, as JSON
    blobs/sha256-<hex>                           a whole file whose digest was checked, or a link to one in place
    blobs/sha256-<hex>.<anything>                work under way on it
    links/sha256-<hex>                           of a file in place: its path, size and time, as JSON
    locks/, holds/                               see library.py

Names and digests are checked before they become paths, so that none leads out of the store.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from corral.errors import CorralError

MANIFESTS, BLOBS, LINKS, LOCKS, HOLDS = "manifests", "blobs", "links", "locks", "holds"
BLOB_NAME = re.compile(r"sha256-(?P<hex>[0-9a-f]{64})")
SCRATCH_NAME = re.compile(r"sha256-(?P<hex>[0-9a-f]{64})[.-].+", re.DOTALL)
PARTIAL = ".partial"  # temporary files are called so, or have it in front

_DIGEST = re.compile(r"(?:sha256[:-])?(?P<hex>[0-9a-fA-F]{64})")


def digest_hex(digest: str) -> str:
    """The 64 hex digits of "sha256:<hex>", "sha256-<hex>" or the digits alone, in lower case.

    Raises:
        CorralError: it is anything else.
    """
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise CorralError(f"invalid digest format: {digest!r:.100} is not sha256: and 64 hex digits")
    return match["hex"].lower()


def blob_path(root: Path, digest: str) -> Path:
    return root / BLOBS / f"sha256-{digest_hex(digest)}"


def link_path(root: Path, digest: str) -> Path:
    return root / LINKS / f"sha256-{digest_hex(digest)}"


def entries(folder: Path) -> list[Path]:
    """What is in `folder`, by name; nothing if there is none."""
    try:
        return sorted(folder / name for name in os.listdir(folder))  # noqa: PTH208 - it is sorted by name
    except (FileNotFoundError, NotADirectoryError):
        return []
