"""Usage at a live server: at /admin/usage and /usage, on the command line, and of batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from click.testing import CliRunner

from corral.cli.main import app
from corral.server.caller import Quotas, Role
from corral.server.database import Database
from corral.server.keys.audit import Actor
from corral.server.keys.key import NewKey
from corral.server.keys.store import KeyStore
from tests.support.live_server import LiveServer, chat_body, error_of, live_server

ROLES = {"root": Role.ADMIN, "=user": Role.USER, "viewer": Role.VIEWER, "batcher": Role.USER}


@dataclass
class Counted:
    server: LiveServer
    url: str
    secrets: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, who: str = "root", **params: Any) -> httpx.Response:
        headers = {"x-api-key": self.secrets[who]}
        return httpx.get(self.server.url + path, params=params, headers=headers, timeout=60)

    def lines(self, path: str = "/admin/usage", who: str = "root", **params: Any) -> list[dict[str, Any]]:
        payload = self.get(path, who, **params).json()
        assert payload["object"] == "list"
        data: list[dict[str, Any]] = payload["data"]
        return data


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path))
    url = f"sqlite:///{tmp_path / 'usage.db'}"
    secrets = {}
    with Database(url).for_now() as database:
        for name, role in ROLES.items():
            quotas = Quotas(requests_per_day=100, tokens_per_minute=10_000 if role is Role.USER else None)
            _, secrets[name] = KeyStore(database).create(NewKey(name, role, quotas=quotas), Actor("tester"))
    with live_server(database_url=url) as server:
        yield Counted(server, url, secrets)


def ask(counted: Counted, key: str, path: str = "/v1/chat/completions", **fields: Any) -> httpx.Response:
    headers = {"x-api-key": counted.secrets[key]}
    return httpx.post(counted.server.url + path, json=fields, headers=headers, timeout=60)


def test_what_the_answers_say_is_what_is_booked(counted: Counted) -> None:
    said = [ask(counted, "=user", **chat_body(text)).json()["usage"] for text in ("one", "one two", "one two three")]
    with httpx.stream(
        "POST",
        f"{counted.server.base_url}/chat/completions",
        json=chat_body("a b c d", stream=True, stream_options={"include_usage": True}),
        headers={"x-api-key": counted.secrets["=user"]},
    ) as stream:
        last = [line for line in stream.iter_lines() if line.startswith("data: {")][-1]
        said.append(json.loads(last.removeprefix("data: "))["usage"])
    ask(counted, "=user", "/v1/embeddings", model="scripted", input="five six")
    ask(counted, "=user", "/tokenize", model="scripted", prompt="seven")
    assert ask(counted, "=user", **chat_body("too long")).status_code == 400
    assert ask(counted, "=user", **chat_body(temperature=99)).status_code == 400
    assert ask(counted, "=user", **chat_body() | {"model": "nobody"}).status_code == 404

    [line] = counted.lines(by="key,model", model="scripted")
    assert (line["key_name"], line["model"]) == ("=user", "scripted")
    assert line["prompt_tokens"] == sum(each["prompt_tokens"] for each in said) + 2
    assert line["completion_tokens"] == sum(each["completion_tokens"] for each in said)
    assert line["total_tokens"] == line["prompt_tokens"] + line["completion_tokens"]
    assert (line["requests"], line["errors"], line["answered"]) == (7, 1, 4)
    assert 0 < line["ttft_mean_s"] <= line["latency_max_s"]

    [own] = counted.lines("/usage", "=user", by="key")
    assert (own["requests"], own["refusals"]) == (7, 2)
    assert counted.lines("/usage", "viewer") == []


def test_a_stream_that_breaks_off_is_an_error(counted: Counted) -> None:
    headers = {"x-api-key": counted.secrets["=user"], "x-request-timeout": "0.2"}
    url = f"{counted.server.base_url}/chat/completions"
    with httpx.stream("POST", url, json=chat_body("hold", stream=True), headers=headers, timeout=60) as stream:
        assert stream.status_code == 200
        assert "deadline_exceeded" in stream.read().decode()
    [line] = counted.lines(key="=user")
    assert (line["requests"], line["errors"], line["completion_tokens"]) == (1, 1, 1)


def test_only_admins_see_all_of_it(counted: Counted) -> None:
    ask(counted, "=user", **chat_body())
    for key in ("=user", "viewer"):
        assert counted.get("/admin/usage", key).status_code == 403
    assert error_of(counted.get("/usage", "=user", key="root"))["param"] == "key"


@pytest.mark.parametrize(
    ("params", "param"), [({"days": "0"}, "days"), ({"days": "x"}, "days"), ({"by": "month"}, "by"),
                          ({"format": "xml"}, "format"), ({"wat": "1"}, "wat")]
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(counted: Counted, params: dict[str, str], param: str) -> None:
    response = counted.get("/admin/usage", **params)
    assert (response.status_code, error_of(response)["param"]) == (400, param)


def test_the_command_line_says_the_same(counted: Counted) -> None:
    ask(counted, "=user", **chat_body("one two"))
    over_http = counted.get("/admin/usage", by="day,key", format="csv")
    assert over_http.headers["content-type"] == "text/csv; charset=utf-8"
    assert "'=user" in over_http.text

    def run(*args: str) -> str:
        result = CliRunner().invoke(app, ["usage", "--database-url", counted.url, *args])
        assert result.exit_code == 0, result.output
        return result.output

    assert run("--by", "day", "--by", "key", "--csv") == over_http.text.replace("\r\n", "\n")
    assert json.loads(run("--json", "--key", "=user"))["data"] == counted.lines(key="=user")
    assert "=user" in run()
    assert "scripted" in run("--by", "model", "--days", "1")
    assert json.loads(run("--json", "--model", "other"))["data"] == []
    assert CliRunner().invoke(app, ["usage", "--json", "--csv"]).exit_code == 2


def test_no_database_is_no_usage(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'none.db'}"
    result = CliRunner().invoke(app, ["usage", "--database-url", url])
    assert result.exit_code == 0
    assert result.output.startswith("KEY")
    assert not (tmp_path / "none.db").exists()


def test_batches_are_on_their_keys_account(counted: Counted) -> None:
    lines = [
        {"custom_id": f"c{n}", "method": "POST", "url": "/v1/chat/completions", "body": chat_body("a b c")}
        for n in range(3)
    ]
    with openai.OpenAI(base_url=counted.server.base_url, api_key=counted.secrets["batcher"]) as client:
        text = "\n".join(map(json.dumps, lines)).encode()
        file = client.files.create(file=("in.jsonl", text), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        while batch.status not in ("completed", "failed", "expired"):
            batch = client.batches.retrieve(batch.id)
    [line] = counted.lines("/usage", "batcher")
    assert (line["requests"], line["prompt_tokens"], line["completion_tokens"]) == (3, 9, 9)
    assert batch.status == "completed"


def test_the_last_seconds_are_written_at_the_end(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'corral.db'}"
    with live_server(database_url=url) as server:
        assert httpx.post(f"{server.base_url}/chat/completions", json=chat_body("a b")).status_code == 200
    result = CliRunner().invoke(app, ["usage", "--database-url", url, "--json"])
    [line] = json.loads(result.output)["data"]
    assert (line["key_id"], line["requests"], line["total_tokens"]) == ("", 1, 4)
