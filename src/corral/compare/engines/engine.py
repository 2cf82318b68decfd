"""What an engine has to be able to do to take part in a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx

from corral.errors import CorralError

HOST = "127.0.0.1"


class EngineMissing(CorralError):
    """It is not on this machine, or cannot serve this file; the text says why, and what to do about it."""


class EngineFailed(CorralError):
    """It was started and did not do what it should; the text has its last words."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What every engine is asked for alike.

    Args:
        model: the GGUF file.
        digest: its SHA-256, in hex.
        name: by which clients ask for the model.
        context: tokens that each request may have.
        slots: requests at once.
        threads: of the processor.
        flags: more of one engine's own, as the user gave them.
    """

    model: Path
    digest: str
    name: str
    context: int
    slots: int
    threads: int
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """An engine on this machine.

    Args:
        program: what is run.
        version: as it tells itself.
        install_bytes: of everything that its installation takes on disk; None where that cannot be told apart.
    """

    program: Path
    version: str
    install_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """How it is started.

    Args:
        argv: with the port in it; empty for what runs already.
        environment: what is set beside one's own variables.
        weights: what it reads, in words; differs from the file's name where it cannot read that.
        digest: SHA-256 of the file that it reads, or of the file that its weights were made of.
        steps: what a user has to do until here, for the ledger of ease: commands, in order.
        ready_s: how long a start may take.
        spare_argv: tried once where a signal ends the process before it is ready (a crash); the report says so. Empty
            where there is no other way.
        files: files and folders that a start reads, for dropping them from the page cache.
        notes: what a reader has to know of it (weights dequantised, a setting that it has not).
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    weights: str = ""
    digest: str = ""
    steps: tuple[str, ...] = ()
    ready_s: float = 60.0
    spare_argv: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """What a running engine says of itself; None where it does not tell.

    Args:
        context: tokens that one request may really have.
        kv_reserved_bytes: set aside for keys and values.
        sampling: what it does with a request that says nothing of it.
        more: whatever else is worth seeing side by side.
    """

    model: str | None = None
    context: int | None = None
    slots: int | None = None
    threads: int | None = None
    kv_type: str | None = None
    kv_reserved_bytes: int | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)
    more: Mapping[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """One adapter, a file each: corral, llama_cpp, vllm, ollama, and attached for what runs already."""

    @property
    def name(self) -> str:
        """As the command line and the report call it."""

    def find(self) -> Found:
        """Raises EngineMissing."""

    def launch(self, found: Found, setup: Setup, port: int, folder: Path) -> Launch:
        """How to start it; may prepare files in `folder`, and then says so in `steps`. May take minutes, so call it in
        a thread. Give all starts of one comparison the same folder: what is made there is made once. Raises
        EngineMissing."""

    async def is_ready(self, client: httpx.AsyncClient) -> bool:
        """Whether it would answer a request now; False too while nobody listens."""

    async def prepare(self, client: httpx.AsyncClient, setup: Setup) -> Sequence[str]:
        """What has to be done over HTTP before the first request (Ollama: create the model); the steps of that."""

    async def settings(self, client: httpx.AsyncClient, setup: Setup) -> Settings:
        """As it runs, read back from it; never what it was asked for."""

    def body(self, fields: dict[str, Any], *, min_tokens: int | None) -> dict[str, Any]:
        """The request as this engine has to be asked it; `min_tokens` keeps the answer from ending early."""
