"""Questions about a template that was read, and the cut at its .Response; both as Ollama asks them."""

from __future__ import annotations

from collections.abc import Iterator

from corral.text.go_template.nodes import (
    Action,
    Branch,
    Call,
    Chain,
    Command,
    Field,
    Literal,
    Node,
    Operand,
    Pipeline,
    Text,
    Variable,
)
from corral.text.go_template.parser import Tree

RESPONSE = Action(Pipeline((), False, (Command((Field(("Response",)),), 0),), 0))  # {{ .Response }}


def names_of(tree: Tree) -> frozenset[str]:
    """Names of every field that the template uses."""
    bodies = (tree.body, *tree.defined.values())
    return frozenset(name for body in bodies for name in _names_in(body))


def _names_in(nodes: tuple[Node, ...]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Action | Branch | Call) and node.pipeline is not None:
            yield from _names_of_operand(node.pipeline)
        if isinstance(node, Branch):
            yield from _names_in(node.body)
            yield from _names_in(node.otherwise)


def _names_of_operand(operand: Operand) -> Iterator[str]:
    if isinstance(operand, Field | Variable | Chain):
        yield from operand.names
    if isinstance(operand, Chain):
        yield from _names_of_operand(operand.operand)
    if isinstance(operand, Pipeline):
        for command in operand.commands:
            for argument in command.arguments:
                yield from _names_of_operand(argument)


def has_text(tree: Tree, text: str) -> bool:
    """Whether the template writes `text`, in a text of its own or a quoted one."""
    bodies = (tree.body, *tree.defined.values())
    return any(text in each for body in bodies for each in _texts_in(body))


def _texts_in(nodes: tuple[Node, ...]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Text):
            yield node.text
        elif isinstance(node, Action | Branch):
            yield from _literals(node.pipeline)
        if isinstance(node, Branch):
            yield from _texts_in(node.body)
            yield from _texts_in(node.otherwise)


def _literals(pipeline: Pipeline) -> Iterator[str]:
    for command in pipeline.commands:
        for argument in command.arguments:
            if isinstance(argument, Literal) and isinstance(argument.value, str):
                yield argument.value
            elif isinstance(argument, Pipeline):
                yield from _literals(argument)


def cut_after_response(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """The template up to the action that writes .Response: what follows ends a turn, and the last one goes on."""
    return _cut(nodes)[0]


def _cut(nodes: tuple[Node, ...]) -> tuple[tuple[Node, ...], bool]:
    kept: list[Node] = []
    for node in nodes:
        if isinstance(node, Branch):
            body, is_cut = _cut(node.body)
            otherwise, is_cut = ((), True) if is_cut else _cut(node.otherwise)
            node = Branch(node.kind, node.pipeline, body, otherwise, node.line)
        else:
            is_cut = isinstance(node, Action) and _writes_response(node.pipeline)
        kept.append(node)
        if is_cut:
            return tuple(kept), True
    return tuple(kept), False


def _writes_response(pipeline: Pipeline) -> bool:
    for command in pipeline.commands:
        for argument in command.arguments:
            if isinstance(argument, Field) and "Response" in argument.names:
                return True
            if isinstance(argument, Pipeline) and _writes_response(argument):
                return True
    return False
