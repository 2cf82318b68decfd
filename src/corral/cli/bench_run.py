"""A run of `corral bench`: prompts, warm-up, load, progress."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from corral.cli.terminal import is_dumb, is_terminal, warn
from corral.compare.answer import Answer
from corral.compare.client import Client, Endpoint, Target, plain_body
from corral.compare.exchange import Origin, tls_of
from corral.compare.load import INTERRUPTED, Load
from corral.compare.prompts import text_of, user
from corral.compare.statistics import Summary, summarize
from corral.compare.workload import Call, CountTokens, Plan, Workload
from corral.errors import CorralError, InvalidConfig

_MODELS_S = 30.0  # for /v1/models
_REPAINTS = 2  # a second: a bar that moves costs what the server needs


@dataclass(frozen=True, slots=True)
class Asked:
    """The flags of `corral bench`. `model` None is the server's first; `rate` None is a closed loop."""

    origin: Origin
    model: str | None
    concurrency: int | None
    rate: float | None
    burstiness: float
    num_prompts: int
    input_len: int
    output_len: int
    warmup: int
    seed: int
    endpoint: Endpoint
    is_streamed: bool
    ignore_eos: bool
    limits: Mapping[str, float]
    time_limit_s: float | None
    patience_s: float
    headers: Mapping[str, str]
    tokenizer: Path | None
    metrics: Sequence[str]
    percentiles: Sequence[float]

    @property
    def plan(self) -> Plan:
        if self.rate is None:
            return Plan("closed", self.concurrency or 1)
        return Plan("burst") if math.isinf(self.rate) else Plan("open", rate=self.rate)


class BenchRun:
    """`load` is None until the measuring begins."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.model = asked.model or ""
        self.load: Load | None = None
        self._count = count_by(asked.tokenizer) if asked.tokenizer else None

    @property
    def is_by_usage(self) -> bool:
        """Tokens are those that the server says."""
        return self._count is None

    @property
    def answers(self) -> list[Answer]:
        return self.load.answers if self.load else []

    @property
    def num_interrupted(self) -> int:
        return sum(answer.error == INTERRUPTED for answer in self.answers)

    @property
    def summary(self) -> Summary:
        """Only after `load` is there. Requests that Ctrl-C cut off are no failures of the server's."""
        if self.load is None:
            raise CorralError("nothing was measured")
        run = self.load.result("bench", self._count)
        run.answers = [answer for answer in run.answers if answer.error != INTERRUPTED]
        return summarize(run, self.asked.limits, is_streamed=self.asked.is_streamed)

    async def run(self) -> None:
        """Raises CorralError if the server gives no answer to the warm-up, or lists no model."""
        asked = self.asked
        self.model = asked.model or await _first_model(asked)
        fields: dict[str, Any] = {"ignore_eos": True} if asked.ignore_eos else {}
        target = Target(
            asked.origin, self.model, asked.headers, asked.endpoint, plain_body, fields, asked.patience_s
        )  # fmt: skip
        client = Client(target)
        load = Load(
            self._workload(asked.num_prompts, "measured", asked.plan),
            0,
            client.ask,
            seed=asked.seed,
            limit_s=asked.time_limit_s,
            max_in_flight=asked.concurrency if asked.rate is not None else None,
            burstiness=asked.burstiness,
        )
        await self._warm_up(client)
        self.load = load
        with _progress(asked.num_prompts) as on_answer:
            load.on_answer = on_answer
            await load.run()

    async def _warm_up(self, client: Client) -> None:
        if not self.asked.warmup:
            return
        load = Load(self._workload(self.asked.warmup, "warm-up", Plan("closed", 1)), 0, client.ask)
        await load.run()
        if failed := next((answer.error for answer in load.answers if not answer.is_good), ""):
            raise CorralError(f"{self.asked.origin} gave no answer to the warm-up: {failed}")

    def _workload(self, count: int, name: str, plan: Plan) -> Workload:
        """Without a tokenizer a word counts as a token, as it mostly is for these words."""
        asked = self.asked
        measure = self._count or _count_words
        calls = [
            [Call(user(text_of(asked.input_len, f"{asked.seed} {name} {index}", measure)), asked.output_len)]
            for index in range(count)
        ]
        return Workload(name, name, plan, lambda repeat: calls, asked.is_streamed)


def count_by(path: Path) -> CountTokens:
    """Tokens as the model of a GGUF file counts them. Raises CorralError if it is no such file."""
    from corral.model.gguf import open_gguf
    from corral.text.tokenizer import Tokenizer

    gguf = open_gguf(path)
    try:
        tokenizer = Tokenizer.from_metadata(gguf.metadata)
    finally:
        gguf.close()
    return lambda text: len(tokenizer.encode(text, add_special=False, parse_special=False))


def _count_words(text: str) -> int:
    return len(text.split())


async def _first_model(asked: Asked) -> str:
    url = f"{asked.origin}/v1/models"
    verify = tls_of(asked.origin) or True
    try:
        async with httpx.AsyncClient(timeout=_MODELS_S, trust_env=False, verify=verify) as client:
            response = await client.get(url, headers=dict(asked.headers))
        if response.status_code != httpx.codes.OK:
            raise InvalidConfig(f"{url} answers {response.status_code}: {' '.join(response.text.split())[:300]}")
        name = response.json()["data"][0]["id"]
    except httpx.HTTPError as error:
        raise InvalidConfig(f"{url} does not answer: {error or type(error).__name__}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise InvalidConfig(f"{url} lists no model; name one by --model") from error
    if not isinstance(name, str) or not name:
        raise InvalidConfig(f"{url} lists no model; name one by --model")
    return name


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[Answer], None]]:
    if not is_terminal(sys.stderr) or is_dumb():
        warn(f"measuring {total} requests")
        yield lambda answer: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    failed = 0
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        task = progress.add_task("", total=total, note="")
        painted = -math.inf

        def on_answer(answer: Answer) -> None:
            nonlocal failed, painted
            failed += not answer.is_good
            progress.update(task, advance=1, note=f"{failed} failed" if failed else "")
            if time.monotonic() - painted >= 1 / _REPAINTS:
                progress.refresh()
                painted = time.monotonic()

        progress.refresh()
        yield on_answer
