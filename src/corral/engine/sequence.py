"""What the engine is doing for one request: a group of n sequences over one prompt."""

from __future__ import annotations

import enum
import random
from array import array
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corral.engine.linked_list import Node
from corral.engine.output import SequenceOutput, TokenLogprobs
from corral.engine.prefix_chain import PrefixChain, root_hash
from corral.errors import CorralError
from corral.request import AnswerSoFar, FinishReason
from corral.sampling_params import SamplingParams

if TYPE_CHECKING:
    from corral.engine.constraint import Constraint
    from corral.engine.fair_queue import Tenant
    from corral.model.adapter import LoadedAdapter

_SEED_MASK = (1 << 64) - 1


class SequenceStatus(enum.Enum):
    WAITING = enum.auto()  # holds no blocks
    RUNNING = enum.auto()  # holds blocks for its computed tokens
    FINISHED = enum.auto()  # holds nothing, for ever


@dataclass(frozen=True, slots=True)
class SequenceGroupSpec:
    """A request in ids only, as text hands it to the engine.

    Args:
        request_id: unique among the requests that are not finished.
        prompt_ids: at least one token id.
        sampling: `n` sequences are drawn with it; `stop` strings are the caller's business.
        eog_ids: the model's end-of-text tokens.
        cache_salt: prefix blocks are shared only among equal salts.
        constraint: what the answers must look like, in its first state; each sequence has a copy of its own.
        bad_ids: token sequences that are not completed.
        resumed: the n answers so far of a request that another engine has begun; empty for one that begins.
        adapter: what the KV is computed with; None is the bare model. Prefix blocks are shared only among equal ones.
        tenant, weight: on whose account it waits and runs, and with what share; see Request.
        priority: among the tenant's own that wait, lower ones start before higher ones.
        deadline: monotonic seconds, after which nobody waits for it; None is never.
    """

    request_id: str
    prompt_ids: SequenceOf[int]
    sampling: SamplingParams
    eog_ids: frozenset[int] = frozenset()
    cache_salt: str = ""
    adapter: LoadedAdapter | None = None
    constraint: Constraint | None = None
    bad_ids: tuple[tuple[int, ...], ...] = ()
    tenant: str = ""
    weight: float = 1.0
    priority: int = 0
    deadline: float | None = None
    resumed: tuple[AnswerSoFar, ...] = ()

    @property
    def num_unfinished(self) -> int:
        """Answers that are to be drawn."""
        return self.sampling.n - sum(answer.is_finished for answer in self.resumed)


class Sequence(Node):
    """One answer being drawn. `num_computed_tokens` chases `num_tokens`; there are no phases."""

    __slots__ = (
        "block_table",
        "chain",
        "constraint",
        "failure",
        "finish_reason",
        "group",
        "index",
        "num_accepted_tokens",
        "num_charged_tokens",
        "num_computed_tokens",
        "seed",
        "seq_id",
        "status",
        "token_ids",
    )

    def __init__(self, group: SequenceGroup, index: int, seq_id: int, known_ids: array[int]) -> None:
        super().__init__()
        self.group = group
        self.index = index  # in [0, n)
        self.seq_id = seq_id  # order of arrival: the lower, the older
        self.seed = (group.seed + index) & _SEED_MASK
        self.token_ids = known_ids[:]  # prompt and output, int32
        self.chain = PrefixChain(group.root_hash, self.token_ids)
        self.num_computed_tokens = 0  # tokens [0, this) have KV in block_table
        self.num_charged_tokens = 0  # of the prompt: nobody pays for what is computed again
        self.block_table: array[int] = array("i")
        self.status = SequenceStatus.WAITING
        self.finish_reason: FinishReason | None = None
        self.constraint = None if group.constraint is None else group.constraint.copy()
        self.num_accepted_tokens = 0  # tokens of the output that the constraint has been told
        self.failure: CorralError | None = None  # why nothing can be drawn

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.group.num_prompt_tokens

    @property
    def num_new_tokens(self) -> int:
        """Known tokens that have no KV yet; 1 is a decode row."""
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def output_ids(self) -> array[int]:
        return self.token_ids[self.group.num_prompt_tokens :]

    def find_finish(self, token_id: int) -> FinishReason | None:
        """Why the sequence ends with `token_id`, already its last token, or None.

        Where tokens are constrained, an end before min_tokens was drawn because nothing else was allowed.
        """
        group = self.group
        if token_id in group.stop_ids and (self.num_output_tokens > group.params.min_tokens or group.is_constrained):
            return FinishReason.STOP
        return FinishReason.LENGTH if self.num_tokens >= self.group.max_length else None

    def make_output(
        self,
        *,
        new_token_ids: tuple[int, ...] = (),
        finish_reason: FinishReason | None = None,
        stop_token: int | None = None,
        logprobs: tuple[TokenLogprobs, ...] = (),
        prompt_logprobs: tuple[TokenLogprobs, ...] = (),
    ) -> SequenceOutput:
        return SequenceOutput(
            request_id=self.group.request_id,
            index=self.index,
            new_token_ids=new_token_ids,
            finish_reason=finish_reason,
            stop_token=stop_token,
            num_cached_tokens=self.group.num_cached_tokens or 0,
            num_prompt_tokens=self.group.num_prompt_tokens,
            begun_at=self.group.begun_at,
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
        )


