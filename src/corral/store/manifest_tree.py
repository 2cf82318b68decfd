"""The folder of manifests: four levels, one for each part of a name, looked up without regard to case."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from corral.errors import CorralError
from corral.store.blobs import sync_folder
from corral.store.names import ModelName, name_of_parts
from corral.store.paths import MANIFESTS, PARTIAL

_LEVELS = 4

logger = logging.getLogger("corral.store")


def walk(root: Path) -> Iterator[tuple[ModelName | None, Path]]:
    """Every manifest below `root` with the name that its path spells; None where a thing is none of ours.

    Symbolic links are not followed: they could lead out of the store. Temporary files are left out.
    """
    yield from _walk(root / MANIFESTS, ())


def _walk(folder: Path, parts: tuple[str, ...]) -> Iterator[tuple[ModelName | None, Path]]:
    for entry in _entries(folder):
        path = Path(entry.path)
        here = (*parts, entry.name)
        if len(here) < _LEVELS and entry.is_dir(follow_symlinks=False):
            yield from _walk(path, here)
        elif len(here) == _LEVELS and entry.is_file(follow_symlinks=False):
            yield name_of_parts(*here), path
        else:
            yield None, path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted((e for e in found if not e.name.startswith(PARTIAL)), key=lambda each: each.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        logger.warning("%s cannot be read: %s", folder, error.strerror or error)
        return []


def existing_path(root: Path, name: ModelName) -> Path | None:
    """The manifest of that name, however it is spelled there; None if there is none."""
    path, found = _spelled(root, name)
    return path if found == _LEVELS else None


def path_to_write(root: Path, name: ModelName) -> Path:
    """Where the manifest of that name belongs: parts that are there already keep their spelling.

    Raises:
        CorralError: a part of the path is a symbolic link.
    """
    path, _found = _spelled(root, name)
    for folder in [path, *path.parents[: _LEVELS - 1]]:
        if folder.is_symlink():
            raise CorralError(f"{folder} is a symbolic link, which a model folder must not have; remove it")
    return path


def _spelled(root: Path, name: ModelName) -> tuple[Path, int]:
    """The path of that name with the spelling of what is there, and how many parts of it are."""
    path, found = root / MANIFESTS, 0
    for level, part in enumerate(name.parts, start=1):
        spelling = _spelling(path, part, is_folder=level < _LEVELS) if found == level - 1 else None
        path /= part if spelling is None else spelling
        found += spelling is not None
    return path, found


def _spelling(folder: Path, part: str, *, is_folder: bool) -> str | None:
    matches = [
        entry.name
        for entry in _entries(folder)
        if entry.name.lower() == part.lower()
        and (entry.is_dir(follow_symlinks=False) if is_folder else entry.is_file(follow_symlinks=False))
    ]
    return part if part in matches else next(iter(matches), None)


def remove(path: Path) -> None:
    """Removes a manifest, and the folders above it that are empty then.

    Raises:
        OSError: it cannot be removed.
    """
    path.unlink()
    sync_folder(path.parent)  # before a blob goes: after a power cut, no manifest may name what is gone
    for folder in path.parents[: _LEVELS - 1]:
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()
