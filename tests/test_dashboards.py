"""The dashboard and the alerts ask for metrics that there are, and the guide names them all."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from corral.server.metrics.books import Books
from corral.server.metrics.collector import ServerCollector
from tests.support.metrics import full_books, full_state

ROOT = Path(__file__).parent.parent
DASHBOARD = ROOT / "docs/dashboards/grafana.json"
ALERTS = ROOT / "docs/dashboards/alerts.yml"
GUIDE = ROOT / "docs/guides/metrics.md"
OF_THE_PROCESS = {"process_resident_memory_bytes", "process_open_fds", "process_max_fds", "up"}
_METRIC = re.compile(r"\b(?:vllm|corral):\w+|\b(?:http|process)_\w+|\bup\b")


def samples() -> set[str]:
    """The names of all samples that a busy server has."""
    collector = ServerCollector(full_books(), full_state())
    return {sample.name for family in collector.collect() for sample in family.samples}


def panel_expressions() -> list[str]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def alert_expressions() -> dict[str, str]:
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    return {rule["alert"]: rule["expr"] for rule in rules}


def test_what_is_asked_for_is_there() -> None:
    known = samples() | OF_THE_PROCESS
    for expression in (*panel_expressions(), *alert_expressions().values()):
        names = _METRIC.findall(expression)
        assert names, expression
        assert set(names) <= known, f"{set(names) - known} of {expression}"


def test_panels_have_ids_and_places_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)


def test_the_guide_names_every_metric() -> None:
    families = {family.name for family in ServerCollector(full_books(), full_state()).collect()}
    told = set(re.findall(r"`((?:vllm|corral):\w+|http_\w+)`", GUIDE.read_text()))
    families = {name if name not in _counters() else f"{name}_total" for name in families}
    assert told == families


def _counters() -> set[str]:
    return {f.name for f in ServerCollector(full_books(), full_state()).collect() if f.type == "counter"}


def test_an_idle_server_has_no_samples_without_a_value() -> None:
    for family in ServerCollector(Books(), full_state()).collect():
        assert all(sample.value == sample.value for sample in family.samples), family.name
