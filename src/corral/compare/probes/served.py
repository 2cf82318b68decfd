"""An engine's server as a probe's Process: it may be ended, whole or in part, and started again."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from corral.compare.engines.engine import Engine, EngineFailed, Launch, Setup
from corral.compare.process import Server

_TIMEOUT_S = 120.0


class ServedProcess:
    """async with ServedProcess(engine, setup, launch, port, log) as process: ...

    Args:
        key: with which `launch` starts it; "" for none.
    """

    def __init__(self, engine: Engine, setup: Setup, launch: Launch, port: int, log: Path, key: str = "") -> None:
        self._engine, self._setup, self._launch, self._port, self._log = engine, setup, launch, port, log
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._server = Server(launch, port, log)

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            self._server.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def argv(self) -> tuple[str, ...]:
        return self._server.argv

    def tree(self) -> Sequence[int]:
        return self._server.tree()

    def code(self) -> int | None:
        return self._server.code()

    def terminate(self) -> None:
        self._server.terminate()

    def kill(self) -> None:
        self._server.kill()

    def kill_child(self) -> int | None:
        """The one that has most memory: weights, keys and values are where the computing is."""
        sizes = {}
        for pid in self._server.tree():
            if pid != self._server.pid:
                with contextlib.suppress(psutil.Error):
                    sizes[pid] = psutil.Process(pid).memory_info().rss
        if not sizes:
            return None
        child = max(sizes, key=lambda pid: sizes[pid])
        parent = self._server.pid
        with contextlib.suppress(psutil.Error):
            if parent is not None and psutil.Process(parent).memory_info().rss > sizes[child]:
                return None  # a helper: what computes is the first process itself
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        return child

    async def restart(self) -> None:
        self._server.close()
        self._server = Server(self._launch, self._port, self._log)
        await self._start()

    async def _start(self) -> None:
        self._server.start()
        url = self._server.url
        async with httpx.AsyncClient(
            base_url=url, headers=self._headers, timeout=_TIMEOUT_S, trust_env=False
        ) as client:
            await self._server.wait_ready(self._engine, client)
            try:
                await self._engine.prepare(client, self._setup)
            except httpx.HTTPError as error:
                raise EngineFailed(f"{self._engine.name}: {type(error).__name__}: {error}") from error
