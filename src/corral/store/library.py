"""The model store: our folder, which is written, and Ollama's, which are read, as one.

What keeps it whole: a file gets its name only when it is complete, checked and on the disk; a manifest is written
after all that it names, and removed before. Three kinds of locks, files that flock holds, keep processes apart:

    locks/store            held by whoever writes or removes a manifest, or removes a blob
    locks/sha256-<hex>     Library.lock: one worker on a download; its blob and what belongs to it stay meanwhile
    holds/sha256-<hex>     shared; by whoever added or found a blob and has not yet written the manifest that names it
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from corral.config import models_home, ollama_models
from corral.errors import CorralError, InvalidManifest, ModelNotFound
from corral.store import links, manifest_tree
from corral.store.blobs import make_folder, publish_file, replace_file, storing, sync_folder, write_blob
from corral.store.lock import file_lock, if_free, shared_lock
from corral.store.manifest import Layer, Manifest, encode_manifest, read_manifest
from corral.store.names import ModelName
from corral.store.paths import HOLDS, LOCKS, blob_path, digest_hex, link_path
from corral.store.status import OnStatus
from corral.store.stored_model import StoredModel

__all__ = ["Library", "StoredModel"]

logger = logging.getLogger("corral.store")


class Library:
    """Models and blobs. Safe to use from several threads and processes.

    Attributes:
        root: the folder that is written.
        others: folders that are read only.
    """

    def __init__(self, root: Path, others: Iterable[Path] = ()) -> None:
        self.root = root
        self.others = tuple(others)
        self._holds: dict[str, int] = {}  # digest -> descriptor of its shared lock
        self._holds_lock = threading.Lock()
        weakref.finalize(self, _close_all, self._holds)

    @classmethod
    def open(cls) -> Library:
        """The store that the environment names; nothing is made until something is written."""
        return cls(models_home(), ollama_models())

    @property
    def roots(self) -> tuple[Path, ...]:
        return (self.root, *self.others)

    # Reading.

    def find(self, name: ModelName) -> StoredModel | None:
        """The model of that name, ours before Ollama's; of a pinned name, the one with that digest.

        Raises:
            InvalidManifest: there is one, but it is damaged.
        """
        for root in self.roots:
            path = manifest_tree.existing_path(root, name)
            if path is None:
                continue
            try:
                found = self._stored(root, path, name)
            except FileNotFoundError:  # deleted since
                continue
            if found.digest.startswith(name.digest):
                return found
        return None

    def models(self) -> list[StoredModel]:
        """All models, the newest first; a damaged manifest is left out with a warning."""
        found: dict[str, StoredModel | None] = {}
        for root in self.roots:
            for name, path in manifest_tree.walk(root):
                if name is None or name.key in found:
                    continue
                try:
                    found[name.key] = self._stored(root, path, name)
                except FileNotFoundError:
                    continue
                except InvalidManifest as error:
                    found[name.key] = None
                    logger.warning("model %s is left out: %s", name, error)
        models = [model for model in found.values() if model is not None]
        return sorted(models, key=lambda model: (-model.modified_at.timestamp(), model.name.key))

    def blob(self, digest: str) -> Path | None:
        """The file with that digest, in any of the folders; of one used in place, the file itself."""
        for root in self.roots:
            path = blob_path(root, digest)
            if path.is_file() and links.link_fault(root, digest) is None:
                record = links.read_record(root, digest) if path.is_symlink() else None
                return Path(record.path) if record else path
        return None

    def fault(self, digest: str) -> str | None:
        """Why a blob that the store knows cannot be used: a file used in place that has changed or is gone."""
        faults = (links.link_fault(root, digest) for root in self.roots)
        return next((fault for fault in faults if fault is not None), None)

    def _stored(self, root: Path, path: Path, name: ModelName) -> StoredModel:
        """The manifest at `path`, with its name as it is spelled there."""
        manifest, data = read_manifest(path)
        host, namespace, model, tag = path.parts[-4:]
        spelled = replace(name, host=host, namespace=namespace, model=model, tag=tag)
        modified_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        digest = hashlib.sha256(data).hexdigest()
        return StoredModel(spelled, manifest, digest, manifest.size, modified_at, root, self)

    # Blobs.

    def add_blob(self, digest: str, chunks: Iterable[bytes], size: int | None = None) -> bool:
        """Stores `chunks` as the blob `digest`; False if it was there, and nothing was read.

        Raises:
            DigestMismatch: the bytes are others.
            DiskFull: no room.
        """
        if self._has(digest, size):
            return False
        write_blob(self.blob_target(digest), digest_hex(digest), chunks, size)
        return True

    def add_bytes(self, data: bytes, media_type: str) -> Layer:
        """Stores a small layer: a template, a system message, parameters as JSON, ..."""
        digest = hashlib.sha256(data).hexdigest()
        self.add_blob(digest, [data], len(data))
        return Layer(media_type, f"sha256:{digest}", len(data))

    def link_file(self, path: Path, media_type: str, on_status: OnStatus) -> Layer:
        """Registers a file in place: it is hashed once, not copied, and must stay as it is from then on.

        Raises:
            ModelNotFound: there is no such file.
            CorralError: it is no file, cannot be read, or changes meanwhile.
        """
        record = links.record_of(links.absolute(path))
        digest = links.known_digest(self.root, record) or links.hash_unchanged(record, on_status)
        self.hold(digest)
        ours = blob_path(self.root, digest)
        if not ours.is_file() or links.link_fault(self.root, digest) is not None:
            with storing(ours):
                links.write_link(self.root, digest, record)
        return Layer(media_type, f"sha256:{digest}", record.size)

    def blob_target(self, digest: str) -> Path:
        """Where the whole, checked blob belongs; beside it, NAME.partial... is for what is under way."""
        path = blob_path(self.root, digest)
        with storing(path):
            make_folder(path.parent)
        return path

    def publish(self, whole: Path, digest: str) -> Path:
        """Gives a whole file, whose digest was checked, its place; `whole` lies beside it."""
        target = self.blob_target(digest)
        self.hold(digest)
        with storing(target):
            publish_file(whole, target)
        return target

    def hold(self, digest: str) -> bool:
        """Keeps the blob from being removed until a manifest that names it is written here, or this object is gone.

        Returns whether the blob is there.
        """
        key = digest_hex(digest)
        path = self.root / HOLDS / f"sha256-{key}"
        with self._holds_lock:
            if key not in self._holds:
                with storing(path):
                    make_folder(path.parent)
                    self._holds[key] = shared_lock(path)
        return self.blob(digest) is not None

    def _has(self, digest: str, size: int | None) -> bool:
        """Holds the blob; whether it is there, and of that size if one is told."""
        if not self.hold(digest):
            return False
        path = self.blob(digest)
        return path is not None and (size is None or path.stat().st_size == size)

    # Models.

    def write(self, name: ModelName, manifest: Manifest) -> StoredModel:
        """Gives the name its meaning, in place of an older one, whose blobs go if nothing else names them.

        Raises:
            CorralError: something that the manifest names is not in the store.
            DiskFull: no room.
        """
        with self.exclusive():
            return self._put(name, manifest, encode_manifest(manifest))

    def copy(self, source: ModelName, target: ModelName) -> None:
        """Gives a model another name as well; no blob is copied.

        Raises:
            ModelNotFound: no model is called `source`.
        """
        with self.exclusive():
            model = self.find(source)
            path = manifest_tree.existing_path(model.root, source) if model else None
            if model is None or path is None:
                raise ModelNotFound(f"model {source.given or str(source)!r} not found")
            self._put(target, *read_manifest(path))

    def delete(self, name: ModelName) -> None:
        """Removes the name, and the blobs of ours that nothing else names.

        Raises:
            ModelNotFound: no model is called so.
            CorralError: it is Ollama's.
        """
        with self.exclusive():
            path = manifest_tree.existing_path(self.root, name)
            manifest = self._readable(path) if path else None
            if path is None or not _digest_of(path).startswith(name.digest):
                raise self._cannot_delete(name)
            with storing(path):
                manifest_tree.remove(path)
            self._remove_unused(manifest.digests if manifest else ())

    @contextmanager
    def lock(self, digest_or_name: str, on_wait: Callable[[], None]) -> Iterator[None]:
        """One worker at a time on a blob or a name, among processes; a blob is not removed meanwhile.

        `on_wait` is called once if another one has it. A thread must not take the same one twice.
        """
        with contextlib.ExitStack() as stack:
            with storing(self.root / LOCKS):
                make_folder(self.root / LOCKS)
                stack.enter_context(file_lock(self.lock_path(digest_or_name), on_wait))
            yield

    def lock_path(self, digest_or_name: str) -> Path:
        with contextlib.suppress(CorralError):
            return self.root / LOCKS / f"sha256-{digest_hex(digest_or_name)}"
        return self.root / LOCKS / f"name-{hashlib.sha256(digest_or_name.lower().encode()).hexdigest()}"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """The store's lock: nobody else writes or removes meanwhile. A thread must not take it twice."""
        with contextlib.ExitStack() as stack:
            with storing(self.root / LOCKS):
                make_folder(self.root / LOCKS)
                stack.enter_context(file_lock(self.root / LOCKS / "store", lambda: None))
            yield

    def _put(self, name: ModelName, manifest: Manifest, data: bytes) -> StoredModel:
        """Writes a manifest, under the store's lock."""
        for layer in manifest.all_layers:
            self._check_there(name, layer)
        path = manifest_tree.path_to_write(self.root, name)
        before = self._readable(path)
        with storing(path):
            make_folder(path.parent)
            replace_file(path, data)
        self._release(manifest.digests)
        if before is not None:
            self._remove_unused(before.digests - manifest.digests)
        return self._stored(self.root, path, name)

    def _check_there(self, name: ModelName, layer: Layer) -> None:
        path = self.blob(layer.digest)
        if path is None:
            fault = self.fault(layer.digest) or f"blob {layer.digest} is not in the store"
            raise CorralError(f"model {str(name)!r} cannot be written: {fault}")
        if (size := path.stat().st_size) != layer.size:
            raise CorralError(
                f"model {str(name)!r} cannot be written: blob {layer.digest} has {size} bytes, not {layer.size}"
            )

    def _readable(self, path: Path) -> Manifest | None:
        try:
            return read_manifest(path)[0]
        except (FileNotFoundError, InvalidManifest):
            return None

    def _cannot_delete(self, name: ModelName) -> CorralError:
        shown = name.given or str(name)
        theirs = next((root for root in self.others if manifest_tree.existing_path(root, name)), None)
        if theirs is None:
            return ModelNotFound(f"model {shown!r} not found")
        return CorralError(
            f"model {shown!r} is Ollama's, in {theirs}, which Corral only reads; `ollama rm {name}` deletes it"
        )

    def named_digests(self) -> frozenset[str] | None:
        """Hex digests of all blobs that manifests of ours name; None if one of them cannot be read."""
        named: set[str] = set()
        for _name, path in manifest_tree.walk(self.root):
            try:
                named |= read_manifest(path)[0].digests
            except (FileNotFoundError, InvalidManifest) as error:
                logger.warning("no blob is removed, as it might be needed by a damaged manifest: %s", error)
                return None
        return frozenset(named)

    def _remove_unused(self, digests: Iterable[str]) -> None:
        """Removes those blobs of ours that no manifest names and nobody holds, under the store's lock."""
        named = self.named_digests()
        for digest in () if named is None else sorted(set(digests) - named):
            self.remove_blob(digest)

    def remove_blob(self, digest: str) -> bool:
        """Removes a blob of ours, under the store's lock; False if somebody holds it."""
        path, hold = blob_path(self.root, digest), self.root / HOLDS / f"sha256-{digest}"
        with storing(path):
            make_folder(hold.parent)
            with if_free(self.lock_path(digest)) as is_unlocked, if_free(hold) as is_unheld:
                if is_unlocked and is_unheld:
                    path.unlink(missing_ok=True)
                    link_path(self.root, digest).unlink(missing_ok=True)
                    if path.parent.is_dir():
                        sync_folder(path.parent)
                return is_unlocked and is_unheld

    def _release(self, digests: Iterable[str]) -> None:
        """Ends holds: a manifest names the blobs now."""
        with self._holds_lock:
            for digest in digests:
                if (descriptor := self._holds.pop(digest, None)) is not None:
                    os.close(descriptor)
                    with if_free(self.root / HOLDS / f"sha256-{digest}"):
                        pass  # removes the lock's file


def _digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _close_all(descriptors: dict[str, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)
    descriptors.clear()
