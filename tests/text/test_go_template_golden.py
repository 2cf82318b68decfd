"""Our Go templates against Go's own: tests/support/go_template_oracle wrote down what text/template makes of them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from corral.text.go_template.data import message_of, tools_of
from corral.text.go_template.evaluator import Evaluator
from corral.text.go_template.functions import FUNCTIONS, SHORT_CIRCUIT
from corral.text.go_template.nodes import GoTemplateError
from corral.text.go_template.parser import parse
from corral.text.template_limits import Budget, TemplateLimits

CASES = Path(__file__).parent.parent / "golden" / "go_template" / "cases.json"


@cache
def cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(CASES.read_text())
    return found


def ours(source: str, raw: dict[str, Any]) -> str | None:
    data = {**raw, "Messages": [message_of(each) for each in raw["Messages"]], "Tools": tools_of(raw["Tools"])}
    try:
        tree = parse(source, {*FUNCTIONS, *SHORT_CIRCUIT})
        return Evaluator(tree.defined, Budget(TemplateLimits())).run(tree.body, data)
    except GoTemplateError:
        return None


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"])
def test_as_go_does_it(case: dict[str, Any]) -> None:
    assert ours(case["template"], case["data"]) == case["output"]


def test_the_golden_file_holds_successes_and_failures() -> None:
    outputs = [case["output"] for case in cases()]
    assert len(outputs) > 150
    assert outputs.count(None) > 30
