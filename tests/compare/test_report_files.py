"""The files of a report: JSON and back, Markdown, and the forms of other tools."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
from pathlib import Path

import msgspec
import pytest

from corral.compare.report import json_file
from corral.compare.report.exports import benchstat, csv_table, vllm_keys
from corral.compare.report.files import write_report
from corral.compare.report.html import html_page
from corral.compare.report.json_file import InvalidComparison, decode_comparison, read_comparison, write_comparison
from corral.compare.report.markdown import escaped, markdown_page
from corral.compare.results import FORMAT
from tests.compare.simulated_results import HOSTILE, comparison, empty, hostile


def test_json_and_back(tmp_path: Path) -> None:
    made = comparison()
    write_comparison(made, tmp_path / "c.json")
    again = read_comparison(tmp_path / "c.json")
    assert again.engines == made.engines
    assert [rate.rate for rate in again.rates] == pytest.approx([rate.rate for rate in made.rates], abs=1e-6)
    assert [run.answer_tokens for run in again.runs] == [run.answer_tokens for run in made.runs]
    assert again.runs[0].answers[0].content_times == pytest.approx(made.runs[0].answers[0].content_times, abs=1e-6)
    assert html_page(again) == html_page(read_comparison(tmp_path / "c.json"))
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


def test_a_packed_file_is_read_but_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_comparison(comparison(), tmp_path / "c.json")
    packed = tmp_path / "c.json.gz"
    packed.write_bytes(gzip.compress((tmp_path / "c.json").read_bytes()))
    assert read_comparison(packed) == read_comparison(tmp_path / "c.json")
    packed.write_bytes(gzip.compress(b" " * 1000)[:-12])
    with pytest.raises(InvalidComparison, match=r"c\.json\.gz"):
        read_comparison(packed)
    monkeypatch.setattr(json_file, "MAX_BYTES", 1000)
    packed.write_bytes(gzip.compress(b" " * 1001))
    with pytest.raises(InvalidComparison, match="over 1,000 bytes"):
        read_comparison(packed)


def test_numbers_that_json_lacks_survive(tmp_path: Path) -> None:
    write_comparison(hostile(), tmp_path / "c.json")
    json.loads((tmp_path / "c.json").read_text(), parse_constant=pytest.fail)
    again = read_comparison(tmp_path / "c.json")
    assert math.isnan(again.runs[-1 - 1].duration_s)
    assert math.isinf(again.runs[-2].foreign_cpu)
    assert html_page(again)


def test_half_characters_of_an_answer_survive(tmp_path: Path) -> None:
    """As a server may send them, escaped in its JSON."""
    made = comparison(1)
    made.agreements[0].answers[1] = made.runs[0].answers[0].text = "half \ud800"
    write_report(made, tmp_path)
    assert read_comparison(tmp_path / "comparison.json").runs[0].answers[0].text == "half ?"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not JSON"),
        ("[" * 5000, "not JSON"),
        ("[]", "no field `format`"),
        ("{}", "no field `format`"),
        ('{"format": 99}', f"format 99; this version of Corral reads format {FORMAT}"),
        (f'{{"format": {FORMAT}}}', "missing required field `created`"),
        (f'{{"format": {FORMAT}, "created": 5}}', "str"),
    ],
)
def test_what_is_no_comparison_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InvalidComparison) as refused:
        read_comparison(tmp_path / "c.json")
    assert fault in str(refused.value)
    assert "c.json" in str(refused.value)


def test_a_field_of_the_wrong_kind_is_named() -> None:
    fields = msgspec.to_builtins(empty())
    fields["engines"] = [{"name": "corral", "checks": [{"area": "x", "name": "n", "verdict": "great"}]}]
    with pytest.raises(InvalidComparison, match=r"great.*engines\[0\]\.checks|engines\[\.\.\.\]\.checks"):
        decode_comparison(msgspec.json.encode(fields), "here")


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InvalidComparison, match="No such file"):
        read_comparison(Path("/nowhere/c.json"))


def tables(text: str) -> list[list[str]]:
    """Each run of lines that begin with a bar."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


