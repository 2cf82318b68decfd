"""What is left out of a prompt that is longer than the context, as Ollama chooses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from corral.errors import InvalidRequest
from corral.text.tokenizer import Tokenizer

_COUNTED = 256 << 10  # characters: of longer texts it is not worth the time to count all tokens that are left out
_KEPT = 4  # tokens at the beginning of a prompt that is cut: BOS and what follows it (Ollama's num_keep)

_T = TypeVar("_T")
Message = dict[str, Any]
Encode = Callable[[list[Message]], list[int]]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt of fewer tokens than the limit. Where text was left out unread, `dropped_tokens` is the least it was."""

    ids: list[int]
    dropped_messages: int = 0
    dropped_tokens: int = 0


def cut_ids(ids: list[int], limit: int) -> list[int]:
    """The first few ids and the last ones: about half of the limit, so that the answer has the other half."""
    if len(ids) < limit:
        return ids
    kept = min(_KEPT, limit // 2)
    length = min(limit - (limit - kept) // 2, limit - 1)
    return ids[:kept] + ids[len(ids) - (length - kept) :]


def fit_text(text: str, limit: int, tokenizer: Tokenizer, encode: Callable[[str], list[int]]) -> Fitted:
    """A text without messages: its middle is left out."""
    tail = _tail(text, limit, tokenizer)
    unread = tokenizer.min_num_tokens(text[: len(text) - len(tail)])
    ids = encode(tail)
    kept = cut_ids(ids, limit)
    return Fitted(kept, 0, unread + len(ids) - len(kept))


def fit_messages(messages: list[Message], limit: int, tokenizer: Tokenizer, encode: Encode) -> Fitted:
    """A chat without its oldest messages, as few as will do; never without a system message or the last one.

    Where the template refuses what would be left, the next message goes too. If even the last is too long, the prompt
    is cut as a text is.

    Raises:
        InvalidRequest: the template refuses the messages, however few.
    """
    droppable = [i for i, message in enumerate(messages[:-1]) if message.get("role") != "system"]
    least = [tokenizer.min_num_tokens(_content(message)) for message in messages]
    first = 0  # messages that must go, by what their texts come to at least
    unread = 0
    total = sum(least)
    while first < len(droppable) and total - unread >= limit:
        unread += least[droppable[first]]
        first += 1

    def without(count: int) -> list[Message]:
        gone = set(droppable[:count])
        return [message for i, message in enumerate(messages) if i not in gone]

    if first == len(droppable):  # the rest must stay, however long it is
        rest = [_shortened(message, limit, tokenizer) for message in without(first)]
        return _cut(encode(rest), first, sum(least) - sum(tokenizer.min_num_tokens(_content(m)) for m in rest), limit)
    whole = _encoded(encode, without(first))
    if whole is not None and len(whole) < limit:
        return Fitted(whole, first, unread)
    count, ids = _fewest(lambda count: encode(without(count)), first + 1, len(droppable), limit)
    if whole is not None:
        unread += max(len(whole) - len(ids), 0)
    return _cut(ids, count, unread, limit)


def _fewest(encode: Callable[[int], list[int]], low: int, high: int, limit: int) -> tuple[int, list[int]]:
    """The smallest count from low to high that fits, with its ids; high if none does. Few renderings, by halving."""
    best: list[int] | None = None
    while low < high:
        middle = (low + high) // 2
        ids = _encoded(encode, middle)
        if ids is not None and len(ids) < limit:
            best, high = ids, middle
        else:
            low = middle + 1
    return low, encode(low) if best is None else best


def _encoded(encode: Callable[[_T], list[int]], argument: _T) -> list[int] | None:
    """The ids; None where the template refuses the messages, as some want a user's first."""
    try:
        return encode(argument)
    except InvalidRequest:
        return None


def _cut(ids: list[int], dropped_messages: int, unread: int, limit: int) -> Fitted:
    kept = cut_ids(ids, limit)
    return Fitted(kept, dropped_messages, unread + len(ids) - len(kept))


def _shortened(message: Message, limit: int, tokenizer: Tokenizer) -> Message:
    content = message.get("content")
    return {**message, "content": _tail(content, limit, tokenizer)} if isinstance(content, str) else message


def _tail(text: str, limit: int, tokenizer: Tokenizer) -> str:
    """The end of a hopelessly long text, no shorter than what can be kept of it: the rest need not be encoded."""
    longest = limit * tokenizer.longest_token
    return text[len(text) - longest :] if len(text) > max(longest, _COUNTED) else text


def _content(message: Message) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""
