"""`corral stop`: have the server give a model's memory back."""

from __future__ import annotations

import click

from corral.cli import options
from corral.errors import CorralError, ModelNotFound


@click.command("stop", short_help="Unload a model from the server.")
@options.model
def stop(model: str) -> None:
    """Unload a model from the server as soon as nobody uses it."""
    from corral.cli.backend import running_server
    from corral.cli.remote_backend import RemoteBackend

    try:
        RemoteBackend(running_server()).unload(model)
    except ModelNotFound as error:
        raise CorralError(f'couldn\'t find model "{model}" to stop') from error
