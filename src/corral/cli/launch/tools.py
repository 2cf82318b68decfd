"""What each tool wants to be told: its files, its environment, the protocol that it speaks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corral.cli.launch.json_edit import Keys, put_back, set_values
from corral.config import client_api_key, data_home, tool_folder
from corral.errors import CorralError

_MARK = "# Written by `corral launch codex`; `corral launch codex --restore` removes it.\n"
_NO_KEY = "corral"  # tools want one, even where the server does not


@dataclass(frozen=True, slots=True)
class Target:
    """The server's address, without a path, and the model."""

    url: str
    model: str


@dataclass(frozen=True, slots=True)
class Tool:
    """One that `corral launch` knows.

    Args:
        route: of the protocol that it speaks.
        home: where to get it.
        configure: writes its configuration; returns the file, and the command that uses it.
        restore: takes that back; returns the file, or None.
        command: its arguments and additions to the environment for one run, without `configure` unless it needs it.
    """

    name: str
    route: str
    home: str
    configure: Callable[[Target], tuple[Path, str]]
    restore: Callable[[], Path | None]
    command: Callable[[Target], tuple[list[str], dict[str, str]]]


def _record(name: str) -> Path:
    return data_home() / "launch" / f"{name}.json"


def _key() -> str:
    return client_api_key() or _NO_KEY


# Claude Code: environment variables, which settings.json may hold.


def _claude_environment(target: Target) -> dict[str, str]:
    models = ("ANTHROPIC_DEFAULT_OPUS_MODEL", "ANTHROPIC_DEFAULT_SONNET_MODEL", "ANTHROPIC_DEFAULT_HAIKU_MODEL")
    return {
        "ANTHROPIC_BASE_URL": target.url,
        "ANTHROPIC_AUTH_TOKEN": _key(),
        "ANTHROPIC_API_KEY": "",  # one of the user's own would be sent in place of the token
        "ANTHROPIC_MODEL": target.model,
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",  # else every prompt begins with a line of its own, and none is cached
        **dict.fromkeys((*models, "CLAUDE_CODE_SUBAGENT_MODEL"), target.model),
    }


def _configure_claude(target: Target) -> tuple[Path, str]:
    path = tool_folder("CLAUDE_CONFIG_DIR", "~/.claude") / "settings.json"
    values: Mapping[Keys, Any] = {("env", name): value for name, value in _claude_environment(target).items()}
    set_values(path, values, _record("claude"))
    return path, "claude"


def _claude_command(target: Target) -> tuple[list[str], dict[str, str]]:
    return ["--model", target.model], _claude_environment(target)


# Codex: a profile, which is a file of its own beside config.toml.


def _codex_profile() -> Path:
    return tool_folder("CODEX_HOME", "~/.codex") / "corral.config.toml"


def _is_ours(path: Path) -> bool:
    try:
        return path.read_text(encoding="utf-8").startswith(_MARK)
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError) as error:
        raise CorralError(f"cannot read {path}: {error}") from error


def _configure_codex(target: Target) -> tuple[Path, str]:
    path = _codex_profile()
    if path.exists() and not _is_ours(path):
        raise CorralError(f"{path} was not written by Corral; move it away first")
    # A JSON string without escapes of its own for characters beyond ASCII is a TOML string.
    model, url = (json.dumps(text, ensure_ascii=False) for text in (target.model, f"{target.url}/v1"))
    key = 'env_key = "CORRAL_API_KEY"\n' if client_api_key() else ""
    # Codex offers its models OpenAI's own search by default, which is no function and so refused here.
    text = (
        f'{_MARK}model = {model}\nmodel_provider = "corral"\nweb_search = "disabled"\n\n'
        f'[model_providers.corral]\nname = "Corral"\nbase_url = {url}\nwire_api = "responses"\n{key}'
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CorralError(f"cannot write {path}: {error.strerror or error}") from error
    return path, "codex --profile corral"


def _restore_codex() -> Path | None:
    path = _codex_profile()
    if not _is_ours(path):
        return None
    path.unlink()
    return path


def _codex_command(target: Target) -> tuple[list[str], dict[str, str]]:
    _configure_codex(target)
    key = client_api_key()
    return ["--profile", "corral", "--model", target.model], {"CORRAL_API_KEY": key} if key else {}


# OpenCode: a provider in opencode.json, or in a variable that holds such a file.


def _opencode_provider(target: Target, key: str) -> dict[str, Any]:
    return {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Corral",
        "options": {"baseURL": f"{target.url}/v1", "apiKey": key},
        "models": {target.model: {"name": target.model}},
    }


def _configure_opencode(target: Target) -> tuple[Path, str]:
    folder = tool_folder("XDG_CONFIG_HOME", "~/.config") / "opencode"
    commented = folder / "opencode.jsonc"
    path = commented if commented.exists() else folder / "opencode.json"
    key = "{env:CORRAL_API_KEY}" if client_api_key() else _NO_KEY  # no secret in the file
    set_values(path, {("provider", "corral"): _opencode_provider(target, key)}, _record("opencode"))
    return path, f"opencode --model corral/{target.model}"


def _opencode_command(target: Target) -> tuple[list[str], dict[str, str]]:
    content = {"provider": {"corral": _opencode_provider(target, _key())}}
    return ["--model", f"corral/{target.model}"], {"OPENCODE_CONFIG_CONTENT": json.dumps(content)}


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "claude", "/v1/messages", "https://code.claude.com",
            _configure_claude, lambda: put_back(_record("claude")), _claude_command,
        ),
        Tool(
            "codex", "/v1/responses", "https://developers.openai.com/codex",
            _configure_codex, _restore_codex, _codex_command,
        ),
        Tool(
            "opencode", "/v1/chat/completions", "https://opencode.ai",
            _configure_opencode, lambda: put_back(_record("opencode")), _opencode_command,
        ),
    )
}  # fmt: skip
