"""Strict reading of OpenAI's request fields: nothing is coerced, nothing is dropped silently."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from corral.errors import InvalidRequest
from corral.sampling_params import MAX_LOGIT_BIAS, SamplingParams

_Model = TypeVar("_Model", bound=BaseModel)

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_attributes_type": "an object",
    "model_type": "an object",
    "string_type": "a string",
}
_SAMPLING_NAMES = (  # the fields that SamplingParams takes as they are
    "frequency_penalty",
    "ignore_eos",
    "min_p",
    "min_tokens",
    "n",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "temperature",
    "top_k",
    "top_p",
)
MAX_TEMPERATURE = 2.0  # OpenAI's; others allow more
_MAX_SHOWN = 60  # characters of a client's value that an error repeats


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _limit_bias(value: object) -> object:
    # Before pydantic walks it: it would make an error object for each of a million bad entries.
    if isinstance(value, dict) and len(value) > MAX_LOGIT_BIAS:
        message = f"logit_bias has {len(value)} entries; at most {MAX_LOGIT_BIAS} are allowed"
        raise InvalidRequest(message, param="logit_bias")
    return value


class StrictModel(BaseModel):
    """No coercion ("0.5" is no number, true is no integer), no unknown fields, no NaN."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class StreamOptions(StrictModel):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # accepted: padding against traffic analysis is the proxy's business


class SamplingFields(StrictModel):
    """What chat and text completions have in common; null means the default."""

    model: str
    n: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: Annotated[list[Any] | None, BeforeValidator(_as_list)] = None
    stop_token_ids: list[Any] | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    logit_bias: Annotated[dict[str, float] | None, BeforeValidator(_limit_bias)] = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def sampling(self, max_tokens: int | None) -> SamplingParams:
        """The checked SamplingParams; `max_tokens` is the caller's reading of its length fields."""
        given = {name: value for name in _SAMPLING_NAMES if (value := getattr(self, name)) is not None}
        if self.temperature is not None and not 0.0 <= self.temperature <= MAX_TEMPERATURE:
            raise InvalidRequest(
                f"temperature is {self.temperature!r}; it must be a number from 0 to {MAX_TEMPERATURE:g}",
                param="temperature",
            )
        return SamplingParams(
            **given,
            stop=_check_stop(self.stop or []),
            stop_token_ids=_check_token_ids(self.stop_token_ids or []),
            max_tokens=max_tokens,
            logit_bias=_parse_logit_bias(self.logit_bias or {}),
        )

    def include_usage(self) -> bool:
        """Whether the stream ends with a usage chunk.

        Raises:
            InvalidRequest: stream_options without stream.
        """
        if self.stream_options is None:
            return False
        if not self.stream:
            raise InvalidRequest("stream_options is only allowed when stream is true", param="stream_options")
        return bool(self.stream_options.include_usage)


def read_fields(
    model: type[_Model],
    body: Mapping[str, Any],
    *,
    unsupported: Mapping[str, tuple[Any, ...]],
    harmless: frozenset[str],
) -> _Model:
    """Checks `body` against `model`.

    Args:
        unsupported: known fields that Corral cannot obey yet, each with the values that ask for nothing.
        harmless: known fields that change no token of the answer.

    Raises:
        InvalidRequest: names the first field at fault.
    """
    kept: dict[str, Any] = {}
    for name, value in body.items():
        if name in unsupported:
            if value not in unsupported[name]:
                raise InvalidRequest(f"{name} is not supported", param=name, code="unsupported_parameter")
        elif name not in harmless:
            kept[name] = value
    return validate(model, kept, known=(*unsupported, *harmless))


def validate(model: type[_Model], value: object, *, prefix: str = "", known: tuple[str, ...] = ()) -> _Model:
    """`model` from `value`; `prefix` is the path of `value` in the body, `known` are further names to suggest.

    Raises:
        InvalidRequest: names the first field at fault, the value given and what is allowed.
    """
    if isinstance(value, dict):
        for name in value:
            if name not in model.model_fields:
                _refuse_unknown(_join_path(prefix, (name,)), name, (*model.model_fields, *known))
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # Built from fields, never from str(error): that holds class names and links.
        first = error.errors(include_url=False, include_context=False)[0]
    path = _join_path(prefix, first["loc"])
    match first["type"]:
        case "extra_forbidden":  # of a nested object
            _refuse_unknown(path, str(first["loc"][-1]), ())
        case "missing":
            raise InvalidRequest(f"{path} is required", param=path, code="missing_required_parameter")
        case kind if kind in _EXPECTED:
            given = show_value(first["input"])
            raise InvalidRequest(f"{path} is {given}; it must be {_EXPECTED[kind]}", param=path, code="invalid_type")
    raise InvalidRequest(f"{path} is {show_value(first['input'])}; it is not allowed", param=path, code="invalid_value")


def _refuse_unknown(path: str, name: str, known: tuple[str, ...]) -> NoReturn:
    close = difflib.get_close_matches(name[:_MAX_SHOWN], known, n=1)
    message = f"unknown field {path}; did you mean {close[0]}?" if close else f"unknown field {path}"
    raise InvalidRequest(message, param=path, code="unknown_parameter")


def show_value(value: object) -> str:
    """A client's value, short enough for an error message."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"the string {value!r}" if len(value) <= _MAX_SHOWN else f"a string of {len(value)} characters"
        case int() | float():
            text = repr(value)
            return text if len(text) <= _MAX_SHOWN else f"a number of {len(text)} digits"
        case list():
            return f"a list of {len(value)}"
    return "an object"


def _join_path(prefix: str, loc: tuple[int | str, ...]) -> str:
    path = prefix
    for part in loc:
        shown = _show_key(part) if isinstance(part, str) else part
        path += f"[{part}]" if isinstance(part, int) else f".{shown}" if path else f"{shown}"
    return path


def _show_key(name: str) -> str:
    """A client's field name, cut to a length fit for an error message."""
    return name if len(name) <= _MAX_SHOWN else name[:_MAX_SHOWN] + "..."


def _parse_logit_bias(bias: dict[str, float]) -> dict[int, float]:
    parsed: dict[int, float] = {}
    for key, value in bias.items():
        if not (key.isascii() and key.isdecimal() and len(key) <= 10):
            message = f'logit_bias has the key {show_value(key)}; keys must be token ids, such as "42"'
            raise InvalidRequest(message, param="logit_bias", code="invalid_value")
        parsed[int(key)] = value
    return parsed


# Lists are checked here and not by pydantic, which makes an error object for each of a million bad entries.


def _check_stop(stops: list[Any]) -> tuple[str, ...]:
    for position, stop in enumerate(stops):
        if not isinstance(stop, str):
            path = f"stop[{position}]"
            raise InvalidRequest(f"{path} is {show_value(stop)}; it must be a string", param=path, code="invalid_type")
    return tuple(stops)


def _check_token_ids(ids: list[Any]) -> tuple[int, ...]:
    for position, token_id in enumerate(ids):
        if type(token_id) is not int or not 0 <= token_id < 1 << 31:
            path = f"stop_token_ids[{position}]"
            raise InvalidRequest(
                f"{path} is {show_value(token_id)}; it must be a token id", param=path, code="invalid_type"
            )
    return tuple(ids)
