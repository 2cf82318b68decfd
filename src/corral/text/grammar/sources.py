"""From what the user wrote to what llguidance reads, within limits."""

from __future__ import annotations

import json
import re
from typing import Any

from corral.errors import InvalidRequest, LimitExceeded
from corral.grammar import Grammar, GrammarKind
from corral.limits import MAX_GRAMMAR_CHOICES
from corral.text.grammar.closed import close_objects
from corral.text.grammar.gbnf import lark_of_gbnf
from corral.text.grammar.schema import OPTIONS, check_schema, read_schema
from corral.text.grammar.vocabulary import lark_text

MAX_SOURCE_BYTES = {
    GrammarKind.JSON_OBJECT: 1 << 10,
    GrammarKind.JSON_SCHEMA: 1 << 19,
    GrammarKind.REGEX: 1 << 14,
    GrammarKind.CHOICE: 1 << 19,
    GrammarKind.LARK: 1 << 17,
    GrammarKind.GBNF: 1 << 17,
}
_NAMES = {
    GrammarKind.JSON_OBJECT: "JSON object",
    GrammarKind.JSON_SCHEMA: "JSON Schema",
    GrammarKind.REGEX: "regex",
    GrammarKind.CHOICE: "choice",
    GrammarKind.LARK: "Lark grammar",
    GrammarKind.GBNF: "GBNF grammar",
}
_REGEX_UNIT = re.compile(r"\\.|[^\\]", re.DOTALL)


def name_of(kind: GrammarKind) -> str:
    """What a kind of grammar is called in an error."""
    return _NAMES[kind]


def ll_grammar(grammar: Grammar) -> dict[str, Any]:
    """One entry of llguidance's `grammars`.

    Raises:
        InvalidRequest: the source is too large, or wrong in a way that can be seen here; says which.
    """
    size = len(grammar.source.encode("utf-8", "surrogatepass"))
    limit = MAX_SOURCE_BYTES[grammar.kind]
    if size > limit:
        raise InvalidRequest(
            f"the {name_of(grammar.kind)} has {size} bytes; the limit is {limit}. Give a smaller one", param="grammar"
        )
    match grammar.kind:
        case GrammarKind.JSON_OBJECT:
            return {"json_schema": {"type": "object", "x-guidance": OPTIONS}}
        case GrammarKind.JSON_SCHEMA:
            return {"json_schema": read_schema(grammar.source)}
        case GrammarKind.REGEX:
            return {"lark_grammar": f"start: /{_slashed(grammar.source)}/"}
        case GrammarKind.CHOICE:
            # One terminal: as alternatives of a rule each would be an item of the parser, and these are limited.
            return {"lark_grammar": "start: CHOICE\nCHOICE: " + " | ".join(map(lark_text, _choices(grammar.source)))}
        case GrammarKind.LARK:
            return {"lark_grammar": limited_lark(grammar.source)}
        case GrammarKind.GBNF:
            return {"lark_grammar": lark_of_gbnf(grammar.source)}


def limited_lark(source: str, *, is_lenient: bool = False, is_closed: bool = False) -> str:
    """A Lark grammar whose JSON Schemas (%json {...}) are held to the limits of schemas, and to their white space.

    Args:
        is_lenient: keywords that cannot be enforced are passed over.
        is_closed: objects have the properties that they name, and no others.
    """
    options = {**OPTIONS, "lenient": is_lenient, "coerce_one_of": is_lenient}
    decoder = json.JSONDecoder()
    pieces: list[str] = []
    at = 0
    for found in re.finditer(r"%json\s*(?=[{\[])", source):
        if found.start() < at:  # within a schema
            continue
        try:
            schema, end = decoder.raw_decode(source, found.end())
        except (ValueError, RecursionError):
            continue  # llguidance says what is wrong with it
        check_schema(schema)
        if is_closed:
            close_objects(schema)
        if isinstance(schema, dict):
            schema["x-guidance"] = options
        pieces += [source[at : found.end()], json.dumps(schema)]
        at = end
    return "".join([*pieces, source[at:]])


def _choices(source: str) -> list[str]:
    try:
        choices = json.loads(source)
    except (ValueError, RecursionError):
        raise InvalidRequest("choice must be a JSON list of texts", param="grammar") from None
    if not isinstance(choices, list) or not choices or not all(isinstance(each, str) for each in choices):
        raise InvalidRequest("choice must be a list of texts, one at least", param="grammar")
    if len(choices) > MAX_GRAMMAR_CHOICES:
        raise LimitExceeded("choice", len(choices), MAX_GRAMMAR_CHOICES, "texts", param="grammar")
    for choice in choices:
        if not choice:
            raise InvalidRequest("choice has an empty text; every one needs a character at least", param="grammar")
        if any("\ud800" <= character <= "\udfff" for character in choice):
            raise InvalidRequest(f"choice has {choice!r:.40}, which is not Unicode", param="grammar")
    return choices


def _slashed(regex: str) -> str:
    """The regex as it stands between Lark's slashes."""
    units = []
    at = 0
    for found in _REGEX_UNIT.finditer(regex):
        unit = found[0]
        units.append({"/": r"\/", "\n": r"\n", "\\\n": r"\n", "\r": r"\r", "\\\r": r"\r"}.get(unit, unit))
        at = found.end()
    if at < len(regex):
        raise InvalidRequest("the regex ends with a backslash that escapes nothing", param="grammar")
    if not regex:
        raise InvalidRequest("the regex is empty; it needs a character at least", param="grammar")
    return "".join(units)
