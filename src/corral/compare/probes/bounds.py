"""What a client can make a server hold or wait for before it has said anything of use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack

from corral.compare.probes.probe import CannotTry, Finding, Probe, failed, partly, passed
from corral.compare.probes.target import Target
from corral.compare.probes.wire import Reply, Talk, head_of, talk

_CHAT = "/v1/chat/completions"
MIB = 1 << 20
DECLARED = 1 << 40  # bytes that a Content-Length promises, and that never come
POURED = 96 * MIB
PIECE = b"a" * (MIB // 4)
MOST_HEADER = 8 * MIB
NUM_SLOW = 128
_PROMPT_S = 3.0  # within which a refusal counts as one at once


def bound_probes() -> list[Probe]:
    return [
        Probe(
            "size of bodies",
            f"A body without end fills the memory: beyond a bound (up to {POURED // MIB} MB were sent here, and 1 TB "
            "was declared) it is refused, at best with 413 and before it has come.",
            _body,
            150.0,
        ),
        Probe(
            "size of heads",
            f"Headers come before any key is looked at: beyond a bound (here {MOST_HEADER // MIB} MB were sent) they "
            "are refused.",
            _head,
            90.0,
        ),
        Probe(
            "slow clients beside others",
            f"{NUM_SLOW} clients that never end their head must not keep another one from its answer.",
            _slow_beside_others,
            90.0,
        ),
        Probe(
            "patience with a slow head",
            "A head that comes byte by byte holds a connection: it is cut within a minute.",
            _slow_head,
            120.0,
            is_aside=True,
        ),
    ]


async def _body(target: Target) -> Finding:
    declared = await _declare(target)
    start = b'{"model": "probe", "messages": [{"role": "user", "content": "'
    head = head_of(
        target.origin,
        "POST",
        target.path(_CHAT),
        target.keyed({"Content-Type": "application/json", "Transfer-Encoding": "chunked"}),
    )
    poured = await _pour(target, head, _chunks(start))
    took = f"{poured.sent / MIB:.0f} MB"
    is_bounded_at_once = declared.status in (400, 411, 413) or _was_cut(declared)
    is_bounded = bool(poured.status) or _was_cut(poured)
    found = (
        f"1 TB declared: {_outcome(declared, 'read on')}; streamed in chunks: "
        f"{_outcome(poured, 'all of it taken without a word')} after {took}"
    )
    if is_bounded_at_once and is_bounded:
        return passed(found)
    return partly(found) if is_bounded_at_once or is_bounded else failed(found)


async def _declare(target: Target) -> Reply:
    headers = target.keyed({"Content-Type": "application/json", "Content-Length": str(DECLARED)})
    head = head_of(target.origin, "POST", target.path(_CHAT), headers)
    return await _pour(target, head, [b'{"model": "'])


def _chunks(start: bytes) -> Iterator[bytes]:
    yield b"%x\r\n%b\r\n" % (len(start), start)
    for _ in range(POURED // len(PIECE)):
        yield b"%x\r\n%b\r\n" % (len(PIECE), PIECE)


async def _pour(target: Target, head: bytes, pieces: Iterator[bytes] | list[bytes]) -> Reply:
    """Sends until something comes; then waits a little for it. The request is never ended, so nothing is computed."""
    try:
        async with talk(target.origin, timeout_s=target.patience.reply_s) as conversation:
            try:
                async with asyncio.timeout(target.patience.answer_s / 2):
                    await conversation.write(head)
                    await conversation.pour(pieces)
                async with asyncio.timeout(_PROMPT_S):
                    await conversation.wait(lambda reply: reply.status > 0)
            except TimeoutError:
                conversation.reply.fault = "silent"
            return conversation.snapshot()
    except (OSError, TimeoutError) as error:
        raise CannotTry(f"no connection: {error}") from error


async def _head(target: Target) -> Finding:
    line = b"GET " + target.path("/v1/models").encode() + b" HTTP/1.1\r\nHost: " + target.origin.authority.encode()
    long = await _pour(target, line + b"\r\nX-Probe: ", [PIECE] * (MOST_HEADER // len(PIECE)))
    field = b"X-Probe-%06d: " + b"a" * 1000 + b"\r\n"
    many = await _pour(target, line + b"\r\n", (field % number for number in range(MOST_HEADER // 1000)))
    told, refused = [], 0
    for name, reply in (("one header", long), ("many headers", many)):
        refused += bool(reply.status) or _was_cut(reply)
        told.append(f"{name}: {_outcome(reply, 'taken without a word')} after {reply.sent / MIB:.1f} MB")
    found = "; ".join(told)
    return passed(found) if refused == len(told) else partly(found) if refused else failed(found)


async def _slow_beside_others(target: Target) -> Finding:
    before = await target.ask("GET", "/v1/models")
    if not before.status:
        raise CannotTry(f"GET /v1/models: {before.told()}")
    async with AsyncExitStack() as stack:
        opened = 0
        for _ in range(NUM_SLOW):
            try:
                slow = await stack.enter_async_context(talk(target.origin, timeout_s=target.patience.reply_s))
            except (OSError, TimeoutError):
                break
            await slow.write(_half_head(target))
            opened += 1
        during = await target.ask("GET", "/v1/models")
    found = (
        f"beside {opened} clients with half a head, GET /v1/models: {during.told(40)} in {during.seconds:.2f} s "
        f"(alone: {before.seconds:.2f} s)"
    )
    if during.status == before.status:
        return passed(found)
    return partly(found) if during.status in (429, 503) else failed(found)


async def _slow_head(target: Target) -> Finding:
    patience = target.patience
    began = time.perf_counter()
    try:
        async with talk(target.origin, timeout_s=patience.reply_s) as conversation:
            await conversation.write(_half_head(target))
            reply = await _drip(conversation, began + patience.slow_s)
    except (OSError, TimeoutError) as error:
        raise CannotTry(f"no connection: {error}") from error
    waited = time.perf_counter() - began
    if reply.status or conversation.is_eof:
        return passed(f"a byte of a header each second: {_outcome(reply, '')} after {waited:.0f} s")
    return failed(f"a byte of a header each second: still waited for after {waited:.0f} s")


async def _drip(conversation: Talk, until: float) -> Reply:
    while not conversation.is_over and (left := until - time.perf_counter()) > 0:
        try:
            async with asyncio.timeout(min(1.0, left)):
                await conversation.wait(lambda reply: reply.status > 0)
            break
        except TimeoutError:
            await conversation.write(b"a")
    return conversation.snapshot()


def _half_head(target: Target) -> bytes:
    return f"GET {target.path('/v1/models')} HTTP/1.1\r\nHost: {target.origin.authority}\r\nX-Slow: a".encode()


def _was_cut(reply: Reply) -> bool:
    return reply.fault.startswith(("closed", "reset"))


def _outcome(reply: Reply, otherwise: str) -> str:
    if reply.status:
        return f"refused with {reply.told(60)}"
    return f"connection {reply.fault.split(' ')[0]}" if _was_cut(reply) else otherwise
