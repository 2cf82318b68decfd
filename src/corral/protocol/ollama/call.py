"""What /api/generate and /api/chat have in common: the call's own fields, and how it becomes a Request. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corral.errors import InvalidRequest
from corral.grammar import Grammar, GrammarKind
from corral.limits import MAX_LOGPROBS
from corral.protocol.ollama.duration import parse_keep_alive
from corral.protocol.ollama.fields import Fields, shorten
from corral.protocol.ollama.options import check_options, context_of, ignored_options, sampling_of
from corral.protocol.openai.format import schema_grammar
from corral.request import Overflow, Request, new_request_id

THINK_LEVELS = ("high", "medium", "low", "max")


@dataclass(frozen=True, slots=True)
class Call:
    """A parsed call.

    Args:
        model: as the client wrote it; its answer repeats it.
        keep_alive: seconds; None where the client leaves it to the server, inf for ever.
        options: checked, not yet laid over the model's own parameters.
        refusal: what the call asks for that no model of ours can do yet; told once the model is known to exist.
        is_empty: nothing to answer: the model is loaded, or with keep_alive 0 unloaded.
        is_debug: the prompt is wanted, not an answer.
        grammar: of `format`.
    """

    model: str
    stream: bool
    keep_alive: float | None
    options: dict[str, Any]
    truncate: bool
    think: bool | str | None
    logprobs: int | None
    refusal: str
    is_empty: bool
    is_debug: bool
    grammar: Grammar | None

    @property
    def is_unload(self) -> bool:
        return self.is_empty and self.keep_alive == 0

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of options that change nothing here."""
        return ignored_options(self.options)

    def num_ctx(self, parameters: Mapping[str, Any]) -> int | None:
        """The context asked for: the client's, else the Modelfile's."""
        return context_of({**check_options(parameters), **self.options})

    def _request(self, parameters: Mapping[str, Any], prefix: str, **fields: Any) -> Request:
        if self.refusal:
            raise InvalidRequest(self.refusal)
        options = {**check_options(parameters), **self.options}
        return Request(
            request_id=new_request_id(prefix),
            model=self.model,
            sampling=sampling_of(options, logprobs=self.logprobs),
            think=self.think,
            grammar=self.grammar,
            max_context=context_of(options),
            overflow=Overflow.DROP_OLDEST if self.truncate else Overflow.REFUSE,
            **fields,
        )


def read_call(fields: Fields, *, is_empty: bool, refusals: tuple[str, ...]) -> dict[str, Any]:
    """The fields of Call; `refusals` are the caller's own, "" for none.

    Raises:
        InvalidRequest: in Ollama's words.
    """
    model = fields.text("model")
    return {
        "model": model,
        "stream": fields.flag("stream") is not False,
        "keep_alive": parse_keep_alive(fields.raw("keep_alive")),
        "options": check_options(fields.mapping("options")),
        "truncate": fields.flag("truncate") is not False,
        "think": _read_think(fields.raw("think")),
        "logprobs": _read_logprobs(fields),
        "refusal": next((text for text in refusals if text), ""),
        "is_empty": is_empty,
        "is_debug": bool(fields.flag("_debug_render_only")),
        "grammar": read_format(fields.raw("format")),
    }


def refuse_images(model: str, images: list[Any]) -> str:
    return f'"{shorten(model)}" does not support images; it takes text only' if images else ""


def read_format(value: object) -> Grammar | None:
    """What `format` asks for: "json", or a JSON Schema; None for free text.

    Raises:
        InvalidRequest: it is neither.
    """
    if value is None or value == "":
        return None
    if value == "json":
        return Grammar(GrammarKind.JSON_OBJECT, where="format")
    if isinstance(value, dict):
        return schema_grammar(value, "format")
    shown = shorten(str(value))
    raise InvalidRequest(f'invalid format: {shown}; expected "json" or a valid JSON Schema object', param="format")


def _read_think(value: object) -> bool | str | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value in THINK_LEVELS:
        return value
    if isinstance(value, str):
        shown = f'"{shorten(value)}"'
        levels = ", ".join(f'"{level}"' for level in THINK_LEVELS)
        raise InvalidRequest(f"invalid think value: {shown} (must be {levels}, true, or false)", param="think")
    raise InvalidRequest("think must be a boolean or string", param="think")


def _read_logprobs(fields: Fields) -> int | None:
    """Alternatives to tell for each token; None where no probabilities are wanted."""
    top = fields.whole("top_logprobs") or 0
    if not 0 <= top <= MAX_LOGPROBS:
        raise InvalidRequest(f"top_logprobs must be between 0 and {MAX_LOGPROBS}", param="top_logprobs")
    return top if fields.flag("logprobs") else None
