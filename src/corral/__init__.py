"""Corral: an LLM server as easy as Ollama and as production-ready as vLLM, on the machine you have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corral.errors import CorralError
from corral.grammar import Grammar, GrammarKind
from corral.sampling_params import SamplingParams

if TYPE_CHECKING:
    from corral.llm import LLM, Completion

    __version__: str

__all__ = ["Completion", "CorralError", "Grammar", "GrammarKind", "LLM", "SamplingParams", "__version__"]  # noqa: RUF022 - plain order


def __getattr__(name: str) -> Any:
    # Late, so that `import corral` and every command that loads no model stay quick.
    if name in ("LLM", "Completion"):
        from corral import llm

        return getattr(llm, name)
    if name == "__version__":
        import importlib.metadata

        try:
            return importlib.metadata.version("corral")
        except importlib.metadata.PackageNotFoundError:  # a source tree that is not installed
            return "0.0.0"
    raise AttributeError(f"module 'corral' has no attribute {name!r}")
