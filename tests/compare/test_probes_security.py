"""Each check of security passes on a server that is as it should be, and fails on one that is not."""

from __future__ import annotations

import pytest

from corral.compare.probes import bounds
from corral.compare.probes.bounds import bound_probes
from corral.compare.probes.exposure import default_host, exposure_probes
from corral.compare.probes.keys import key_probes
from corral.compare.probes.pages import page_probes
from corral.compare.probes.target import help_command, key_flags
from tests.support.probed_server import ProbedServer, open_door
from tests.support.probing import HELP, KEY, check, checks_of


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "POURED", 2 * bounds.MIB)
    monkeypatch.setattr(bounds, "MOST_HEADER", bounds.MIB)
    monkeypatch.setattr(bounds, "_PROMPT_S", 0.3)
    monkeypatch.setattr(bounds, "NUM_SLOW", 24)


async def test_a_good_server_passes_all_that_want_a_key() -> None:
    for found in await checks_of(key_probes(), ProbedServer(key=KEY)):
        assert found.verdict == "pass", found
        assert KEY not in found.found


async def test_a_good_server_passes_all_without_a_key() -> None:
    for found in await checks_of([*page_probes(), *exposure_probes(), *bound_probes()], ProbedServer()):
        assert found.verdict == "pass", found


@pytest.mark.parametrize(
    ("name", "fault", "verdict", "words"),
    [
        ("inference wants the key", "open /invocations", "fail", "POST /invocations 200"),
        ("inference wants the key", "open /v1/chat/completions", "fail", "POST /v1/chat/completions 200"),
        ("figures and names want the key", "open /v1/models", "partly", "GET /v1/models 200"),
        ("figures and names want the key", "open /metrics", "partly", "GET /metrics 200"),
        ("the answer to no key", "bare 401", "partly", "no WWW-Authenticate"),
        ("the answer to no key", "plain errors", "partly", "no JSON error"),
        ("the answer to no key", "open /v1/chat/completions", "fail", "200"),
        ("wrong keys", "part of a key", "fail", "a key that is a part of it was answered 200"),
        ("wrong keys", "500 on odd keys", "fail", "not ASCII was answered 500"),
        ("no way around the key", "guards /v1/ alone", "fail", "//v1/ was answered 200"),
        ("no way around the key", "believes Host", "fail", "Host: x/health? was answered 200"),
    ],
)
async def test_what_is_open_is_seen(name: str, fault: str, verdict: str, words: str) -> None:
    found = await check(key_probes(), name, ProbedServer(fault, key=KEY))
    assert (found.verdict, words in found.found) == (verdict, True), found
    assert KEY not in found.found


@pytest.mark.parametrize("path", ["/api/delete", "/api/pull"])
async def test_management_that_is_open_is_seen(path: str) -> None:
    found = await check(key_probes(), "control wants the key", ProbedServer(f"open {path}", "manages", key=KEY))
    assert found.verdict == "fail", found
    assert f"{path} 404" in found.found


async def test_a_page_of_what_others_ask_is_seen() -> None:
    found = await check(
        key_probes(), "others' requests want the key", ProbedServer("open /slots", "shows words", key=KEY)
    )
    assert (found.verdict, "GET /slots 200" in found.found) == ("fail", True), found


async def test_a_route_that_is_not_there_is_not_open() -> None:
    """A router's 404 looks the same for every path, whether or not a guard stands before it."""
    found = await check(key_probes(), "control wants the key", ProbedServer("guards /v1/ alone", key=KEY))
    assert found.verdict == "pass", found


async def test_an_engine_without_keys_is_asked_all_the_same() -> None:
    server = ProbedServer("manages")
    verdicts = {
        found.name: found for found in await checks_of(key_probes(), server, no_key="it has no option for a key")
    }
    assert verdicts["inference wants the key"].verdict == "fail"
    assert verdicts["control wants the key"].verdict == "fail"
    assert verdicts["the answer to no key"].found.startswith("it has no option for a key; ")
    assert verdicts["wrong keys"].verdict == "unknown"


