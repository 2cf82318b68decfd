"""The file of settings of `corral serve`: TOML, each key named as the flag that it stands for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from corral.config import config_path, is_config_given
from corral.errors import InvalidConfig

CONTEXT_KEY = "corral.config_file"  # of click's Context.meta
SECRETS = frozenset({"api_key", "database_url"})  # parameters whose values are never shown
NOT_IN_FILES = frozenset({"help", "config"})
_LISTS = frozenset({"origins"})  # texts with commas, that may also be lists here


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a file says.

    Args:
        path: None where there is none.
        values: by the name of the parameter, as texts, as an environment variable would give them.
        lines: where each is said.
    """

    path: Path | None = None
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    @property
    def has_open_secrets(self) -> bool:
        """It holds a secret, and others than its owner may read it."""
        return self.path is not None and bool(SECRETS & set(self.values)) and bool(self.path.stat().st_mode & 0o077)


def use_file(context: click.Context, _: click.Parameter, given: str | None) -> None:
    """Callback of --config: from here on the file's values stand in for those that neither flag nor environment has.

    Raises:
        InvalidConfig: the file cannot be read, or says what cannot be.
    """
    if context.resilient_parsing:
        return
    file = read_file(Path(given).expanduser() if given else default_file(), context)
    context.meta[CONTEXT_KEY] = file
    context.default_map = file.values


def file_of(context: click.Context) -> ConfigFile:
    """The file that the context's values come from."""
    file: ConfigFile = context.meta[CONTEXT_KEY]
    return file


def default_file() -> Path | None:
    """The file that is read where none is named; None where it is not there."""
    path = config_path()
    return path if is_config_given() or path.exists() else None


def read_file(path: Path | None, context: click.Context) -> ConfigFile:
    """The settings of `context`'s command. Raises InvalidConfig."""
    if path is None:
        return ConfigFile()
    text, told = _parse(path)
    parameters = _parameters(context.command)
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, value in told.items():
        place = f"{path}:{_line_of(key, text)}"
        parameter = parameters.get(key.replace("_", "-"))
        if parameter is None or parameter.name is None:
            raise InvalidConfig(f"{place}: there is no setting {key!r}{_nearest(key, parameters)}")
        if parameter.name in values:
            raise InvalidConfig(f"{place}: {key} was set in line {lines[parameter.name]} already")
        raw = _as_given(parameter, value, f"{place}: {key}")
        try:
            parameter.type_cast_value(context, raw)
        except click.UsageError as error:
            raise InvalidConfig(f"{place}: {key}: {error.message}") from None
        values[parameter.name] = raw
        lines[parameter.name] = _line_of(key, text)
    return ConfigFile(path, values, lines)


def file_value(key: str) -> str | None:
    """One text of the default file, for verbs that share a setting with `corral serve`. Raises InvalidConfig."""
    path = default_file()
    if path is None:
        return None
    _, told = _parse(path)
    value = told.get(key, told.get(key.replace("-", "_")))
    return value if isinstance(value, str) else None


def _parse(path: Path) -> tuple[str, dict[str, Any]]:
    import tomllib

    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except OSError as error:
        raise InvalidConfig(f"the configuration file {path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidConfig(f"the configuration file {path} is not TOML: {error}") from None


def _parameters(command: click.Command) -> dict[str, click.Parameter]:
    """By what a file calls them: the flag's names without dashes in front, the argument's own name."""
    found = {}
    for parameter in command.params:
        if parameter.name not in NOT_IN_FILES:
            for name in parameter.opts:
                found[name.lstrip("-").replace("_", "-")] = parameter
    return found


def _nearest(key: str, parameters: dict[str, click.Parameter]) -> str:
    import difflib

    near = difflib.get_close_matches(key.lower().replace("_", "-"), parameters, n=1)
    return f"; did you mean {near[0]!r}?" if near else "; `corral config show` lists all"


def _as_given(parameter: click.Parameter, value: object, place: str) -> Any:
    """As an environment variable would give it, in which nothing but texts is known. Raises InvalidConfig."""
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise InvalidConfig(f"{place} must be true or false")
        return value
    is_several = getattr(parameter, "multiple", False) or parameter.nargs == -1
    if not is_several and parameter.name not in _LISTS:
        return _scalar(value, place, "a text or a number")
    texts = [_scalar(item, place, "a list of texts") for item in (value if isinstance(value, list) else [value])]
    return texts if is_several else ",".join(texts)


def _scalar(value: object, place: str, wanted: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidConfig(f"{place} must be {wanted}")
    return str(value)


def _line_of(key: str, text: str) -> int:
    """TOML's parser does not tell; settings stand one a line, so the first line that begins so is it."""
    start = re.compile(rf"""\s*\[?\s*(["']?){re.escape(key)}\1\s*[=.\]]""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if start.match(line)), 1)
