"""The figures in other tools' forms: go's benchstat, CSV, and the keys of `vllm bench serve`."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
from collections.abc import Sequence
from typing import Any

from corral.compare.report import criteria, units
from corral.compare.report.figures import Figures
from corral.compare.results import Comparison, LoadRun

_PERCENTILES = (50, 90, 95, 99)


def benchstat(comparison: Comparison, engine: str) -> str:
    """One engine's runs in the format of Go's benchmarks, a line a repeat; `benchstat a.bench b.bench` compares two.

    The names have no engine in them, as benchstat compares lines of the same name, and no hyphen, after which it
    reads a number of CPUs.
    """
    figures = Figures(comparison)
    lines = [f"Unit {criterion.unit} better=higher" for criterion in criteria.ALL if criterion.is_more_better]
    lines += [f"model: {_word(comparison.model)}", f"engine: {_word(engine)}"]
    if comparison.is_simulated:
        lines.append("simulated: true")
    for workload in figures.loads:
        for run in figures.runs(engine, workload):
            found = [(criterion.unit, figures.of_run(criterion, run)) for criterion in criteria.ALL]
            lines.append(_bench_line(workload, len(run.answers), found))
    for start in figures.starts(engine):
        lines.append(_bench_line("start", 1, [(c.unit, c.of(start)) for c in criteria.OF_STARTS]))
    return "\n".join(lines) + "\n"


def csv_table(comparison: Comparison) -> str:
    """Every figure of every run, one a row, in seconds, bytes, tokens per second and shares."""
    figures = Figures(comparison)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["engine", "workload", "repeat", "criterion", "value", "unit", "simulated"])
    mark = str(comparison.is_simulated).lower()
    for run in comparison.runs:
        for criterion in criteria.ALL:
            if found := units.finite([figures.of_run(criterion, run)]):
                name = _cell(run.engine), _cell(run.workload), run.repeat, criterion.key
                writer.writerow([*name, f"{found[0]:.9g}", criterion.unit, mark])
    for engine in figures.engines:
        for start in figures.starts(engine):
            for start_criterion in criteria.OF_STARTS:
                if found := units.finite([start_criterion.of(start)]):
                    name = _cell(engine), "", start.repeat, start_criterion.key
                    writer.writerow([*name, f"{found[0]:.9g}", start_criterion.unit, mark])
    return out.getvalue()


def vllm_keys(comparison: Comparison) -> str:
    """A JSON array with an object a run, in the keys of `vllm bench serve --save-result`; times in milliseconds."""
    figures = Figures(comparison)
    return json.dumps([_vllm_run(figures, run) for run in comparison.runs], indent=1, allow_nan=False) + "\n"


def _vllm_run(figures: Figures, run: LoadRun) -> dict[str, Any]:
    comparison, is_streamed = figures.comparison, figures.loads[run.workload].is_streamed
    good = criteria.good_answers(run)
    prompts = [answer.prompt_tokens for answer in good if answer.prompt_tokens is not None]
    found: dict[str, Any] = {
        "date": comparison.created,
        "backend": run.engine,
        "label": run.workload,
        "model_id": comparison.model,
        "num_prompts": len(run.answers),
        "duration": _known(run.duration_s),
        "completed": len(good),
        "failed": len(run.answers) - len(good),
        "total_input_tokens": sum(prompts) if len(prompts) == len(good) else None,
        "total_output_tokens": sum(run.answer_tokens),
        "request_throughput": _known(len(good) / run.duration_s if run.duration_s > 0 else None),
        "output_throughput": _known(criteria.output_rate(run)),
        "is_simulated": comparison.is_simulated,
    }
    samples = (
        ("ttft", criteria.first_tokens(run) if is_streamed else []),
        ("tpot", criteria.token_times(run) if is_streamed else []),
        ("itl", criteria.gaps(run) if is_streamed else []),
        ("e2el", criteria.latencies(run)),
    )
    for name, values in samples:
        found |= _milliseconds(name, values)
    return found


def _milliseconds(name: str, values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {f"mean_{name}_ms": None, f"median_{name}_ms": None}
    found: dict[str, float | None] = {
        f"mean_{name}_ms": statistics.fmean(values) * 1000,
        f"median_{name}_ms": statistics.median(values) * 1000,
        f"std_{name}_ms": statistics.pstdev(values) * 1000,
    }
    return found | {
        f"p{percent}_{name}_ms": (units.percentile(values, percent) or 0) * 1000 for percent in _PERCENTILES
    }


def _known(value: float | None) -> float | None:
    return next(iter(units.finite([value])), None)


def _bench_line(name: str, count: int, found: Sequence[tuple[str, float | None]]) -> str:
    values = [f"{known[0]:.9g} {unit}" for unit, value in found if (known := units.finite([value]))]
    return "\t".join([f"Benchmark{_word(name).capitalize().replace('-', '_')}", str(max(count, 1)), *values])


def _word(text: str) -> str:
    """Without blanks, which end a name there."""
    return re.sub(r"\s+", "_", text.strip()) or "_"


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
