"""The file of settings: what it may say, who wins over it, and what `corral config` tells of it all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from corral.cli.config_file import SECRETS
from corral.cli.main import app
from corral.cli.serve import configs_of, serve
from corral.config import EngineConfig, ServerConfig
from corral.errors import InvalidConfig
from tests.cli.test_serve import EXPECTED, FLAGS, SWITCHES


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Corral's folder; nothing else of the environment counts."""
    for name in list(os.environ):
        if name.startswith(("OLLAMA_", "CORRAL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path))
    return tmp_path


def configs(*arguments: str) -> tuple[EngineConfig, ServerConfig]:
    return configs_of(serve.make_context("serve", list(arguments)))


def server(*arguments: str) -> ServerConfig:
    return configs(*arguments)[1]


def corral(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def told(*arguments: str) -> dict[str, dict[str, Any]]:
    """What `corral config show --json` says, by name."""
    return {
        found["name"]: found for found in json.loads(corral("config", "show", "--json", *arguments).stdout)["settings"]
    }


def test_every_flag_can_stand_in_the_file(home: Path) -> None:
    lines = [f"{flag.removeprefix('--')} = {json.dumps(value)}" for flag, value in FLAGS.items()]
    lines += [f"{switch.removeprefix('--')} = true" for switch in SWITCHES]
    (home / "config.toml").write_text("\n".join([*lines, 'models = ["a.gguf"]']))
    assert configs() == EXPECTED
    context = serve.make_context("serve", [])
    assert (context.params["models"], context.params["served_model_name"]) == (("a.gguf",), "team")


def test_values_have_toml_types_and_names_may_have_underscores(home: Path) -> None:
    (home / "config.toml").write_text(
        'max_queue = 9\ndrain-delay = 1.5\nlenient = false\napi-key = ["a", "b,c"]\norigins = ["https://a", "https://b"]'
    )
    engine, config = configs()
    assert (engine.max_queue, config.drain_delay_s, config.lenient) == (9, 1.5, False)
    assert (config.api_keys, config.origins) == (("a", "b", "c"), ("https://a", "https://b"))


def test_a_flag_wins_over_the_environment_that_over_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config.toml").write_text('keep-alive = "1m"\nmax-queue = 1\nmodels = ["of-file"]\nlenient = true')
    assert server().keep_alive_s == 60
    monkeypatch.setenv("OLLAMA_KEEP_ALIVE", "2m")
    assert server().keep_alive_s == 120
    monkeypatch.setenv("CORRAL_KEEP_ALIVE", "3m")
    assert server().keep_alive_s == 180
    assert server("--keep-alive", "4m").keep_alive_s == 240
    assert serve.make_context("serve", ["mine"]).params["models"] == ("mine",)
    monkeypatch.setenv("CORRAL_LENIENT", "0")
    assert server().lenient is False


@pytest.mark.parametrize(
    ("file", "environment", "arguments", "port"),
    [
        ('host = ":1"', {}, [], 1),
        ('host = ":1"\nport = 2', {}, [], 2),
        ('host = ":1"', {"CORRAL_PORT": "3"}, [], 3),
        ("port = 2", {"CORRAL_HOST": ":4"}, [], 4),
        ("port = 2", {"OLLAMA_HOST": ":4", "CORRAL_PORT": "3"}, [], 3),
        ("port = 2", {"CORRAL_PORT": "3"}, ["--host", ":5"], 5),
        ("port = 2", {}, ["--host", ":5", "--port", "6"], 6),
        ("", {"CORRAL_HOST": "127.0.0.2"}, [], 11434),
    ],
)
def test_whoever_says_the_port_more_explicitly(
    home: Path, monkeypatch: pytest.MonkeyPatch, file: str, environment: dict[str, str], arguments: list[str], port: int
) -> None:
    (home / "config.toml").write_text(file)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert server(*arguments).port == port
    if not arguments:
        assert told()["port"]["value"] == port


def test_the_file_is_where_it_is_said_to_be(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert configs() == (EngineConfig(), ServerConfig())
    named = tmp_path / "named.toml"
    named.write_text("max-queue = 7")
    assert server("--config", str(named)).max_pending == 7
    monkeypatch.setenv("CORRAL_CONFIG", str(named))
    assert server().max_pending == 7
    assert corral("config", "path").stdout == f"{named}\n"
    monkeypatch.delenv("CORRAL_CONFIG")
    monkeypatch.delenv("CORRAL_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "corral").mkdir()
    (tmp_path / "corral" / "config.toml").write_text("max-queue = 8")
    assert server().max_pending == 8
    with pytest.raises(InvalidConfig, match=r"nowhere\.toml cannot be read"):
        server("--config", str(tmp_path / "nowhere.toml"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max-memroy = 1", r"config\.toml:1: there is no setting 'max-memroy'; did you mean 'max-memory'\?"),
        ("\n\nbanana = 1", r"config\.toml:3: there is no setting 'banana'; `corral config show` lists all"),
        ("help = true", "there is no setting 'help'"),
        ("[serve]\nport = 1", r"config\.toml:1: there is no setting 'serve'"),
        ("[port]\na = 1", "port must be a text or a number"),
        ("lenient = 1", "lenient must be true or false"),
        ("max-queue = true", "max-queue must be a text or a number"),
        ("max-queue = [1]", "max-queue must be a text or a number"),
        ("max-queue = 2.5", "max-queue: '2.5' is not a valid integer"),
        ("max-queue = 0", "max-queue: 0 is not in the range"),
        ("keep-alive = 1979-05-27", "keep-alive must be a text or a number"),
        ('keep-alive = "soon"', "keep-alive: 'soon' is no length of time"),
        ("api-key = [true]", "api-key must be a list of texts"),
        ("max-model-len = 1\nctx-size = 1", r"config\.toml:2: ctx-size was set in line 1 already"),
        ("port = 1\nport = 2", "is not TOML"),
        ("max-queue = [", "is not TOML"),
        ("a = " + "[" * 9999, "is not TOML"),
        ("# \udcff", "is not TOML"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(home: Path, text: str, words: str) -> None:
    (home / "config.toml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InvalidConfig, match=words):
        server()
    with pytest.raises(InvalidConfig, match=words):
        corral("config", "show")


def test_help_and_completion_do_not_read_the_file(home: Path) -> None:
    (home / "config.toml").write_text("banana = 1")
    assert corral("serve", "--help").exit_code == 0
    assert serve.make_context("serve", [], resilient_parsing=True).params["max_queue"] == 512


def test_who_said_what(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home / "config.toml"
    path.write_text('# mine\nhost = "0.0.0.0:9000"\nmax-memory = "4G"\nmodels = ["smollm2"]\n')
    monkeypatch.setenv("OLLAMA_KEEP_ALIVE", "1h")
    monkeypatch.setenv("CORRAL_LENIENT", "1")
    found = told()
    assert list(found) == [
        p.opts[0].lstrip("-") for p in serve.params if p.name != "config" and isinstance(p, click.Parameter)
    ]
    assert found["models"] == {"name": "models", "value": ["smollm2"], "source": "file", "origin": f"{path}:4"}
    assert (found["port"]["value"], found["port"]["origin"]) == (9000, f"{path}:2")
    assert (found["keep-alive"]["value"], found["keep-alive"]["origin"]) == ("1h", "OLLAMA_KEEP_ALIVE")
    assert (found["lenient"]["value"], found["lenient"]["source"]) == (True, "environment")
    assert (found["max-queue"]["value"], found["max-queue"]["origin"]) == (512, "default")
    assert found["max-body-size"]["value"] == "32M"
    assert found["threads"]["value"] is None
    shown = corral("config", "show", "--origin").stdout
    assert f"# {path}:3" in next(line for line in shown.splitlines() if line.startswith('max-memory = "4G"'))
    assert str(home) in shown.partition("# folder of data: ")[2]


def test_what_is_shown_is_a_file_that_says_the_same(home: Path) -> None:
    (home / "config.toml").write_text('max-memory = "4G"\nhost = "::1"\norigins = ["https://a"]\nno-auth = true')
    shown = corral("config", "show", "--origin").stdout
    (home / "again.toml").write_text(shown)
    assert configs("--config", str(home / "again.toml")) == configs()


def test_secrets_are_not_shown(home: Path) -> None:
    (home / "config.toml").write_text(
        'api-key = ["hush-1"]\ndatabase-url = "postgresql://me:hush@2@db.example/corral"\n'
    )
    for flags in ([], ["--origin"], ["--json"]):
        shown = corral("config", "show", *flags).stdout
        assert "hush" not in shown
        assert "2@" not in shown
        assert "db.example/corral" in shown
    assert {"api_key", "database_url"} == SECRETS


def test_settings_that_no_server_could_have_are_said(home: Path) -> None:
    (home / "config.toml").write_text("max-step-ms = -1")
    with pytest.raises(InvalidConfig, match="max_step_ms"):
        corral("config", "show")


def test_keys_are_kept_where_the_server_keeps_them(home: Path) -> None:
    (home / "config.toml").write_text(f'database-url = "sqlite:///{home}/of-file.db"')
    assert corral("keys", "create", "me").exit_code == 0
    assert (home / "of-file.db").exists()
    assert not list(home.glob("corral*.db"))
    assert "me" in corral("keys", "list").stdout
    assert "me" not in corral("keys", "list", "--database-url", f"sqlite:///{home}/other.db").stdout
