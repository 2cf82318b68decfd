"""Where the verbs act: on this machine's store, or on the server that CORRAL_HOST or OLLAMA_HOST names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from corral.cli.address import NotConnected, ServerAddress, is_corral, not_connected, server_address

if TYPE_CHECKING:
    from corral.cli.model_card import ListedModel, ModelCard
    from corral.cli.native_client import NativeClient
    from corral.store.create import CreateSpec
    from corral.store.status import OnStatus


class Backend(Protocol):
    """The store's operations, here or there. All raise CorralError; a missing model is ModelNotFound."""

    def models(self) -> list[ListedModel]:
        """Newest first."""
        ...

    def card(self, name: str, *, verbose: bool = False) -> ModelCard: ...
    def pull(self, name: str, on_status: OnStatus, *, insecure: bool = False) -> None: ...
    def push(self, name: str, on_status: OnStatus, *, insecure: bool = False) -> None: ...
    def create(self, name: str, spec: CreateSpec, on_status: OnStatus) -> None: ...
    def copy(self, source: str, target: str) -> None: ...
    def delete(self, name: str) -> None: ...


def open_backend() -> Backend:
    """The server that the environment names, if it answers; else this machine's store.

    A name of this machine means its store as well: CORRAL_HOST may be set for a server that does not run now. Another
    machine that does not answer is an error: what is meant for it must not happen to the models here.

    Raises:
        NotConnected: as said.
    """
    address = server_address()
    if address.is_given and (client := find_server(address)) is not None:
        from corral.cli.remote_backend import RemoteBackend

        return RemoteBackend(client)
    from corral.cli.local_backend import LocalBackend

    return LocalBackend()


def find_server(address: ServerAddress) -> NativeClient | None:
    """A Corral server that answers there; None if there is none on this machine.

    Raises:
        NotConnected: there is none on another machine.
    """
    try:
        if is_corral(address):
            from corral.cli.native_client import NativeClient

            return NativeClient(address)
    except NotConnected:
        if address.is_here:
            return None
        raise
    if address.is_here:
        return None
    raise NotConnected(f"{address} answers, but it is no Corral server; set CORRAL_HOST to one, or unset it")


def running_server() -> NativeClient:
    """The server for what only a server knows.

    Raises:
        NotConnected: there is none, with what to do.
    """
    address = server_address()
    client = find_server(address)
    if client is None:
        raise not_connected(address)
    return client