@pytest.mark.parametrize("name", ["whole", "empty", "hostile"])
def test_tables_of_markdown_are_well_formed(name: str) -> None:
    text = markdown_page({"whole": comparison, "empty": empty, "hostile": hostile}[name]())
    assert tables(text)
    for table in tables(text):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
        assert len(widths) == 1, table
        assert re.fullmatch(r"\|(---\|)+", table[1])


def test_hostile_texts_are_no_markup_in_markdown() -> None:
    text = markdown_page(hostile())
    outside = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    assert "<script" not in outside
    assert not re.search(r"(?<!\\)\]\(", outside)
    assert "http://" not in outside
    assert not re.search(r"(?<!\\)\[a", outside)
    assert "\n# title" not in text


def test_markdown_has_what_the_page_has() -> None:
    text = markdown_page(comparison())
    assert text.startswith("# corral, llama.cpp, vllm, ollama side by side\n\n> **Simulated.")
    assert "not run: no program called ollama on the path" in text
    assert "## Method" in text
    assert "    corral serve --model M.gguf" in text


def test_short_markdown_lacks_what_is_folded_away() -> None:
    whole, short = markdown_page(comparison()), markdown_page(comparison(), is_short=True)
    assert "Every run of every workload" in whole
    assert "Every run of every workload" not in short
    assert set(short.splitlines()) <= set(whole.splitlines())


def test_escaping() -> None:
    assert escaped("a|b\n<i>") == "a\\|b &lt;i&gt;"
    assert escaped("2 * 3 _x_ `y`") == "2 \\* 3 \\_x\\_ \\`y\\`"


def test_benchstat_lines() -> None:
    lines = benchstat(comparison(), "corral").splitlines()
    assert "Unit tokens/s better=higher" in lines
    assert "simulated: true" in lines
    found = [line.split() for line in lines if line.startswith("Benchmark")]
    assert len([words for words in found if words[0] == "BenchmarkStory_50"]) == 3  # a line a repeat
    for words in found:
        assert int(words[1]) >= 1
        values, names = words[2::2], words[3::2]
        assert len(values) == len(names) == len(set(names))
        assert all(math.isfinite(float(value)) for value in values)


@pytest.mark.parametrize("made", [comparison(), hostile(), empty()])
def test_csv_rows(made: object) -> None:
    rows = [*csv.DictReader(io.StringIO(csv_table(made)))]  # type: ignore[arg-type]
    assert all(math.isfinite(float(row["value"])) for row in rows)
    assert all(row["simulated"] == "true" for row in rows)


def test_csv_has_no_formulas() -> None:
    made = comparison(1)
    made.runs[0].engine = "=HYPERLINK(1)"
    assert {row["engine"] for row in csv.DictReader(io.StringIO(csv_table(made)))} >= {"'=HYPERLINK(1)", "vllm"}


def test_the_keys_of_vllms_client() -> None:
    runs = json.loads(vllm_keys(comparison()))
    first = runs[0]
    assert first["completed"] == 6
    assert first["total_output_tokens"] == 6 * 64
    assert first["output_throughput"] == pytest.approx(first["total_output_tokens"] / first["duration"])
    assert first["mean_itl_ms"] == pytest.approx(20, rel=0.1)
    assert {"request_throughput", "p99_ttft_ms", "median_tpot_ms", "mean_e2el_ms"} <= set(first)
    json.loads(vllm_keys(hostile()), parse_constant=pytest.fail)


def test_all_files_in_one_folder(tmp_path: Path) -> None:
    made = hostile()
    paths = write_report(made, tmp_path / "out")
    assert sorted(paths) == sorted((tmp_path / "out").iterdir())
    assert {path.name for path in paths} >= {"comparison.json", "report.html", "report.md", "llama.cpp.bench"}
    assert HOSTILE not in {path.name for path in paths}
    assert all(path.stat().st_size for path in paths)
