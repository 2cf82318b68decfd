"""A server's own socket in the file system, for those who may reach it there."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from corral.errors import InvalidConfig

_MAX_PATH_BYTES = 107  # of the kernel
_PROBE_TIMEOUT_S = 1.0
_BACKLOG = 2048


def bind_unix(path: str, mode: int) -> socket.socket:
    """A socket that listens at `path`; what a server that died has left there is removed.

    It listens at once, so that whoever else wants the path finds it taken.

    Raises:
        InvalidConfig: the path is too long, taken, or cannot be had.
    """
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise InvalidConfig(f"--uds {path} is longer than the {_MAX_PATH_BYTES} bytes that a socket's path may have")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        former = os.umask(0o177)  # nobody else may connect before the mode is set
        try:
            sock.bind(path)
        finally:
            os.umask(former)
        Path(path).chmod(mode)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except (OSError, ValueError) as error:
        sock.close()
        raise InvalidConfig(f"cannot listen on --uds {path!r}: {getattr(error, 'strerror', '') or error}") from None
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def owned_path(path: str | None) -> Iterator[None]:
    """Removes the path of our socket at the end, unless it has become another's; None is nothing to remove."""
    if path is None:
        yield
        return
    ours = os.lstat(path).st_ino
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if os.lstat(path).st_ino == ours:
                Path(path).unlink()


def _remove_stale(path: str) -> None:
    """Raises InvalidConfig where something else is there, or somebody listens."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise InvalidConfig(f"cannot listen on --uds {path}: what is there is no socket; move it, or give another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
    raise InvalidConfig(f"cannot listen on --uds {path}: a server listens there; stop it, or give another path")
