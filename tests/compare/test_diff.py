"""`compare diff`: worse beyond the interval, or not to be compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.compare.report.diff import Diff, closing_line, diff, diff_files, table_rows
from corral.compare.report.json_file import write_comparison
from corral.compare.results import Comparison, GreatestRate
from tests.compare.simulated_results import HOSTILE, comparison, empty, hostile


def slower(factor: float, repeats: int = 3) -> Comparison:
    """Every run of Corral takes `factor` times as long."""
    made = comparison(repeats)
    for run in made.runs:
        if run.engine == "corral":
            run.duration_s *= factor
            for answer in run.answers:
                answer.scheduled, answer.sent, answer.ended = (
                    time * factor for time in (answer.scheduled, answer.sent, answer.ended)
                )
                answer.content_times = [time * factor for time in answer.content_times]
    return made


def outcomes(found: Diff) -> dict[tuple[str, str], str]:
    return {(row.engine, row.what): row.outcome for row in found.rows}


def test_the_same_again_is_no_regression() -> None:
    found = diff(comparison(), comparison())
    assert found.exit_code == 0
    assert found.warnings == []
    assert set(outcomes(found).values()) <= {"no detectable difference", "too few repeats"}
    assert closing_line(found).startswith("0 worse, 0 better, ")


def test_a_regression_has_exit_code_1() -> None:
    found = diff(comparison(), slower(1.3))
    assert found.exit_code == 1
    assert outcomes(found)["corral", "Stories for 50 at once: Output tokens per second"] == "worse"
    assert outcomes(found)["corral", "Stories for 50 at once: First token, median"] == "worse"
    assert outcomes(found)["llama.cpp", "Stories for 50 at once: Output tokens per second"] != "worse"
    rows = table_rows(found)
    assert rows[0][0] == "ENGINE"
    assert {row[-1] for row in rows[1:]} == {"worse"}
    assert len(table_rows(found, is_whole=True)) == len(found.rows) + 1


def test_the_way_back_is_better() -> None:
    found = diff(slower(1.3), comparison())
    assert found.exit_code == 0
    assert outcomes(found)["corral", "Stories for 50 at once: Output tokens per second"] == "better"


def test_noise_is_no_regression() -> None:
    assert diff(comparison(), slower(1.01)).exit_code == 0


def test_too_few_repeats_decide_nothing() -> None:
    found = diff(comparison(1), slower(2.0, repeats=1))
    assert found.exit_code == 0
    assert outcomes(found)["corral", "Stories for 50 at once: Output tokens per second"] == "too few repeats"


def test_failed_requests_are_a_regression() -> None:
    now = comparison(1)
    now.runs[0].answers[0].error = "HTTP 500"
    found = diff(comparison(1), now)
    assert outcomes(found)["corral", "Stories for 1 at once: requests that failed"] == "worse"
    assert found.exit_code == 1


def test_an_engine_that_no_longer_runs_is_a_regression() -> None:
    now = comparison()
    now.engines[1].missing = "it ended with signal 11"
    found = diff(comparison(), now)
    assert outcomes(found)["llama.cpp", "whether it runs"] == "worse"


def test_a_workload_that_was_no_longer_run_is_a_regression() -> None:
    now = comparison()
    now.runs = [run for run in now.runs if (run.engine, run.workload) != ("corral", "story-8")]
    assert outcomes(diff(comparison(), now))["corral", "Stories for 8 at once"] == "worse"


def test_a_check_that_fails_now_is_a_regression() -> None:
    now = comparison()
    now.engines[0].checks[0].verdict = "fail"
    now.engines[0].checks[2].verdict = "unknown"
    found = diff(comparison(), now)
    assert outcomes(found)["corral", "security: key on every route"] == "worse"
    assert ("corral", "production: drain") not in outcomes(found)  # nobody knows


def test_limits_that_are_kept_at_no_rate_are_a_regression() -> None:
    now = comparison()
    now.rates = [GreatestRate("corral", repeat, 0.0) for repeat in range(3)]
    assert outcomes(diff(comparison(), now))["corral", "Requests per second within the limits"] == "worse"


@pytest.mark.parametrize(
    ("field", "value", "refusal"),
    [
        ("digest", "cd" * 32, "different models"),
        ("profile", "full", "different profiles: article and full"),
        ("is_simulated", False, "one of them is simulated"),
        ("engines", [], "no engine is in both"),
    ],
)
def test_what_cannot_be_compared_has_exit_code_2(field: str, value: object, refusal: str) -> None:
    now = comparison()
    setattr(now, field, value)
    if field == "engines":
        now.runs, now.starts, now.rates = [], [], []
    found = diff(comparison(), now)
    assert found.exit_code == 2
    assert refusal in found.refusal
    assert refusal in closing_line(found)


def test_another_machine_is_a_warning() -> None:
    now = comparison()
    now.machine["CPU"] = "another one"
    now.asked["slots"] = 8
    now.asked["repeats"] = 9
    now.machine |= {"memory": "24 GB, 3 GB available", "load average at start": "1.5"}
    found = diff(comparison(), now)
    assert found.exit_code == 0
    assert found.warnings == [
        "the machine differs: CPU: a made-up CPU, 2 cores, then another one",
        "other settings were asked for: slots: 32, then 8",
    ]


def test_empty_and_hostile_comparisons() -> None:
    assert diff(empty(), empty()).exit_code == 2
    assert diff(hostile(), comparison()).exit_code == 2
    found = diff(hostile(), hostile())
    assert found.exit_code == 0
    assert HOSTILE in {row.engine for row in found.rows}


def test_files(tmp_path: Path) -> None:
    before, after = tmp_path / "a.json", tmp_path / "b.json"
    write_comparison(comparison(), before)
    write_comparison(slower(1.3), after)
    assert diff_files(before, after).exit_code == 1
    after.write_text("{}")
    assert diff_files(before, after).exit_code == 2
    assert "b.json" in diff_files(before, after).refusal
    assert diff_files(before, tmp_path / "none.json").exit_code == 2
