"""What systemd, or whoever speaks its protocols, passes to a service and wants to be told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time

from corral.config import notify_socket, num_passed_sockets, watchdog_s
from corral.errors import InvalidConfig

_FIRST_FD = 3


def passed_sockets() -> list[socket.socket]:
    """Sockets that listen already, of a .socket unit. They are passed once, and not on to workers.

    Raises:
        InvalidConfig: one is not for streams.
    """
    sockets = []
    for number in range(_FIRST_FD, _FIRST_FD + num_passed_sockets()):
        os.set_inheritable(number, False)
        sock = socket.socket(fileno=number)
        if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            raise InvalidConfig(f"the service manager passed file descriptor {number}, which is no socket to listen on")
        sock.setblocking(False)
        sockets.append(sock)
    return sockets


def notify(*lines: str) -> None:
    """Tells the service manager, if there is one: "READY=1", "STOPPING=1" and so on."""
    path = notify_socket()
    if path is None:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto("\n".join(lines).encode(), address)


def notify_reloading() -> None:
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


async def feed_watchdog() -> None:
    """For ever, if the service manager wants it: says that the event loop turns."""
    period_s = watchdog_s()
    while period_s is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(period_s / 2)
