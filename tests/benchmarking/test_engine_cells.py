"""What engines are timed on, how llama.cpp is asked for it, and what its answers and matmul_bench's mean."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from benchmarks import cells
from benchmarks.cells import Cell, Regime, short_cells
from benchmarks.contenders import best_flags, calibration_cells, openvino
from benchmarks.llama_cells import DEFAULT, Flags, LlamaCpp, RivalError
from benchmarks.machine import Limits, parse_peaks
from benchmarks.work import MatmulWork

CELLS = [*short_cells([8, 64], prefill=512, prompt=16, answer=4), Cell(16, 1500, 4)]
MODEL = Path("model.gguf")


def program(folder: Path, name: str, lines: list[dict[str, float]], code: int = 0) -> Path:
    """An executable that prints these JSON lines."""
    path = folder / name
    output = "\n".join(json.dumps(line) for line in lines)
    path.write_text(f"#!/bin/sh\ncat <<'END'\nnoise\n{output}\nEND\necho no luck >&2\nexit {code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_cells_are_named_after_what_they_time() -> None:
    assert [cell.name for cell in CELLS] == ["prefill 512", "decode 1", "decode 8", "decode 64", "decode 16 at 1500"]
    assert [cell.regime for cell in CELLS] == [Regime.PREFILL, Regime.SINGLE] + 3 * [Regime.BATCHED]


def test_cells_survive_the_command_line() -> None:
    assert cells.load(cells.dump(CELLS)) == CELLS


def test_each_kind_of_prompt_is_one_run_of_llama_cpp() -> None:
    programs = LlamaCpp(Path("/bin/llama-bench"), Path("/bin/llama-batched-bench"))
    single, short, long = programs.commands(MODEL, 2, CELLS, Flags(repack=False, flash_attention=True))
    assert single[-4:] == ["-fa", "on", "--repack", "0"]
    assert short[-3:] == long[-3:] == ["-fa", "on", "--no-repack"]
    assert short[short.index("-npl") + 1] == "8,64"
    assert short[short.index("-c") + 1] == str(64 * (16 + 4))
    assert long[long.index("-npp") + 1] == "1500"


def test_default_flags_are_no_flags() -> None:
    programs = LlamaCpp(Path("/bin/llama-bench"), Path("/bin/llama-batched-bench"))
    for command in programs.commands(MODEL, 2, CELLS, DEFAULT):
        assert not {"-fa", "--repack", "--no-repack"} & set(command)


def test_figures_of_both_programs_come_under_the_cells_names(tmp_path: Path) -> None:
    bench = program(
        tmp_path,
        "llama-bench",
        [{"n_prompt": 512, "n_gen": 0, "avg_ts": 150.5}, {"n_prompt": 0, "n_gen": 8, "avg_ts": 31.0}],
    )
    batched = program(tmp_path, "llama-batched-bench", [{"pl": 8, "pp": 16, "tg": 4, "speed_tg": 60.0}])
    speeds = LlamaCpp(bench, batched).measure(MODEL, 2, CELLS[:3], DEFAULT)
    assert speeds == {"prefill 512": 150.5, "decode 1": 31.0, "decode 8": 60.0}


def test_a_rival_that_fails_says_why(tmp_path: Path) -> None:
    bench = program(tmp_path, "llama-bench", [], code=3)
    with pytest.raises(RivalError, match="ended with code 3: no luck"):
        LlamaCpp(bench, None).measure(MODEL, 2, CELLS[:2], DEFAULT)
    with pytest.raises(RivalError, match="llama-batched-bench was not found"):
        LlamaCpp(bench, None).commands(MODEL, 2, CELLS, DEFAULT)


def test_an_engine_in_another_environment_may_chatter_beside_its_figures(tmp_path: Path) -> None:
    python = program(tmp_path, "python", [{"prefill 512": 12.5}])
    assert openvino(python, MODEL, 2, CELLS).measure(CELLS[:1]) == {"prefill 512": 12.5}
    silent = program(tmp_path, "silent", [])
    with pytest.raises(RivalError, match="printed no figures"):
        openvino(silent, MODEL, 2, CELLS).measure(CELLS[:1])
    with pytest.raises(RivalError, match="no luck"):
        openvino(program(tmp_path, "broken", [], code=1), MODEL, 2, CELLS).measure(CELLS[:1])
    with pytest.raises(RivalError, match="absent cannot be started"):
        openvino(tmp_path / "absent", MODEL, 2, CELLS).measure(CELLS[:1])


def test_flags_win_a_regime_only_by_more_than_noise() -> None:
    short = calibration_cells(CELLS[:4])
    assert [cell.name for cell in short] == ["prefill 512", "decode 1", "decode 8"]
    other = Flags(repack=False, flash_attention=True)
    found = {
        DEFAULT: {"prefill 512": 100.0, "decode 1": 30.0, "decode 8": 50.0},
        other: {"prefill 512": 150.0, "decode 1": 30.5},
    }
    assert best_flags(found, short) == {Regime.PREFILL: other}


def test_operations_count_the_head_only_where_a_token_is_drawn() -> None:
    work = MatmulWork(body=1000, head=500, num_bytes=800)
    assert work.operations_per_token(Cell(1, 100, 0)) == 2 * (1000 + 5)
    assert work.operations_per_token(Cell(8, 100, 4)) == 2 * 1500


def test_a_step_of_many_streams_is_expected_to_take_longer() -> None:
    work = MatmulWork(body=10**9, head=10**8, num_bytes=10**9)
    one, many = (work.expected_seconds(Cell(streams, 0, 10), 2) for streams in (1, 64))
    assert one == pytest.approx(10 * 1e9 / 20e9)
    assert many > 5 * one


def test_peaks_are_those_of_the_threads_asked_for() -> None:
    text = "threads=1  read 14.03 GB/s  int8 609.3 GOPS\nthreads=2  read 27.55 GB/s  int8 0.0 GOPS\n"
    assert parse_peaks(text, 1) == Limits(14.03, 609.3)
    assert parse_peaks(text, 2) == Limits(27.55, None)
    with pytest.raises(ValueError, match="4 threads"):
        parse_peaks(text, 4)
