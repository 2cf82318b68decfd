"""A model of the library to a registry: the blobs that it lacks, then the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from corral.errors import CorralError, DownloadError, ModelNotFound
from corral.store.names import parse_name
from corral.store.status import OnStatus, Status

if TYPE_CHECKING:
    import httpx

    from corral.store.library import Library
    from corral.store.manifest import Layer
    from corral.store.registry import Registry
    from corral.store.transport.client import Patience

CHUNK_BYTES = 64 << 20
_PIECE_BYTES = 1 << 18


def push(
    name: str,
    on_status: OnStatus,
    *,
    insecure: bool = False,
    library: Library | None = None,
    patience: Patience | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> None:
    """Upload `name` to the registry that it names; blobs that are there already are not sent again.

    Raises:
        InvalidModelName; ModelNotFound: there is no such model here.
        DownloadError: the registry cannot be reached, or refuses; what it has taken stays there.
    """
    from corral.store.library import Library
    from corral.store.manifest import MANIFEST_TYPE, encode_manifest
    from corral.store.registry import open_registry, told
    from corral.store.transport.client import Patience

    on_status(Status("retrieving manifest"))
    library = library or Library.open()
    parsed = parse_name(name)
    stored = library.find(parsed)
    if stored is None:
        raise ModelNotFound(f"model {name!r} not found")
    with open_registry(parsed, patience or Patience(), insecure=insecure) as registry:
        for layer in {layer.digest: layer for layer in stored.manifest.all_layers}.values():
            blob = library.blob(layer.digest)
            if blob is None:
                raise CorralError(f"{stored.name} lacks the blob {layer.digest}; pull it again, then push")
            _Upload(registry, layer, blob, on_status, chunk_bytes).run()
        on_status(Status("pushing manifest"))
        reply = registry.ask(
            "PUT",
            registry.url("manifests", parsed.tag),
            headers={"Content-Type": MANIFEST_TYPE},
            content=encode_manifest(stored.manifest),
        )
        if not reply.is_success:
            raise DownloadError(f"{registry.host} refuses the manifest: {reply.status} {reply.reason}{told(reply)}")
    on_status(Status("success"))


class _Upload:
    """One blob: an upload session, chunk after chunk, and the digest at the end."""

    def __init__(self, registry: Registry, layer: Layer, path: Path, on_status: OnStatus, chunk_bytes: int) -> None:
        self.registry = registry
        self.layer = layer
        self.path = path
        self.on_status = on_status
        self.chunk_bytes = chunk_bytes

    def run(self) -> None:
        """Raises DownloadError after too many breaks without gain."""
        self._tell(0)
        if self._is_there():
            self._tell(self.layer.size)
            return
        location = self._begin()
        if location is not None:
            with self.path.open("rb") as file:
                location = self._send(file, location)
            self._finish(location)
        self._tell(self.layer.size)

    def _tell(self, done: int) -> None:
        self.on_status(Status(f"pushing {self.layer.hex[:12]}", self.layer.digest, self.layer.size, done))

    def _is_there(self) -> bool:
        return self.registry.ask("HEAD", self.registry.url("blobs", self.layer.digest)).is_success

    def _begin(self) -> httpx.URL | None:
        """Where the chunks go; None if the registry needs none."""
        from corral.store.registry import told

        reply = self.registry.ask("POST", self.registry.url("blobs", "uploads", ""), content=b"")
        if reply.status == 201:
            return None
        if reply.status != 202 or not (reply.headers.get("Docker-Upload-Location") or reply.headers.get("Location")):
            raise DownloadError(
                f"{self.registry.host} takes no upload of {self.layer.digest}: "
                f"{reply.status} {reply.reason}{told(reply)}"
            )
        return self._next(reply.url, reply.headers)

    def _next(self, url: httpx.URL, headers: httpx.Headers) -> httpx.URL:
        """The address for the next chunk, if the answer names one."""
        import httpx

        location = headers.get("Docker-Upload-Location") or headers.get("Location")
        try:
            return url.join(location) if location else url
        except httpx.InvalidURL as error:
            raise DownloadError(f"{self.registry.host} names {location!r} as the place to send to: {error}") from error

    def _send(self, file: BinaryIO, location: httpx.URL) -> httpx.URL:
        """All chunks; after a break, from where the registry says that it stopped."""
        import time

        from corral.store.transport.transfer import Break, wait_s

        patience = self.registry.patience
        done = failures = 0
        while done < self.layer.size:
            end = min(done + self.chunk_bytes, self.layer.size)
            try:
                location = self._chunk(file, location, done, end)
                done, failures = end, 0
            except Break as error:
                failures += 1
                if failures > patience.retries:
                    raise DownloadError(f"{self.registry.host}: {error}; gave up after {failures} tries") from error
                time.sleep(wait_s(failures, patience.backoff_s, error.retry_after_s))
                arrived = self._arrived(location)
                if arrived is None:  # the session is gone: a new one
                    location, done = self._begin() or location, 0
                else:
                    failures = failures if arrived <= done else 0
                    done = arrived
        return location

    def _chunk(self, file: BinaryIO, location: httpx.URL, begin: int, end: int) -> httpx.URL:
        import httpx

        from corral.store.transport.client import describe
        from corral.store.transport.transfer import check_answer

        headers = {
            **self.registry.headers(location),
            "Content-Range": f"{begin}-{end - 1}",
            "Content-Length": str(end - begin),
            "Content-Type": "application/octet-stream",
        }
        try:
            response = self.registry.client.patch(
                location, headers=headers, content=self._pieces(file, begin, end), follow_redirects=False
            )
        except httpx.TransportError as error:
            from corral.store.transport.transfer import Break

            raise Break(describe(error, location)) from error
        if response.status_code in (307, 308):
            return self._chunk(file, self._redirected(location, response), begin, end)
        if not response.is_success:
            check_answer(response)
            raise DownloadError(f"{self.registry.host} answered a chunk with {response.status_code}")
        return self._next(response.url, response.headers)

    def _redirected(self, location: httpx.URL, response: httpx.Response) -> httpx.URL:
        target = self._next(location, response.headers)
        if target == location:
            raise DownloadError(f"{self.registry.host} sends a chunk in circles")
        return target

    def _pieces(self, file: BinaryIO, begin: int, end: int) -> Iterator[bytes]:
        file.seek(begin)
        done = begin
        while done < end:
            piece = file.read(min(_PIECE_BYTES, end - done))
            if not piece:
                raise CorralError(f"{self.path} became shorter while it was sent")
            yield piece
            done += len(piece)
            self._tell(done)

    def _arrived(self, location: httpx.URL) -> int | None:
        """How many bytes the registry has of this session; None if it does not know the session any more."""
        reply = self.registry.ask("GET", location)
        if not reply.is_success:
            return None
        begin, dash, last = reply.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if not dash or begin != "0" or not last.isdecimal():
            return 0
        return min(int(last) + 1, self.layer.size)

    def _finish(self, location: httpx.URL) -> None:
        from corral.store.registry import told

        url = location.copy_merge_params({"digest": self.layer.digest})
        reply = self.registry.ask("PUT", url, content=b"")
        if not reply.is_success:
            raise DownloadError(
                f"{self.registry.host} refuses the blob {self.layer.digest}: {reply.status} {reply.reason}{told(reply)}"
            )