@pytest.mark.parametrize(
    ("name", "faults", "verdict", "words"),
    [
        ("foreign pages read answers (CORS)", ["any origin"], "fail", "whichever page asks may read"),
        ("foreign pages read answers (CORS)", ["any origin", "star"], "fail", "any page may read"),
        ("foreign pages send requests", ["any origin", "plain posts"], "fail", "as text/plain"),
        ("foreign Host header (DNS rebinding)", ["any host"], "fail", "Host: probe.example: 200"),
        ("models are managed without a key", ["manages"], "fail", "DELETE /api/delete 404"),
        ("others' words on status pages", ["shows words"], "fail", "stand on /slots, /api/ps"),
        ("version told without a key", ["tells its version"], "partly", "Server: scripted/1.2.3; GET /version 1.2.3"),
        ("size of bodies", ["any declared body"], "partly", "1 TB declared: read on"),
        ("size of bodies", ["any chunked body"], "partly", "taken without a word"),
        ("size of bodies", ["any declared body", "any chunked body"], "fail", "after 2 MB"),
        ("size of heads", ["any head", "waits for heads"], "fail", "taken without a word"),
        ("slow clients beside others", ["few connections", "waits for heads"], "fail", "beside 24 clients"),
        ("patience with a slow head", ["waits for heads"], "fail", "still waited for"),
    ],
)
async def test_what_a_client_can_do_is_seen(name: str, faults: list[str], verdict: str, words: str) -> None:
    probes = [*page_probes(), *exposure_probes(), *bound_probes()]
    found = await check(probes, name, ProbedServer(*faults))
    assert (found.verdict, words in found.found) == (verdict, True), found


async def test_a_door_beyond_loopback_is_seen() -> None:
    with open_door():
        found = await check(exposure_probes(), "addresses that listen", ProbedServer())
    assert (found.verdict, "beyond loopback: 0.0.0.0:" in found.found) == ("fail", True), found


async def test_a_default_beyond_loopback_is_seen() -> None:
    said = HELP.replace("127.0.0.1", "None")
    found = await check(exposure_probes(), "addresses that listen", ProbedServer(), help_text=said)
    assert (found.verdict, "default is None" in found.found) == ("fail", True), found


async def test_what_runs_already_keeps_its_sockets_to_itself() -> None:
    found = await check(exposure_probes(), "addresses that listen", ProbedServer(), process=None)
    assert (found.verdict, "runs already" in found.found) == ("unknown", True), found


@pytest.mark.parametrize(("text", "verdict"), [("--host HOST", "fail"), ("", "unknown")])
async def test_encryption_is_read_off_the_help(text: str, verdict: str) -> None:
    assert (await check(exposure_probes(), "encryption", ProbedServer(), help_text=text)).verdict == verdict


@pytest.mark.parametrize(
    ("text", "host"),
    [
        (
            "--host HOST     address to listen on (default:\n                127.0.0.1)\n--port N (default: 8080)",
            "127.0.0.1",
        ),
        ("  --host HOST           Host name. (default: None)\n  --port PORT (default: 8000)", "None"),
        ("  --host ADDRESS  to bind  [env var:\n   CORRAL_HOST, OLLAMA_HOST; default:\n   127.0.0.1]", "127.0.0.1"),
        ("  OLLAMA_HOST   IP Address for the ollama server (default 127.0.0.1:11434)", "127.0.0.1"),
        ("  --host HOST   where\n  --port PORT  (default: 8000)", ""),
        ("", ""),
    ],
)
def test_the_default_address_is_read_off_the_help(text: str, host: str) -> None:
    assert default_host(text) == host


def test_how_a_program_is_asked_for_its_flags() -> None:
    assert help_command(("/v/python", "-m", "corral", "serve", "f")) == ("/v/python", "-m", "corral", "serve", "--help")
    assert help_command(("/b/llama-server", "-m", "f")) == ("/b/llama-server", "--help")
    assert help_command(("/b/vllm", "serve", "f")) == ("/b/vllm", "serve", "--help=all")
    assert help_command(("/b/ollama", "serve")) == ("/b/ollama", "serve", "--help")
    assert key_flags("  --api-key KEY", "k") == ("--api-key", "k")
    assert key_flags("  --api-key-file FILE", "k") is None
