"""The files of a report, in one folder."""

from __future__ import annotations

from pathlib import Path

from corral.compare.log import file_name
from corral.compare.report.exports import benchstat, csv_table, vllm_keys
from corral.compare.report.figures import Figures
from corral.compare.report.html import html_page
from corral.compare.report.json_file import write_comparison
from corral.compare.report.markdown import markdown_page
from corral.compare.results import Comparison

JSON_NAME = "comparison.json"
HTML_NAME = "report.html"
MARKDOWN_NAME = "report.md"


def write_report(comparison: Comparison, folder: Path) -> list[Path]:
    """All of them, the JSON file first; the folder is made if it is not there. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    write_comparison(comparison, folder / JSON_NAME)
    texts = {
        HTML_NAME: html_page(comparison),
        MARKDOWN_NAME: markdown_page(comparison),
        "figures.csv": csv_table(comparison),
        "vllm-bench.json": vllm_keys(comparison),
    }
    for engine in Figures(comparison).engines:
        name = file_name(engine)
        while f"{name}.bench" in texts:
            name += "_"
        texts[f"{name}.bench"] = benchstat(comparison, engine)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", errors="replace")  # half characters of an answer
    return [folder / JSON_NAME, *(folder / name for name in texts)]
