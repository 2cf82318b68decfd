"""Comparisons with any values of the right types: every file of the report is written, whatever they are."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corral.compare.report.diff import closing_line, diff, table_rows
from corral.compare.report.files import write_report
from corral.compare.report.json_file import MAX_ENGINES, InvalidComparison, decode_comparison, read_comparison
from corral.compare.results import Comparison, EngineRow
from tests.compare.simulated_results import HOSTILE, comparison, empty

NUMBERS: list[Any] = [0, -1, 1, 10**18]
FLOATS: list[Any] = [0.0, -1.0, 1e-320, 1e308, "nan", "inf", "-inf", 3.5]
TEXTS = ["", HOSTILE, "x" * 500, "\u202e\x00\x1b[31m", "2", "corral", "\U0001f999"]


def mangled(value: Any, dice: random.Random, share: float) -> Any:
    """Some of the leaves are others of their type, some of the lists are empty."""
    if isinstance(value, dict):
        return {key: mangled(entry, dice, share) for key, entry in value.items()}
    if isinstance(value, list):
        return [] if dice.random() < share / 4 else [mangled(entry, dice, share) for entry in value]
    if value is None or isinstance(value, bool | tuple) or dice.random() > share:
        return value
    return dice.choice(NUMBERS if isinstance(value, int) else FLOATS if isinstance(value, float) else TEXTS)


def made_of(seed: int) -> Comparison:
    """Read as a file is; a mangled field that only takes certain words leaves the comparison as it was."""
    small = comparison(2)
    small.runs = [run for run in small.runs if run.workload != "story-50"]
    dice = random.Random(seed)
    fields = mangled(msgspec.to_builtins(small), dice, dice.choice([0.01, 0.1, 0.5]))
    fields["format"] = small.format
    for row in fields["engines"]:
        for check in row["checks"]:
            check["verdict"] = dice.choice(["pass", "fail", "partly", "unknown"])
    return decode_comparison(msgspec.json.encode(fields), "fuzz")


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 60))])
def test_any_values(tmp_path: Path, seed: int) -> None:
    made = made_of(seed)
    paths = write_report(made, tmp_path)
    assert all(path.stat().st_size for path in paths)
    assert "<script" not in (tmp_path / "report.html").read_text().lower()
    found = diff(read_comparison(paths[0]), made)
    assert found.exit_code in (0, 1, 2)
    assert closing_line(found)
    assert {len(row) for row in table_rows(found, is_whole=True)} == {6}


def test_deep_settings_are_cut() -> None:
    made = empty()
    deep: Any = "bottom"
    for _ in range(500):
        deep = [deep]
    made.asked = {"deep": deep}
    again = decode_comparison(msgspec.json.encode(made), "deep")
    assert again.asked == made.asked


def test_more_engines_than_can_be_compared_are_refused() -> None:
    made = empty()
    made.engines = [EngineRow(str(number)) for number in range(MAX_ENGINES + 1)]
    with pytest.raises(InvalidComparison, match=f"{MAX_ENGINES + 1} engines; at most {MAX_ENGINES}"):
        decode_comparison(msgspec.json.encode(made), "many")
