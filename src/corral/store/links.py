"""Files that the store uses in place: the blob is a symbolic link, and a record tells when the file has changed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from corral.errors import CorralError, ModelNotFound
from corral.store.blobs import hash_file, make_folder, replace_file, replace_link
from corral.store.paths import BLOB_NAME, LINKS, blob_path, link_path
from corral.store.status import OnStatus, Status


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """A file as it was when its digest was computed."""

    path: str
    size: int
    mtime_ns: int


def read_record(root: Path, digest: str) -> LinkRecord | None:
    """What is remembered of the file in place that is the blob `digest`."""
    return _read(link_path(root, digest))


def write_link(root: Path, digest: str, record: LinkRecord) -> None:
    """The record first: a link without one would pass for unchanged.

    Raises:
        OSError: the store cannot be written.
    """
    record_path, blob = link_path(root, digest), blob_path(root, digest)
    make_folder(record_path.parent)
    make_folder(blob.parent)
    replace_file(record_path, json.dumps(asdict(record)).encode())
    replace_link(blob, Path(record.path))


def link_fault(root: Path, digest: str) -> str | None:
    """What is wrong with the file in place that is the blob `digest`; None if it is as it was, or the blob no link."""
    blob = blob_path(root, digest)
    if not blob.is_symlink():
        return None
    record = read_record(root, digest)
    path = Path(record.path) if record else blob
    try:
        now = record_of(path)
    except CorralError:
        return f"the file {record.path if record else blob.readlink()}, used in place, is gone"
    if record is None or now == record:
        return None
    change = f"has {now.size} bytes, not {record.size}" if now.size != record.size else "has been written since"
    return f"the file {record.path}, used in place, {change}"


def record_of(path: Path) -> LinkRecord:
    """The file as it is now.

    Raises:
        ModelNotFound: there is none.
        CorralError: it is a folder or device.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise ModelNotFound(f"there is no file {path}") from error
    if not path.is_file():
        raise CorralError(f"{path} is a folder or device, not a file")
    return LinkRecord(str(path), status.st_size, status.st_mtime_ns)


def known_digest(root: Path, record: LinkRecord) -> str | None:
    """Hex digest of the file, if it was registered before and is as it was."""
    try:
        found = [path for path in (root / LINKS).iterdir() if BLOB_NAME.fullmatch(path.name) and _read(path) == record]
    except OSError:
        return None
    return found[0].name.removeprefix("sha256-") if found else None


def hash_unchanged(record: LinkRecord, on_status: OnStatus) -> str:
    """Hex digest of the file, with its progress.

    Raises:
        CorralError: it cannot be read, or is written at the same time.
    """
    path = Path(record.path)
    status = f"hashing {path.name}"
    try:
        digest = hash_file(path, lambda done: on_status(Status(status, total=record.size, completed=done)))
    except OSError as error:
        raise CorralError(f"{path} cannot be read: {error.strerror or error}") from error
    if record_of(path) != record:
        raise CorralError(f"{path} has changed while it was read; wait until whatever writes it is done")
    return digest


def absolute(path: Path) -> Path:
    """The path from the root, symbolic links kept: the parts of a split model are found by their names."""
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - resolve() would follow links


def _read(path: Path) -> LinkRecord | None:
    try:
        value = json.loads(path.read_bytes())
        record = LinkRecord(value["path"], value["size"], value["mtime_ns"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    is_sound = isinstance(record.path, str) and isinstance(record.size, int) and isinstance(record.mtime_ns, int)
    return record if is_sound else None
