"""The Jinja environment of chat templates: Hugging Face's, with everything that repeats or grows metered."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import update_wrapper
from typing import Any, NoReturn, cast

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from corral.text.now import now
from corral.text.template_limits import CURRENT_BUDGET

# Filters and string methods that templates use; those left out (center, wordwrap, striptags, ...) are for pages of
# HTML, and each would need a guard of its own.
_FILTERS = """
    abs attr batch capitalize count d default dictsort e escape first float forceescape format groupby indent
    int items join last length list lower map max min reject rejectattr replace reverse round safe select
    selectattr slice sort string sum title trim truncate unique upper urlencode wordcount
"""
_STRING_METHODS = """
    capitalize casefold count endswith find format index isalnum isalpha isascii isdecimal isdigit isidentifier
    islower isnumeric isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace
    rfind rindex rpartition rsplit rstrip split splitlines startswith strip swapcase title upper
"""
_NUMBER_METHODS = frozenset({"is_integer", "bit_length"})
_WRITES_TEXT = """
    capitalize e escape forceescape format indent join lower replace string title trim truncate upper
    urlencode wordcount
"""
_MAX_LAYOUT = 10_000  # widths and counts
_MAX_POWER_BITS = 4096
# A width of 10,000 or more in a format, or one taken from a value.
_WIDE = {"%": re.compile(r"%[^A-Za-z%]*?(?:\*|\d{5})"), "{": re.compile(r"\{[^{}]*(?:\{|\d{5})")}


class TemplateRefusalError(TemplateError):
    """The template itself called raise_exception."""


class ChatTemplateEnvironment(ImmutableSandboxedEnvironment):
    """Compiles and runs chat templates. A Budget must be current (CURRENT_BUDGET) while it does either."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationTag, LoopControlExtension],
            finalize=_checked_output,
            cache_size=0,
        )
        self.filters = {name: _metered_filter(name, FILTERS[name]) for name in _FILTERS.split()}
        self.filters["tojson"] = _tojson
        self._string_methods = frozenset(_STRING_METHODS.split())
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Metering().visit(tree)
        return tree.set_environment(self)  # type: ignore[return-value]

    # The next three are called by the nodes that _Metering puts in.
    def metered(self, iterable: Iterable[Any]) -> Iterator[Any]:
        return CURRENT_BUDGET.get().metered(iterable)

    def concatenated(self, *values: Any) -> str:
        for value in values:
            CURRENT_BUDGET.get().measure(value)
        texts = [str(value) for value in values]
        CURRENT_BUDGET.get().check_chars(sum(map(len, texts)))
        return CURRENT_BUDGET.get().charge("".join(texts))  # type: ignore[no-any-return]

    def charged(self, value: Any) -> Any:
        return CURRENT_BUDGET.get().charge(value)

    @staticmethod
    def concat(texts: Iterable[str]) -> str:
        """Joins what a macro or a set block has written."""
        texts = list(texts)
        CURRENT_BUDGET.get().check_chars(sum(map(len, texts)))
        return CURRENT_BUDGET.get().charge("".join(texts))  # type: ignore[no-any-return]

    # Jinja's own form: a template may use any name for its keyword arguments.
    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        budget = CURRENT_BUDGET.get()
        budget.spend(4)
        if isinstance(__obj, LoopContext) and args:  # a recursive loop
            args = (budget.metered(args[0]), *args[1:])
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str) and __obj.__name__ == "replace":
            _check_replace(owner, *args, **kwargs)
        elif isinstance(owner, str) and __obj.__name__ == "join" and args:
            args = (_joinable(owner, args[0]), *args[1:])
        return budget.charge(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = CURRENT_BUDGET.get()
        budget.spend(1)
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            budget.check_chars(len(left) + len(right))
        elif operator == "+" and isinstance(left, list | tuple) and isinstance(right, list | tuple):
            budget.check_items(len(left) + len(right))
        elif operator == "%" and isinstance(left, str):
            _check_format("%", left, right)
        elif operator in ("*", "**"):
            _check_product(operator, left, right)
        return budget.charge(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str):
            return attr in self._string_methods
        if isinstance(obj, int | float | bytes):
            return attr in _NUMBER_METHODS
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def checked(*args: Any, **kwargs: Any) -> str:
            _check_format("{", value.__self__, (args, kwargs))
            return wrapped(*args, **kwargs)

        return checked


class _Metering(NodeTransformer):
    """Puts the budget into a parsed template: into loops, `~`, and lists made on the way."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja's name
        self.generic_visit(node)
        node.iter = _call_environment("metered", [cast(nodes.Expr, node.iter)], node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call_environment("concatenated", list(node.nodes), node.lineno)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return self._visit_literal(node, node.items)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        return self._visit_literal(node, node.items if node.ctx == "load" else [])

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        return self._visit_literal(node, [pair.value for pair in node.items])

    def _visit_literal(self, node: nodes.Expr, items: list[nodes.Expr]) -> nodes.Node:
        self.generic_visit(node)
        if all(isinstance(item, nodes.Const) for item in items):
            return node
        return _call_environment("charged", [node], node.lineno)


def _call_environment(method: str, arguments: list[nodes.Expr], lineno: int) -> nodes.Call:
    target = nodes.EnvironmentAttribute(method, lineno=lineno)
    return nodes.Call(target, arguments, [], None, None, lineno=lineno)


class _GenerationTag(Extension):
    """{% generation %}: marks the assistant's part for training; here its body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _metered_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja's that pays for its work. What Jinja marks it with (pass_environment, ...) is kept."""
    is_lazy = name in ("map", "select", "reject", "selectattr", "rejectattr")  # works while others take its items
    writes_text = name in _WRITES_TEXT.split()
    num_passed = 1 if hasattr(function, "jinja_pass_arg") else 0

    def run(*args: Any, **kwargs: Any) -> Any:
        budget = CURRENT_BUDGET.get()
        budget.spend(4)
        passed, values = args[:num_passed], list(args[num_passed:])
        if values and (is_lazy or isinstance(values[0], Iterator)):
            values[0] = budget.metered(values[0])
        if name == "join" and values:
            separator = values[1] if len(values) > 1 else kwargs.get("d", "")
            values[0] = _joinable(str(separator), values[0])
        if writes_text:
            for value in (*values, *kwargs.values()):
                budget.measure(value)
        if name == "replace":
            _check_replace(str(values[0]), *map(str, values[1:3]))
        elif name == "format":
            _check_format("%", str(values[0]), (values[1:], kwargs))
        elif name in ("indent", "batch", "slice", "round"):
            _check_layout(name, values, kwargs)
        result = function(*passed, *values, **kwargs)
        return budget.metered(result) if isinstance(result, Iterator) else budget.charge(result)

    return update_wrapper(run, function)


def _joinable(separator: str, values: Iterable[Any]) -> list[Any]:
    """The values as a list whose joined text is not too long."""
    budget = CURRENT_BUDGET.get()
    items = list(budget.metered(values))
    budget.check_chars(budget.measure(items) + len(separator) * len(items))
    return items


def _check_replace(text: str, old: Any, new: Any, *_: Any, **__: Any) -> None:
    if isinstance(old, str) and isinstance(new, str) and len(new) > len(old):
        CURRENT_BUDGET.get().check_chars(len(text) + text.count(old) * (len(new) - len(old)))


def _check_format(mark: str, text: str, values: Any) -> None:
    """A format, whose fields begin with `mark`, may take its values whole, and may not blow them up."""
    budget = CURRENT_BUDGET.get()
    budget.check_chars(len(text) + budget.measure(values) * text.count(mark))
    if _WIDE[mark].search(text):
        raise TemplateError("a width in a format must be a number below 10,000")


def _check_product(operator: str, left: Any, right: Any) -> None:
    budget = CURRENT_BUDGET.get()
    for value, times in ((left, right), (right, left)):
        if operator == "*" and isinstance(times, int):
            if isinstance(value, str):
                budget.check_chars(len(value) * times)
            elif isinstance(value, list | tuple):
                budget.check_items(len(value) * times)
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * max(right, 1) if operator == "**" else left.bit_length() + right.bit_length()
        if bits > _MAX_POWER_BITS:
            raise TemplateError(f"a number of more than {_MAX_POWER_BITS} bits")


def _check_layout(name: str, values: list[Any], kwargs: dict[str, Any]) -> None:
    for value in (*values[1:], *kwargs.values()):
        if isinstance(value, int) and abs(value) > _MAX_LAYOUT:
            raise TemplateError(f"{name}: {value} is more than {_MAX_LAYOUT}")
    if name == "indent":
        width = values[1] if len(values) > 1 else kwargs.get("width", 4)
        width = width if isinstance(width, int) else len(str(width))
        CURRENT_BUDGET.get().check_chars(len(str(values[0])) + width * (1 + str(values[0]).count("\n")))


def _checked_output(value: Any) -> Any:
    """What {{ }} is about to write."""
    if not isinstance(value, str):
        CURRENT_BUDGET.get().measure(value)
    return value


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as Hugging Face's templates expect it: without Jinja's escaping of HTML."""
    budget = CURRENT_BUDGET.get()
    if indent is not None and not 0 <= indent <= 16:
        raise TemplateError(f"tojson: indent is {indent}; it must be from 0 to 16")
    budget.measure([value, separators], indent or 0)
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return budget.charge(text)  # type: ignore[no-any-return]


def _raise_exception(message: object) -> NoReturn:
    CURRENT_BUDGET.get().measure(message)
    raise TemplateRefusalError(str(message))


def _strftime_now(format: str) -> str:  # noqa: A002 - the name templates use
    _check_format("%", format, ())
    return now().strftime(format)
