"""Log-probabilities in the forms of chat, of text completions, and of vLLM's prompt_logprobs. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from corral.request import TokenLogprob


def chat_logprobs(tokens: Sequence[TokenLogprob], *, as_ids: bool) -> dict[str, Any]:
    """`choices[].logprobs` of a chat; `as_ids` writes tokens as "token_id:42"."""
    return {"content": [_chat_token(token, as_ids) for token in tokens], "refusal": None}


def _chat_token(token: TokenLogprob, as_ids: bool) -> dict[str, Any]:
    return {
        **_entry(token.token_id if as_ids else None, token.text_bytes, token.logprob),
        "top_logprobs": [
            _entry(token_id if as_ids else None, text, logprob) for token_id, text, logprob in _top(token)
        ],
    }


def _entry(token_id: int | None, text: bytes, logprob: float) -> dict[str, Any]:
    # Part of a character is no text; its bytes say what it is.
    shown = text.decode(errors="replace") if token_id is None else _id_text(token_id)
    return {"token": shown, "logprob": _finite(logprob), "bytes": list(text)}


def prompt_logprobs(tokens: Sequence[TokenLogprob]) -> list[dict[str, Any] | None]:
    """vLLM's form: for each token of the prompt {id: {"logprob", "rank", "decoded_token"}}, and null for the first.

    The rank of a token that is not among the likeliest is not known.
    """
    return [None if math.isnan(token.logprob) else _by_id(token) for token in tokens]


def _by_id(token: TokenLogprob) -> dict[str, Any]:
    entries = {str(token.token_id): _ranked(token.text_bytes, token.logprob, None)}
    for rank, (token_id, text, logprob) in enumerate(_top(token), start=1):
        entries[str(token_id)] = _ranked(text, logprob, rank)
    return entries


def _ranked(text: bytes, logprob: float, rank: int | None) -> dict[str, Any]:
    return {"logprob": _finite(logprob), "rank": rank, "decoded_token": text.decode(errors="replace")}


class LegacyLogprobs:
    """Makes `choices[].logprobs` of one text completion, chunk by chunk: its offsets go on from chunk to chunk.

    Args:
        text_length: characters that stand before the first token.
    """

    def __init__(self, *, as_ids: bool, text_length: int = 0) -> None:
        self._as_ids = as_ids
        self._offset = text_length

    def skip(self, num_characters: int) -> None:
        """What comes next stands so much further on in the text."""
        self._offset += num_characters

    def encode(self, tokens: Sequence[TokenLogprob], *, first_is_shown: bool = True) -> dict[str, Any]:
        """The tokens' arrays; null stands where nothing came before a token that would make it likely.

        Args:
            first_is_shown: the first token is part of the text, which the one that begins a text is not.
        """
        offsets = []
        pending = b""
        for position, token in enumerate(tokens):
            offsets.append(self._offset)
            if position == 0 and not first_is_shown:
                continue
            text, pending = _whole_characters(pending + token.text_bytes)
            self._offset += len(text)
        return {
            "tokens": [self._text(token.token_id, token.text_bytes) for token in tokens],
            "token_logprobs": [_known(token.logprob) for token in tokens],
            "top_logprobs": [self._likeliest(token) for token in tokens],
            "text_offset": offsets,
        }

    def _likeliest(self, token: TokenLogprob) -> dict[str, float] | None:
        """As OpenAI: the token that was drawn is among them, even if it is not among the likeliest."""
        if math.isnan(token.logprob):
            return None
        likeliest = {self._text(token_id, text): _finite(logprob) for token_id, text, logprob in _top(token)}
        likeliest.setdefault(self._text(token.token_id, token.text_bytes), _finite(token.logprob))
        return likeliest

    def _text(self, token_id: int, text: bytes) -> str:
        if self._as_ids:
            return _id_text(token_id)
        try:
            return text.decode()
        except UnicodeDecodeError:  # keys of an object: two parts of characters must not look alike
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in text)


def _whole_characters(data: bytes) -> tuple[str, bytes]:
    """The characters that are whole, and the bytes of one that is not, at the end."""
    try:
        return data.decode(), b""
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return data[: error.start].decode(errors="replace"), data[error.start :]
        return data.decode(errors="replace"), b""


def _top(token: TokenLogprob) -> list[tuple[int, bytes, float]]:
    return [(token_id, text, logprob) for token_id, (text, logprob) in zip(token.top_ids, token.top, strict=False)]


def _id_text(token_id: int) -> str:
    return f"token_id:{token_id}"


def _known(logprob: float) -> float | None:
    return None if math.isnan(logprob) else _finite(logprob)


def _finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI's word for what never happens is -9999."""
    return logprob if math.isfinite(logprob) else -9999.0
