"""Ends of a server while somebody streams from it: asked to stop, and crashed."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from corral.compare.engines.replies import at
from corral.compare.probes.probe import CannotTry, Finding, Probe, failed, judged, passed
from corral.compare.probes.stream import Stream, first_text, open_stream, read_stream, to_end
from corral.compare.probes.target import Process, Target
from corral.compare.probes.wire import Reply
from corral.compare.process import how_it_ended

LONG_S = 6.0  # of a stream that is to outlast a signal
FEWEST, MOST = 32, 1500  # its tokens
_MEASURED = 24
_AFTER_S = 0.3  # from the signal to the questions
_HEALTH = ("/health", "/readyz", "/healthz", "/")
_STORY = "Tell me a long story about a river and a mountain."


def ending_probes() -> list[Probe]:
    return [
        Probe(
            "drain",
            "After SIGTERM a stream is finished, readiness says no, and new requests are refused (503, or no "
            "connection) or still answered, so that a rolling update loses nothing; then it ends.",
            _drain,
            400.0,
            ends_it=True,
        ),
        Probe(
            "crash of what computes",
            "When the process that computes dies, clients are told at once, and the server is back by itself. Where "
            "one process is all, nobody is left to do so: a service manager has to.",
            _crash,
            400.0,
            ends_it=True,
        ),
        Probe(
            "start after a kill",
            "Killed whole (SIGKILL), it starts again by the same command, and what it calls ready answers.",
            _kill,
            700.0,
            ends_it=True,
        ),
    ]


def _process_of(target: Target) -> Process:
    if target.process is None:
        raise CannotTry("it runs already, and what is not ours is not ended")
    return target.process


async def long_tokens(target: Target, lasts_s: float) -> int:
    """How many tokens take so long. Raises CannotTry where it does not stream."""
    tokens = min(_MEASURED, _room(target))
    async with open_stream(target, target.chat(_STORY, max_tokens=tokens, min_tokens=tokens)) as conversation:
        if not await first_text(conversation, target.patience.answer_s):
            raise CannotTry(f"no text was streamed: {conversation.snapshot().told()}")
        began = time.perf_counter()
        await to_end(conversation, target.patience.answer_s)
        token_s = max(1e-4, (time.perf_counter() - began) / max(1, tokens - 1))
    return min(max(FEWEST, round(lasts_s / token_s)), MOST, _room(target))


def _room(target: Target) -> int:
    """Tokens that an answer may have."""
    context = target.settings.context if target.settings else None
    return max(8, (context or 2048) - 160)


@dataclass(slots=True)
class _Draining:
    """What was seen after the signal."""

    health: list[str]
    fresh: Reply | None = None


async def _drain(target: Target) -> Finding:
    process = _process_of(target)
    tokens = await long_tokens(target, LONG_S)
    ready_route = await _ready_route(target)
    body = target.chat(_STORY, max_tokens=tokens, min_tokens=tokens)
    async with open_stream(target, body) as conversation:
        if not await first_text(conversation, target.patience.answer_s):
            raise CannotTry(f"no text was streamed: {conversation.snapshot().told()}")
        process.terminate()
        began = time.perf_counter()
        seen = _Draining([])
        watch = asyncio.create_task(_watch(target, ready_route, seen))
        await asyncio.sleep(_AFTER_S)
        was_over = conversation.is_over
        seen.fresh = await target.ask("POST", "/v1/chat/completions", target.chat(max_tokens=1))
        reply = await to_end(conversation, target.patience.answer_s)
        ended_s = time.perf_counter() - began
    code = await _wait_end(process, began + target.patience.drain_s)
    gone_s = time.perf_counter() - began
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    stream = read_stream(reply.body)
    if was_over and stream.is_whole:
        raise CannotTry(f"the stream was over {ended_s:.1f} s after SIGTERM by itself ({stream.end()})")
    return _judge_drain(stream, reply, seen, ready_route, code, ended_s, gone_s)


def _judge_drain(
    stream: Stream, reply: Reply, seen: _Draining, route: str, code: int | None, ended_s: float, gone_s: float
) -> Finding:
    fresh = seen.fresh or Reply()
    end = f"{code_text(code)} after {gone_s:.1f} s" if code is not None else f"it still ran after {gone_s:.0f} s"
    ready = ", ".join(dict.fromkeys(seen.health)) or "nothing"
    told = (
        f"SIGTERM with a stream in flight: the stream had {stream.end()}{_fault(reply)} after {ended_s:.1f} s; a new "
        f"request got {fresh.told(80)}; {route or 'health'} said {ready}; {end}"
    )
    if not stream.is_whole:
        return failed(told)
    faults = []
    is_blind = bool(seen.health) and all(status == "200" for status in seen.health)
    if is_blind:
        faults.append("readiness did not change while it drained")
    if fresh.is_ok and is_blind:  # where readiness has said no, taking what is still under way loses nothing
        faults.append("a new request was still taken")
    elif not fresh.is_ok and fresh.status not in (0, 503):
        faults.append(f"a new request got {fresh.status}, not 503")
    if code is None:
        faults.append("it does not end")
    return judged(faults, told, is_partly=True)


async def _watch(target: Target, route: str, seen: _Draining) -> None:
    """How readiness changes."""
    while route:
        reply = await target.ask("GET", route, timeout_s=2.0)
        seen.health.append(str(reply.status) if reply.status else "no connection")
        await asyncio.sleep(target.patience.poll_s)


async def _ready_route(target: Target) -> str:
    for route in _HEALTH[1:2] + _HEALTH:
        if (await target.ask("GET", route)).is_ok:
            return route
    return ""


async def _wait_end(process: Process, until: float) -> int | None:
    while (code := process.code()) is None and time.perf_counter() < until:  # noqa: ASYNC110 - a process' end
        await asyncio.sleep(0.05)
    return code


async def _crash(target: Target) -> Finding:
    process = _process_of(target)
    tokens = await long_tokens(target, LONG_S)
    async with open_stream(target, target.chat(_STORY, max_tokens=tokens, min_tokens=tokens)) as conversation:
        if not await first_text(conversation, target.patience.answer_s):
            raise CannotTry(f"no text was streamed: {conversation.snapshot().told()}")
        child = process.kill_child()
        if child is None:
            process.kill()
        began = time.perf_counter()
        reply = await to_end(conversation, target.patience.back_s)
        noticed_s = time.perf_counter() - began
    stream = read_stream(reply.body)
    who = "the whole process (it computes in no child)" if child is None else "the child that computes"
    is_whole = stream.is_whole
    client = "was answered to the end" if is_whole else f"saw {stream.end()}{_fault(reply)}"
    back_s, last = await _back(target, process, began + target.patience.back_s)
    came = f"back by itself after {back_s:.1f} s" if back_s is not None else f"not back by itself: {last}"
    found = f"SIGKILL to {who}: its streaming client {client} after {noticed_s:.1f} s; {came}"
    hung = reply.fault.startswith("nothing")
    faults = [
        fault for fault, is_so in (("the client waits in vain", hung), ("it stays away", back_s is None)) if is_so
    ]
    if faults:
        return judged(faults, found)
    if is_whole or stream.error is not None:
        return passed(found)
    return judged(["the stream is cut without an error"], found, is_partly=True)


async def _back(target: Target, process: Process, until: float) -> tuple[float | None, str]:
    """Seconds until it answers a chat again, and what it said last."""
    began, last = time.perf_counter(), "it was not asked"
    while time.perf_counter() < until:
        if (code := process.code()) is not None:
            return None, f"the server {how_it_ended(code)}"
        reply = await target.answer(target.chat(max_tokens=1))
        if reply.is_ok and at(reply.json(), "choices", 0) is not None:
            return time.perf_counter() - began, ""
        last = reply.told(80)
        await asyncio.sleep(target.patience.poll_s)
    return None, last


async def _kill(target: Target) -> Finding:
    process = _process_of(target)
    process.kill()
    began = time.perf_counter()
    await process.restart()
    ready_s = time.perf_counter() - began
    reply = await target.answer(target.chat(max_tokens=1))
    found = f"SIGKILL, and the same command again: ready after {ready_s:.1f} s; the first chat got {reply.told(80)}"
    return passed(found) if reply.is_ok else failed(found)


def _fault(reply: Reply) -> str:
    return f" ({reply.fault})" if reply.fault else ""


def code_text(code: int) -> str:
    return f"it {how_it_ended(code)}"
