"""Conformance by a tester that is not ours: llm-comply checks answers against the published schemas."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from corral.compare.engines.replies import at, text
from corral.compare.probes.probe import CannotTry, Finding, Probe, failed, partly, passed
from corral.compare.probes.target import Target
from corral.compare.probes.wire import line_of
from corral.compare.process import child_environment

_ALL_S = 240.0  # for the tests of one format
_MISSING = "the package llm-comply is not installed; pip install llm-comply (it is in the extra corral[clients])"
_MOST_LINE = 1 << 20
_PYTHON = sys.executable


def comply_probes() -> list[Probe]:
    wanted = "The tests of llm-comply pass, but for those of pictures: schemas, streams, tools, errors."
    return [
        Probe(
            "OpenAI chat by llm-comply",
            wanted,
            lambda target: _comply(target, "openai-chat", "/v1/chat/completions"),
            _ALL_S + 20,
        ),
        Probe(
            "OpenAI responses by llm-comply",
            wanted,
            lambda target: _comply(target, "open-responses", "/v1/responses"),
            _ALL_S + 20,
        ),
        Probe(
            "Anthropic by llm-comply", wanted, lambda target: _comply(target, "anthropic", "/v1/messages"), _ALL_S + 20
        ),
    ]


async def _comply(target: Target, form: str, route: str) -> Finding:
    if not _is_installed():
        raise CannotTry(_MISSING)
    probe = await target.ask("POST", route, {})
    if probe.status in (0, 404, 405, 501):
        raise CannotTry(f"it has no such route; POST {route}: {probe.told(80)}")
    lines = await _run(target, form)
    planned = at(lines[0], "planned") if lines else None
    if not isinstance(planned, list):
        raise CannotTry(f"llm-comply did not run: {line_of(str(lines))}")
    results = [line for line in lines[1:] if text(at(line, "id"))]
    skipped = [result for result in results if result.get("status") == "skipped"]
    good = [result for result in results if result.get("status") == "passed"]
    bad = [result for result in results if result.get("status") == "failed"]
    count = len(good) + len(bad)
    told = f"llm-comply {at(lines[0], 'version')}: {len(good)} of {count} passed"
    if bad:
        told += "; " + "; ".join(f"{result['id']}: {line_of(str(at(result, 'errors', 0)), 120)}" for result in bad)
    if skipped:
        told += f"; {len(skipped)} not for this model"
    if missing := len(planned) - len(results):
        told += f"; {missing} were not run in {_ALL_S:g} s"
    if not count:
        raise CannotTry(told)
    if not bad:
        return partly(told) if missing else passed(told)
    return partly(told) if len(good) * 2 >= count else failed(told)


def _is_installed() -> bool:
    try:
        distribution("llm-comply")
    except PackageNotFoundError:
        return False
    return True


async def _run(target: Target, form: str) -> list[dict[str, Any]]:
    """What its process said until it ended, or was ended."""
    arguments = ("-m", "corral.compare.probes.comply_worker", form, f"{target.url}/v1", target.model)
    process = await asyncio.create_subprocess_exec(
        _PYTHON,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=child_environment({}),
        limit=_MOST_LINE,
    )
    lines: list[dict[str, Any]] = []
    try:
        if process.stdin is None or process.stdout is None:
            return lines
        process.stdin.write(f"{target.key}\n".encode())
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ALL_S):
                async for line in process.stdout:
                    with contextlib.suppress(ValueError, RecursionError):
                        if isinstance(parsed := json.loads(line), dict):
                            lines.append(parsed)
                await process.wait()  # to kill what has ended by itself would take its exit status from asyncio
        return lines
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
