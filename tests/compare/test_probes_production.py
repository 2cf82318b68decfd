"""Each check of production passes on a server that is as it should be, and fails on one that is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral.compare.engines.engine import Settings
from corral.compare.probes import endings, overload, prometheus
from corral.compare.probes.endings import ending_probes
from corral.compare.probes.operating import operating_probes
from corral.compare.probes.overload import overload_probes
from tests.support.probed_server import CONTEXT, METRICS, ProbedServer
from tests.support.probing import PATIENT, QUICK, check, checks_of


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "LONG_S", 0.2)
    monkeypatch.setattr(endings, "_AFTER_S", 0.02)
    monkeypatch.setattr(overload, "LONG_S", 2.0)
    monkeypatch.setattr(overload, "_CPU_S", 0.1)
    monkeypatch.setattr(overload, "_LEAST_S", 0.5)
    monkeypatch.setattr(overload, "NUM_AT_ONCE", 24)


KNOWN = Settings(context=CONTEXT, slots=4)


async def test_a_good_server_passes_all_that_let_it_run() -> None:
    server = ProbedServer(gap_s=0.005, slots=4)
    for found in await checks_of([*operating_probes(), *overload_probes()], server, settings=KNOWN):
        assert found.verdict == "pass", found


async def test_a_good_server_passes_all_that_end_it() -> None:
    for found in await checks_of(ending_probes(), ProbedServer(gap_s=0.005), patience=PATIENT):
        assert found.verdict == "pass", found


@pytest.mark.parametrize(
    ("name", "faults", "verdict", "words"),
    [
        ("health", ["no health"], "fail", "GET /health 404"),
        ("health", ["no health", "root alone"], "partly", "only / says"),
        ("metrics", ["no metrics"], "fail", "GET /metrics: 404"),
        ("metrics", ["metrics by a flag"], "partly", "start it with --metrics"),
        ("metrics", ["odd metrics"], "fail", "not in Prometheus' format: <html>"),
        ("metrics by vLLM's names", ["own metrics"], "fail", "none of vllm:"),
        ("request ids", ["no ids"], "fail", "not there"),
        ("request ids", ["own ids"], "partly", "the answer's is other"),
        ("errors of bad requests", ["500 on bad JSON"], "fail", "no JSON got 500"),
        ("errors of bad requests", ["any role"], "partly", "a role that is none was answered"),
        ("errors of bad requests", ["plain errors"], "partly", "no messages got no JSON error: 400 no"),
        ("prompt longer than the context", ["cuts prompts"], "fail", "3 prompt tokens in its usage"),
        ("prompt longer than the context", ["says no limit"], "partly", "does not name the limit"),
    ],
)
async def test_what_an_operator_misses_is_seen(name: str, faults: list[str], verdict: str, words: str) -> None:
    found = await check(operating_probes(), name, ProbedServer(*faults), settings=KNOWN)
    assert (found.verdict, words in found.found) == (verdict, True), found


async def test_limits_that_are_not_told_are_seen() -> None:
    for settings, verdict in ((Settings(), "fail"), (Settings(context=9), "partly"), (None, "unknown")):
        found = await check(operating_probes(), "limits can be read", ProbedServer(), settings=settings)
        assert found.verdict == verdict
    found = await check(operating_probes(), "prompt longer than the context", ProbedServer(), settings=None)
    assert (found.verdict, "how long its context is" in found.found) == ("unknown", True), found


@pytest.mark.parametrize(
    ("faults", "verdict", "words"),
    [
        ([], "pass", "with Retry-After"),
        (["no Retry-After"], "partly", "refusals without Retry-After"),
        (["drops"], "fail", "failed: "),
    ],
)
async def test_a_full_queue(faults: list[str], verdict: str, words: str) -> None:
    server = ProbedServer(*faults, slots=1, queue=2, gap_s=0.1)
    found = await check(overload_probes(), "overload", server)
    assert (found.verdict, words in found.found) == (verdict, True), found


async def test_work_for_clients_that_are_gone_is_seen() -> None:
    server = ProbedServer("works for nobody", slots=2, gap_s=0.02)
    found = await check(overload_probes(), "a client that goes away", server, patience=replace(QUICK, answer_s=1.0))
    assert (found.verdict, "the next chat got no answer" in found.found) == ("fail", True), found


@pytest.mark.parametrize(
    ("faults", "verdict", "words"),
    [
        (["cuts streams at the end"], "fail", "no [DONE]"),
        (["blind health"], "partly", "readiness did not change"),
        (["blind health", "takes while it drains"], "partly", "a new request was still taken"),
        (["takes while it drains"], "pass", "a new request got 200"),
        (["never ends"], "partly", "it does not end"),
    ],
)
async def test_a_drain_that_loses_something_is_seen(faults: list[str], verdict: str, words: str) -> None:
    patience = QUICK if "never ends" in faults else PATIENT
    found = await check(ending_probes(), "drain", ProbedServer(*faults, gap_s=0.01), patience=patience)
    assert (found.verdict, words in found.found) == (verdict, True), found


@pytest.mark.parametrize(
    ("faults", "verdict", "words"),
    [
        ([], "pass", "saw an error event: the worker died"),
        (["cut after a crash"], "partly", "the stream is cut without an error"),
        (["hangs after a crash"], "fail", "the client waits in vain"),
        (["ends with its worker"], "fail", "it stays away"),
        (["one process"], "fail", "SIGKILL to the whole process"),
    ],
)
async def test_a_crash_that_is_not_healed_is_seen(faults: list[str], verdict: str, words: str) -> None:
    patience = PATIENT if {"cut after a crash"}.issuperset(faults) else QUICK  # what never comes is not waited for
    found = await check(ending_probes(), "crash of what computes", ProbedServer(*faults, gap_s=0.01), patience=patience)
    assert (found.verdict, words in found.found) == (verdict, True), found


async def test_what_runs_already_is_not_ended() -> None:
    server = ProbedServer()
    for found in await checks_of(ending_probes(), server, process=None):
        assert (found.verdict, "not ours" in found.found) == ("unknown", True), found


def test_prometheus_text_is_read() -> None:
    found = prometheus.parse(
        METRICS + 'with_all{a="b",c="}"} 1.5e-3 1700000000\nexemplar_bucket{le="1"} 3 # {id="x"} 1 2\n'
    )
    assert not found.odd
    assert found.kinds["vllm:time_to_first_token_seconds"] == "histogram"
    assert {"with_all", "exemplar_bucket"} <= found.names
    assert found.has("vllm:prompt_tokens")
    assert not found.has("vllm:prompt")
    assert prometheus.parse("a b c\n1x 2\n").odd == ["a b c", "1x 2"]
