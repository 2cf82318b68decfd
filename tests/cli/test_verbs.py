"""The verbs on this machine's store, as a process and through click's runner."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from click.testing import CliRunner

import corral.cli.backend
from corral.cli.card import describe
from corral.cli.main import app
from corral.store.library import Library
from corral.store.manifest import LICENSE, MODEL, PARAMS, SYSTEM, Manifest
from corral.store.names import parse_name
from tests.cli.fake_backend import CARD, FakeBackend
from tests.support.gguf_writer import TinyModel, write_tiny_gguf

Corral = Callable[..., CompletedProcess[bytes]]


@pytest.fixture
def local(corral: Corral, tmp_path: Path) -> Corral:
    """`corral` with a store of its own, which has tiny:latest."""
    library = Library(tmp_path / "models")
    gguf = write_tiny_gguf(tmp_path / "tiny.gguf", TinyModel())
    layers = (
        library.link_file(gguf, MODEL, lambda _status: None),
        library.add_bytes(b"You are tiny.", SYSTEM),
        library.add_bytes(b'{"temperature": 0.5, "stop": ["END"]}', PARAMS),
        library.add_bytes(b"Licence line one\nline two\nline three\n", LICENSE),
    )
    config = library.add_bytes(b"{}", "application/vnd.docker.container.image.v1+json")
    library.write(parse_name("tiny"), Manifest(config, layers))

    def run(*arguments: str, env: dict[str, str] | None = None) -> CompletedProcess[bytes]:
        own = {"CORRAL_MODELS": str(tmp_path / "models"), "OLLAMA_MODELS": str(tmp_path / "none")}
        return corral(*arguments, env={"CORRAL_HOME": str(tmp_path), **own, **(env or {})})

    return run


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    backend = FakeBackend("smollm2:latest")
    monkeypatch.setattr(corral.cli.backend, "open_backend", lambda: backend)
    return backend


def test_list(local: Corral) -> None:
    head, row = local("list").stdout.decode().splitlines()
    assert head.split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert row.startswith("tiny:latest    ")
    assert row.endswith((" ago", "ago"))
    [model] = json.loads(local("ls", "TI", "--json").stdout)
    assert model["name"] == "tiny:latest"
    assert row.split()[1] == model["digest"][:12]
    assert model["details"]["family"] == "llama"
    assert local("list", "other").stdout.count(b"\n") == 1


def test_show(local: Corral) -> None:
    shown = local("show", "tiny").stdout.decode()
    assert shown.startswith("  Model\n    architecture        llama\n")
    assert "  Capabilities\n    completion\n" in shown
    assert '  Parameters\n    temperature    0.5\n    stop           "END"\n' in shown
    assert "  System\n    You are tiny.\n" in shown
    assert shown.endswith("  License\n    Licence line one\n    line two\n    ...\n")
    verbose = local("show", "tiny", "-v").stdout.decode()
    assert "  Metadata\n" in verbose
    assert "  Tensors\n" in verbose
    assert "output_norm.weight" in verbose
    assert local("show", "tiny", "--system").stdout == b"You are tiny.\n"
    assert local("show", "tiny", "--license").stdout.startswith(b"Licence line one\n")
    assert local("show", "tiny", "--parameters").stdout.startswith(b"temperature                    0.5\n")
    told = json.loads(local("show", "tiny", "--json").stdout)
    assert told["model_info"]["general.architecture"] == "llama"


def test_show_takes_a_file(local: Corral, tmp_path: Path) -> None:
    shown = local("show", str(tmp_path / "tiny.gguf"))
    assert b"architecture" in shown.stdout
    assert local("show", str(tmp_path / "tiny.gguf"), "--modelfile").stdout.startswith(b"FROM /")
    assert local("show", str(tmp_path / "no.gguf")).returncode == 1


def test_show_takes_one_part_at_a_time(local: Corral) -> None:
    for flags in (["--system", "--license"], ["--system", "--json"], ["--system", "-v"]):
        done = local("show", "tiny", *flags)
        assert done.returncode == 2
        assert b"only one of" in done.stderr


def test_cp_and_rm(local: Corral) -> None:
    assert local("cp", "tiny", "me/other:v1").stdout == b"copied 'tiny' to 'me/other:v1'\n"
    done = local("rm", "tiny", "me/other:v1")
    assert done.stdout == b"deleted 'tiny'\ndeleted 'me/other:v1'\n"
    assert json.loads(local("list", "--json").stdout) == []
    done = local("rm", "tiny")
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: model 'tiny")
    assert local("cp", "tiny", "x").returncode == 1
    assert local("rm").returncode == 2


@pytest.mark.parametrize("verb", [("show",), ("rm",), ("cp", "x"), ("stop",), ("pull",), ("push",)])
def test_a_name_that_cannot_be_is_one_line(local: Corral, verb: tuple[str, ...]) -> None:
    done = local(verb[0], "../../etc/passwd:x y", *verb[1:])
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.splitlines()[-1].startswith(b"Error: ")


def test_pull_and_push_pass_their_flags(fake: FakeBackend) -> None:
    assert CliRunner().invoke(app, ["pull", "qwen3", "--insecure"]).exit_code == 0
    assert CliRunner().invoke(app, ["push", "me/mine"]).exit_code == 0
    assert fake.calls == [("pull", "qwen3", True), ("push", "me/mine", False)]


def test_search() -> None:
    done = CliRunner().invoke(app, ["search", "SMOLLM2"])
    assert done.exit_code == 0
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["NAME", "PARAMETERS", "SIZE", "LICENSE", "ABOUT"]
    assert rows
    assert all(row.startswith("smollm2") for row in rows)
    found = json.loads(CliRunner().invoke(app, ["search", "smollm2", "135m", "--json"]).stdout)
    assert found[0]["names"][0] == "smollm2"
    assert found[0]["size"] > 1 << 20
    nothing = CliRunner().invoke(app, ["search", "nothing-like-this"])
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "nothing found for 'nothing-like-this'" in nothing.stderr


@pytest.mark.parametrize(("shell", "word"), [("bash", "complete -o nosort"), ("zsh", "#compdef"), ("fish", "complete")])
def test_completion_prints_a_script(corral: Corral, shell: str, word: str) -> None:
    done = corral("completion", shell)
    assert done.returncode == 0
    assert word in done.stdout.decode()
    assert "_CORRAL_COMPLETE" in done.stdout.decode()


def test_verbs_and_models_are_completed(local: Corral) -> None:
    def complete(*words: str) -> list[str]:
        env = {"_CORRAL_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
        return [line.partition(",")[2] for line in local(env=env).stdout.decode().split()]

    assert complete("corral", "pu") == ["pull", "push"]
    assert complete("corral", "run", "ti") == ["tiny:latest"]
    assert complete("corral", "rm", "x") == []


def test_help_lists_the_verbs_and_not_their_second_names(corral: Corral) -> None:
    done = corral()
    assert (done.returncode, done.stderr) == (0, b"")
    verbs = [line.split()[0] for line in done.stdout.decode().partition("Commands:\n")[2].splitlines()]
    assert verbs[0] == "run"
    assert {"pull", "push", "create", "show", "list", "ps", "stop", "cp", "rm", "search", "launch"} <= set(verbs)
    assert "ls" not in verbs


def test_a_card_as_tables() -> None:
    told = describe(CARD, verbose=True)
    assert "    tokenizer.ggml.tokens     [a, b, c, ...+2 more]\n" in told
    assert "    output.weight    Q4_1    [576 49152]" in told
    assert describe(CARD).count("Metadata") == 0
