from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from corral.cli.launch.json_edit import put_back, set_values
from corral.cli.launch.tools import TOOLS
from corral.cli.launch.verb import NAMES
from corral.errors import CorralError
from tests.cli.native_server import NativeServer

Corral = Callable[..., CompletedProcess[bytes]]
Launch = Callable[..., CompletedProcess[bytes]]
USERS = '{\n    "theme": "dark",\n    "env": {\n        "OTHER": "1",\n        "ANTHROPIC_MODEL": "theirs"\n    }\n}\n'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With a program for each tool, which tells what it is started with."""
    for name in NAMES:
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            f"#!{sys.executable}\nimport json, os, sys\nprint(json.dumps([sys.argv[1:], dict(os.environ)]))\n"
        )
        program.chmod(0o755)
    return tmp_path


@pytest.fixture
def launch(corral: Corral, home: Path, server: NativeServer) -> Launch:
    def run(*arguments: str, **env: str) -> CompletedProcess[bytes]:
        folders = {
            "CLAUDE_CONFIG_DIR": str(home / "claude"),
            "CODEX_HOME": str(home / "codex"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "CORRAL_HOME": str(home / "corral"),
            "CORRAL_HOST": server.address,
            "PATH": str(home / "bin"),
        }
        return corral("launch", *arguments, env=folders | env)

    return run


def started(done: CompletedProcess[bytes]) -> tuple[list[str], dict[str, str]]:
    assert done.returncode == 0, done.stderr
    arguments, environment = json.loads(done.stdout)
    return arguments, environment


def test_every_tool_has_a_name() -> None:
    assert tuple(TOOLS) == NAMES


def test_opencode_is_started_with_our_provider(launch: Launch, home: Path, server: NativeServer) -> None:
    arguments, environment = started(launch("opencode", "--model", "smollm2", "--", "--print-logs", "x"))
    assert arguments == ["--model", "corral/smollm2", "--print-logs", "x"]
    [provider] = json.loads(environment["OPENCODE_CONFIG_CONTENT"])["provider"].values()
    assert provider["options"]["baseURL"] == f"http://{server.address}/v1"
    assert provider["models"] == {"smollm2": {"name": "smollm2"}}
    assert not (home / "config").exists()


def test_without_a_model_the_newest_is_taken(launch: Launch) -> None:
    arguments, _ = started(launch("opencode"))
    assert arguments == ["--model", "corral/smollm2:latest"]


def test_a_protocol_that_the_server_does_not_speak_is_said(launch: Launch) -> None:
    done = launch("claude", "--model", "smollm2")
    assert done.returncode == 1
    assert b"claude needs /v1/messages, which the server" in done.stderr


def test_a_model_that_is_not_there_is_said(launch: Launch) -> None:
    done = launch("opencode", "--model", "nothing")
    assert (done.returncode, done.stderr) == (1, b"Error: model 'nothing' not found\n")


def test_a_tool_that_is_not_there_is_said(launch: Launch, home: Path) -> None:
    done = launch("codex", "--model", "smollm2", PATH=str(home))
    assert (done.returncode, done.stderr) == (
        1,
        b"Error: codex is not installed; see https://developers.openai.com/codex\n",
    )


def test_claude_is_configured_and_put_back(launch: Launch, home: Path, server: NativeServer) -> None:
    path = home / "claude" / "settings.json"
    path.parent.mkdir()
    path.write_text(USERS)
    path.chmod(0o600)
    assert launch("claude", "--config", "--model", "smollm2", CORRAL_API_KEY="secret").returncode == 0
    settings = json.loads(path.read_text())
    assert list(settings) == ["theme", "env"]
    assert settings["env"]["OTHER"] == "1"
    assert settings["env"]["ANTHROPIC_BASE_URL"] == f"http://{server.address}"
    assert settings["env"]["ANTHROPIC_AUTH_TOKEN"] == "secret"
    assert settings["env"]["ANTHROPIC_MODEL"] == "smollm2"
    assert path.with_name("settings.json.before-corral").read_text() == USERS
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_text(), path.stat().st_mtime_ns
    launch("claude", "--config", "--model", "smollm2", CORRAL_API_KEY="secret")
    assert (path.read_text(), path.stat().st_mtime_ns) == before, "it was written again"
    assert launch("claude", "--config", "--model", "minilm").returncode == 0
    assert launch("claude", "--restore").returncode == 0
    assert path.read_text() == USERS
    done = launch("claude", "--restore")
    assert b"there is nothing of Corral in claude's configuration" in done.stderr


def test_opencode_is_configured_and_put_back(launch: Launch, home: Path) -> None:
    path = home / "config" / "opencode" / "opencode.json"
    done = launch("opencode", "--config", "--model", "smollm2", CORRAL_API_KEY="secret")
    assert b"start it with: opencode --model corral/smollm2" in done.stderr
    assert json.loads(path.read_text())["provider"]["corral"]["options"]["apiKey"] == "{env:CORRAL_API_KEY}"
    assert "secret" not in path.read_text()
    launch("opencode", "--restore")
    assert not path.exists()


def test_codex_has_a_profile_of_its_own(launch: Launch, home: Path, server: NativeServer) -> None:
    path = home / "codex" / "corral.config.toml"
    assert launch("codex", "--config", "--model", 'odd "name"é').returncode == 0
    profile = tomllib.loads(path.read_text())
    assert profile["model"] == 'odd "name"é'
    assert profile["model_providers"]["corral"]["base_url"] == f"http://{server.address}/v1"
    assert profile["model_providers"]["corral"]["wire_api"] == "responses"
    assert profile["web_search"] == "disabled"
    assert "env_key" not in profile["model_providers"]["corral"]
    launch("codex", "--config", "--model", "smollm2", CORRAL_API_KEY="k")
    assert tomllib.loads(path.read_text())["model_providers"]["corral"]["env_key"] == "CORRAL_API_KEY"
    assert b"restored" in launch("codex", "--restore").stderr
    assert not path.exists()
    path.write_text("model = 'mine'\n")
    done = launch("codex", "--config", "--model", "smollm2")
    assert done.returncode == 1
    assert b"was not written by Corral" in done.stderr
    launch("codex", "--restore")
    assert path.read_text() == "model = 'mine'\n"


@pytest.mark.parametrize("text", ["// a comment\n{}", "[1]", '{"env": 5}', "\xff"])
def test_a_file_that_cannot_be_edited_is_left_alone(launch: Launch, home: Path, text: str) -> None:
    path = home / "claude" / "settings.json"
    path.parent.mkdir()
    path.write_bytes(text.encode("latin-1"))
    done = launch("claude", "--config", "--model", "smollm2")
    assert done.returncode == 1
    assert str(path).encode() in done.stderr
    assert path.read_bytes() == text.encode("latin-1")
    assert [p.name for p in path.parent.iterdir()] == ["settings.json"]


def test_config_and_restore_exclude_each_other(launch: Launch) -> None:
    assert launch("claude", "--config", "--restore").returncode == 2


def test_what_the_user_changes_meanwhile_stays(tmp_path: Path) -> None:
    path, record = tmp_path / "s.json", tmp_path / "record.json"
    path.write_text('{"a": 1}')
    assert set_values(path, {("a",): 2, ("b", "c"): 3, ("b", "d"): 4}, record)
    document = json.loads(path.read_text())
    document["a"] = "the user's"
    document["b"]["e"] = "the user's too"
    document["z"] = 1
    path.write_text(json.dumps(document))
    assert put_back(record) == path
    assert json.loads(path.read_text()) == {"a": "the user's", "b": {"e": "the user's too"}, "z": 1}
    assert put_back(record) is None


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("{}")
    link.symlink_to(real)
    set_values(link, {("a",): 1}, tmp_path / "record.json")
    assert link.is_symlink()
    assert json.loads(real.read_text()) == {"a": 1}


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CorralError, match="cannot"):
        set_values(tmp_path / "file" / "s.json", {("a",): 1}, tmp_path / "record.json")
