"""The stub names what the core has, and nothing else."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

from corral import _native

STUB = Path(_native.__file__ or "").with_name("_native.pyi")


def public(names: list[str]) -> set[str]:
    return {name for name in names if not name.startswith("_") or name in ("__init__", "__len__", "__getitem__")}


def test_stub_and_core_have_the_same_names() -> None:
    tree = ast.parse(STUB.read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    assert public(dir(_native)) == functions | set(classes)
    for name, node in classes.items():
        members = {member.name for member in node.body if isinstance(member, ast.FunctionDef)}
        assert public(list(vars(getattr(_native, name)))) == members, name


def test_stub_and_core_have_the_same_arguments() -> None:
    tree = ast.parse(STUB.read_text())
    checked = 0
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for member in node.body:
            if not isinstance(member, ast.FunctionDef) or member.decorator_list:
                continue
            text = inspect.getdoc(getattr(getattr(_native, node.name), member.name)) or ""
            signature = text.splitlines()[0]
            for argument in member.args.args + member.args.kwonlyargs:
                assert argument.arg in signature, f"{node.name}.{member.name}: {argument.arg}"
                checked += 1
    assert checked > 50
