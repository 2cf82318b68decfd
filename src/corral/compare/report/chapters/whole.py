"""The whole report as a document."""

from __future__ import annotations

from corral.compare.report import units
from corral.compare.report.chapters import conduct, raw, resources, setup, speed, summary
from corral.compare.report.document import Document
from corral.compare.report.figures import Figures
from corral.compare.report.verdicts import verdicts
from corral.compare.results import Comparison

_SIMULATED = (
    "Simulated. The engines of this report are made up to test the tool; no number here was measured on a real one."
)


def document(comparison: Comparison) -> Document:
    """Every chapter, drawn from the comparison and nothing else."""
    figures = Figures(comparison)
    found = verdicts(figures)
    names = ", ".join(figures.rows) or "no engine"
    facts = [
        ("Model", f"{comparison.model} ({units.size(comparison.model_bytes)})"),
        ("SHA-256", comparison.digest),
        ("Profile", comparison.profile),
        ("Machine", next(iter(comparison.machine.values()), "not told")),
        ("Measured", comparison.created),
        ("By", f"Corral {comparison.corral_version}"),
    ]
    return Document(
        f"{names} side by side",
        _SIMULATED if comparison.is_simulated else "",
        facts,
        [
            summary.summary(figures, found),
            setup.machine(figures),
            setup.same_work(figures),
            speed.speed(figures, found),
            resources.resources(figures, found),
            resources.cold(figures, found),
            conduct.overcommit(figures),
            conduct.probes(figures),
            conduct.ease(figures),
            raw.faults(figures),
            raw.raw(figures),
            raw.method(figures),
        ],
    )
