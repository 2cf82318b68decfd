"""What an answer must look like, as the user asked for it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


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
    """A constraint on the answer's text, not yet compiled: whether it can be is found out where the tokenizer is."""

    kind: GrammarKind
    source: str = ""
