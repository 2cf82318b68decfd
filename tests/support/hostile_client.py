"""Sends hostile requests and writes down what came back: `python -m tests.support.hostile_client` prints it as JSON."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import struct
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tests.support.hostile_requests import Attack, Hostility

PATIENCE_S = 150.0  # nothing takes longer unless it hangs
WAIT_S = 6.0  # of one that is in no hurry: longer than the server is to wait for it
DOCUMENTED = {503, 504, 529}  # of 5xx; 501 is TRACE's and the like
NO_RETRY_AFTER = {504}


@dataclass
class Report:
    """What the answers were: how many of each status (0 is none), and those that must not be."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # by kind
    faults: list[str] = field(default_factory=list)

    def add(self, number: int, attack: Attack, status: int, head: bytes, body: bytes) -> None:
        self.statuses[status] += 1
        is_refusal = status in DOCUMENTED and (status in NO_RETRY_AFTER or b"retry-after:" in head.lower())
        if status >= 500 and not is_refusal:
            sent = b"".join(attack.pieces)[:300]
            self.faults.append(f"{number} ({attack.kind}): {status} {body[:300]!r} to {sent!r}")


async def send_all(address: tuple[str, int], hostility: Hostility, numbers: range, at_once: int) -> Report:
    report = Report()
    pending = iter(numbers)
    loop = asyncio.get_running_loop()

    async def work() -> None:
        for number in pending:
            attack = hostility.attack(number)
            started = loop.time()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    status, head, body = await _send(address, attack)
            except TimeoutError:
                report.faults.append(f"{number} ({attack.kind}): hangs, {b''.join(attack.pieces)[:300]!r}")
                continue
            report.seconds[attack.kind] += loop.time() - started
            report.add(number, attack, status, head, body)

    await asyncio.gather(*(work() for _ in range(at_once)))
    return report


async def _send(address: tuple[str, int], attack: Attack) -> tuple[int, bytes, bytes]:
    """Status, head and body of the (first) answer; status 0 if there was none."""
    sock = socket.socket()
    if attack.receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, attack.receive_buffer)
    if attack.leaves == "resets":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    with sock, contextlib.suppress(ConnectionError):
        await loop.sock_connect(sock, address)
        sending = asyncio.ensure_future(_send_pieces(sock, attack))
        try:
            return await _read(sock, attack)
        finally:
            sending.cancel()
            await asyncio.wait({sending})
            if not sending.cancelled():
                sending.exception()
    return 0, b"", b""


async def _send_pieces(sock: socket.socket, attack: Attack) -> None:
    for piece in attack.pieces:
        await asyncio.get_running_loop().sock_sendall(sock, piece)
        if attack.pause_s:
            await asyncio.sleep(attack.pause_s)


async def _read(sock: socket.socket, attack: Attack) -> tuple[int, bytes, bytes]:
    loop = asyncio.get_running_loop()
    data = b""
    is_head = attack.pieces[0].startswith(b"HEAD ")
    is_waiting = attack.leaves == "waits"
    if is_waiting and attack.reads == 0:
        await asyncio.sleep(WAIT_S)
        return 0, b"", b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WAIT_S if is_waiting else None):
            while attack.reads is None or len(data) < attack.reads:
                chunk = await loop.sock_recv(sock, 1 << 16)
                data += chunk
                if not chunk or (not is_waiting and _is_whole(data, is_head)):
                    break
    head, _, body = data.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 100"):
        head, _, body = body.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), head, body


def _is_whole(data: bytes, is_head: bool) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 100"):
        head, end, body = body.partition(b"\r\n\r\n")
    if not end or is_head:
        return bool(end)
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
        if line.startswith(b"transfer-encoding:"):
            return body.endswith(b"0\r\n\r\n")
    return True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True, help="host:port")
    parser.add_argument("--model", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--at-once", type=int, default=24)
    given = parser.parse_args()
    host, _, port = given.address.rpartition(":")
    hostility = Hostility(given.model, given.key, given.seed)
    numbers = range(given.first, given.first + given.count)
    report = asyncio.run(send_all((host, int(port)), hostility, numbers, given.at_once))
    print(json.dumps(vars(report)))


if __name__ == "__main__":
    main()
