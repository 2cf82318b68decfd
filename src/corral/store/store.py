"""From what a user names to a model on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from corral.errors import ModelNotFound
from corral.store.local_model import LocalModel
from corral.store.status import OnStatus
from corral.store.wanted import LocalPath, Wanted, read_wanted

if TYPE_CHECKING:
    from corral.store.library import StoredModel


def resolve(
    name_or_path: str | os.PathLike[str], on_status: OnStatus | None = None, *, may_pull: bool = True
) -> LocalModel:
    """The model that `name_or_path` means: a path is used in place, a name looked up here, then pulled if it may be.

    Raises:
        ModelNotFound: no such file or name; the text lists what there is.
        DownloadError: no source could give it; the text has each one's reason.
        CorralError: its files here are damaged; says what to do.
    """
    from corral.store.sources.file import model_file

    if isinstance(name_or_path, Path):
        return _in_place(model_file(name_or_path))
    text = os.fspath(name_or_path)
    wanted = read_wanted(text)
    if isinstance(wanted, LocalPath):
        return _in_place(model_file(wanted.path))
    return _by_name(text, wanted, on_status or (lambda _status: None), may_pull)


def _in_place(path: Path) -> LocalModel:
    return LocalModel(path.name.removesuffix(".gguf"), path)


def _by_name(text: str, wanted: Wanted, on_status: OnStatus, may_pull: bool) -> LocalModel:
    from corral.store.library import Library

    library = Library.open()
    stored = library.find(wanted.name)
    if stored is not None and (not may_pull or _is_whole(stored)):
        return stored.to_local()
    if not may_pull:
        raise ModelNotFound(f"model {text!r} not found")
    # Imported here: the HTTP stack takes a fifth of a second, and a model that is here needs none of it.
    from corral.store.pull import pull

    return pull(text, on_status, library=library).to_local()


def _is_whole(stored: StoredModel) -> bool:
    """Whether every blob is there with its size; the digest was checked before it got its name."""
    paths = [(stored.library.blob(layer.digest), layer.size) for layer in stored.manifest.all_layers]
    return all(path is not None and path.stat().st_size == size for path, size in paths)
