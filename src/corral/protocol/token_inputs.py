"""Prompts and inputs as OpenAI's bodies write them: a text, several, token ids, or several lists of these. Pure."""

from __future__ import annotations

from typing import Any

from corral.errors import InvalidRequest, LimitExceeded
from corral.protocol.fields import show_value

MAX_TOKEN_ID = (1 << 31) - 1


def read_inputs(where: str, value: object, most: int) -> list[str | list[int]]:
    """The inputs at field `where`, at most so many.

    Raises:
        InvalidRequest: names the entry at fault.
    """
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if type(value[0]) is int:
            return [read_token_ids(where, value)]
        if len(value) > most:
            raise LimitExceeded(where, len(value), most)
        if all(isinstance(item, str) for item in value):
            return list(value)
        if all(isinstance(item, list) for item in value):
            return [read_token_ids(f"{where}[{i}]", item) for i, item in enumerate(value)]
    message = f"{where} is {show_value(value)}; it must be a string, a list of strings, a list of token ids, or a list "
    message += "of lists of token ids"
    raise InvalidRequest(message, param=where, code="invalid_type")


def read_token_ids(where: str, ids: list[Any]) -> list[int]:
    """`ids`, checked to be some; whether the vocabulary has them is the worker's to say.

    Raises:
        InvalidRequest: names the entry at fault.
    """
    for position, token_id in enumerate(ids):
        if type(token_id) is not int or not 0 <= token_id <= MAX_TOKEN_ID:
            path = f"{where}[{position}]"
            raise InvalidRequest(
                f"{path} is {show_value(token_id)}; it must be a token id", param=path, code="invalid_type"
            )
    return ids


def read_truncation(where: str, value: int | None) -> tuple[bool, int | None]:
    """Whether a text that is too long is cut, and to how many tokens; None means the model's context, as -1 does.

    Raises:
        InvalidRequest: it is neither -1 nor a number of tokens.
    """
    if value is None or value == -1:
        return value is not None, None
    if not 1 <= value <= MAX_TOKEN_ID:
        message = f"{where} is {show_value(value)}; it must be -1 (the model's context) or from 1 to {MAX_TOKEN_ID}"
        raise InvalidRequest(message, param=where, code="invalid_value")
    return True, value
