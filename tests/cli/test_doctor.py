"""`corral doctor`: every check on machines of all kinds, and the command as a whole."""

from __future__ import annotations

import json
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from corral.cli import doctor_checks
from corral.cli.address import ServerAddress
from corral.cli.doctor_checks import Finding, Level
from corral.model.cpu import usable_cpus

Corral = Callable[..., CompletedProcess[bytes]]
GIB = 1 << 30


def test_it_looks_at_everything_and_works_here(corral: Corral, tmp_path: Path) -> None:
    done = corral("doctor", "--offline", env={"CORRAL_HOME": str(tmp_path / "home")})
    assert done.returncode == 0, done.stderr
    subjects = [line.split()[1] for line in done.stdout.decode().splitlines() if not line.startswith(" ")]
    assert subjects == [
        *("processor", "CPUs", "clock", "load", "memory", "memory", "swap", "models", "cache", "files", "server"),
    ]
    assert f"{tmp_path / 'home'}: ".encode() in done.stdout


def test_json_has_the_same_findings(corral: Corral) -> None:
    found = json.loads(corral("doctor", "--offline", "--json").stdout)
    assert {"subject", "level", "text", "advice"} == set(found[0])
    assert found[0]["subject"] == "processor"


def test_what_keeps_it_from_working_is_an_error(corral: Corral, tmp_path: Path) -> None:
    locked = tmp_path / "file"
    locked.write_text("")
    done = corral("doctor", "--offline", env={"CORRAL_HOME": str(locked / "below a file")})
    assert done.returncode == 1
    assert done.stderr.decode().startswith("Error: Corral cannot work here as things are: see models")


def test_a_forced_instruction_set_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CORRAL_ISA", "scalar")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name : Test CPU 9000\n")
    monkeypatch.setattr(doctor_checks, "available_isas", lambda: ["scalar", "avx2"])
    found = doctor_checks.check_isa(cpuinfo)
    assert found.level is Level.WARN
    assert "Test CPU 9000" in found.text
    assert found.advice == "CORRAL_ISA asks for scalar; without it avx2 is taken"


def test_a_machine_without_vector_instructions_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CORRAL_ISA", raising=False)
    monkeypatch.setattr(doctor_checks, "available_isas", lambda: ["scalar"])
    monkeypatch.setattr(doctor_checks, "active_isa", lambda: "scalar")
    assert "AVX2" in doctor_checks.check_isa(Path("/nonexistent")).advice


def test_a_limit_on_cpus_is_a_note() -> None:
    usable = usable_cpus()
    assert doctor_checks.check_cpus(usable).level is Level.OK
    assert doctor_checks.check_cpus(usable + 6).level is Level.NOTE


@pytest.mark.parametrize(
    ("governor", "driver", "level"),
    [
        ("powersave", "acpi-cpufreq", Level.WARN),
        ("powersave", "intel_pstate", Level.OK),
        ("performance", "acpi-cpufreq", Level.OK),
        (None, None, Level.OK),
    ],
)
def test_the_clock(tmp_path: Path, governor: str | None, driver: str | None, level: Level) -> None:
    if governor is not None and driver is not None:
        (tmp_path / "scaling_governor").write_text(f"{governor}\n")
        (tmp_path / "scaling_driver").write_text(f"{driver}\n")
    assert doctor_checks.check_governor(tmp_path).level is level


def test_a_busy_machine_is_told_to_rest() -> None:
    assert doctor_checks.check_load(0.0).level is Level.OK
    assert doctor_checks.check_load(1000.0).level is Level.WARN


@pytest.mark.parametrize(
    ("free", "level", "words"),
    [
        (100 << 20, Level.FAIL, "100.0 MiB free"),
        (600 << 20, Level.WARN, "600.0 MiB free"),
        (8 * GIB, Level.OK, "models up to"),
        (2 * GIB, Level.OK, "(1.0 GiB)"),
    ],
)
def test_memory_says_what_it_holds(free: int, level: Level, words: str) -> None:
    found = doctor_checks.check_memory(free, 16 * GIB)
    assert found.level is level
    assert words in found.text


def test_the_read_speed_is_a_speed() -> None:
    assert 1e8 < doctor_checks.measure_read_speed(4 << 20) < 1e13


def test_few_open_files_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    found = doctor_checks.check_open_files()
    assert found.level is Level.WARN
    assert "ulimit -n 4096" in found.advice


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """A port on which one connection gets `reply`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    ("reply", "level", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nServer: Corral\r\n\r\n", Level.OK, "a Corral server answers"),
        (b"HTTP/1.1 200 OK\r\n\r\nOllama is running", Level.NOTE, "another program"),
    ],
)
def test_who_holds_the_port(reply: bytes, level: Level, words: str) -> None:
    with answering(reply) as port:
        found = doctor_checks.check_server(ServerAddress("127.0.0.1", port))
    assert found.level is level
    assert words in found.text


def test_the_server_is_looked_for_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{port}")
    found = doctor_checks.check_server()
    assert found.level is Level.OK
    assert f"none runs at http://127.0.0.1:{port}; `corral serve` would take it" in found.text
    monkeypatch.setenv("OLLAMA_HOST", "ftp://x")
    assert doctor_checks.check_server().level is Level.FAIL


def test_a_server_elsewhere_that_does_not_answer_is_a_warning() -> None:
    found = doctor_checks.check_server(ServerAddress("unknown.invalid", 11434, is_given=True))
    assert found.level is Level.WARN
    assert "CORRAL_HOST" in found.advice


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def hub_at(port: int, monkeypatch: pytest.MonkeyPatch) -> Finding:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return doctor_checks.check_hub(f"http://127.0.0.1:{port}")


def test_a_hub_out_of_reach_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    found = hub_at(free_port(), monkeypatch)
    assert found.level is Level.WARN
    assert "HF_ENDPOINT" in found.advice


def test_a_hub_within_reach_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert hub_at(listener.getsockname()[1], monkeypatch).level is Level.OK
