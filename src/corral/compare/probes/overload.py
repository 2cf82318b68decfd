"""More than a server can do at once, and clients that go away."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack

import psutil

from corral.compare.engines.replies import at
from corral.compare.probes.endings import long_tokens
from corral.compare.probes.probe import CannotTry, Finding, Probe, failed, judged, passed
from corral.compare.probes.stream import first_text, open_stream
from corral.compare.probes.target import Target
from corral.compare.probes.wire import Reply

NUM_AT_ONCE = 128
_REFUSALS = {429, 503}
_FEW_SLOTS, _MANY_SLOTS = 4, 16  # for servers that do not tell, and at most
LONG_S = 10.0  # of a stream that is dropped
_SOON = 3.0  # times what it takes alone, within which an answer came without waiting for others
_LEAST_S = 2.0
_CPU_S = 1.0  # for which processor time is counted
_IDLE_CPU = 0.25


def overload_probes() -> list[Probe]:
    return [
        Probe(
            "overload",
            f"{NUM_AT_ONCE} requests at once are answered, if late, or refused by 429 or 503 with Retry-After: none is "
            "dropped, cut or answered with a fault.",
            _overload,
            300.0,
        ),
        Probe(
            "a client that goes away",
            "When clients drop their streams, the work for them ends at once and their slots are free.",
            _gone_clients,
            300.0,
        ),
    ]


async def _overload(target: Target) -> Finding:
    alone = await target.answer(target.chat(max_tokens=1))
    if not alone.is_ok:
        raise CannotTry(f"a chat: {alone.told()}")
    began = time.perf_counter()
    replies = await asyncio.gather(*(target.answer(target.chat(f"Say {i}.", max_tokens=1)) for i in range(NUM_AT_ONCE)))
    took_s = time.perf_counter() - began
    good = [reply for reply in replies if reply.is_ok and at(reply.json(), "choices", 0) is not None]
    refused = [reply for reply in replies if reply.status in _REFUSALS]
    waiting = [reply for reply in replies if not reply.status and reply.fault.startswith("nothing")]
    failures = len(replies) - len(good) - len(refused) - len(waiting)
    kinds = Counter(
        reply.told(60) for reply in replies if not any(reply in group for group in (good, refused, waiting))
    )
    unsaid = [reply for reply in refused if "retry-after" not in reply.headers]
    told = f"{NUM_AT_ONCE} chats of a token at once: {len(good)} answered in {took_s:.1f} s, {len(refused)} refused"
    if refused:
        told += f" ({refused[0].told(80)}; {len(refused) - len(unsaid)} with Retry-After)"
    elif not waiting:
        told += " (if its queue has an end, it lies beyond)"
    if failures:
        named = ", ".join(f"{count} times {kind}" for kind, count in kinds.most_common(3))
        return failed(f"{told}; {failures} failed: {named}")
    faults = ["refusals without Retry-After"] if unsaid else []
    if waiting:
        faults.append(f"{len(waiting)} were still without a word after {target.patience.answer_s:g} s")
    return judged(faults, told, is_partly=bool(good))


async def _gone_clients(target: Target) -> Finding:
    slots = target.settings.slots if target.settings else None
    clients = min(slots or _FEW_SLOTS, _MANY_SLOTS)
    tokens = await long_tokens(target, LONG_S)
    alone_s = await _chat_s(target)
    body = target.chat("Tell me a long story about the sea.", max_tokens=tokens, min_tokens=tokens)
    async with AsyncExitStack() as stack:
        talks = [await stack.enter_async_context(open_stream(target, body)) for _ in range(clients)]
        texts = await asyncio.gather(*(first_text(talk, target.patience.answer_s / 2) for talk in talks))
        began = [talk for talk, has_begun in zip(talks, texts, strict=True) if has_begun]
        over = sum(talk.is_over for talk in talks)
        statuses = [talk.reply for talk in talks]
    if not began:
        raise CannotTry(f"none of {clients} streams had begun: {_first(statuses)}")
    if over == len(talks):
        raise CannotTry(f"all {clients} streams of {tokens} tokens were over before they could be dropped")
    after_s = await _chat_s(target)
    told = (
        f"{clients} clients dropped streams of {tokens} tokens after their first text; the next chat took "
        f"{after_s:.1f} s (alone {alone_s:.1f} s)"
    )
    is_soon = after_s <= max(_LEAST_S, _SOON * alone_s)
    if target.process is None:
        return passed(told) if is_soon else failed(told)
    cpu = await _cpu_of(target.process.tree())
    told += f"; after it its processes took {cpu:.2f} CPUs"
    if is_soon and cpu <= _IDLE_CPU:
        return passed(told)
    # Some wait for work by spinning, so a processor that is busy says nothing alone.
    return judged(["the next chat had to wait"] if not is_soon else ["processors stay busy"], told, is_partly=is_soon)


async def _chat_s(target: Target) -> float:
    reply = await target.answer(target.chat(max_tokens=1))
    if not reply.is_ok:
        raise CannotTry(f"a chat: {reply.told()}")
    return reply.seconds


async def _cpu_of(tree: Sequence[int]) -> float:
    """CPUs busy for these processes, for a moment."""
    before = _cpu_seconds(tree)
    began = time.perf_counter()
    await asyncio.sleep(_CPU_S)
    return (_cpu_seconds(tree) - before) / (time.perf_counter() - began)


def _cpu_seconds(tree: Sequence[int]) -> float:
    total = 0.0
    for pid in tree:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def _first(replies: Sequence[Reply]) -> str:
    return replies[0].told() if replies else "no connection"
