"""`corral config`: every setting of `corral serve`, what it is, and who said so."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource

from corral.cli.config_file import NOT_IN_FILES, SECRETS, ConfigFile, file_of
from corral.cli.options import option
from corral.cli.serve import configs_of, effective_port, serve
from corral.cli.terminal import warn
from corral.config import cache_home, config_path, data_home, models_home, said_in_environment

_HIDDEN = "********"
_PASSWORD = re.compile(r"(://[^:/?#]*:).*(?=@)")
_FOLDERS = (("data", data_home), ("models", models_home), ("cache", cache_home))


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it was given, or its default; None is that nothing was said, and has no text for it.

    Args:
        source: "environment", "file" or "default"; a flag is nobody's but a running server's.
        origin: name of the variable, file and line, or "default".
    """

    name: str
    value: Any
    source: str
    origin: str

    def line(self, *, with_origin: bool) -> str:
        """A line of TOML; a comment where there is no value, or none that may be shown."""
        is_told = self.value is not None and self.value != _HIDDEN
        text = f"{self.name} = {json.dumps(self.value, ensure_ascii=False)}"
        text = text if is_told else f"# {self.name} " + ("is set" if self.value else "is not set")
        return f"{text:<48}  # {self.origin}" if with_origin else text


@click.group("config", short_help="Show the server's settings and where they come from.", no_args_is_help=True)
def config() -> None:
    """Look at the settings of `corral serve`, from environment, file and defaults."""


_file = option(
    "--config", "file", envvar="CORRAL_CONFIG", metavar="FILE", help="File of settings, as of `corral serve`."
)


@config.command("show")
@_file
@option("--origin", "with_origin", is_flag=True, help="Say of each setting where its value comes from.")
@option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(*, file: str | None, with_origin: bool, as_json: bool) -> None:
    """Print every setting that a server started now without flags would have.

    What is printed can be a file of settings itself. Keys and passwords are not shown. Fails, and says why, if the
    settings are none that a server could start with.
    """
    context = serve.make_context("serve", ["--config", file] if file else [])
    configs_of(context)
    settings = settings_of(context)
    if as_json:
        click.echo(json.dumps(_as_json(settings, file_of(context)), indent=2, ensure_ascii=False))
        return
    for setting in settings:
        click.echo(setting.line(with_origin=with_origin))
    click.echo()
    for name, home in _FOLDERS:
        click.echo(f"# folder of {name}: {home()}")


@config.command("path")
@_file
def path(*, file: str | None) -> None:
    """Print the file that settings are read from."""
    found = file or str(config_path())
    click.echo(found)
    if not config_path().exists() and not file:
        warn("it is not there, so there are no settings but flags and environment")


def settings_of(context: click.Context) -> list[Setting]:
    """Those of `corral serve`, in the order of its help."""
    file = file_of(context)
    found: dict[str, Setting] = {}
    for parameter in context.command.params:
        key = parameter.name
        if key is None or key in NOT_IN_FILES:
            continue
        name = parameter.opts[0].lstrip("-")
        source = context.get_parameter_source(key)
        if key == "port" and (port := _port(context)) != context.params["port"]:
            found[key] = Setting(name, port, found["host"].source, found["host"].origin)
        elif source is ParameterSource.ENVIRONMENT and (said := said_in_environment(parameter.envvar)):
            found[key] = Setting(name, _shown(parameter, context.params[key], said[1]), "environment", said[0])
        elif key in file.values:
            origin = f"{file.path}:{file.lines[key]}"
            found[key] = Setting(name, _shown(parameter, context.params[key], file.values[key]), "file", origin)
        else:
            told = getattr(parameter, "show_default", None)
            default = told if isinstance(told, str) else context.params[key]
            found[key] = Setting(name, _shown(parameter, context.params[key], default), "default", "default")
    return list(found.values())


def _shown(parameter: click.Parameter, value: Any, raw: Any) -> Any:
    """The value as one would write it into a file; without what must not be seen."""
    if isinstance(value, tuple):
        raw = list(value) or None
    elif isinstance(value, bool | None) or isinstance(parameter.type, click.INT.__class__ | click.FLOAT.__class__):
        raw = value
    elif not isinstance(raw, str):
        raw = parameter.default  # of what is no text or number when it was read
    if parameter.name in SECRETS and raw:
        return _PASSWORD.sub(rf"\1{_HIDDEN}", raw) if isinstance(raw, str) else _HIDDEN
    return raw


def _port(context: click.Context) -> int:
    return effective_port(context, context.params["host"], context.params["port"])


def _as_json(settings: list[Setting], file: ConfigFile) -> dict[str, Any]:
    return {
        "file": str(file.path) if file.path else None,
        "settings": [
            {"name": told.name, "value": told.value, "source": told.source, "origin": told.origin} for told in settings
        ],
        "folders": {name: str(home()) for name, home in _FOLDERS},
    }
