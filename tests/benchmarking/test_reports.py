"""The rows of the benchmark's pages, from made-up measurements."""

from __future__ import annotations

from benchmarks import engine_report, server_report
from benchmarks.cells import Cell, short_cells
from benchmarks.engine_run import CORRAL, ONE_THREAD, OPENVINO, Run, Turn
from benchmarks.machine import Limits
from benchmarks.server_run import ServerRun, ServerTurn, summarize
from benchmarks.stream_client import Answer
from benchmarks.work import MatmulWork
from benchmarks.workloads import Workload

CELLS = [*short_cells([8], prefill=512, prompt=16, answer=4), Cell(16, 1500, 4)]
WORK = MatmulWork(body=1_000_000_000, head=0, num_bytes=1_000_000_000)
ASKED = Workload("two clients", 2, 10, 3)


def engine_run(foreign: float = 0.0) -> Run:
    """Three repeats; the long cell in the first only, OpenVINO refused."""
    run = Run("m.gguf", "2026-01-01 00:00 UTC", {"CPU": "one"}, CELLS, WORK, repeats=3)
    limits = Limits(40.0, 1000.0)

    def add(contender: str, repeat: int, speeds: dict[str, float]) -> None:
        run.turns.append(Turn(contender, repeat, speeds, foreign, limits, limits))

    for repeat in range(3):
        add(CORRAL, repeat, {"prefill 512": 200.0 + repeat, "decode 1": 30.0, "decode 8": 160.0})
        add(ONE_THREAD, repeat, {"prefill 512": 100.0})
        add("llama.cpp, default flags", repeat, {"prefill 512": 100.0, "decode 1": 30.0, "decode 8": 40.0})
        add("llama.cpp, repack=0 fa=1", repeat, {"prefill 512": 150.0})
    add(CORRAL, 0, {"decode 16 at 1500": 80.0})
    run.failures[OPENVINO] = "unsupported type Q5_0"
    return run


def row(page: str, start: str) -> list[str]:
    """The columns of the first table row that begins so."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {start} |"))
    return [column.strip() for column in line.strip("|").split("|")]


def test_engines_stand_beside_each_other_with_ratios() -> None:
    page = engine_report.markdown(engine_run())
    assert row(page, "prefill 512") == [
        "prefill 512",
        "201.0 (200.0-202.0, n=3)",
        "100.0 (100.0-100.0, n=3)",
        "2.01 (2.00-2.02)",
        "150.0 (150.0-150.0, n=3)",
        "repack=0 fa=1",
        "1.34 (1.33-1.35)",
        "not run",
        "-",
    ]
    assert row(page, "decode 8")[4:6] == ["40.0 (40.0-40.0, n=3)", "default flags"]
    assert row(page, "decode 16 at 1500")[1:4] == ["80.0 (80.0-80.0, n=1)", "not run", "-"]
    assert "OpenVINO GenAI: unsupported type Q5_0" in page
    assert "busy" not in page


def test_shares_are_of_the_limits_measured_around_the_turn() -> None:
    shares = engine_report.markdown(engine_run()).split("## Share of the limit")[1]
    assert row(shares, "prefill 512")[2:] == ["**0.40 (0.40-0.40, n=3)**", "-", "-"]
    assert row(shares, "decode 1")[4] == "**0.75 (0.75-0.75, n=3)**"
    assert row(shares, "decode 8")[2] == "**0.32 (0.32-0.32, n=3)**"


def test_threads_are_compared_where_one_was_timed() -> None:
    threads = engine_report.markdown(engine_run()).split("## Threads")[1].split("## Machine")[0]
    assert row(threads, "prefill 512")[3] == "2.01 (2.00-2.02)"
    assert "decode 8" not in threads


def test_a_busy_machine_is_named_at_the_top() -> None:
    assert "busy" in engine_report.markdown(engine_run(foreign=0.3)).split("##")[0]


def answer(*times: float, tokens: int = 3, error: str | None = None) -> Answer:
    return Answer(10.0, list(times), ended=14.0, prompt_tokens=12, answer_tokens=tokens, error=error)


def server_run() -> ServerRun:
    good = summarize([answer(11.0, 12.0, 14.0), answer(13.0, 13.5, 14.0)], 2_000_000_000, 0.0)
    bad = summarize([answer(12.0, 13.0, 14.0), answer(error="too short", tokens=1)], 1_000_000_000, 0.0)
    turns = [
        ServerTurn("Corral", 0, 0.5, 0.75, {ASKED.name: good}),
        ServerTurn("llama-server", 0, 1.5, 2.0, {ASKED.name: bad}),
    ]
    names = {"Corral": "1", "llama-server": "2"}
    return ServerRun(
        "m.gguf", "2026-01-01 00:00 UTC", {}, [ASKED], names, names, {"Corral": 5, "llama-server": 5}, turns,
        {"vLLM": "not given"},
    )  # fmt: skip


def test_latencies_are_pooled_over_clients() -> None:
    outcome = server_run().turns[0].outcomes[ASKED.name]
    assert (outcome.seconds, outcome.output_rate, outcome.total_rate) == (4.0, 1.5, 7.5)
    assert (outcome.first_p50, outcome.first_p95) == (1.0, 3.0)
    assert (outcome.gap_p50, outcome.gap_p95) == (0.5, 2.0)
    assert outcome.tokens_per_chunk == 1.0
    assert outcome.errors == {}


def test_answers_with_errors_do_not_count() -> None:
    outcome = server_run().turns[1].outcomes[ASKED.name]
    assert (outcome.answer_tokens, outcome.prompt_tokens, outcome.errors) == (3, 12, {"too short": 1})


def test_without_a_good_answer_there_is_no_latency() -> None:
    outcome = summarize([answer(error="refused")], 0, 0.0)
    assert (outcome.first_p50, outcome.gap_p95, outcome.tokens_per_chunk, outcome.output_rate) == (None,) * 3 + (0.0,)


def test_servers_stand_beside_each_other_with_ratios() -> None:
    page = server_report.markdown(server_run())
    own, rival = row(page, "Corral"), row(page, "llama-server")
    assert own[1:4] == ["1.5 (1.5-1.5, n=1)", "7.5 (7.5-7.5, n=1)", "1.00 (1.00-1.00, n=1)"]
    assert own[7:] == ["2.00 (2.00-2.00, n=1)", "0", "-", "-"]
    assert rival[8:] == ["1", "2.00 (2.00-2.00)", "0.50 (0.50-0.50)"]
    assert row(page, "vLLM")[1] == "not run"
    assert "vLLM: not given" in page
    assert "error: too short" in page
    assert row(page.split("## Start")[1], "Corral")[1:] == ["0.50 (0.50-0.50, n=1)", "0.75 (0.75-0.75, n=1)"]
