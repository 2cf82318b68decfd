"""One pull at work: blobs into the library, shared with whoever else wants them, and what is told meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from corral.store.manifest import Layer
from corral.store.status import OnStatus, Status
from corral.store.transport.client import Patience

if TYPE_CHECKING:
    import httpx

    from corral.store.library import Library
    from corral.store.transport.download import Progress, Remote, Streams

_TELL_S = 0.06


class Puller:
    """What every source needs to bring a model here.

    Args:
        on_status: called from this thread only; what it raises ends the pull, and what has arrived stays.
        insecure: plain HTTP and certificates that nobody vouches for are acceptable.
    """

    def __init__(
        self,
        library: Library,
        on_status: OnStatus,
        *,
        insecure: bool = False,
        patience: Patience | None = None,
        streams: Streams | None = None,
    ) -> None:
        self.library = library
        self.on_status = on_status
        self.insecure = insecure
        self.patience = patience or Patience()
        self.streams = streams

    def say(self, text: str) -> None:
        self.on_status(Status(text))

    def fetch(self, client: httpx.Client, remote: Remote, media_type: str) -> Layer:
        """`remote`, whose digest is promised, as a blob of the library."""
        from corral.store.transport.download import download

        if remote.sha256 is None:
            raise ValueError("a file without a promised digest is not fetched as a blob")
        digest = f"sha256:{remote.sha256}"
        size = self.obtain(
            digest,
            remote.size_bytes,
            lambda scratch, progress: download(client, remote, scratch, self.patience, progress, self.streams),
        )
        return Layer(media_type, digest, size)

    def obtain(
        self, digest: str, size: int | None, bring: Callable[[Path, Progress], None], sized: int | None = None
    ) -> int:
        """See to it that a blob is in the library; returns its size.

        `bring(scratch, progress)` puts the whole, checked file at `scratch`, going on with what it finds there; it is
        not called if the blob is there, or if somebody else brings it while we wait.
        """
        if (there := self._size(digest, size)) is None:
            with self.library.lock(digest, lambda: self._watch(digest, size)):
                if (there := self._size(digest, size)) is None:
                    scratch = self.scratch(digest)
                    bring(scratch, self.progress(digest, sized))
                    there = scratch.stat().st_size
                    self.library.publish(scratch, digest)
        self.on_status(Status(f"pulling {short(digest)}", digest, there, there))
        return there

    def scratch(self, digest: str) -> Path:
        """Where the bytes of a blob gather; a killed pull's are found there again."""
        target = self.library.blob_target(digest)
        return target.with_name(f"{target.name}.partial")

    def progress(self, digest: str, total: int | None = None) -> Progress:
        """Tells of a file's bytes as the digest's; of several files one after the other, with the sum in `total`."""
        return _Telling(self.on_status, digest, total)

    def _size(self, digest: str, size: int | None) -> int | None:
        """The size of the blob if it is here, held from then on; one that has lost bytes since its check is not."""
        self.library.hold(digest)
        path = self.library.blob(digest)
        with contextlib.suppress(OSError):
            there = path.stat().st_size if path is not None else None
            return there if size in (None, there) else None
        return None

    def _watch(self, digest: str, size: int | None) -> None:
        """Tell how somebody else's pull of the same blob gets on, until it ends one way or the other."""
        from corral.store.lock import is_held
        from corral.store.transport.ranges import arrived_bytes

        self.say("waiting for another download")
        while is_held(self.library.lock_path(digest)):
            arrived = arrived_bytes(self.scratch(digest))
            self.on_status(Status(f"pulling {short(digest)}", digest, size or 0, min(arrived, size or arrived)))
            time.sleep(_TELL_S)


class _Telling:
    """Progress of downloads as statuses, not more of them than an eye can follow."""

    def __init__(self, on_status: OnStatus, digest: str, total: int | None) -> None:
        self._on_status = on_status
        self._digest = digest
        self._total = total
        self._label = ""
        self._before = 0  # bytes of the files that are done
        self._done = 0
        self._told_s = 0.0

    def __call__(self, done: int, total: int | None, label: str, /) -> None:
        if done == 0 and total is None:
            self._on_status(Status(label))
            return
        if label != self._label:
            self._before += self._done
            self._label = label
            self._told_s = 0.0
        self._done = done
        now_s = time.monotonic()
        if now_s - self._told_s < _TELL_S and done != total:
            return
        self._told_s = now_s
        whole = self._total or total or 0
        completed = self._before + done if self._total else done
        self._on_status(
            Status(f"pulling {short(self._digest)}", self._digest, whole, min(completed, whole or completed))
        )


def short(digest: str) -> str:
    """The 12 hex digits by which a blob is told of."""
    return digest.removeprefix("sha256:")[:12]
