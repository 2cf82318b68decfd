"""How the kernel finds connections whose other end is gone."""

from __future__ import annotations

import socket

_KEEP_ALIVE_IDLE_S, _KEEP_ALIVE_INTERVAL_S, _KEEP_ALIVE_PROBES = 30, 10, 3


def find_dead_peers(listener: socket.socket, write_timeout_s: float) -> None:
    """Lets the kernel end connections whose other end has vanished without a word; what it accepts inherits this.

    The other end of a Unix socket cannot vanish so.
    """
    if listener.family == socket.AF_UNIX:
        return
    options = {
        "TCP_KEEPIDLE": _KEEP_ALIVE_IDLE_S,
        "TCP_KEEPINTVL": _KEEP_ALIVE_INTERVAL_S,
        "TCP_KEEPCNT": _KEEP_ALIVE_PROBES,
        "TCP_USER_TIMEOUT": int(write_timeout_s * 1000),  # for what is sent and never acknowledged, or never wanted
    }
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
