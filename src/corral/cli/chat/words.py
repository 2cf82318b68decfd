"""The words of the chat's commands, for obeying and for completing, and the quotes of a long message."""

from __future__ import annotations

from corral.cli.parameters import PARAMETERS

QUOTES = '"""'
_SET_WORDS = (
    *("parameter", "system", "history", "nohistory", "wordwrap", "nowordwrap"),
    *("format", "noformat", "verbose", "quiet", "think", "nothink"),
)
SHOW_WORDS = ("info", "license", "modelfile", "parameters", "system", "template")
THINK_LEVELS = ("low", "medium", "high", "max")

# What may follow these words, for the completion.
WORDS: dict[str, tuple[str, ...]] = {
    "": ("/set", "/show", "/load", "/save", "/list", "/clear", "/help", "/?", "/bye", "/exit"),
    "/set": _SET_WORDS,
    "/set parameter": tuple(PARAMETERS),
    "/set format": ("json",),
    "/set think": THINK_LEVELS,
    "/show": SHOW_WORDS,
    "/help": ("set", "show", "shortcuts"),
    "/?": ("set", "show", "shortcuts"),
}


def unquoted(text: str) -> str:
    '''The message within """, which may have a last part after them, as Ollama has it.'''
    text = text.strip()
    if not text.startswith(QUOTES):
        return text
    inside, _, rest = text[len(QUOTES) :].partition(QUOTES)
    return inside.strip("\n") + rest
