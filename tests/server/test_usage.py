"""Usage on both databases: what is added up, flushed, kept and told, and what a restart knows of the day."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator

import pytest

from corral.errors import InvalidRequest, QuotaExceeded, StorageError
from corral.request import Delta, EmbedRequest, EmbedResult, FinishReason, Request, RequestOutput, Usage
from corral.server.caller import Caller, Quotas
from corral.server.database import Database
from corral.server.exchange import Exchange
from corral.server.quotas import QuotaBook
from corral.server.usage.recorder import UsageRecorder
from corral.server.usage.report import csv_of, payload_of, question_of
from corral.server.usage.store import Line, UsageStore
from corral.server.usage.totals import Cell, Totals
from corral.server.windows import DAY_S, day_name
from tests.server.databases import database_url, postgres

__all__ = ["database_url", "postgres"]

NOON = 20_000 * DAY_S + DAY_S / 2
TODAY = day_name(20_000)
KEY = Caller(key_id="key_1", name="first", owner="key_1")


class Stage:
    """A server's part in usage; another one on the same database is another server, or the same after a restart."""

    def __init__(self, database: Database, retention_days: int = 0) -> None:
        self.now = NOON
        self.store = UsageStore(database)
        self.book = QuotaBook(lambda: self.now, lambda: self.now)
        self.recorder = UsageRecorder(self.store, self.book, retention_days, lambda: self.now)

    def use(self, tokens: tuple[int, int, int] = (0, 0, 0), caller: Caller = KEY, **fields: object) -> None:
        """One request, with its tokens of prompt, cache and answer."""
        exchange = Exchange(method="POST", caller=caller, observers=[self.recorder], status=200)
        exchange.model, exchange.is_counted = "m", True
        for name, value in fields.items():
            setattr(exchange, name, value)
        prompt, cached, completion = tokens
        generation = exchange.begin(Request("r", prompt="x"))
        exchange.saw(generation, RequestOutput("r", usage=Usage(prompt)))
        for number in range(1, completion + 1):
            delta = Delta(0, "x", (1,), FinishReason.STOP if number == completion else None)
            exchange.saw(generation, RequestOutput("r", (delta,), Usage(prompt, number, cached)))
        self.recorder.on_end(exchange)

    def lines(self, *by: str, days: int = 30, **more: object) -> list[Line]:
        return self.store.read(question_of(self.now, days, by, **more))  # type: ignore[arg-type]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    yield made
    await made.close()


async def test_it_adds_up_to_the_token(database: Database) -> None:
    stage = Stage(database)
    for number in range(5):
        stage.use((10, 4, number))
    stage.use((7, 0, 1), model="other", status=500)
    stage.use(caller=Caller(), status=404, is_counted=False, model="")
    stage.use(caller=Caller(), status=401, is_counted=False, model="")
    await stage.recorder.flush()
    stage.use((1, 0, 1))
    await stage.recorder.flush()
    await stage.recorder.flush()
    mine, other, refused = sorted(stage.lines("key", "model"), key=lambda line: -line.totals.requests)
    assert (mine.key_id, mine.key_name, mine.model) == ("key_1", "first", "m")
    totals = mine.totals
    assert (totals.requests, totals.prompt_tokens, totals.cached_tokens, totals.completion_tokens) == (6, 51, 16, 11)
    assert (totals.errors, totals.refusals, totals.answered) == (0, 0, 5)
    assert 0 < totals.latency_max_s < totals.latency_s
    assert totals.ttft_s <= totals.latency_s
    assert (other.totals.errors, other.totals.prompt_tokens) == (1, 7)
    assert (refused.key_id, refused.totals.requests, refused.totals.refusals) == ("", 0, 1)
    [day] = stage.lines("day")
    assert (day.day, day.totals.requests, day.totals.prompt_tokens) == (TODAY, 7, 58)


async def test_tokens_are_known_before_the_answer_ends(database: Database) -> None:
    stage = Stage(database)
    exchange = Exchange(caller=KEY, observers=[stage.recorder], model="m")
    generation = exchange.begin(Request("r", prompt="x"))
    exchange.saw(generation, RequestOutput("r", (Delta(0, "x", (1,)),), Usage(5, 1)))
    await stage.recorder.flush()
    # The next worker takes the request anew; what it says then is no use.
    exchange.saw(generation, RequestOutput("r", usage=Usage(5)))
    exchange.saw(generation, RequestOutput("r", (Delta(0, "x", (1,)),), Usage(5, 2)))
    stage.now += DAY_S
    exchange.saw(generation, RequestOutput("r", (Delta(0, "x", (1,)),), Usage(5, 4)))
    await stage.recorder.flush()
    first, second = stage.lines("day")
    assert (first.totals.prompt_tokens, first.totals.completion_tokens, first.totals.requests) == (5, 2, 0)
    assert (second.day, second.totals.prompt_tokens, second.totals.completion_tokens) == (day_name(20_001), 0, 2)


async def test_embeddings_are_prompts(database: Database) -> None:
    stage = Stage(database)
    exchange = Exchange(caller=KEY, observers=[stage.recorder], model="m")
    for _ in range(2):
        exchange.saw(exchange.begin(EmbedRequest("e", "m", ["x"])), EmbedResult("e", [b""], 9))
    await stage.recorder.flush()
    assert stage.lines("key")[0].totals.prompt_tokens == 18


