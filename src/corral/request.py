"""What a user asked for and what comes back: the nouns that cross every seam."""

from __future__ import annotations

import enum
import uuid
from dataclasses import dataclass, field
from typing import Any

from corral.grammar import Grammar
from corral.sampling_params import SamplingParams
from corral.tool_call import ToolCallDelta, ToolChoice


class FinishReason(enum.StrEnum):
    STOP = "stop"  # an end-of-text token or a stop string
    LENGTH = "length"  # max_tokens or the end of the context
    TOOL_CALLS = "tool_calls"  # it ended by itself, and called a tool at least
    ABORT = "abort"  # the client went away, or the server gave the request up


class Overflow(enum.StrEnum):
    """What to do with a prompt that is longer than the context."""

    REFUSE = "refuse"
    DROP_OLDEST = "drop_oldest"  # leave out the oldest messages, or the beginning of a raw prompt; the answer says so


@dataclass(frozen=True, slots=True)
class AnswerSoFar:
    """What an answer had come to when its worker was lost: its tokens, all of which were told."""

    token_ids: tuple[int, ...] = ()
    is_finished: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One request, parsed and checked, in no protocol's own words.

    Exactly one of `prompt` (raw text, or token ids) and `messages` (chat, rendered by the model's
    template) is set. `messages` entries are {"role": str, "content": str, ...}.

    Args:
        think: off, on, or how hard; None leaves it to the model.
        thinking_budget: thinking ends after so many tokens; None sets no limit.
        overflow: what to do with a prompt that is too long.
        cache_salt: prefix blocks are shared only among equal salts.
        context: ids of an earlier exchange that stand before the rendered messages.
        with_prompt_ids: the prompt's ids are wanted.
        tools: what may be called: {"type": "function", "function": {"name", "description", "parameters"}} each.
        tool_choice: whether they must be.
        grammar: what the answer must look like; thinking and calls are not part of it.
        template_kwargs: further variables of the chat template.
        add_generation_prompt: the rendered chat ends with the beginning of the model's turn.
        continue_final_message: the answer goes on with the last message, whose turn stays open.
        add_special_tokens: a raw prompt gets the tokens that the model's file wants around a text.
        truncate_prompt: keep only so many of the prompt's last tokens; None keeps all.
        tenant: on whose account it waits and runs: those who wait share the engine fairly.
        weight: the tenant's share beside others, 2 being twice that of 1.
        deadline: monotonic seconds, which all processes of a machine share, after which nobody waits for it; None is
            never.
        resumed: the n answers so far of a request that another worker has begun; what they say is not told again.
            Empty for one that begins.
        priority: among the tenant's own that wait, lower ones start before higher ones.
        at: seconds since 1970 that its template takes for now; None is the time at which it is rendered.
    """

    request_id: str
    model: str = ""
    prompt: str | list[int] | None = None
    messages: list[dict[str, Any]] | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    template: str | None = None
    suffix: str | None = None
    think: bool | str | None = None
    adapter: str | None = None
    max_context: int | None = None
    overflow: Overflow = Overflow.REFUSE
    cache_salt: str = ""
    context: tuple[int, ...] = ()
    with_prompt_ids: bool = False
    tools: list[dict[str, Any]] | None = None
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    grammar: Grammar | None = None
    thinking_budget: int | None = None
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = True
    truncate_prompt: int | None = None
    tenant: str = ""
    weight: float = 1.0
    deadline: float | None = None
    resumed: tuple[AnswerSoFar, ...] = ()
    at: float | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts. `cached_tokens` of the prompt came from shared blocks; what was dropped did not fit (see Overflow)."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    dropped_messages: int = 0
    dropped_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of an answer with its log-probability, and the likeliest tokens in its place: (bytes, logprob) each.

    Natural logarithms, of the model's own distribution: before penalties, temperature and cuts.
    """

    token_id: int
    text_bytes: bytes  # may be part of a character
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()
    top_ids: tuple[int, ...] = ()  # of `top`


@dataclass(frozen=True, slots=True)
class Delta:
    """What one answer (`index` in [0, n)) gained: whole characters only, stop strings held back.

    `thinking` is what the model wrote before its answer, for itself. `logprobs`, where they were asked for, has one
    entry for each of `token_ids`; text that is held back comes later than its tokens. `tool_calls` are in order.
    """

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None  # the stop string or stop token that ended it
    thinking: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCallDelta, ...] = ()


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """Where a request waits: how many are served before it, and for how long it will, by measured rates; None if there
    are none yet."""

    position: int
    expected_wait_s: float | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """What only the worker knows of a request: seconds that it waited for its turn, and then for its first token."""

    queue_s: float
    prefill_s: float


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """One step's gain of a request. The last one has `is_finished`; its usage is final.

    `prompt_ids` come once, with the first tokens, where the request wants them. So do `prompt_logprobs`, one for each
    token of the prompt; nothing stands before the first token, so its logprob is NaN. `place` comes while
    the request waits, `timings` with the first tokens.
    """

    request_id: str
    deltas: tuple[Delta, ...] = ()
    usage: Usage = Usage()
    is_finished: bool = False
    prompt_ids: tuple[int, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    place: QueuePlace | None = None
    timings: Timings | None = None


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """What a request's prompt is to the model: its text, as far as a template made it, and its ids."""

    request_id: str
    text: str
    token_ids: list[int]


@dataclass(frozen=True, slots=True)
class RequestSize:
    """What a request may come to: the tokens of its prompt, or of all that is to be embedded, and the most that each
    of its answers can have."""

    request_id: str
    prompt_tokens: int
    max_tokens: int = 0


@dataclass(frozen=True, slots=True)
class DetokenizeRequest:
    """Token ids whose texts are wanted."""

    request_id: str
    model: str
    token_ids: list[int]


@dataclass(frozen=True, slots=True)
class Detokenized:
    """The text of all ids, special tokens left out, and of each one alone (control tokens as they are written)."""

    request_id: str
    text: str
    token_texts: list[bytes]


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Texts, or token ids as they stand, to be turned into one vector each.

    Args:
        truncate: an input that is longer than the context is cut to it; otherwise it is refused.
        dimensions: keep only so many values of each vector; None keeps all.
        max_context: the context is to hold no more tokens than these, if the model's own holds more.
        tenant, weight, deadline: as of Request.
    """

    request_id: str
    model: str
    inputs: list[str | list[int]]
    truncate: bool = True
    dimensions: int | None = None
    max_context: int | None = None
    tenant: str = ""
    weight: float = 1.0
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """One vector for each input, in order: float32, little-endian, of length 1. `prompt_tokens` counts all inputs."""

    request_id: str
    embeddings: list[bytes]
    prompt_tokens: int


def new_request_id(prefix: str) -> str:
    """`prefix` and 128 random bits, as OpenAI's ids look: chatcmpl-..., cmpl-..."""
    return f"{prefix}-{uuid.uuid4().hex}"
