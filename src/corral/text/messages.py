"""Messages as clients send them -> messages as templates expect them."""

from __future__ import annotations

from typing import Any

from corral.errors import InvalidRequest


def checked_messages(messages: object) -> list[dict[str, Any]]:
    """The messages, each with one text as its content, or None.

    Raises:
        InvalidRequest: there is none, or one is malformed; says which.
    """
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages must be a list with at least one message", param="messages")
    return [_with_plain_content(index, message) for index, message in enumerate(messages)]


def _with_plain_content(index: int, message: Any) -> dict[str, Any]:
    """The message with its text parts joined by line breaks, as templates expect one text."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise InvalidRequest(f"messages[{index}] must be an object with a role", param="messages")
    content = message.get("content")
    if not isinstance(content, list):
        if content is not None and not isinstance(content, str):
            raise InvalidRequest(f"messages[{index}].content must be a text or a list of parts", param="messages")
        return message
    texts = []
    for part in content:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind != "text" or not isinstance(text, str):
            raise InvalidRequest(
                f"messages[{index}].content has a {kind!r:.40} part; only text is known", param="messages"
            )
        texts.append(text)
    return {**message, "content": "\n".join(texts)}
