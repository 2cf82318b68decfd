"""Tokens -> nodes. What Corral does not do is refused here, with its line, and not when a user's message meets it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from corral.text.go_template.lexer import Piece, Token, cut
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

MAX_DEPTH = 64  # of blocks within blocks, and of parentheses
MAX_NODES = 20_000
_CONSTANTS = {"true": True, "false": False, "nil": None}
_BRANCHES = ("if", "with", "range")
_KEYWORDS = (*_BRANCHES, "else", "end", "define", "template", "block", "break", "continue")


@dataclass(frozen=True, slots=True)
class Tree:
    """A template that was read, and those that it defines."""

    body: tuple[Node, ...]
    defined: dict[str, tuple[Node, ...]]


def parse(source: str, functions: Collection[str]) -> Tree:
    """Reads a template.

    Args:
        functions: names that it may call.

    Raises:
        GoTemplateError: names the line and what was found there.
    """
    return _Parser(cut(source), functions).tree()


@dataclass(slots=True)
class _Open:
    """A block that is being read."""

    kind: str
    line: int
    pipeline: Pipeline | None = None
    name: str = ""
    body: list[Node] = field(default_factory=list)
    otherwise: list[Node] | None = None  # after {{else}}
    num_variables: int = 0  # that were visible before it
    is_chained: bool = False  # {{else if}}: the {{end}} of the block around it is its own


class _Parser:
    def __init__(self, pieces: Iterator[Piece], functions: Collection[str]) -> None:
        self._pieces = pieces
        self._functions = functions
        self._open = [_Open("template", 1)]
        self._variables = [""]
        self._defined: dict[str, tuple[Node, ...]] = {}
        self._calls: list[Call] = []
        self._num_nodes = 0

    def tree(self) -> Tree:
        for piece in self._pieces:
            self._num_nodes += 1
            if self._num_nodes > MAX_NODES:
                raise GoTemplateError(piece.line, f"more than {MAX_NODES} texts and actions")
            if piece.text is not None:
                self._add(Text(piece.text))
            else:
                self._action(piece)
        if len(self._open) > 1:
            block = self._open[-1]
            raise GoTemplateError(block.line, f"{{{{{block.kind}}}}} has no {{{{end}}}}")
        for call in self._calls:
            if call.name not in self._defined:
                raise GoTemplateError(call.line, f"template {call.name!r:.60} is not defined")
        return Tree(tuple(self._open[0].body), self._defined)

    def _add(self, node: Node) -> None:
        block = self._open[-1]
        (block.body if block.otherwise is None else block.otherwise).append(node)

    def _action(self, piece: Piece) -> None:
        tokens, line = piece.tokens, piece.line
        if not tokens:
            raise GoTemplateError(line, "an action is empty")
        head = tokens[0]
        if head.kind != "name" or head.value not in _KEYWORDS:
            self._add(Action(self._pipeline(tokens, line, "an action")))
            return
        rest = tokens[1:]
        if head.value in _BRANCHES:
            self._begin(head.value, rest, line)
        elif head.value == "else":
            self._else(rest, line)
        elif head.value == "end":
            self._nothing_more(rest, "end")
            self._end(line)
        elif head.value in ("break", "continue"):
            self._nothing_more(rest, head.value)
            self._leave(head.value, line)
        else:
            self._template(head.value, rest, line)

    def _begin(self, kind: str, tokens: tuple[Token, ...], line: int, *, is_chained: bool = False) -> None:
        num_variables = len(self._variables)
        self._push(_Open(kind, line, num_variables=num_variables, is_chained=is_chained))
        self._open[-1].pipeline = self._pipeline(tokens, line, f"{{{{{kind}}}}}", is_range=kind == "range")

    def _push(self, block: _Open) -> None:
        if len(self._open) > MAX_DEPTH:
            raise GoTemplateError(block.line, f"blocks are nested more than {MAX_DEPTH} deep")
        self._open.append(block)

    def _else(self, tokens: tuple[Token, ...], line: int) -> None:
        block = self._open[-1]
        if block.kind not in _BRANCHES or block.otherwise is not None:
            raise GoTemplateError(line, "{{else}} without an {{if}}, {{with}} or {{range}} that still takes one")
        block.otherwise = []
        if tokens:
            kind = tokens[0].value if tokens[0].kind == "name" else ""
            if kind != block.kind or kind == "range":
                raise GoTemplateError(line, f"{{{{else}}}} of {{{{{block.kind}}}}} is followed by {_shown(tokens[0])}")
            self._begin(kind, tokens[1:], line, is_chained=True)
        else:
            # Variables of the first part are not visible in the second; those of the pipeline are.
            del self._variables[block.num_variables + len(block.pipeline.variables if block.pipeline else ()) :]

    def _end(self, line: int) -> None:
        if len(self._open) == 1:
            raise GoTemplateError(line, "{{end}} without a block that it would end")
        while True:
            block = self._open.pop()
            del self._variables[block.num_variables :]
            if block.pipeline is None:  # only {{define}} has none
                self._define(block)
                return
            if block.kind == "block":
                self._define(block)
                call = Call(block.name, block.pipeline, block.line)
                self._add(call)
                return
            body, otherwise = tuple(block.body), tuple(block.otherwise or ())
            self._add(Branch(block.kind, block.pipeline, body, otherwise, block.line))
            if not block.is_chained:
                return

    def _define(self, block: _Open) -> None:
        if block.name in self._defined:
            raise GoTemplateError(block.line, f"template {block.name!r:.60} is defined twice")
        self._defined[block.name] = tuple(block.body)

    def _leave(self, kind: str, line: int) -> None:
        for block in reversed(self._open):
            if block.kind == "range" and block.otherwise is None:
                self._add(Leave(kind))
                return
            if block.kind in ("define", "block"):
                break
        raise GoTemplateError(line, f"{{{{{kind}}}}} outside {{{{range}}}}")

    def _template(self, kind: str, tokens: tuple[Token, ...], line: int) -> None:
        if not tokens or tokens[0].kind != "string":
            raise GoTemplateError(line, f"{{{{{kind}}}}} needs a quoted name")
        name, rest = tokens[0].value, tokens[1:]
        pipeline = self._pipeline(rest, line, f"{{{{{kind}}}}}") if rest else None
        if kind == "template":
            call = Call(name, pipeline, line)
            self._calls.append(call)
            self._add(call)
            return
        if kind == "block" and pipeline is None:
            raise GoTemplateError(line, "{{block}} needs a value after its name")
        if kind == "define":
            self._nothing_more(rest, "define")
            if len(self._open) > 1:
                raise GoTemplateError(line, "{{define}} within another block")
        if len(self._variables) > 1:
            raise GoTemplateError(line, f"{{{{{kind}}}}} where variables are declared already; put it first")
        self._push(_Open(kind, line, pipeline, name, num_variables=len(self._variables)))

    def _nothing_more(self, tokens: tuple[Token, ...], after: str) -> None:
        if tokens:
            raise GoTemplateError(tokens[0].line, f"{_shown(tokens[0])} after {after}")

    def _pipeline(self, tokens: tuple[Token, ...], line: int, where: str, *, is_range: bool = False) -> Pipeline:
        reader = _PipelineReader(tokens, line, where, self._functions, self._variables)
        pipeline = reader.declaring(is_range=is_range)
        if not pipeline.is_assignment:
            self._variables += pipeline.variables
        return pipeline


class _PipelineReader:
    """Reads the tokens of one action."""

    def __init__(
        self, tokens: tuple[Token, ...], line: int, where: str, functions: Collection[str], variables: list[str]
    ) -> None:
        self._tokens = tokens
        self._position = 0
        self._line = line
        self._where = where
        self._functions = functions
        self._visible = variables
        self._depth = 0

    def declaring(self, *, is_range: bool) -> Pipeline:
        variables, is_assignment = self._declared(is_range)
        pipeline = self._commands(is_nested=False)
        for name in variables if is_assignment else ():
            self._check_variable(name)
        return Pipeline(variables, is_assignment, pipeline.commands, pipeline.line)

    def _declared(self, is_range: bool) -> tuple[tuple[str, ...], bool]:
        """The variables before := or =, if the action begins with them."""
        names: list[str] = []
        position = 0
        while position + 1 < len(self._tokens) and self._tokens[position].kind == "variable":
            names.append(self._tokens[position].value)
            sign = self._tokens[position + 1]
            if sign.kind == "sign" and sign.value in (":=", "="):
                if len(names) > (2 if is_range else 1) or "" in names:
                    raise GoTemplateError(self._line, f"{self._where} cannot declare {len(names)} variables")
                self._position = position + 2
                return tuple(names), sign.value == "="
            if sign.value != "," or sign.kind != "sign":
                break
            position += 2
        return (), False

    def _commands(self, *, is_nested: bool) -> Pipeline:
        line = self._line
        commands: list[Command] = []
        while True:
            command = self._command()
            if commands and not isinstance(command.arguments[0], Function):
                raise GoTemplateError(command.line, "what stands after | must be a function")
            commands.append(command)
            token = self._next()
            if token is None or (is_nested and token.kind == "sign" and token.value == ")"):
                if is_nested and token is None:
                    raise GoTemplateError(line, "a parenthesis is not closed")
                return Pipeline((), False, tuple(commands), line)
            if token.kind != "sign" or token.value != "|":
                raise GoTemplateError(token.line, f"{_shown(token)} in {self._where}")

    def _command(self) -> Command:
        arguments: list[Operand] = []
        line = self._line
        while (token := self._peek()) is not None:
            if token.kind == "sign" and token.value in ("|", ")"):
                break
            if arguments and not token.is_spaced:
                raise GoTemplateError(token.line, f"{_shown(token)} in {self._where}; a space is missing before it")
            line = self._line = token.line
            self._position += 1
            arguments.append(self._operand(token))
        if not arguments:
            found = "nothing" if token is None else _shown(token)
            raise GoTemplateError(self._line, f"{self._where} needs a value and has {found}")
        if arguments == [Literal(None)]:
            raise GoTemplateError(line, f"{self._where} has nil, which is no value of its own")
        if len(arguments) > 1 and not isinstance(arguments[0], Function):
            raise GoTemplateError(line, f"{self._where} gives an argument to what is no function")
        return Command(tuple(arguments), line)

    def _operand(self, token: Token) -> Operand:
        if token.kind == "field":
            return Field((token.value, *self._fields()))
        if token.kind == "variable":
            self._check_variable(token.value)
            return Variable(token.value, self._fields())
        if token.kind in ("number", "string"):
            return Literal(token.value)
        if token.kind == "name":
            if token.value in _CONSTANTS:
                return Literal(_CONSTANTS[token.value])
            if token.value in self._functions:
                return Function(token.value)
            known = ", ".join(sorted(self._functions))
            raise GoTemplateError(token.line, f"function {token.value!r:.60} is not known; there are {known}")
        if token.value == ".":
            return Dot()
        if token.value == "(":
            return self._parenthesis(token)
        raise GoTemplateError(token.line, f"{_shown(token)} in {self._where}")

    def _parenthesis(self, token: Token) -> Operand:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise GoTemplateError(token.line, f"parentheses are nested more than {MAX_DEPTH} deep")
        inner = self._commands(is_nested=True)
        self._depth -= 1
        names = self._fields()
        return Chain(inner, names) if names else inner

    def _fields(self) -> tuple[str, ...]:
        """Field names that follow without white space."""
        names: list[str] = []
        while (token := self._peek()) is not None and token.kind == "field" and not token.is_spaced:
            names.append(token.value)
            self._position += 1
        return tuple(names)

    def _check_variable(self, name: str) -> None:
        if name not in self._visible:
            raise GoTemplateError(self._line, f"variable ${name:.60} is not declared")

    def _peek(self) -> Token | None:
        return self._tokens[self._position] if self._position < len(self._tokens) else None

    def _next(self) -> Token | None:
        token = self._peek()
        if token is not None:
            self._line = token.line
            self._position += 1
        return token


def _shown(token: Token) -> str:
    mark = {"field": ".", "variable": "$"}.get(token.kind, "")
    return f"{mark + str(token.value)!r:.60}"
