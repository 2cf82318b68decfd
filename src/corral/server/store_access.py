"""The store as the server uses it. Everything here blocks: it runs on threads."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from corral.errors import InvalidModelName
from corral.protocol.ollama.fields import shorten

if TYPE_CHECKING:
    from corral.store.create import CreateSpec
    from corral.store.library import Library, StoredModel
    from corral.store.names import ModelName
    from corral.store.status import OnStatus


class StoreAccess:
    """One library for all requests, so that blobs sent for a model stay until it is created."""

    def __init__(self, library: Library | None = None) -> None:
        self._library = library
        self._lock = threading.Lock()

    @property
    def library(self) -> Library:
        from corral.store.library import Library

        with self._lock:
            self._library = self._library or Library.open()
            return self._library

    def pull(self, name: str, on_status: OnStatus, *, insecure: bool) -> StoredModel:
        from corral.store.pull import pull

        return pull(remote_name(name), on_status, insecure=insecure, library=self.library)

    def push(self, name: str, on_status: OnStatus, *, insecure: bool) -> None:
        from corral.store.push import push

        push(remote_name(name), on_status, insecure=insecure, library=self.library)

    def create(self, name: str, spec: CreateSpec, on_status: OnStatus) -> StoredModel:
        from corral.store.create import create

        return create(remote_name(name), spec, on_status, library=self.library)

    def find(self, name: str) -> StoredModel | None:
        """Raises InvalidModelName."""
        return self.library.find(store_name(name))

    def modelfile(self, stored: StoredModel) -> str:
        from corral.store.create import modelfile_of

        return modelfile_of(stored)

    def has_blob(self, digest: str) -> bool:
        return self.library.blob(digest) is not None

    def add_blob(self, digest: str, chunks: Iterable[bytes]) -> bool:
        return self.library.add_blob(digest, chunks)


def store_name(text: str) -> ModelName:
    """Raises InvalidModelName."""
    from corral.store.names import parse_name

    return parse_name(text)


def remote_name(text: str) -> str:
    """`text`, unless it is a path: what a client says must never reach this machine's files by their names.

    Raises:
        InvalidModelName: it is one.
    """
    from corral.store.names import as_path

    if as_path(text) is not None:
        raise InvalidModelName(
            f"invalid model name {shorten(text)!r}: a path of the server's machine is not allowed here"
        )
    return text
