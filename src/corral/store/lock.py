"""One worker at a time on a thing, among processes and threads: flock on a file of its own.

The kernel drops the lock of a killed process. Who removes a lock file holds it; who gets a lock checks that its file
is still the one of that name, so that two never hold what they take for the same lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file_lock(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock on `path`, whose file is made if need be and stays.

    `on_wait` is called once if somebody else holds it.
    """
    descriptor = _take(path, fcntl.LOCK_EX, on_wait)
    try:
        yield
    finally:
        os.close(descriptor)


def shared_lock(path: Path) -> int:
    """The descriptor of a lock on `path` that others may share; closing it ends it."""
    return _take(path, fcntl.LOCK_SH, lambda: None)


@contextmanager
def if_free(path: Path) -> Iterator[bool]:
    """True, and the lock on `path` is held meanwhile, unless somebody else holds it; its file is removed afterwards."""
    descriptor = _take_free(path)
    if descriptor is None:
        yield False
        return
    try:
        yield True
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock on `path` now."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _take_free(path: Path) -> int | None:
    """As _take, exclusively, but None at once if somebody holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file_of(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _take(path: Path, kind: int, on_wait: Callable[[], None]) -> int:
    is_told = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if not is_told:
                    is_told = True
                    on_wait()
                fcntl.flock(descriptor, kind)
            if _is_file_of(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # removed by the one that held it: the lock is on a file without a name


def _is_file_of(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
