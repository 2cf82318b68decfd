"""`corral launch`: start a coding agent with a model of our server."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import click

from corral.cli.options import complete_model, option
from corral.errors import CorralError, ModelNotFound

if TYPE_CHECKING:
    from corral.cli.address import ServerAddress
    from corral.cli.launch.tools import Target, Tool
    from corral.cli.native_client import NativeClient

NAMES = ("claude", "codex", "opencode")


@click.command("launch", short_help="Start Claude Code, Codex or OpenCode.")
@click.argument("tool", type=click.Choice(NAMES))
@click.argument("arguments", nargs=-1, metavar="[-- ARGUMENTS...]", type=click.UNPROCESSED)
@option("--model", metavar="MODEL", shell_complete=complete_model, help="By default the newest one of the server.")
@option("--config", "only_config", is_flag=True, help="Write the tool's configuration, and do not start it.")
@option("--restore", is_flag=True, help="Put the tool's configuration back as it was.")
def launch(tool: str, arguments: tuple[str, ...], *, model: str | None, only_config: bool, restore: bool) -> None:
    """Start Claude Code, Codex or OpenCode with a model of the Corral server that runs.

    Starting one leaves its own configuration alone (for Codex a profile named corral is written). With --config it is
    changed, and keeps to Corral until --restore; other settings in its file stay, and a copy is left beside it.
    """
    from corral.cli.launch.tools import TOOLS

    if only_config and restore:
        raise click.UsageError("only one of --config and --restore can be specified")
    found = TOOLS[tool]
    if restore:
        path = found.restore()
        click.echo(f"restored {path}" if path else f"there is nothing of Corral in {tool}'s configuration", err=True)
        return
    if only_config:
        from corral.cli.address import server_address

        path, command = found.configure(_target(server_address(), model, client=None))
        click.echo(f"configured {path}\nstart it with: {command}", err=True)
        return
    _start(found, model, arguments)


def _start(tool: Tool, model: str | None, arguments: tuple[str, ...]) -> None:
    """Becomes the tool's process."""
    from corral.cli.backend import running_server
    from corral.cli.remote_backend import RemoteBackend

    program = shutil.which(tool.name)
    if program is None:
        raise CorralError(f"{tool.name} is not installed; see {tool.home}")
    client = running_server()
    if not client.has_route(tool.route):
        raise CorralError(f"{tool.name} needs {tool.route}, which the server at {client.address} does not have")
    target = _target(client.address, model, client)
    RemoteBackend(client).card(target.model)  # a model that is not there is told before the tool starts
    flags, environment = tool.command(target)
    os.execvpe(program, [tool.name, *flags, *arguments], {**os.environ, **environment})  # noqa: S606


def _target(address: ServerAddress, model: str | None, client: NativeClient | None) -> Target:
    from corral.cli.backend import open_backend
    from corral.cli.launch.tools import Target
    from corral.cli.remote_backend import RemoteBackend

    if model is None:
        backend = open_backend() if client is None else RemoteBackend(client)
        model = next((found.name for found in backend.models()), None)
    if address.uds:
        raise CorralError(f"other programs want an address with a port; the server is at {address}")
    if model is None:
        raise ModelNotFound("there is no model here; pull one, as in: corral pull smollm2")
    return Target(str(address), model)
