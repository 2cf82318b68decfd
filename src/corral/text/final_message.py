"""A prompt that ends within its last message, so that the answer goes on with it."""

from __future__ import annotations

from typing import Any

from corral.errors import InvalidRequest
from corral.text.messages import checked_messages
from corral.text.rendered import Rendered
from corral.text.template_guard import TemplateGuard

PARAM = "continue_final_message"


def with_final_mark(messages: list[dict[str, Any]], guard: TemplateGuard, *others: Any) -> tuple[list[Any], str]:
    """(the messages with a mark at the end of the last one, the mark), a character that occurs in none of `others`.

    Raises:
        InvalidRequest: the messages are malformed, or the last one has no text.
    """
    plain = checked_messages(messages)
    last = plain[-1]
    if not isinstance(last.get("content"), str):
        raise InvalidRequest(f"{PARAM} is true; the last message must have a text", param=PARAM)
    mark = guard.choose(plain, others, is_second=True)
    return [*plain[:-1], {**last, "content": last["content"] + mark}], mark


def cut_at_mark(rendered: Rendered, mark: str) -> Rendered:
    """What was rendered, up to the mark.

    Raises:
        InvalidRequest: the template has left the message's text out.
    """
    head, found, _ = rendered.text.rpartition(mark)
    if not found:
        raise InvalidRequest(f"{PARAM} is true; the template does not write the last message", param=PARAM)
    return Rendered(head.replace(mark, ""), rendered.guard)
