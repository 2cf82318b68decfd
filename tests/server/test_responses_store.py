"""Stored responses: whose they are, how long they stay, and what goes on from them."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from corral.errors import InvalidRequest
from corral.server.database import Database
from corral.server.response_store import Limits, ResponseStore, StoredResponse
from tests.support.live_server import error_of
from tests.support.responses_api import responses_server


def connect(url: str, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60)


def ask(client: openai.OpenAI, given: Any, **fields: Any) -> Any:
    return client.responses.create(model="scripted", input=given, **fields)


def text_of(item: Any) -> str:
    return str(item.content[0].text)


def test_a_conversation_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "corral.db"
    with responses_server(path) as (url, _), connect(url) as client:
        first = ask(client, "one", instructions="Shout.")
        second = ask(client, "two", previous_response_id=first.id)
    with responses_server(path) as (url, manager), connect(url) as client:
        assert client.responses.retrieve(first.id).model_dump() == first.model_dump()
        third = ask(client, "three", previous_response_id=second.id, instructions="Whisper.")
        assert third.previous_response_id == second.id
        messages = [(m["role"], m["content"]) for m in manager.requests[0].messages or []]
    assert messages == [
        ("system", "Whisper."),
        *(("user", "one"), ("assistant", "ONE "), ("user", "two"), ("assistant", "TWO "), ("user", "three")),
    ]


def test_input_items_are_paged(tmp_path: Path) -> None:
    with responses_server(tmp_path / "corral.db") as (url, _), connect(url) as client:
        texts = [str(number) for number in range(5)]
        reply = ask(client, [{"role": "user", "content": text} for text in texts])
        pages = client.responses.input_items.list(reply.id, order="asc", limit=2)
        assert [text_of(item) for item in pages] == texts
        newest = client.responses.input_items.list(reply.id).data[0]
        assert text_of(newest) == "4"
        path = f"{url}/v1/responses/{reply.id}/input_items"
        for query in ("limit=0", "limit=x", "order=up", "after=msg_nobody", "before=1"):
            assert httpx.get(f"{path}?{query}").status_code == 400, query


def test_item_references(tmp_path: Path) -> None:
    with responses_server(tmp_path / "corral.db") as (url, manager), connect(url) as client:
        first = ask(client, "one")
        reference = {"type": "item_reference", "id": first.output[0].id}
        second = ask(client, [reference, {"role": "user", "content": "two"}])
        assert [m["content"] for m in manager.requests[1].messages or []] == ["ONE ", "two"]
        assert client.responses.input_items.list(second.id, order="asc").data[0].id == first.output[0].id
        with pytest.raises(openai.BadRequestError, match=r"Item with id 'msg_none' not found\."):
            ask(client, [{"type": "item_reference", "id": "msg_none"}])


def test_deleted_and_unknown_responses(tmp_path: Path) -> None:
    with responses_server(tmp_path / "corral.db") as (url, _), connect(url) as client:
        reply = ask(client, "one")
        client.responses.delete(reply.id)
        for verb in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
            with pytest.raises(openai.NotFoundError, match=f"Response with id '{reply.id}' not found."):
                verb(reply.id)
        with pytest.raises(
            openai.BadRequestError, match=f"Previous response with id '{reply.id}' not found."
        ) as caught:
            ask(client, "two", previous_response_id=reply.id)
        assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")
        kept = ask(client, "one")
        with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
            client.responses.cancel(kept.id)
        for query in ("stream=true", "starting_after=3"):
            assert httpx.get(f"{url}/v1/responses/{kept.id}?{query}").status_code == 400


def test_what_is_not_to_be_stored_is_not(tmp_path: Path) -> None:
    with responses_server(tmp_path / "corral.db") as (url, _), connect(url) as client:
        reply = ask(client, "secret", store=False)
        list(ask(client, "secret", store=False, stream=True))
        assert not list(tmp_path.iterdir())  # not even opened
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(reply.id)


def test_keys_do_not_see_one_anothers_responses(tmp_path: Path) -> None:
    with responses_server(tmp_path / "corral.db", api_keys=("key-a", "key-b")) as (url, _):
        mine, other = connect(url, "key-a"), connect(url, "key-b")
        reply = ask(mine, "mine")
        assert mine.responses.retrieve(reply.id).id == reply.id
        for verb in (other.responses.retrieve, other.responses.delete, other.responses.input_items.list):
            with pytest.raises(openai.NotFoundError):
                verb(reply.id)
        for fields in ({"previous_response_id": reply.id}, {"given": [{"id": reply.output[0].id}]}):
            with pytest.raises(openai.BadRequestError):
                ask(other, fields.pop("given", "more"), **fields)
        assert mine.responses.retrieve(reply.id).id == reply.id
        assert b"key-a" not in (tmp_path / "corral.db").read_bytes()


def test_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "corral.db").write_bytes(b"no database at all" * 100)
    with responses_server(tmp_path / "corral.db", no_auth=True) as (url, _):
        response = httpx.post(f"{url}/v1/responses", json={"model": "scripted", "input": "one"})
        assert (response.status_code, error_of(response)["code"]) == (500, "storage_error")
        assert str(tmp_path) not in response.text
        stream = httpx.post(f"{url}/v1/responses", json={"model": "scripted", "input": "one", "stream": True})
        assert stream.text.split("\n\n")[-2].startswith("event: error\n")
        unstored = {"model": "scripted", "input": "one", "store": False}
        assert httpx.post(f"{url}/v1/responses", json=unstored).status_code == 200


def stored(number: int, *, created_at: int = 1 << 40, previous: int | None = None, size: int = 0) -> StoredResponse:
    body = {
        "id": f"resp_{number}",
        "created_at": created_at,
        "previous_response_id": None if previous is None else f"resp_{previous}",
        "output": [{"id": f"msg_o{number}"}],
    }
    return StoredResponse(body, [{"id": f"msg_i{number}", "text": "x" * size}])


def run(tmp_path: Path, limits: Limits, *responses: StoredResponse) -> tuple[list[str], ResponseStore, Database]:
    """The ids that are left after all were saved."""

    async def main() -> list[str]:
        for response in responses:
            await store.save("", response)
        return [response.body["id"] for response in responses if await store.find("", response.body["id"])]

    database = Database(f"sqlite:///{tmp_path}/corral.db")
    store = ResponseStore(database, limits)
    return asyncio.run(main()), store, database


def test_the_oldest_go_when_there_are_too_many(tmp_path: Path) -> None:
    left, _, database = run(tmp_path, Limits(max_responses=3), *map(stored, range(7)))
    asyncio.run(database.close())
    assert left == ["resp_4", "resp_5", "resp_6"]
    with sqlite3.connect(tmp_path / "corral.db") as connection:
        assert connection.execute("SELECT COUNT(*) FROM response_items").fetchone() == (6,)


def test_the_oldest_go_when_they_are_too_large(tmp_path: Path) -> None:
    responses = [stored(number, size=1000) for number in range(5)]
    left, _, database = run(tmp_path, Limits(max_bytes=2600), *responses, stored(5, size=9000))
    asyncio.run(database.close())
    assert left == ["resp_5"]  # one alone may be larger than all may be together: its body's size has its own limit


def test_what_is_too_old_is_gone(tmp_path: Path) -> None:
    left, _, database = run(tmp_path, Limits(), stored(0, created_at=1), stored(1))
    asyncio.run(database.close())
    assert left == ["resp_1"]


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (Limits(max_chain=2), "conversation_too_long"),
        (Limits(max_chain_bytes=300), "conversation_too_long"),
        (Limits(max_responses=2), "previous_response_not_found"),
    ],
)
def test_a_chain_is_bounded_and_whole(tmp_path: Path, limits: Limits, code: str) -> None:
    chain = [stored(0), stored(1, previous=0), stored(2, previous=1)]
    _, store, database = run(tmp_path, limits, *chain)
    with pytest.raises(InvalidRequest) as caught:
        asyncio.run(store.history("", "resp_2"))
    asyncio.run(database.close())
    assert caught.value.code == code
