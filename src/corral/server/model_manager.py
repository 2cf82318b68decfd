"""Which models are served, each by a worker process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

from corral.config import EngineConfig
from corral.errors import EngineDead, InvalidConfig, ModelNotFound
from corral.protocol.openai_models import ModelCard
from corral.request import Request, RequestOutput
from corral.worker.client import OnPlan, OnProgress, WorkerClient
from corral.worker.info import WorkerStats
from corral.worker.process import WORKER_COMMAND

RESTART_DELAYS_S = (0.0, 1.0, 5.0, 15.0, 60.0)  # the last one holds from there on
STABLE_S = 300.0  # a worker that has lived this long starts the delays afresh

logger = logging.getLogger("corral.server")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model to be served under `name`, and under `aliases` too."""

    name: str
    path: Path
    config: EngineConfig
    aliases: tuple[str, ...] = ()


class ServedModel:
    """A model and the worker that runs it now; a worker that dies is replaced."""

    def __init__(self, spec: ModelSpec, command: Sequence[str]) -> None:
        self.spec = spec
        self._command = command
        self._client: WorkerClient | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._created = int(time.time())
        self._max_model_len = 0

    @property
    def card(self) -> ModelCard:
        return ModelCard(self.spec.name, self._created, self._max_model_len)

    @property
    def pid(self) -> int:
        """The worker's process; raises EngineDead while there is none."""
        return self._worker().pid

    async def start(self, on_progress: OnProgress | None = None, on_plan: OnPlan | None = None) -> None:
        """Loads the model and keeps a worker running from then on; raises what WorkerClient.start raises."""
        client = await self._start_worker(on_progress, on_plan)
        self._keeper = asyncio.ensure_future(self._keep_running(client))

    async def generate(self, request: Request) -> AsyncGenerator[RequestOutput, None]:
        """The outputs of a request, as WorkerClient.generate gives them."""
        async with contextlib.aclosing(self._worker().generate(request)) as outputs:
            async for output in outputs:
                yield output

    async def stats(self) -> WorkerStats:
        return await self._worker().stats()

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        if self._client is not None:
            await self._client.close()

    def _worker(self) -> WorkerClient:
        if self._client is None:
            raise EngineDead(f"the worker of {self.spec.name} has died and is being replaced")
        return self._client

    async def _start_worker(self, on_progress: OnProgress | None = None, on_plan: OnPlan | None = None) -> WorkerClient:
        client = await WorkerClient.start(
            self.spec.path, self.spec.config, on_progress=on_progress, on_plan=on_plan, command=self._command
        )
        self._client = client
        self._max_model_len = client.info.max_model_len
        return client

    async def _keep_running(self, client: WorkerClient) -> None:
        num_deaths = 0
        started = time.monotonic()
        while True:
            await client.died.wait()
            self._client = None
            logger.error("the worker of %s has ended: %s", self.spec.name, client.cause_of_death)
            await client.close()
            if time.monotonic() - started > STABLE_S:
                num_deaths = 0
            while self._client is None:
                await asyncio.sleep(RESTART_DELAYS_S[min(num_deaths, len(RESTART_DELAYS_S) - 1)])
                num_deaths += 1
                try:
                    client = await self._start_worker()
                except Exception:  # whatever it is (a file that is gone, no memory), the next try may do better
                    logger.exception("the worker of %s could not be started again", self.spec.name)
            started = time.monotonic()


class ModelManager:
    """Models by name."""

    def __init__(self, command: Sequence[str] = WORKER_COMMAND) -> None:
        self._command = command
        self._models: dict[str, ServedModel] = {}  # by name and by alias

    async def load(
        self, spec: ModelSpec, *, on_progress: OnProgress | None = None, on_plan: OnPlan | None = None
    ) -> ServedModel:
        """Starts a worker for `spec`; requests to other models go on meanwhile.

        Raises:
            InvalidConfig: one of its names is taken.
            CorralError: the load was refused, or the worker died.
        """
        names = (spec.name, *spec.aliases)
        if taken := [name for name in names if name in self._models]:
            raise InvalidConfig(f"there is a model called {taken[0]} already")
        model = ServedModel(spec, self._command)
        await model.start(on_progress, on_plan)
        for name in names:
            self._models[name] = model
        return model

    def find(self, name: str) -> ServedModel:
        """Raises ModelNotFound with the names there are."""
        model = self._models.get(name)
        if model is None:
            served = ", ".join(sorted(self._models)) or "none"
            raise ModelNotFound(f"the model {name[:100]!r} is not served here; served: {served}")
        return model

    @property
    def models(self) -> list[ServedModel]:
        return list(dict.fromkeys(self._models.values()))

    async def close(self) -> None:
        await asyncio.gather(*(model.close() for model in self.models))
        self._models.clear()
