"""`corral keys`, on a database of its own and no server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from corral.cli.main import app
from corral.config import ServerConfig
from corral.errors import CorralError, InvalidConfig
from corral.server.keys.key import PREFIX
from corral.server.listen import check_exposure, resolve_host


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path))
    return tmp_path


def keys(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments], catch_exceptions=False)


def listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(keys("list", "--json").stdout)
    return found


def test_a_look_makes_no_database(home: Path) -> None:
    assert keys("list").stdout.split() == [
        "ID",
        "NAME",
        "ROLE",
        "STATUS",
        "CREATED",
        "EXPIRES",
        *["LAST", "USED", "MODELS"],
    ]
    assert keys("audit").exit_code == 0
    assert list(home.iterdir()) == []


def test_the_secret_alone_is_data() -> None:
    made = keys("create", "ci")
    assert made.stdout.strip() == made.stdout[:-1]
    assert made.stdout.startswith(PREFIX)
    assert "not shown again" in made.stderr
    rotated = keys("rotate", "ci", "--grace", "1h")
    assert rotated.stdout.startswith(PREFIX)
    assert rotated.stdout != made.stdout
    for result in (keys("list"), keys("list", "--json"), keys("audit"), keys("audit", "--json")):
        assert made.stdout.strip() not in result.output


def test_every_flag_arrives() -> None:
    flags = ["--requests-per-minute=1", "--requests-per-day=2", "--tokens-per-minute=3", "--tokens-per-day=4"]
    more = ["--max-concurrent=5", "--priority=2.5", "--cache-scope=team", "--model=a", "--model=b", "--role=viewer"]
    shown = json.loads(keys("create", "ci", *flags, *more, "--expires=2999-01-01", "--json").stdout)
    assert shown.pop("key").startswith(PREFIX)
    assert [shown] == listed()
    assert (
        shown
        | {
            "name": "ci",
            "role": "viewer",
            "status": "active",
            "models": ["a", "b"],
            "requests_per_minute": 1,
            "requests_per_day": 2,
            "tokens_per_minute": 3,
            "tokens_per_day": 4,
            "max_concurrent": 5,
            "priority": 2.5,
            "cache_scope": "team",
            "expires_at": 32472144000,
        }
        == shown
    )


def test_a_key_is_revoked_by_name_or_id() -> None:
    keys("create", "one")
    keys("create", "two")
    keys("revoke", "one")
    keys("revoke", listed()[1]["id"])
    assert {key["status"] for key in listed()} == {"revoked"}
    entries = json.loads(keys("audit", "--json").stdout)
    assert [entry["action"] for entry in entries] == ["key.revoke"] * 2 + ["key.create"] * 2
    assert entries[0]["actor"].startswith("user ")
    assert entries[0]["address"] == "local"


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", ""],
        ["create", "x", "--expires", "soon"],
        ["create", "x", "--expires", "2001-01-01"],
        ["create", "x", "--priority", "0"],
        ["create", "x", "--role", "root"],
        ["create", "x", "--tokens-per-day", "0"],
        ["rotate", "x", "--grace", "long"],
    ],
)
def test_wrong_usage(arguments: list[str], home: Path) -> None:
    assert keys(*arguments).exit_code == 2
    assert list(home.iterdir()) == []


def test_what_cannot_be_done_is_said() -> None:
    keys("create", "ci")
    for arguments in (["create", "ci"], ["revoke", "none"], ["rotate", "none"]):
        with pytest.raises(CorralError, match=r"there is (a|no) key"):
            keys(*arguments)
    keys("revoke", "ci")
    with pytest.raises(CorralError, match="there is no key"):
        keys("rotate", "ci")


def test_a_stored_key_lets_a_server_be_exposed() -> None:
    addresses = resolve_host("0.0.0.0")
    config = ServerConfig(host="0.0.0.0")
    with pytest.raises(InvalidConfig, match="corral keys create"):
        check_exposure(config, addresses)
    keys("create", "ci")
    check_exposure(config, addresses)


def test_the_databases_url_may_hold_a_password_and_is_never_shown() -> None:
    assert "hush" not in repr(ServerConfig(database_url="postgresql://me:hush@here/db"))
    with pytest.raises(InvalidConfig) as caught:
        keys("list", "--database-url", "mysql://me:hush@here/db")
    assert "hush" not in str(caught.value)
