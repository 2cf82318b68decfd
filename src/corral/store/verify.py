"""Looks whether the store is whole: every manifest, every blob, every byte."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from corral.errors import CorralError, InvalidManifest
from corral.store import links, manifest_tree
from corral.store.blobs import hash_file
from corral.store.library import Library
from corral.store.manifest import Layer, Manifest, read_manifest
from corral.store.names import ModelName
from corral.store.paths import (
    BLOB_NAME,
    BLOBS,
    HOLDS,
    LINKS,
    LOCKS,
    MANIFESTS,
    PARTIAL,
    SCRATCH_NAME,
    blob_path,
    entries,
)
from corral.store.status import OnStatus, Status

_FOLDERS = frozenset((MANIFESTS, BLOBS, LINKS, LOCKS, HOLDS))


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a file of the store; `models` are those that need it."""

    path: Path
    fault: str
    models: tuple[str, ...] = ()

    def __str__(self) -> str:
        needed = f" (needed by {', '.join(self.models)})" if self.models else ""
        return f"{self.path}: {self.fault}{needed}"


def verify(library: Library, *, on_status: OnStatus) -> list[Problem]:
    """Checks everything and changes nothing, but takes a file in place that was only touched as it is now.

    Of our folder, every blob is read and hashed, and every file that is none of the store's is named. Of Ollama's
    folders, the manifests are read, and the blobs that they name must be there and of the right size; those that
    models of ours use are hashed too.
    """
    problems, _ = _structure(library)
    again, users = _structure(library)  # what another process has removed in between is no problem
    problems = [problem for problem in problems if problem in again]
    problems += _damaged(library, users, on_status)
    problems += [Problem(path, "it is no file of the store") for path in _foreign(library.root)]
    return problems


@dataclass(slots=True)
class _Users:
    """Who needs a blob."""

    models: dict[Layer, list[str]] = field(default_factory=dict)
    ours: set[str] = field(default_factory=set)  # hex digests that manifests of ours name

    def of_digest(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for layer, names in self.models.items():
            found[layer.hex] = tuple(dict.fromkeys((*found.get(layer.hex, ()), *names)))
        return found


def _structure(library: Library) -> tuple[list[Problem], _Users]:
    """Manifests that are none, and what the others name and is not there."""
    problems: list[Problem] = []
    users = _Users()
    for root in library.roots:
        for name, manifest, found in _manifests(root):
            problems += found
            for layer in manifest.all_layers if manifest else ():
                users.models.setdefault(layer, []).append(str(name))
            if manifest and root == library.root:
                users.ours |= manifest.digests
    return problems + list(_missing(library, users.models)), users


def _manifests(root: Path) -> Iterator[tuple[ModelName, Manifest | None, list[Problem]]]:
    for name, path in manifest_tree.walk(root):
        if name is None:
            continue
        try:
            yield name, read_manifest(path)[0], []
        except FileNotFoundError:  # deleted since
            continue
        except InvalidManifest as error:
            yield name, None, [Problem(path, error.fault, (str(name),))]


def _missing(library: Library, users: dict[Layer, list[str]]) -> Iterator[Problem]:
    """What manifests name and is not there, or not of the size that they say."""
    for layer, names in users.items():
        path = library.blob(layer.digest)
        if path is None:
            if library.fault(layer.digest) is None:  # else it is told with the blobs
                yield Problem(blob_path(library.root, layer.digest), "it is missing", tuple(names))
        elif (size := path.stat().st_size) != layer.size:
            yield Problem(path, f"it has {size} bytes; its manifest says {layer.size}", tuple(names))


def _damaged(library: Library, users: _Users, on_status: OnStatus) -> Iterator[Problem]:
    """Blobs whose bytes are not what their names say."""
    models = users.of_digest()
    ours = {match["hex"] for path in entries(library.root / BLOBS) if (match := BLOB_NAME.fullmatch(path.name))}
    for digest in sorted(ours | users.ours):
        root = library.root if digest in ours else _root_of(library, digest)
        if root is None:
            continue  # missing, which was told
        path = blob_path(root, digest)
        try:
            fault = _fault(root, path, digest, on_status)
        except FileNotFoundError:  # removed since
            continue
        except (OSError, CorralError) as error:
            fault = f"it cannot be read: {error}"
        if fault is not None:
            yield Problem(path, fault, models.get(digest, ()))


def _root_of(library: Library, digest: str) -> Path | None:
    return next((root for root in library.others if blob_path(root, digest).is_file()), None)


def _fault(root: Path, path: Path, digest: str, on_status: OnStatus) -> str | None:
    """What is wrong with a blob; None if nothing is, or it was removed meanwhile."""
    is_link = path.is_symlink()
    record = links.read_record(root, digest) if is_link else None
    target = Path(record.path) if record else path
    if not target.is_file():
        gone = links.link_fault(root, digest) or "it is no file"
        return gone if os.path.lexists(path) else None
    before = links.record_of(target)

    def on_bytes(done: int) -> None:
        on_status(Status(f"verifying {digest[:12]}", digest=f"sha256:{digest}", total=before.size, completed=done))

    found = hash_file(target, on_bytes)
    if found != digest:
        return links.link_fault(root, digest) or f"it is damaged: its bytes have the digest sha256:{found}"
    if is_link and links.record_of(target) == before != record:
        with contextlib.suppress(OSError):  # a folder that cannot be written
            links.write_link(root, digest, before)
    return links.link_fault(root, digest)


def _foreign(root: Path) -> Iterator[Path]:
    """What lies in our folder and is neither ours nor work under way."""
    for path in entries(root):
        if path.name not in _FOLDERS:
            yield path
    for name, path in manifest_tree.walk(root):
        if name is None:
            yield path
    for path in entries(root / BLOBS):
        if not BLOB_NAME.fullmatch(path.name) and not SCRATCH_NAME.fullmatch(path.name):
            yield path
    for path in entries(root / LINKS):
        if not BLOB_NAME.fullmatch(path.name) and not path.name.startswith(PARTIAL):
            yield path
