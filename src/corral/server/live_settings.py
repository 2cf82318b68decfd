"""Settings that a running server can be given anew, and the holder that those who obey them look into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from corral.config import ServerConfig

# By the flag's name, the field that it sets. What is not here waits for a restart: sockets, database, the engines.
LIVE_FIELDS: Mapping[str, str] = {
    "api-key": "api_keys",
    "ssl-certfile": "ssl_certfile",
    "ssl-keyfile": "ssl_keyfile",
    "ssl-ca-certs": "ssl_ca_certs",
    "ssl-cert-reqs": "ssl_cert_reqs",
    "keep-alive": "keep_alive_s",
    "max-memory": "max_memory_bytes",
    "max-loaded-models": "max_loaded_models",
    "load-timeout": "load_timeout_s",
    "fair-wait": "fair_wait_s",
    "step-timeout": "step_timeout_s",
    "request-timeout": "request_timeout_s",
    "max-body-size": "max_body_bytes",
    "max-connections": "max_connections",
    "max-connections-per-address": "max_connections_per_address",
    "head-timeout": "head_timeout_s",
    "body-timeout": "body_timeout_s",
    "min-body-rate": "min_body_rate",
    "write-timeout": "write_timeout_s",
    "lenient": "lenient",
    "drain-delay": "drain_delay_s",
    "drain-timeout": "drain_timeout_s",
}


class LiveSettings:
    """The server's settings as they are now."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config


@dataclass(frozen=True, slots=True)
class Given:
    """Settings as flags, environment and file give them.

    Args:
        flags: what each flag comes to, by its name.
    """

    config: ServerConfig
    flags: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SettingsSource:
    """Where a server's settings come from.

    Args:
        first: as the server was started.
        read: reads them again; raises CorralError.
    """

    first: Given
    read: Callable[[], Given]


@dataclass(frozen=True, slots=True)
class Change:
    """What new settings mean for a running server.

    Args:
        config: with all that can change at once.
        changed: flags that take effect.
        waiting: flags that differ from those that the server was started with, and wait for a restart.
    """

    config: ServerConfig
    changed: tuple[str, ...]
    waiting: tuple[str, ...]


def change_of(now: ServerConfig, started: Given, given: Given) -> Change:
    """From the settings in force to those that are given."""
    live = set(LIVE_FIELDS)
    if (now.ssl_certfile is None) != (given.config.ssl_certfile is None):
        live -= {name for name in LIVE_FIELDS if name.startswith("ssl-")}  # whoever speaks HTTP goes on with it
    if now.no_auth:
        live -= {"api-key"}  # keys are not asked for, and that is decided at the start
    new = {LIVE_FIELDS[name]: getattr(given.config, LIVE_FIELDS[name]) for name in live}
    return Change(
        replace(now, **new),
        tuple(
            name for name in LIVE_FIELDS if name in live and new[LIVE_FIELDS[name]] != getattr(now, LIVE_FIELDS[name])
        ),
        tuple(name for name, value in given.flags.items() if name not in live and value != started.flags.get(name)),
    )
