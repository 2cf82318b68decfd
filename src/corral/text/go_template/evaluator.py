"""Runs a template that was read. Everything it can repeat is paid for from the current Budget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from corral.text.go_template.functions import FUNCTIONS, SHORT_CIRCUIT
from corral.text.go_template.nodes import (
    Action,
    Branch,
    Call,
    Chain,
    Command,
    Dot,
    Field,
    Function,
    GoTemplateError,
    Leave,
    Literal,
    Node,
    Operand,
    Pipeline,
    Text,
    Variable,
)
from corral.text.go_template.values import Struct, is_true, show, type_name
from corral.text.template_limits import Budget

_MAX_CALLS = 32  # templates within templates
_NOTHING = object()


class _LeaveError(Exception):
    """break or continue, on its way to its range."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


class Evaluator:
    """One run of a template over one value."""

    def __init__(self, defined: dict[str, tuple[Node, ...]], budget: Budget) -> None:
        self._defined = defined
        self._budget = budget
        self._parts: list[str] = []
        self._num_chars = 0
        self._variables: list[tuple[str, Any]] = []
        self._num_calls = 0

    def run(self, body: tuple[Node, ...], data: Any) -> str:
        """What the template writes.

        Raises:
            GoTemplateError: it fails on these data.
            TemplateLimitError: it does more than the budget allows.
        """
        self._variables = [("", data)]
        self._nodes(body, data)
        return "".join(self._parts)

    def _write(self, text: str) -> None:
        self._num_chars += len(text)
        self._budget.check_chars(self._num_chars)
        self._parts.append(text)

    def _nodes(self, nodes: tuple[Node, ...], dot: Any) -> None:
        for node in nodes:
            self._budget.spend(1)
            if isinstance(node, Text):
                self._write(node.text)
            elif isinstance(node, Action):
                value = self._pipeline(node.pipeline, dot)
                if not node.pipeline.variables:
                    self._write(self._shown(value, node.pipeline.line))
            elif isinstance(node, Branch):
                self._branch(node, dot)
            elif isinstance(node, Leave):
                raise _LeaveError(node.kind)
            else:
                self._call(node, dot)

    def _shown(self, value: Any, line: int) -> str:
        self._measure(value)
        try:
            return show(value)
        except ValueError as error:
            raise GoTemplateError(line, str(error)) from error

    def _measure(self, value: Any) -> None:
        if isinstance(value, Struct):
            value = value.json_value
        if isinstance(value, list | dict):
            self._budget.measure([_plain(entry) for entry in value] if isinstance(value, list) else value)

    def _branch(self, node: Branch, dot: Any) -> None:
        mark = len(self._variables)
        if node.kind == "range":
            self._range(node, dot)
        else:
            value = self._pipeline(node.pipeline, dot)
            inner = value if node.kind == "with" and is_true(value) else dot
            self._nodes(node.body if is_true(value) else node.otherwise, inner)
        del self._variables[mark:]

    def _range(self, node: Branch, dot: Any) -> None:
        pipeline = node.pipeline
        value = self._commands(pipeline, dot)
        names = pipeline.variables
        mark = len(self._variables)
        is_empty = True
        for key, entry in _items(value, pipeline.line):
            is_empty = False
            self._budget.spend(2)
            values = (entry,) if len(names) == 1 else (key, entry)
            for name, each in zip(names, values, strict=False):
                self._set(name, each) if pipeline.is_assignment else self._variables.append((name, each))
            try:
                self._nodes(node.body, entry)
            except _LeaveError as leave:
                if leave.kind == "break":
                    break
            finally:
                del self._variables[mark:]
        if is_empty:
            self._nodes(node.otherwise, dot)

    def _call(self, node: Call, dot: Any) -> None:
        value = None if node.pipeline is None else self._pipeline(node.pipeline, dot)
        if self._num_calls >= _MAX_CALLS:
            raise GoTemplateError(node.line, f"templates call one another more than {_MAX_CALLS} deep")
        outer, self._variables = self._variables, [("", value)]
        self._num_calls += 1
        self._nodes(self._defined[node.name], value)
        self._num_calls -= 1
        self._variables = outer

    def _pipeline(self, pipeline: Pipeline, dot: Any) -> Any:
        value = self._commands(pipeline, dot)
        for name in pipeline.variables:
            if pipeline.is_assignment:
                self._set(name, value)
            else:
                self._variables.append((name, value))
        return value

    def _commands(self, pipeline: Pipeline, dot: Any) -> Any:
        value: Any = _NOTHING
        for command in pipeline.commands:
            value = self._command(command, dot, value)
        return value

    def _command(self, command: Command, dot: Any, piped: Any) -> Any:
        self._budget.spend(1)
        head = command.arguments[0]
        if not isinstance(head, Function):
            return self._value(head, dot, command.line)
        if head.name in SHORT_CIRCUIT:
            return self._short_circuit(head.name, command, dot, piped)
        arguments = [self._value(argument, dot, command.line) for argument in command.arguments[1:]]
        if piped is not _NOTHING:
            arguments.append(piped)
        return self._apply(head.name, arguments, command.line)

    def _short_circuit(self, name: str, command: Command, dot: Any, piped: Any) -> Any:
        value: Any = _NOTHING
        for argument in command.arguments[1:]:
            value = self._value(argument, dot, command.line)
            if is_true(value) == (name == "or"):
                return value
        value = value if piped is _NOTHING else piped
        if value is _NOTHING:
            raise GoTemplateError(command.line, f"{name} needs a value")
        return value

    def _apply(self, name: str, arguments: list[Any], line: int) -> Any:
        for argument in arguments if name in ("json", "print", "printf", "println") else ():
            self._measure(argument)
        try:
            result = FUNCTIONS[name](*arguments)
        except TypeError as error:
            raise GoTemplateError(line, f"{name} does not take {len(arguments)} values") from error
        except ValueError as error:
            raise GoTemplateError(line, f"{name}: {error}") from error
        if isinstance(result, str):
            self._budget.charge(result)
        elif isinstance(result, list):
            self._budget.spend(len(result))
        return result

    def _value(self, operand: Operand, dot: Any, line: int) -> Any:
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Dot):
            return dot
        if isinstance(operand, Field):
            return _fields(dot, operand.names, line)
        if isinstance(operand, Variable):
            return _fields(self._get(operand.name), operand.names, line)
        if isinstance(operand, Chain):
            return _fields(self._value(operand.operand, dot, line), operand.names, line)
        if isinstance(operand, Pipeline):
            return self._pipeline(operand, dot)
        if operand.name in SHORT_CIRCUIT:
            raise GoTemplateError(line, f"{operand.name} needs a value")
        return self._apply(operand.name, [], line)

    def _get(self, name: str) -> Any:
        return next(value for known, value in reversed(self._variables) if known == name)

    def _set(self, name: str, value: Any) -> None:
        for index in range(len(self._variables) - 1, -1, -1):
            if self._variables[index][0] == name:
                self._variables[index] = (name, value)
                return


def _fields(value: Any, names: tuple[str, ...], line: int) -> Any:
    for name in names:
        if isinstance(value, Struct):
            if name not in value.fields:
                raise GoTemplateError(line, f"a {value.type_name} has no {name}; it has {', '.join(value.fields)}")
            value = value.fields[name]
        elif isinstance(value, dict):
            value = value.get(name)
        else:
            raise GoTemplateError(line, f".{name} of a {type_name(value)}")
    return value


def _items(value: Any, line: int) -> Iterator[tuple[Any, Any]]:
    """Keys and values in the order in which Go's range gives them."""
    if isinstance(value, dict):
        yield from ((key, value[key]) for key in sorted(value))
    elif isinstance(value, list):
        yield from enumerate(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield from ((number, number) for number in range(value))
    elif value is not None:
        raise GoTemplateError(line, f"range over a {type_name(value)}")


def _plain(value: Any) -> Any:
    return value.json_value if isinstance(value, Struct) else value
