"""A running server takes new settings, certificates and keys: on SIGHUP, and certificates when their files change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from corral.errors import CorralError
from corral.server.listen import addresses_of, check_exposure
from corral.server.live_settings import LiveSettings, SettingsSource, change_of
from corral.server.tls import Certificates, read_certificates, signature

if TYPE_CHECKING:
    import socket

    from starlette.applications import Starlette

    from corral.config import ServerConfig
    from corral.server.http_server import QuietServer
    from corral.server.model_manager import ModelManager

LOOK_S = 5.0  # between looks at the files of certificates


class Reload:
    """Lives on the server's event loop.

    Args:
        source: None where settings are nobody's to change: what a SIGHUP reads again are keys and certificates.
        certificates: in use; None for plain HTTP.
        say: gets a line for every reload.
    """

    def __init__(
        self,
        app: Starlette,
        server: QuietServer,
        manager: ModelManager,
        sockets: list[socket.socket],
        source: SettingsSource | None,
        certificates: Certificates | None,
        say: Callable[[str], None],
    ) -> None:
        self._app = app
        self._server = server
        self._manager = manager
        self._sockets = sockets
        self._source = source
        self._certificates = certificates
        self._say = say
        self._settings: LiveSettings = app.state.settings
        self._turn = asyncio.Lock()

    @property
    def config(self) -> ServerConfig:
        """The settings in force."""
        return self._settings.config

    async def reload(self) -> None:
        """Reads all of it again. What is faulty changes nothing, and is said."""
        async with self._turn:
            try:
                config, told = await asyncio.to_thread(self._read)
                certificates = await asyncio.to_thread(read_certificates, config)
            except CorralError as error:
                self._say(f"nothing is reloaded, all stays as it was: {error}")
                return
            self._apply(config)
            if certificates is not None:
                await self._use(certificates)
                told.append(f"the certificate, which ends {certificates.ends}")
            try:
                await self._app.state.keys.reload()
                told.append("the keys")
            except CorralError as error:
                told.append(f"no keys: {error}")
            self._say(f"reloaded {', '.join(told)}")

    async def watch(self) -> None:
        """For ever: reads certificates again when their files have changed, and do not change any more."""
        refused = before = None
        while True:
            await asyncio.sleep(LOOK_S)
            if self._certificates is None:
                return
            async with self._turn:
                config = self._settings.config
                seen = await asyncio.to_thread(signature, config)
                is_settled, before = seen == before, seen
                if not is_settled or seen in (self._certificates.files, refused):
                    continue
                try:
                    certificates = await asyncio.to_thread(read_certificates, config)
                except CorralError as error:
                    refused = seen
                    self._say(f"the certificate stays as it was: {error}")
                    continue
                if certificates is not None:
                    await self._use(certificates)
                    self._say(f"reloaded the certificate, which ends {certificates.ends}")

    def _read(self) -> tuple[ServerConfig, list[str]]:
        """The settings to be, and what is to be said of them. Raises CorralError."""
        now = self._settings.config
        if self._source is None:
            return now, []
        change = change_of(now, self._source.first, self._source.read())
        check_exposure(change.config, addresses_of(self._sockets))
        told = [f"the settings ({', '.join(change.changed) or 'nothing is new'})"]
        if change.waiting:
            told[0] += f"; a restart is needed for {', '.join(change.waiting)}; and"
        return change.config, told

    def _apply(self, config: ServerConfig) -> None:
        self._settings.config = config
        self._app.state.keys.set_static(config.api_keys)
        self._manager.reconfigure(config)
        self._server.reconfigure(config)

    async def _use(self, certificates: Certificates) -> None:
        self._certificates = certificates
        await self._server.renew(certificates.context)
