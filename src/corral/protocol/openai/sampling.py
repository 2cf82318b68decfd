"""The request fields that chat and text completions have in common, OpenAI's and vLLM's. Pure."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from corral.errors import InvalidRequest, LimitExceeded
from corral.limits import (
    MAX_ALLOWED_TOKEN_IDS,
    MAX_LOGIT_BIAS,
    MAX_LOGPROBS,
    MAX_REQUEST_ID_LENGTH,
    MAX_SALT_LENGTH,
)
from corral.protocol.fields import StrictModel, show_value
from corral.protocol.openai.format import StructuredFields
from corral.sampling_params import SamplingParams

MAX_TEMPERATURE = 2.0  # OpenAI's; others allow more
MAX_PRIORITY = 1 << 31  # either way

# Fields that neither route can obey, each with the values that ask for nothing.
UNSUPPORTED_ANYWHERE: dict[str, tuple[Any, ...]] = {
    "guided_decoding_backend": (None,),
    "guided_whitespace_pattern": (None,),
    "kv_transfer_params": (None,),
    "length_penalty": (None, 1, 1.0),  # of beam search
    "logits_processors": (None, []),
    "repetition_detection": (None,),
    "use_beam_search": (None, False),
    "vllm_xargs": (None, {}),
    # SGLang's; vllm-router writes these values into every request that it passes on.
    "no_stop_trim": (None, False),
    "return_hidden_states": (None, False),
    "separate_reasoning": (None, True),
    "stream_reasoning": (None, True),
}
REASONS = {
    "chat_template": "a request brings no template of its own; the operator sets one with TEMPLATE in a Modelfile",
    "guided_decoding_backend": "there is one backend",
    "guided_whitespace_pattern": "white space is as the grammar has it; give a grammar of your own to say more",
    "length_penalty": "it is for beam search",
    "media_io_kwargs": "only text is understood",
    "mm_processor_kwargs": "only text is understood",
    "use_beam_search": "answers are sampled; n gives several",
    "audio": "only text is understood",
    "modalities": "only text is understood",
    "verbosity": "say in the messages how long the answer is to be",
    "web_search_options": "the model sees what is in the messages only",
}
_SAMPLING_NAMES = (  # the fields that SamplingParams takes as they are
    "frequency_penalty",
    "ignore_eos",
    "min_p",
    "min_tokens",
    "n",
    "presence_penalty",
    "prompt_logprobs",
    "repetition_penalty",
    "seed",
    "skip_special_tokens",
    "temperature",
    "top_k",
    "top_p",
)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _limit_bias(value: object) -> object:
    # Before pydantic walks it: it would make an error object for each of a million bad entries.
    if isinstance(value, dict) and len(value) > MAX_LOGIT_BIAS:
        raise LimitExceeded("logit_bias", len(value), MAX_LOGIT_BIAS)
    return value


class StreamOptions(StrictModel):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None  # vLLM's: usage so far in every chunk
    include_obfuscation: bool | None = None  # accepted: padding against traffic analysis is the proxy's business


class SamplingFields(StructuredFields):
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
    include_stop_str_in_output: bool | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    logit_bias: Annotated[dict[str, float] | None, BeforeValidator(_limit_bias)] = None
    allowed_token_ids: list[Any] | None = None
    bad_words: Annotated[list[Any] | None, BeforeValidator(_as_list)] = None
    ignore_eos: bool | None = None
    prompt_logprobs: int | None = None
    skip_special_tokens: bool | None = None
    # Tokenizers that put spaces between special tokens are not known here, so both values mean the same.
    spaces_between_special_tokens: bool | None = None
    truncate_prompt_tokens: int | None = None
    add_special_tokens: bool | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    priority: int | None = None
    request_id: str | None = Field(None, description="the id of the answer")
    cache_salt: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def sampling(self, max_tokens: int | None, logprobs: int | None) -> SamplingParams:
        """The checked SamplingParams; the arguments are the caller's reading of its own fields."""
        given = {name: value for name in _SAMPLING_NAMES if (value := getattr(self, name)) is not None}
        if self.temperature is not None and not 0.0 <= self.temperature <= MAX_TEMPERATURE:
            raise InvalidRequest(
                f"temperature is {self.temperature!r}; it must be a number from 0 to {MAX_TEMPERATURE:g}",
                param="temperature",
            )
        if self.prompt_logprobs is not None and self.stream:
            message = "prompt_logprobs is only told in answers that are not streamed"
            raise InvalidRequest(message, param="prompt_logprobs")
        return SamplingParams(
            **given,
            stop=_check_texts("stop", self.stop or []),
            stop_token_ids=_check_token_ids("stop_token_ids", self.stop_token_ids or []),
            include_stop_str=bool(self.include_stop_str_in_output),
            max_tokens=max_tokens,
            logit_bias=_parse_logit_bias(self.logit_bias or {}),
            logprobs=logprobs,
            allowed_token_ids=self._allowed_token_ids(),
            bad_words=_check_texts("bad_words", self.bad_words or []),
        )

    def request_fields(self) -> dict[str, Any]:
        """The fields of a Request that both routes read alike.

        Raises:
            InvalidRequest: names the field.
        """
        if self.priority is not None and abs(self.priority) > MAX_PRIORITY:
            message = f"priority is {show_value(self.priority)}; it must be from {-MAX_PRIORITY} to {MAX_PRIORITY}"
            raise InvalidRequest(message, param="priority", code="invalid_value")
        if self.truncate_prompt_tokens is not None and not 1 <= self.truncate_prompt_tokens <= 1 << 31:
            given = show_value(self.truncate_prompt_tokens)
            message = f"truncate_prompt_tokens is {given}; it must be a whole number of tokens from 1"
            raise InvalidRequest(message, param="truncate_prompt_tokens", code="invalid_value")
        if self.cache_salt is not None and len(self.cache_salt) > MAX_SALT_LENGTH:
            raise LimitExceeded("cache_salt", len(self.cache_salt), MAX_SALT_LENGTH, "characters")
        return {
            "model": self.model,
            "truncate_prompt": self.truncate_prompt_tokens,
            "cache_salt": self.cache_salt or "",
            "with_prompt_ids": bool(self.return_token_ids),
            "priority": self.priority or 0,
        }

    def response_id(self, request_id: str) -> str:
        """What the answer is called: `request_id`, which is ours, or by the name that the client gave.

        The client's is never the worker's: two requests may bear it.
        """
        if self.request_id is None:
            return request_id
        if not 1 <= len(self.request_id) <= MAX_REQUEST_ID_LENGTH:
            raise LimitExceeded("request_id", len(self.request_id), MAX_REQUEST_ID_LENGTH, "characters", least=1)
        return f"{request_id.partition('-')[0]}-{self.request_id}"

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

    def continuous_usage(self) -> bool:
        """Whether every chunk tells the usage so far."""
        return self.include_usage() and bool(self.stream_options and self.stream_options.continuous_usage_stats)

    def _allowed_token_ids(self) -> tuple[int, ...] | None:
        if self.allowed_token_ids is None:
            return None
        if len(self.allowed_token_ids) > MAX_ALLOWED_TOKEN_IDS:
            raise LimitExceeded("allowed_token_ids", len(self.allowed_token_ids), MAX_ALLOWED_TOKEN_IDS)
        return _check_token_ids("allowed_token_ids", self.allowed_token_ids)


