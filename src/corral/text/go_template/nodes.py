"""What a Go template is made of once it is read. Every node knows its line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class GoTemplateError(Exception):
    """A template that cannot be read, or that fails while it runs; `line` is 1 for the first."""

    def __init__(self, line: int, fault: str) -> None:
        super().__init__(f"template line {line}: {fault}")
        self.line = line
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Literal:
    value: Any  # str, int, float, bool or None (nil)


@dataclass(frozen=True, slots=True)
class Dot:
    pass


@dataclass(frozen=True, slots=True)
class Field:
    """.A.B, of the dot."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """$x.A.B; the name is without its dollar, empty for `$` itself."""

    name: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Function:
    name: str


@dataclass(frozen=True, slots=True)
class Chain:
    """(pipeline).A.B"""

    operand: Operand
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Command:
    arguments: tuple[Operand, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Pipeline:
    """$a, $b := command | command. `is_assignment`: the variables are there already."""

    variables: tuple[str, ...]
    is_assignment: bool
    commands: tuple[Command, ...]
    line: int


Operand = Literal | Dot | Field | Variable | Function | Chain | Pipeline


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Action:
    pipeline: Pipeline


@dataclass(frozen=True, slots=True)
class Branch:
    """if, with or range, as `kind` says."""

    kind: str
    pipeline: Pipeline
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Leave:
    """break or continue."""

    kind: str


@dataclass(frozen=True, slots=True)
class Call:
    """{{template "name" pipeline}}"""

    name: str
    pipeline: Pipeline | None
    line: int


Node = Text | Action | Branch | Leave | Call
