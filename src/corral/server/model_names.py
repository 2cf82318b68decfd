"""Which models a server knows, and by which names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from corral.errors import ModelNotFound
from corral.store.local_model import LocalModel

MAX_NAME_LENGTH = 350  # of what an error repeats


class ModelNames(Protocol):
    """May read small files, so that a call takes well below a millisecond."""

    def lookup(self, name: str) -> LocalModel:
        """Raises ModelNotFound: model 'x' not found."""

    def all(self) -> Sequence[LocalModel]:
        """Everything that can be asked for."""


def not_found(name: str) -> ModelNotFound:
    return ModelNotFound(f"model '{name[:MAX_NAME_LENGTH]}' not found")


def normal_name(name: str) -> str:
    """Names that mean the same are equal: case does not count, nor does the tag that is the default."""
    return name.lower().removesuffix(":latest")


class NamedModels:
    """The models that were named when the server started, and no others.

    Args:
        models: each by its own name, the first of equal names.
        aliases: further names.
    """

    def __init__(self, models: Iterable[LocalModel], aliases: dict[str, LocalModel] | None = None) -> None:
        self._models = list(models)
        self._by_name: dict[str, LocalModel] = {}
        for name, model in [*((model.name, model) for model in self._models), *(aliases or {}).items()]:
            self._by_name.setdefault(normal_name(name), model)

    def lookup(self, name: str) -> LocalModel:
        model = self._by_name.get(normal_name(name))
        if model is None:
            raise not_found(name)
        return model

    def all(self) -> Sequence[LocalModel]:
        return self._models
