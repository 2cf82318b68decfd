"""Which models a server knows, and by which names."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from corral.errors import CorralError, InvalidModelName, ModelNotFound
from corral.server.caller import Caller
from corral.store.local_model import LocalModel

if TYPE_CHECKING:
    from corral.store.library import Library, StoredModel

logger = logging.getLogger("corral.server")

MAX_NAME_LENGTH = 350  # of what an error repeats
MAX_CACHED = 1000


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


def may_use(caller: Caller, local: LocalModel) -> bool:
    """Whether the caller's key is for this model too; to others it is as if it were not there."""
    return caller.models is None or normal_name(local.name) in {normal_name(name) for name in caller.models}


def check_permission(caller: Caller, local: LocalModel, name: str | None = None) -> LocalModel:
    """The model itself.

    Args:
        name: by which it was asked for.

    Raises:
        ModelNotFound: the caller's key is not for it.
    """
    if not may_use(caller, local):
        raise not_found(name or local.name)
    return local


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


class StoredModels:
    """Everything in the model store, as it is at the moment of asking: what is pulled or removed is seen at once.

    Args:
        named: models beside those of the store, for instance files named on the command line; they win.
    """

    def __init__(self, library: Library, named: Iterable[LocalModel] = ()) -> None:
        self._library = library
        self._named = NamedModels(named)
        self._cache: dict[str, LocalModel] = {}  # by digest and name; a manifest's digest says all that its layers do

    def lookup(self, name: str) -> LocalModel:
        """Raises ModelNotFound, and CorralError for a model whose files are damaged or gone; says what to do."""
        from corral.store.names import parse_name

        try:
            return self._named.lookup(name)
        except ModelNotFound:
            pass
        try:
            stored = self._library.find(parse_name(name))
        except InvalidModelName:
            stored = None
        if stored is None:
            raise not_found(name)
        return self._local_of(stored)

    def all(self) -> Sequence[LocalModel]:
        """The newest first; a damaged one is left out with a warning."""
        models = list(self._named.all())
        taken = {normal_name(model.name) for model in models}
        for stored in self._library.models():
            if normal_name(str(stored.name)) in taken:
                continue
            try:
                models.append(self._local_of(stored))
            except CorralError as error:
                logger.warning("model %s is left out: %s", stored.name, error)
        return models

    def _local_of(self, stored: StoredModel) -> LocalModel:
        key = f"{stored.digest} {stored.name}"
        local = self._cache.get(key)
        if local is None or not local.path.exists():
            local = stored.to_local()
            self._cache[key] = local
            while len(self._cache) > MAX_CACHED:
                self._cache.pop(next(iter(self._cache)))
        return local
