"""The chat of `corral run`: ask, answer, remember, until the person leaves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from prompt_toolkit import PromptSession
from prompt_toolkit.history import InMemoryHistory

from corral.cli.run import Conversation, print_answer
from corral.cli.terminal import warn
from corral.errors import CorralError, EngineDead

if TYPE_CHECKING:
    from corral.cli.answer import AnsweringModel

PROMPT = ">>> "
LEAVING = ("/bye", "/exit")
_COMMAND = re.compile(r"/[a-z?]+")


def chat(model: AnsweringModel, conversation: Conversation, load_s: float) -> None:
    """Read, answer, repeat. Ctrl-C stops an answer; Ctrl-D or /bye ends the chat."""
    session: PromptSession[str] = PromptSession(history=InMemoryHistory())
    messages = conversation.opening()
    while (text := _ask(session)) is not None:
        if not text:
            continue
        if _COMMAND.fullmatch(text.split()[0]):
            warn(f"unknown command {text.split()[0]}; /bye leaves the chat")
            continue
        messages = _answer(model, conversation, [*messages, {"role": "user", "content": text}], load_s)
        load_s = 0.0  # the timings of later answers have no load in them


def _ask(session: PromptSession[str]) -> str | None:
    """What the person wrote, or None to leave."""
    while True:
        try:
            text = session.prompt(PROMPT).strip()
        except KeyboardInterrupt:
            warn("Ctrl-D or /bye leaves the chat")
        except EOFError:
            return None
        else:
            return None if text in LEAVING else text


def _answer(
    model: AnsweringModel, conversation: Conversation, messages: list[dict[str, Any]], load_s: float
) -> list[dict[str, Any]]:
    """The conversation with its answer; without the question, if there was none: it may be put again, shorter."""
    try:
        answer = print_answer(model, conversation, messages, load_s)
    except EngineDead:
        raise
    except CorralError as error:
        warn(f"Error: {error}")
        return messages[:-1]
    if not answer.text:
        return messages[:-1]
    return [*messages, {"role": "assistant", "content": answer.text}]
