"""Gives back what no model needs: blobs that no manifest names, and what broken work has left."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corral.store import catalog
from corral.store.blobs import storing
from corral.store.library import Library
from corral.store.lock import if_free, is_held
from corral.store.paths import BLOB_NAME, BLOBS, HOLDS, LINKS, LOCKS, MANIFESTS, PARTIAL, SCRATCH_NAME, entries

MIN_AGE_S = 3600.0  # what is younger may belong to a pull or a create that has not written its manifest yet


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, or would be; `bytes` is what it took on the disk."""

    paths: tuple[Path, ...]
    bytes: int


def prune(library: Library, *, dry_run: bool) -> Pruned:
    """Removes what nothing needs, is older than an hour and held by no lock.

    A blob of the catalog stays: it is found by its digest, without a manifest. Of a file used in place, the link goes
    and not the file. As long as a manifest of ours is damaged, all blobs stay.

    Raises:
        CorralError: a file that cannot be removed.
    """
    if not library.root.is_dir():
        return Pruned((), 0)
    paths: list[Path] = []
    num_bytes = 0
    now = time.time()
    with library.exclusive():
        for path, digest in [*_unused(library, now), *_leftovers(library.root, now)]:
            size = _disk_bytes(path)
            if _remove(library, path, digest, dry_run=dry_run):
                paths.append(path)
                num_bytes += size
        if not dry_run:
            _remove_free_locks(library.root)
    return Pruned(tuple(paths), num_bytes)


def _unused(library: Library, now: float) -> Iterator[tuple[Path, str]]:
    named = library.named_digests()
    if named is None:
        return
    kept = named | {entry.artifact.sha256 for entry in catalog.CATALOG}
    for path in entries(library.root / BLOBS):
        match = BLOB_NAME.fullmatch(path.name)
        if match and match["hex"] not in kept and _is_old(path, now):
            yield path, match["hex"]


def _leftovers(root: Path, now: float) -> Iterator[tuple[Path, str]]:
    """What is under a temporary name, with the digest that it is for, if any; records of links that are gone."""
    for path in entries(root / BLOBS):
        match = SCRATCH_NAME.fullmatch(path.name)
        if match and _is_old(path, now):
            yield path, match["hex"]
    for path in entries(root / LINKS):
        is_scratch = path.name.startswith(PARTIAL)
        if (is_scratch or not (root / BLOBS / path.name).is_symlink()) and _is_old(path, now):
            yield path, ""
    for path in sorted((root / MANIFESTS).glob(f"*/*/*/{PARTIAL}-*")):
        if _is_old(path, now):
            yield path, ""


def _remove(library: Library, path: Path, digest: str, *, dry_run: bool) -> bool:
    """False if somebody works on it."""
    scratch_lock = path.with_name(f"sha256-{digest}.lock")  # of releases before this one
    if digest and is_held(scratch_lock):
        return False
    if dry_run:
        locks = (library.lock_path(digest), library.root / HOLDS / f"sha256-{digest}")
        return not digest or not any(is_held(lock) for lock in locks)
    with storing(path):
        if digest and BLOB_NAME.fullmatch(path.name):
            return library.remove_blob(digest)
        if not digest:
            path.unlink(missing_ok=True)
            return True
        with if_free(library.lock_path(digest)) as is_unlocked:
            if is_unlocked and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif is_unlocked:
                path.unlink(missing_ok=True)
            return is_unlocked


def _remove_free_locks(root: Path) -> None:
    for folder in (LOCKS, HOLDS):
        for path in entries(root / folder):
            if path.name != "store":
                with storing(path), if_free(path):
                    pass  # that removes it


def _is_old(path: Path, now: float) -> bool:
    """By the last change of the file or its name; of a folder, of anything in it."""
    times = [_changed_s(path)]
    if path.is_dir() and not path.is_symlink():
        times += [_changed_s(inner) for inner in path.rglob("*")]
    return now - max(times) > MIN_AGE_S


def _changed_s(path: Path) -> float:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0.0
    return max(status.st_mtime, status.st_ctime)


def _disk_bytes(path: Path) -> int:
    """What goes with `path`; of a link, nothing of what it points to."""
    inner = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    total = 0
    for each in (path, *inner):
        try:
            total += each.lstat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total
