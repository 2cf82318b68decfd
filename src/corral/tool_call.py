"""Functions that a model may call, and its calls."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class ToolMode(enum.StrEnum):
    AUTO = "auto"  # the model chooses between calls and text
    NONE = "none"  # it knows the tools and calls none
    REQUIRED = "required"  # it calls one at least


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether the model has to call.

    Args:
        names: only these tools may be called; all of the request's if empty. A named choice is REQUIRED with one name.
        is_parallel: an answer may hold several calls.
    """

    mode: ToolMode = ToolMode.AUTO
    names: tuple[str, ...] = ()
    is_parallel: bool = True


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """What call `index` of an answer gained. Its name comes with its first delta, and at once whole.

    Args:
        index: which call of the answer, from 0.
        name: with the first delta only.
        arguments: more of the text of the arguments, a JSON object.
        is_whole: the last delta of a call that parsed: its arguments together are a JSON object.
        broken: what the model wrote was no call after all. This is all of its text, from its beginning on; nothing
            more comes of this index, and whoever has told of the call shows the text as content.
    """

    index: int
    name: str = ""
    arguments: str = ""
    is_whole: bool = False
    broken: str = ""
