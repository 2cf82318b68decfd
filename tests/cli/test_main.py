"""The command as scripts see it: exit codes, and what goes to which stream."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess, run

import pytest

from tests.cli.conftest import environment
from tests.support.fake_hub import refused_url

Corral = Callable[..., CompletedProcess[bytes]]


@pytest.mark.parametrize("verb", [(), ("run",), ("serve",), ("plan",)])
def test_help_is_data(corral: Corral, verb: tuple[str, ...]) -> None:
    done = corral(*verb, "--help")
    assert done.returncode == 0
    assert b"Usage:" in done.stdout
    assert done.stderr == b""


def test_the_version_is_data(corral: Corral) -> None:
    done = corral("--version")
    assert done.returncode == 0
    name, version = done.stdout.split()
    assert name == b"corral"
    assert version[:1].isdigit()


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("run",),
        ("run", "x", "--fly"),
        ("serve", "x", "--port", "no"),
        ("plan", "x", "--kv-cache-memory", "4X"),
    ],
)
def test_wrong_usage_exits_with_2(corral: Corral, arguments: tuple[str, ...]) -> None:
    done = corral(*arguments)
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"Usage:" in done.stderr


@pytest.mark.parametrize("verb", ["run", "serve", "plan"])
def test_an_unknown_model_is_one_line_and_exit_1(corral: Corral, verb: str) -> None:
    nowhere = {"CORRAL_REGISTRY": refused_url()}
    done = corral(verb, "smollm3", *(["hello"] if verb == "run" else []), env=nowhere)
    assert done.returncode == 1
    assert done.stdout == b""
    *_, line = done.stderr.decode().splitlines()
    assert line.startswith("Error: cannot connect to 127.0.0.1:")
    assert "Did you mean 'smollm2'?" in line


def test_a_missing_file_is_named(corral: Corral, tmp_path: Path) -> None:
    done = corral("plan", str(tmp_path / "x.gguf"))
    assert done.returncode == 1
    assert done.stderr.decode() == f"Error: there is no file {tmp_path / 'x.gguf'}\n"


def test_no_prompt_and_nothing_on_standard_input_is_said(corral: Corral) -> None:
    done = corral("run", "smollm2")
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: no prompt: standard input is empty")


def test_an_open_door_is_refused_before_a_download(corral: Corral) -> None:
    nowhere = {"HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    done = corral("serve", "smollm2", "--host", "0.0.0.0", env=nowhere)
    assert done.returncode == 1
    assert b"no API key is set" in done.stderr
    assert b"pulling" not in done.stderr


def test_standard_input_that_is_no_text_is_said(corral: Corral) -> None:
    done = corral("run", "smollm2", input=b"caf\xe9")
    assert done.returncode == 1
    assert done.stderr == b"Error: standard input is no UTF-8 text: byte 3 is 0xe9\n"


@pytest.mark.parametrize(
    ("flags", "field"),
    [(["--temperature", "999"], "temperature"), (["--top-p", "0"], "top_p"), (["--min-p", "2"], "min_p")],
)
def test_a_parameter_out_of_range_is_named(corral: Corral, flags: list[str], field: str) -> None:
    done = corral("run", "smollm2", "hi", *flags)
    assert done.returncode == 1
    assert done.stderr.decode().startswith(f"Error: {field} is ")


HEAVY = (
    *("numpy", "httpx", "starlette", "uvicorn", "huggingface_hub", "rich", "prompt_toolkit", "tokenizers", "jinja2"),
    *("pydantic", "asyncio", "msgspec", "psutil", "corral._native"),
)


def imported_by(code: str) -> set[str]:
    """Which of HEAVY a fresh interpreter has imported after `code`."""
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*[m for m in {HEAVY} if m in sys.modules])"]
    done = run(command, env=environment(), capture_output=True, check=True, text=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--help"], ["serve", "--help"], ["plan", "--help"], ["cache"]]
)
def test_help_and_version_need_no_heavy_library(arguments: list[str]) -> None:
    """They must answer at once: what takes long to import waits until a verb needs it."""
    call = f"from corral.cli.main import main\nsys.argv = ['corral', *{arguments}]"
    assert imported_by(f"{call}\ntry:\n    main()\nexcept SystemExit:\n    print()") == set()


def test_the_tokenizer_is_begun_before_the_engine_is_imported() -> None:
    assert not imported_by("import corral.worker.loading") & {"numpy", "jinja2", "pydantic", "httpx", "psutil"}


def test_a_model_in_this_process_needs_nothing_of_the_server() -> None:
    unneeded = {"pydantic", "starlette", "uvicorn", "httpx", "rich", "msgspec"}
    assert not imported_by("import corral.worker.pipeline") & unneeded


def test_http_is_imported_beside_the_worker_not_before_it() -> None:
    assert not imported_by("import corral.server.run") & {"starlette", "uvicorn", "pydantic"}


def test_the_front_process_needs_nothing_of_the_engine() -> None:
    assert not imported_by("import corral.server.app, corral.server.run") & {"numpy", "tokenizers", "jinja2"}