class SequenceGroup:
    """The n sequences of one request.

    While `is_forked` is false only the `leader` is known to the queues; its siblings wait for it to compute the prompt.
    """

    __slots__ = (
        "account",
        "adapter",
        "bad_ids",
        "begun_at",
        "cache_salt",
        "constraint",
        "is_forked",
        "leader",
        "max_length",
        "num_cached_tokens",
        "num_prompt_tokens",
        "num_unfinished",
        "params",
        "priority",
        "prompt_logprobs",
        "request_id",
        "root_hash",
        "seed",
        "sequences",
        "stop_ids",
        "tenant",
        "weight",
    )

    account: Tenant  # given by the scheduler

    def __init__(self, spec: SequenceGroupSpec, *, first_seq_id: int, max_model_len: int, vocab_size: int) -> None:
        params = spec.sampling
        self.request_id = spec.request_id
        self.params = params
        self.cache_salt = spec.cache_salt
        self.adapter = spec.adapter
        self.tenant = spec.tenant
        self.weight = spec.weight
        self.priority = spec.priority
        self.seed = random.SystemRandom().getrandbits(64) if params.seed is None else params.seed & _SEED_MASK
        self.constraint = spec.constraint
        self.bad_ids = spec.bad_ids
        # What a grammar wants ends with an end-of-text token, and nothing may follow it.
        eog_ids = frozenset() if params.ignore_eos and spec.constraint is None else spec.eog_ids
        # An id beyond the vocabulary (a tokenizer larger than the output matrix) can never be drawn.
        self.stop_ids = frozenset(i for i in eog_ids | frozenset(params.stop_token_ids) if 0 <= i < vocab_size)
        self.num_prompt_tokens = len(spec.prompt_ids)
        room = max_model_len - self.num_prompt_tokens
        self.max_length = self.num_prompt_tokens + min(room, room if params.max_tokens is None else params.max_tokens)
        self.root_hash = root_hash(spec.adapter.digest if spec.adapter else "", spec.cache_salt)
        self.num_cached_tokens: int | None = None  # set when the first member starts
        self.begun_at: float | None = None  # of the first step that computed anything of it, by the engine's clock
        self.num_unfinished = params.n
        self.is_forked = params.n == 1
        # Of prompt tokens 1, 2, ...; None where they are not asked for or have been told.
        is_scored = params.prompt_logprobs is not None and not spec.resumed
        self.prompt_logprobs: list[TokenLogprobs] | None = [] if is_scored else None
        known = [array("i", (*spec.prompt_ids, *answer.token_ids)) for answer in spec.resumed or [AnswerSoFar()]]
        self.sequences = [Sequence(self, i, first_seq_id + i, known[i % len(known)]) for i in range(params.n)]
        self.leader = self.sequences[0]

    @property
    def is_constrained(self) -> bool:
        """Whether not all tokens may be drawn."""
        return self.constraint is not None or self.params.allowed_token_ids is not None

    def find_donor(self) -> Sequence | None:
        """A running member that has the KV of the whole prompt, for another to fork from."""
        for member in self.sequences:
            if member.status is SequenceStatus.RUNNING and member.num_computed_tokens >= self.num_prompt_tokens:
                return member
        return None
