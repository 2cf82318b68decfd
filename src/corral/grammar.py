"""What an answer must look like, as the user asked for it."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field


class GrammarKind(enum.StrEnum):
    """How a grammar is written."""

    JSON_OBJECT = "json_object"  # any JSON object; `source` is empty
    JSON_SCHEMA = "json_schema"  # `source` is the schema's JSON text
    REGEX = "regex"
    CHOICE = "choice"  # `source` is a JSON list of texts, one of which the answer is
    LARK = "lark"  # llguidance's dialect of Lark
    GBNF = "gbnf"  # llama.cpp's


@dataclass(frozen=True, slots=True)
class Grammar:
    """A constraint on the answer's text, not yet compiled: whether it can be is found out where the tokenizer is.

    Args:
        where: the field of the user's request that asks for it, which errors name.
    """

    kind: GrammarKind
    source: str = ""
    where: str = field(default="grammar", compare=False)


def kind_of_grammar_text(text: str) -> GrammarKind:
    """Of a grammar in a field that takes both: only in GBNF stands ::= between a rule and its body."""
    return GrammarKind.GBNF if _GBNF_RULE.search(text) else GrammarKind.LARK


_GBNF_RULE = re.compile(r"(?m)^[ \t]*[A-Za-z0-9_-]+[ \t]*::=")
