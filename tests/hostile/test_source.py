"""What hostile input must never meet in our source, and that the page of lessons names tests that are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "src" / "corral"
PAGE = ROOT / "docs" / "security.md"
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}
NAMED_TEST = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(\w+)`")


ELSEWHERE = "compare/engines/dequantize.py:"  # runs in another engine's environment, on a file that the user compares


def nodes() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            yield f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}", node


def test_nothing_is_checked_by_assert() -> None:
    found = [where for where, node in nodes() if isinstance(node, ast.Assert)]
    assert not found, "python -O takes asserts away; raise an error of corral.errors instead"


def test_no_text_is_run() -> None:
    found = [
        where
        for where, node in nodes()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RUNS_TEXT
    ]
    assert not found


def test_no_code_comes_with_a_model() -> None:
    """Nothing loads a module by a name that is not written in the source, nor an object that brings its own code."""
    loaders = {"importlib.import_module", "importlib.util", "runpy", "np.load", "numpy.load", "torch", "imp"}
    found = []
    for where, node in nodes():
        if isinstance(node, ast.Attribute):
            found += [where for loader in loaders if ast.unparse(node) == loader]
        elif where.startswith(ELSEWHERE):
            continue
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            found += [where for loader in loaders if loader in names]
        elif isinstance(node, ast.Constant) and node.value == "trust_remote_code":
            found.append(where)
    assert not found


def test_errors_of_the_checks_are_never_shown_as_they_are() -> None:
    """pydantic's text holds class names, values and links: messages are built from fields."""
    found = []
    for where, node in nodes():
        if not isinstance(node, ast.ExceptHandler) or node.type is None or node.name is None:
            continue
        caught = {each.id for each in ast.walk(node.type) if isinstance(each, ast.Name)}
        shown = [
            call
            for call in ast.walk(node)
            if isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and call.func.id in {"str", "repr"}
            and any(isinstance(arg, ast.Name) and arg.id == node.name for arg in call.args)
        ]
        if "ValidationError" in caught and shown:
            found.append(where)
    assert not found


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED_TEST.findall(PAGE.read_text()))))
def test_the_page_names_tests_that_are_there(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in functions
