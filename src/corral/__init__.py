"""Corral: an LLM server as easy as Ollama and as production-ready as vLLM, on the machine you have."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any

from corral.errors import CorralError
from corral.sampling_params import SamplingParams

if TYPE_CHECKING:
    from corral.llm import LLM, Completion

try:
    __version__ = importlib.metadata.version("corral")
except importlib.metadata.PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0.0.0"

__all__ = ["Completion", "CorralError", "LLM", "SamplingParams", "__version__"]  # noqa: RUF022 - plain order


def __getattr__(name: str) -> Any:
    # Late, so that `import corral` and every command that loads no model stay quick.
    if name in ("LLM", "Completion"):
        from corral import llm

        return getattr(llm, name)
    raise AttributeError(f"module 'corral' has no attribute {name!r}")
