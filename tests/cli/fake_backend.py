"""A backend whose models are in memory, and that notes what is asked of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from corral.cli.model_card import ListedModel, ModelCard
from corral.errors import CorralError, ModelNotFound
from corral.store.status import OnStatus, Status

CARD = ModelCard(
    details={"family": "llama", "parameter_size": "134.52M", "quantization_level": "Q4_1"},
    capabilities=("completion", "tools"),
    parameters='temperature                    0.3\nstop                           "<|im_end|>"',
    template="{{ .Prompt }}",
    system="You are terse.",
    license="Apache License\nVersion 2.0\nJanuary 2004",
    modelfile="FROM scripted\n",
    model_info={
        "general.architecture": "llama",
        "llama.context_length": 8192,
        "llama.embedding_length": 576,
        "tokenizer.ggml.tokens": ["a", "b", "c", "d", "e"],
    },
    tensors=({"name": "output.weight", "type": "Q4_1", "shape": [576, 49152]},),
)


class FakeBackend:
    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.calls: list[tuple[Any, ...]] = []

    def models(self) -> list[ListedModel]:
        when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        return [ListedModel(name, "0123456789abcdef", 98_362_432, when, {"family": "llama"}) for name in self.names]

    def card(self, name: str, *, verbose: bool = False) -> ModelCard:
        self._check(name)
        return CARD

    def pull(self, name: str, on_status: OnStatus, *, insecure: bool = False) -> None:
        self.calls.append(("pull", name, insecure))
        on_status(Status("pulling manifest"))
        on_status(Status("pulling 0123456789ab", "sha256:" + "0123456789ab" * 5, 1000, 400))
        on_status(Status("pulling 0123456789ab", "sha256:" + "0123456789ab" * 5, 1000, 1000))
        if name.startswith("missing"):
            raise CorralError("pull model manifest: file does not exist")
        on_status(Status("success"))
        self.names.append(name)

    def push(self, name: str, on_status: OnStatus, *, insecure: bool = False) -> None:
        self.calls.append(("push", name, insecure))
        on_status(Status("success"))

    def create(self, name: str, spec: Any, on_status: OnStatus) -> None:
        self.calls.append(("create", name, spec))
        on_status(Status("success"))

    def copy(self, source: str, target: str) -> None:
        self._check(source)
        self.names.append(target)

    def delete(self, name: str) -> None:
        self._check(name)
        self.names.remove(name)

    def _check(self, name: str) -> None:
        if name not in self.names:
            raise ModelNotFound(f"model '{name}' not found")
