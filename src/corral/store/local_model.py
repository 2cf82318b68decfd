"""A model on this machine: its files, and what its Modelfile adds to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class LocalModel:
    """What is needed to load a model and to talk to it as its makers meant.

    Args:
        name: as people see it: "smollm2:latest", "hf.co/org/repo:Q4_K_M", or a file's name without its suffix.
        path: the GGUF file (the first part, of a split one).
        adapters: LoRA adapters (GGUF), applied in this order.
        projector: GGUF of an image encoder, if the model came with one.
        template: chat template in place of the file's own, in Go's syntax or Jinja's.
        system: system message where the client sends none.
        parameters: by Ollama's names (temperature, num_ctx, stop, ...); values of the types that the API takes.
        messages: {"role", "content"} each, in front of every conversation.
        digest: hex SHA-256 of the manifest; empty for a mere file.
    """

    name: str
    path: Path
    adapters: tuple[Path, ...] = ()
    projector: Path | None = None
    template: str | None = None
    system: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    messages: tuple[dict[str, str], ...] = ()
    digest: str = ""
