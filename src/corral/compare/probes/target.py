"""What is probed: an address, and the process behind it where it is ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import msgspec

from corral.compare.client import ShapeBody, plain_body
from corral.compare.engines.engine import Settings
from corral.compare.exchange import Origin, parse_origin
from corral.compare.probes.wire import Reply, request_of, send

_SHOWN_KEY = "<key>"
_MOST_HELP = 1 << 20


class Process(Protocol):
    """An engine that a probe may end: the whole of it, or a child; and start again."""

    @property
    def url(self) -> str:
        """Where it listens, also after a restart."""

    def tree(self) -> Sequence[int]:
        """Numbers of its processes, the first one among them; empty when it is gone."""

    def code(self) -> int | None:
        """How the first process ended, below 0 by a signal; None while it runs."""

    def terminate(self) -> None:
        """SIGTERM to the first process, as a service manager does it."""

    def kill(self) -> None:
        """SIGKILL to the first process."""

    def kill_child(self) -> int | None:
        """SIGKILL to the child that computes; its number, or None where there is no child."""

    async def restart(self) -> None:
        """Ends what is left of it, starts it again and waits until it is ready. Raises EngineFailed."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that checks wait.

    Args:
        reply_s: for a reply that takes no computing.
        answer_s: for an answer of the model.
        slow_s: for a server to lose its patience with a slow client; proxies give a head up to 60.
        poll_s: between two looks.
        drain_s: for a server to end after SIGTERM.
        back_s: for a server to be back after a crash of its worker.
    """

    reply_s: float = 10.0
    answer_s: float = 120.0
    slow_s: float = 65.0
    poll_s: float = 0.05
    drain_s: float = 60.0
    back_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """One engine as a probe meets it.

    Args:
        engine: its name.
        model: by which clients ask for it.
        key: with which it was started; "" for none.
        no_key: why it was started without one, where a key was wanted: "" if it was not, or if there is one.
        shape: the request as this engine has to be asked it.
        settings: read back from it; None where they were not.
        help_text: what its program says of its flags; "" where that is not known.
        argv: how it was started; empty for what runs already.
        process: None for what runs already, which no probe ends.
    """

    engine: str
    url: str
    model: str
    key: str = ""
    no_key: str = ""
    shape: ShapeBody = plain_body
    settings: Settings | None = None
    help_text: str = ""
    argv: tuple[str, ...] = ()
    process: Process | None = None
    patience: Patience = field(default_factory=Patience)

    @property
    def origin(self) -> Origin:
        return parse_origin(self.url)

    def path(self, route: str) -> str:
        return f"{self.origin.path}{route}"

    def keyed(self, headers: Mapping[str, str] | None = None) -> dict[str, str]:
        """Headers with its key."""
        return {**({"Authorization": f"Bearer {self.key}"} if self.key else {}), **(headers or {})}

    def without_secret(self, text: str) -> str:
        """What may stand in a report."""
        return text.replace(self.key, _SHOWN_KEY) if self.key else text

    def without_key(self) -> Target:
        """The same server, asked without its key."""
        return replace(self, key="")

    def chat(self, text: str = "Say hello.", *, min_tokens: int | None = None, **fields: Any) -> dict[str, Any]:
        """The body of a short greedy chat."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 8,
            "temperature": 0.0,
            **fields,
        }
        shaped = self.shape(body, min_tokens=min_tokens)
        return {name: value for name, value in shaped.items() if value is not None}

    async def ask(
        self,
        method: str,
        route: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Reply:
        """Sends JSON, with the key."""
        data = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        fields = {"Content-Type": "application/json"} if data else {}
        request = request_of(self.origin, method, self.path(route), self.keyed({**fields, **(headers or {})}), data)
        return await send(self.origin, request, timeout_s=timeout_s or self.patience.reply_s)

    async def answer(self, body: Any, route: str = "/v1/chat/completions") -> Reply:
        """A request that the model computes."""
        return await self.ask("POST", route, body, timeout_s=self.patience.answer_s)


def help_command(argv: Sequence[str]) -> tuple[str, ...]:
    """What shows the flags of the program that `argv` starts."""
    if not argv:
        return ()
    command = [argv[0]]
    rest = list(argv[1:])
    if rest[:1] == ["-m"] and argv[0].rpartition("/")[2].startswith("python"):
        command += rest[:2]
        rest = rest[2:]
    if rest[:1] == ["serve"]:
        command.append("serve")
    return (*command, "--help=all" if argv[0].rpartition("/")[2].startswith("vllm") else "--help")


async def help_text(argv: Sequence[str], environment: Mapping[str, str], *, timeout_s: float = 120.0) -> str:
    """What the program says of its flags; "" where it says nothing in time."""
    command = help_command(argv)
    if not command:
        return ""
    process = None
    try:
        async with asyncio.timeout(timeout_s):
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(environment),
            )
            out, _ = await process.communicate()
        return out[:_MOST_HELP].decode("utf-8", "replace")
    except (OSError, TimeoutError):
        return ""
    finally:
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def key_flags(text: str, key: str) -> tuple[str, ...] | None:
    """Flags that start it with this key; None where its help has no such flag."""
    return ("--api-key", key) if "--api-key" in text.replace(",", " ").split() else None
