"""Stored keys at a live server: real clients with good, bad, expired, revoked and viewers' keys."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest
from sqlalchemy import text

from corral.server.caller import Quotas, Role
from corral.server.database import Database
from corral.server.keys.audit import Actor, AuditLog
from corral.server.keys.key import NewKey, StoredKey
from corral.server.keys.store import KeyStore
from corral.store.local_model import LocalModel
from tests.support.live_server import LiveServer, chat_body, error_of, live_server

ME = Actor("user tester")
OTHER = LocalModel("other", Path("other.gguf"))
SCRIPTED = LocalModel("scripted", Path("scripted.gguf"))


@dataclass
class Guarded:
    """A server of two models, and its database."""

    server: LiveServer
    store: KeyStore
    secrets: dict[str, str]

    def make(self, name: str, **fields: Any) -> tuple[StoredKey, str]:
        key, secret = self.store.create(NewKey(name, **fields), ME)
        self.secrets[name] = secret
        return key, secret

    def expire(self, name: str) -> None:
        """As time would."""
        sql = text("UPDATE api_keys SET expires_at = 1 WHERE name = :name")
        self.store.database.run_now(lambda c: c.execute(sql, {"name": name}))

    def ask(self, method: str, path: str, key: str = "admin", **more: Any) -> httpx.Response:
        headers = {"X-Api-Key": self.secrets.get(key, key), **more.pop("headers", {})}
        return httpx.request(method, self.server.url + path, headers=headers, timeout=60, **more)

    def openai(self, key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.server.base_url, api_key=self.secrets.get(key, key), max_retries=0)

    def wait_for(self, key: str, status: int) -> httpx.Response:
        """The answer to a list of models as soon as it has the status; the server looks at the database by itself."""
        deadline = time.monotonic() + 60
        while (response := self.ask("GET", "/v1/models", key)).status_code != status:
            assert time.monotonic() < deadline, response.text
        return response


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    url = f"sqlite:///{tmp_path_factory.mktemp('keys') / 'corral.db'}"
    with Database(url).for_now() as database:
        guarded = Guarded.__new__(Guarded)
        guarded.store, guarded.secrets = KeyStore(database), {}
        for role in Role:
            guarded.make(str(role), role=role)
        guarded.make("narrow", models=("Other:latest",))
        guarded.make("expired")
        guarded.expire("expired")
        guarded.make("revoked")
        guarded.store.revoke("revoked", ME)
        with live_server(SCRIPTED, OTHER, database_url=url) as server:
            guarded.server = server
            yield guarded


def test_openais_client(guarded: Guarded) -> None:
    for good in ("admin", "user"):
        with guarded.openai(good) as client:
            answer = client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "hi"}])
            assert answer.choices[0].finish_reason == "stop"
    with guarded.openai("viewer") as client:
        assert {model.id for model in client.models.list()} == {"scripted", "other"}
        with pytest.raises(openai.PermissionDeniedError, match=r"role is viewer.*needs user"):
            client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "hi"}])
    for bad, reason in (("expired", "has expired"), ("revoked", "has been revoked"), ("sk-corral-x", "is not valid")):
        with guarded.openai(bad) as client, pytest.raises(openai.AuthenticationError, match=reason):
            client.models.list()


def test_anthropics_client(guarded: Guarded) -> None:
    def ask(key: str) -> Any:
        with anthropic.Anthropic(base_url=guarded.server.url, api_key=guarded.secrets[key], max_retries=0) as client:
            return client.messages.create(model="other", max_tokens=5, messages=[{"role": "user", "content": "hi"}])

    assert ask("user").type == "message"
    with pytest.raises(anthropic.PermissionDeniedError) as denied:
        ask("viewer")
    assert denied.value.body["error"]["type"] == "permission_error"  # type: ignore[index]
    with pytest.raises(anthropic.AuthenticationError, match="has expired"):
        ask("expired")


def test_ollamas_client(guarded: Guarded) -> None:
    with contextlib.ExitStack() as held:

        def client(key: str) -> ollama.Client:
            headers = {"Authorization": f"Bearer {guarded.secrets[key]}"}
            made = ollama.Client(guarded.server.url, headers=headers)
            held.callback(made._client.close)
            return made

        assert client("user").chat("other", [{"role": "user", "content": "hi"}]).done
        assert len(client("viewer").list().models) == 2
        with pytest.raises(ollama.ResponseError, match="role is user; POST /api/pull needs admin") as caught:
            client("user").pull("x")
        assert caught.value.status_code == 403
        with pytest.raises(ollama.ResponseError, match="to unload a model needs admin") as caught:
            client("user").generate("other", keep_alive=0)
        assert caught.value.status_code == 403
        with pytest.raises(ollama.ResponseError, match="has been revoked") as caught:
            client("revoked").list()
        assert caught.value.status_code == 401


def test_how_long_a_model_stays_is_the_admins(guarded: Guarded) -> None:
    body = {"model": "other", "prompt": "hi", "stream": False, "keep_alive": 0}
    assert guarded.ask("POST", "/api/generate", "user", json=body).headers["x-corral-ignored"] == "keep_alive"
    assert "x-corral-ignored" not in guarded.ask("POST", "/api/generate", "admin", json=body).headers


def test_a_key_of_some_models_knows_no_others(guarded: Guarded) -> None:
    ids = {model["id"] for model in guarded.ask("GET", "/v1/models", "narrow").json()["data"]}
    assert ids == {"other"}
    headers = {"anthropic-version": "2023-06-01"}
    assert [m["id"] for m in guarded.ask("GET", "/v1/models", "narrow", headers=headers).json()["data"]] == ["other"]
    for path in ("/api/tags", "/api/ps"):
        names = [model["name"] for model in guarded.ask("GET", path, "narrow").json()["models"]]
        assert names == ["other:latest"]
    assert guarded.ask("POST", "/v1/chat/completions", "narrow", json=chat_body(model="other")).status_code == 200
    messages = {"messages": [{"role": "user", "content": "hi"}]}
    absent = [
        ("GET", "/v1/models/scripted", None),
        ("POST", "/v1/chat/completions", messages),
        ("POST", "/v1/completions", {"prompt": "hi"}),
        ("POST", "/v1/responses", {"input": "hi"}),
        ("POST", "/v1/embeddings", {"input": "hi"}),
        ("POST", "/v1/messages", {**messages, "max_tokens": 5}),
        ("POST", "/v1/messages/count_tokens", messages),
        ("POST", "/v1/score", {"text_1": "a", "text_2": "b"}),
        ("POST", "/v1/rerank", {"query": "a", "documents": ["b"]}),
        ("POST", "/tokenize", {"prompt": "hi"}),
        ("POST", "/detokenize", {"tokens": [1]}),
        ("POST", "/v1/chat/completions/render", messages),
        ("POST", "/v1/completions/render", {"prompt": "hi"}),
        ("POST", "/api/show", {}),
        ("POST", "/api/generate", {"prompt": "hi"}),
        ("POST", "/api/generate", {}),
        ("POST", "/api/generate", {"keep_alive": 0}),
        ("POST", "/api/chat", messages),
        ("POST", "/api/embed", {"input": "hi"}),
        ("POST", "/api/embeddings", {"prompt": "hi"}),
    ]
    for method, path, body in absent:
        json = None if body is None else {"model": "scripted", **body}
        response = guarded.ask(method, path, "narrow", json=json)
        assert (response.status_code, "not found" in response.text) == (404, True), (path, response.text)


def test_what_has_no_route_is_absent_to_all(guarded: Guarded) -> None:
    for key in ("user", "viewer", "admin"):
        assert guarded.ask("GET", "/none", key).status_code == 404
    assert guarded.ask("GET", "/v1/chat/completions", "user").status_code == 405
    assert guarded.ask("GET", "/v1/chat/completions", "viewer").status_code == 403
    assert guarded.ask("GET", "/admin/keys/", "user").status_code == 404
    assert guarded.ask("GET", "/ADMIN/keys", "user").status_code == 404


def test_admins_make_rotate_and_revoke_keys(guarded: Guarded) -> None:
    body = {"name": "made", "role": "viewer", "expires": "30d", "models": ["other"], "tokens_per_day": 7}
    made = guarded.ask("POST", "/admin/keys", json=body)
    assert made.status_code == 200
    assert made.headers["cache-control"] == "no-store"
    key = made.json()
    assert (key["role"], key["models"], key["tokens_per_day"], key["status"]) == ("viewer", ["other"], 7, "active")
    assert guarded.ask("GET", "/v1/models", key["key"]).status_code == 200  # at once, without a wait
    listed = guarded.ask("GET", "/admin/keys")
    assert key["id"] in {found["id"] for found in listed.json()["data"]}
    assert key["key"] not in listed.text
    assert "digest" not in listed.text

    rotated = guarded.ask("POST", f"/admin/keys/{key['id']}/rotate", json={"grace": "1h"}).json()
    assert rotated["id"] == key["id"]
    for secret in (key["key"], rotated["key"]):
        assert guarded.ask("GET", "/v1/models", secret).status_code == 200
    third = guarded.ask("POST", f"/admin/keys/{key['id']}/rotate").json()
    assert guarded.ask("GET", "/v1/models", rotated["key"]).status_code == 401
    assert guarded.ask("GET", "/v1/models", third["key"]).status_code == 200

    assert guarded.ask("DELETE", f"/admin/keys/{key['id']}").json()["status"] == "revoked"
    assert "has been revoked" in guarded.ask("GET", "/v1/models", third["key"]).text
    assert guarded.ask("DELETE", "/admin/keys/none").status_code == 404
    assert guarded.ask("POST", "/admin/keys/none/rotate").status_code == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": "x", "role": "root"}, "role"),
        ({"name": "x", "expires": "soon"}, "expires"),
        ({"name": "x", "expires": 1}, "expires"),
        ({"name": "x", "expires": 10**40}, "expires"),
        ({"name": "x", "requests_per_day": -1}, "requests_per_day"),
        ({"name": "x", "priority": 0}, "priority"),
        ({"name": "x", "models": []}, "models"),
        ({"name": "x", "key": "mine"}, "key"),
        ({"name": "admin"}, "name"),
    ],
)
def test_keys_that_cannot_be_made(guarded: Guarded, body: dict[str, Any], param: str) -> None:
    response = guarded.ask("POST", "/admin/keys", json=body)
    assert (response.status_code, error_of(response)["param"]) == (400, param)


def test_the_log_tells_who_did_what_and_from_where(guarded: Guarded) -> None:
    guarded.ask("POST", "/api/copy", json={"source": "nothing", "destination": "b"})
    guarded.ask("POST", "/api/pull", "user", json={"model": "x"})
    guarded.ask("POST", "/api/pull", "wrong", json={"model": "x"})
    guarded.ask("POST", "/api/generate", json={"model": "other"})
    response = guarded.ask("GET", "/admin/audit?limit=3")
    assert response.json()["has_more"]
    found = [(e["action"], e["actor"], e["target"], e["outcome"]) for e in response.json()["data"]]
    assert found == [
        ("model.load", "admin", "other", "done"),
        ("model.pull", "user", "", "403"),
        ("model.copy", "admin", "nothing -> b", "404"),
    ]
    assert {entry["address"] for entry in response.json()["data"]} == {"127.0.0.1"}
    older = guarded.ask("GET", f"/admin/audit?limit=1000&before={response.json()['data'][-1]['number']}").json()
    assert {"key.create", "key.revoke"} <= {entry["action"] for entry in older["data"]}
    assert guarded.ask("GET", "/admin/audit?limit=0").status_code == 400
    for secret in guarded.secrets.values():
        assert secret not in str(AuditLog(guarded.store.database).page(limit=1000))


def test_what_another_process_changes_is_seen(guarded: Guarded) -> None:
    guarded.make("late", quotas=Quotas(max_concurrent=2))
    guarded.wait_for("late", 200)
    guarded.store.revoke("late", ME)
    assert "has been revoked" in guarded.wait_for("late", 401).text


def test_the_last_use_is_noted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'corral.db'}"
    with Database(url).for_now() as database:
        store = KeyStore(database)
        _, secret = store.create(NewKey("ci"), ME)
        with live_server(database_url=url) as server:
            assert httpx.get(f"{server.base_url}/models", headers={"X-Api-Key": secret}).status_code == 200
        [key] = store.all()
        assert key.last_used_at is not None


def test_the_first_key_closes_an_open_server_and_no_revocation_opens_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'corral.db'}"
    with Database(url).for_now() as database, live_server(database_url=url) as server:
        store = KeyStore(database)
        models = f"{server.base_url}/models"
        assert httpx.get(models).status_code == 200
        assert httpx.get(models, headers={"Host": "evil.example"}).status_code == 403
        key = httpx.post(f"{server.url}/admin/keys", json={"name": "first", "role": "admin"}).json()
        assert httpx.get(models).status_code == 401
        headers = {"X-Api-Key": key["key"]}
        assert httpx.get(models, headers={**headers, "Host": "corral.example.com"}).status_code == 200
        assert httpx.delete(f"{server.url}/admin/keys/{key['id']}", headers=headers).status_code == 200
        assert httpx.get(models).status_code == 401
        assert [found.status(time.time()) for found in store.all()] == ["revoked"]


def test_no_auth_asks_for_no_stored_key(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'corral.db'}"
    with Database(url).for_now() as database:
        KeyStore(database).create(NewKey("ci"), ME)
    with live_server(database_url=url, no_auth=True) as server:
        assert httpx.get(f"{server.base_url}/models").status_code == 200


def test_keys_that_cannot_be_read_open_nothing(tmp_path: Path) -> None:
    path = tmp_path / "corral.db"
    path.write_bytes(b"this is no database" * 100)
    with live_server(database_url=f"sqlite:///{path}", api_keys=("static",)) as server:
        assert httpx.get(f"{server.base_url}/models", headers={"X-Api-Key": "static"}).status_code == 200
        for headers in ({"X-Api-Key": "other"}, {}):
            response = httpx.get(f"{server.base_url}/models", headers=headers)
            assert (response.status_code, error_of(response)["code"]) == (500, "storage_error")
    with live_server(database_url=f"sqlite:///{path}") as server:  # there may have been keys
        assert httpx.get(f"{server.base_url}/models").status_code == 500
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_reload_takes_new_static_keys(tmp_path: Path) -> None:
    with live_server(database_url=f"sqlite:///{tmp_path / 'corral.db'}", api_keys=("old",)) as server:
        keys = server.app.state.keys
        keys.set_static(["new"])
        asyncio.run_coroutine_threadsafe(keys.reload(), server.loop).result(60)
        for key, status in (("old", 401), ("new", 200)):
            assert httpx.get(f"{server.base_url}/models", headers={"X-Api-Key": key}).status_code == status
