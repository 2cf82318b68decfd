"""`corral run` with a file: prompts by argument and pipe, streams, timings, limits, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.cli.conftest import environment
from tests.support.models import model_path

pytestmark = pytest.mark.e2e

GREEDY = ("--temperature", "0", "--max-tokens", "16")
Run = Callable[..., subprocess.CompletedProcess[bytes]]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "corral", "run", str(model_path("smollm2-135m")), *arguments]


@pytest.fixture(scope="module")
def run() -> Run:
    def run(*arguments: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command(*arguments), env=environment(), input=text, capture_output=True, check=False)

    return run


@pytest.fixture(scope="module")
def answer(run: Run) -> bytes:
    """The greedy answer to a prompt given as arguments."""
    done = run("Name", "three", "colours.", *GREEDY)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    return done.stdout


def test_stdout_holds_the_answer_alone(answer: bytes) -> None:
    assert len(answer.strip()) > 10
    assert answer.endswith(b"\n")
    assert not answer.endswith(b"\n\n")


def test_a_prompt_on_standard_input_gets_the_same_answer(run: Run, answer: bytes) -> None:
    assert run(*GREEDY, text=b"Name three colours.").stdout == answer


def test_standard_input_goes_in_front_of_the_prompt(run: Run, answer: bytes) -> None:
    assert run("three colours.", *GREEDY, text=b"Name").stdout == answer


def test_a_format_holds_the_answer_to_it(run: Run) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    done = run("Give me a number.", "--format", json.dumps(schema), "--temperature", "0", "--max-tokens", "100")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] in (1, 2)


def test_timings_go_to_stderr(run: Run, answer: bytes) -> None:
    done = run("Name three colours.", *GREEDY, "--verbose")
    assert done.stdout == answer
    labels = [line.split(":")[0] for line in done.stderr.decode().splitlines()]
    assert labels == [
        "total duration",
        "load duration",
        "prompt eval count",
        "prompt eval duration",
        "prompt eval rate",
        "eval count",
        "eval duration",
        "eval rate",
    ]
    assert b"eval count:           16 token(s)" in done.stderr


def test_a_system_message_changes_the_answer(run: Run, answer: bytes) -> None:
    assert run("Name three colours.", *GREEDY, "--system", "Always answer in French.").stdout != answer


def test_a_seed_repeats_an_answer_and_another_one_does_not(run: Run) -> None:
    def story(seed: str) -> bytes:
        return run("Tell me a story.", "--temperature", "1.5", "--seed", seed, "--max-tokens", "24").stdout

    first = story("1")
    assert first == story("1")
    assert first != story("2")


def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(run: Run) -> None:
    done = run("word " * 200, "--ctx-size", "128")
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.startswith(b"Error: ")
    assert b"128" in done.stderr


def test_an_empty_prompt_only_loads(run: Run) -> None:
    done = run("")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.fixture
def long_answer() -> Iterator[subprocess.Popen[bytes]]:
    """A run in the midst of an answer that goes on for long."""
    with subprocess.Popen(
        command("Count from 1 to 100.", "--temperature", "0"),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        yield process


def test_ctrl_c_ends_the_answer_quietly(long_answer: subprocess.Popen[bytes]) -> None:
    long_answer.send_signal(signal.SIGINT)
    answer, error = long_answer.communicate(timeout=120)
    assert long_answer.returncode == 0
    assert b"100. 100" not in answer
    assert error == b""


def test_a_reader_that_leaves_early_is_no_crash(long_answer: subprocess.Popen[bytes]) -> None:
    assert long_answer.stdout is not None
    assert long_answer.stderr is not None
    long_answer.stdout.close()
    assert long_answer.stderr.read() == b""
    assert long_answer.wait(timeout=120) == 1