def check_top(name: str, value: int | None) -> None:
    """Raises InvalidRequest for a number of likeliest tokens that is too large; SamplingParams knows one name only."""
    if value is not None and not 0 <= value <= MAX_LOGPROBS:
        message = f"{name} is {show_value(value)}; it must be a whole number from 0 to {MAX_LOGPROBS}"
        raise InvalidRequest(message, param=name, code="invalid_value")


def _parse_logit_bias(bias: dict[str, float]) -> dict[int, float]:
    parsed: dict[int, float] = {}
    for key, value in bias.items():
        if not (key.isascii() and key.isdecimal() and len(key) <= 10):
            message = f'logit_bias has the key {show_value(key)}; keys must be token ids, such as "42"'
            raise InvalidRequest(message, param="logit_bias", code="invalid_value")
        parsed[int(key)] = value
    return parsed


# Lists are checked here and not by pydantic, which makes an error object for each of a million bad entries.


def _check_texts(name: str, texts: list[Any]) -> tuple[str, ...]:
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            path = f"{name}[{position}]"
            raise InvalidRequest(f"{path} is {show_value(text)}; it must be a string", param=path, code="invalid_type")
    return tuple(texts)


def _check_token_ids(name: str, ids: list[Any]) -> tuple[int, ...]:
    for position, token_id in enumerate(ids):
        if type(token_id) is not int or not 0 <= token_id < 1 << 31:
            path = f"{name}[{position}]"
            message = f"{path} is {show_value(token_id)}; it must be a token id"
            raise InvalidRequest(message, param=path, code="invalid_type")
    return tuple(ids)
