"""Where `corral run` has its model: in a Corral server that answers, or in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corral.cli.address import server_address
from corral.cli.backend import Backend, find_server
from corral.errors import CorralError, ModelNotFound
from corral.store.names import as_path

if TYPE_CHECKING:
    from corral.cli.answer import AnsweringModel
    from corral.cli.native_client import NativeClient
    from corral.config import EngineConfig


@dataclass(frozen=True, slots=True)
class Place:
    """The models that are there, and how one of them is made ready."""

    backend: Backend
    open_model: Callable[[str], AnsweringModel]


def this_process(config: EngineConfig, *, insecure: bool) -> Place:
    from corral.cli.local_backend import LocalBackend

    def open_model(name: str) -> AnsweringModel:
        from corral.cli.in_process import load

        return load(name, config, insecure=insecure)

    return Place(LocalBackend(), open_model)


def server(client: NativeClient, *, insecure: bool) -> Place:
    from corral.cli.remote_backend import RemoteBackend

    backend = RemoteBackend(client)

    def open_model(name: str) -> AnsweringModel:
        from corral.cli.progress import show_status
        from corral.cli.remote_model import RemoteModel

        try:
            card = backend.card(name)
        except ModelNotFound:
            with show_status() as on_status:
                backend.pull(name, on_status, insecure=insecure)
            card = backend.card(name)
        return RemoteModel(name, client, card.capabilities)

    return Place(backend, open_model)


def open_somewhere(
    name: str, config: EngineConfig, *, is_local: bool, insecure: bool = False
) -> tuple[Place, AnsweringModel]:
    """The model in a server that answers, else here. A file is always loaded here: a server goes by names.

    A server that the user has not named is used only if it lets us and serves the model.

    Raises:
        CorralError: why there is no model.
    """
    here = this_process(config, insecure=insecure)
    if not is_local and as_path(name) is None:
        address = server_address()
        client = find_server(address)
        if client is not None:
            there = server(client, insecure=insecure)
            try:
                return there, there.open_model(name)
            except CorralError as error:
                if address.is_given or not _is_not_for_us(error):
                    raise
    return here, here.open_model(name)


def _is_not_for_us(error: CorralError) -> bool:
    from corral.cli.native_client import ServerError

    return isinstance(error, ModelNotFound) or (isinstance(error, ServerError) and error.status in (401, 403))