async def test_a_day_is_remembered_by_the_next_server(database: Database) -> None:
    limited = Caller(key_id="key_1", name="first", quotas=Quotas(tokens_per_day=100, requests_per_day=3))
    first = Stage(database)
    first.use((30, 0, 10), caller=limited)
    first.use((0, 0, 0), caller=limited)
    await first.recorder.start()
    await first.recorder.close()
    second = Stage(database)
    await second.recorder.flush()
    exchange = Exchange(caller=limited)
    with second.book.admit(exchange), pytest.raises(QuotaExceeded, match="used 40, promised 0, requested 61"):
        second.book.promise(exchange, 61)
    exchange = Exchange(caller=limited)
    with second.book.admit(exchange):
        second.book.promise(exchange, 60).close()
        with pytest.raises(QuotaExceeded, match="requests per day"), second.book.admit(Exchange(caller=limited)):
            pass
    second.now += DAY_S
    with second.book.admit(Exchange(caller=limited)):
        second.book.promise(exchange, 100).close()


async def test_what_a_server_has_written_is_not_counted_twice(database: Database) -> None:
    limited = Caller(key_id="key_1", name="first", quotas=Quotas(tokens_per_day=100))
    here, there = Stage(database), Stage(database)
    for stage, tokens in ((here, 30), (there, 20), (here, 10)):
        exchange = Exchange(caller=limited, observers=[stage.recorder], model="m")
        with stage.book.admit(exchange):
            stage.book.promise(exchange, tokens).spend(tokens)
            exchange.saw(exchange.begin(EmbedRequest("e", "m", ["x"])), EmbedResult("e", [b""], tokens))
        stage.recorder.on_end(exchange)
        await stage.recorder.flush()
    for stage in (here, there):
        await stage.recorder.flush()
        _, standing = stage.book.standing(limited)
        assert standing is not None
        assert standing.remaining == 40


async def test_a_write_that_fails_is_made_up_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(database)
    stage.use((10, 0, 1))
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise StorageError("locked", "busy")

        patch.setattr(database, "run_now", fail)
        with pytest.raises(StorageError):
            await stage.recorder.flush()
    stage.use((10, 0, 2))
    await stage.recorder.flush()
    totals = stage.lines("key")[0].totals
    assert (totals.requests, totals.prompt_tokens, totals.completion_tokens) == (2, 20, 3)


async def test_what_is_too_old_goes(database: Database) -> None:
    stage = Stage(database, retention_days=2)
    for _ in range(4):
        stage.use((1, 0, 0))
        await stage.recorder.flush()
        stage.now += DAY_S
    stage.now -= DAY_S
    assert [line.day for line in stage.lines("day")] == [day_name(20_002), day_name(20_003)]
    keeps_all = Stage(database)
    keeps_all.now += 900 * DAY_S
    await keeps_all.recorder.flush()
    assert len(keeps_all.lines("day", days=1000)) == 2


async def test_questions(database: Database) -> None:
    stage = Stage(database)
    for name, model in (("a", "m"), ("b", "m"), ("b", "n\0")):
        stage.use((1, 0, 0), caller=Caller(key_id=f"key_{name}", name=name), model=model)
    await stage.recorder.flush()
    assert [line.model for line in stage.lines("model")] == ["m", "n?"]
    assert [line.key_id for line in stage.lines("key", keys=["key_a"])] == ["key_a"]
    assert [line.key_id for line in stage.lines("key", keys=["a", "b"])] == ["key_a", "key_b"]
    assert [line.totals.requests for line in stage.lines("day", models=["m"])] == [2]
    assert stage.lines("key", key_id="a") == [], "a name is no id: others may have the same"
    assert len(stage.lines("key", key_id="key_b")) == 1
    assert stage.lines("key", days=1)[0].totals.requests == 1
    stage.now += DAY_S
    assert stage.lines("key", days=1) == []


async def test_no_file_is_made_for_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("empty") / "corral.db"
    database = Database(f"sqlite:///{path}")
    stage = Stage(database)
    await stage.recorder.start()
    await stage.recorder.close()
    await database.close()
    assert not path.exists()


def test_csv_holds_no_formulas() -> None:
    question = question_of(NOON, 7, ("key", "model"))
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", 'a "quoted", name', "plain=1"]
    totals = Totals(requests=2, latency_s=3.0, prompt_tokens=5, completion_tokens=6)
    lines = [Line(key_id=f"key_{n}", key_name=name, model="-m", totals=totals) for n, name in enumerate(names)]
    text = csv_of(question, lines)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["key_name"] for row in rows] == [*(f"'{name}" for name in names[:7]), *names[7:]]
    assert {row["model"] for row in rows} == {"'-m"}
    first = rows[0]
    assert (first["requests"], first["total_tokens"], first["latency_mean_s"]) == ("2", "11", "1.5")
    assert first["ttft_mean_s"] == ""


def test_payloads_name_what_was_asked() -> None:
    question = question_of(NOON, 7, ("day", "model", "day"))
    payload = payload_of(question, [Line(day=TODAY, model="m")])
    assert (payload["from"], payload["to"], payload["by"]) == (day_name(19_994), TODAY, ["day", "model"])
    assert list(payload["data"][0])[:3] == ["day", "model", "requests"]


@pytest.mark.parametrize(
    ("days", "by", "param"), [(0, ("key",), "days"), (40_000, ("key",), "days"), (1, ("x",), "by")]
)
def test_questions_that_cannot_be_asked(days: int, by: tuple[str, ...], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        question_of(NOON, days, by)
    assert caught.value.param == param


def test_cells_are_ordered() -> None:
    """Servers that write the same rows take their locks in one order."""
    assert sorted([Cell("b", "", ""), Cell("a", "z", ""), Cell("a", "", "m")])[0] == Cell("a", "", "m")
