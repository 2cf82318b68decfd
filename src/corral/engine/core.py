"""The engine as a state machine: add and abort requests, take steps. One thread, ids only."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from corral.config import BLOCK_SIZE, EngineConfig
from corral.engine.block_pool import BlockPool, IntegrityError
from corral.engine.budget import StepBudget
from corral.engine.fair_queue import OUTPUT_COST, PROMPT_COST, projected_turns
from corral.engine.intake import Lines
from corral.engine.logprobs import LogprobQuery, queries_of
from corral.engine.output import SequenceOutput, StepOutput, TokenLogprobs
from corral.engine.scheduled_batch import ScheduledBatch
from corral.engine.scheduler import Scheduler
from corral.engine.sequence import SequenceGroup, SequenceGroupSpec, SequenceStatus
from corral.engine.stats import EngineStats, StepTimes
from corral.engine.watch import NoWatch, StepWatch
from corral.errors import ContextLengthExceeded, InvalidConfig, InvalidRequest
from corral.request import FinishReason


class Runner(Protocol):
    """What computes a batch: ModelRunner, or a scripted one in tests."""

    @property
    def num_blocks(self) -> int: ...

    def execute(self, scheduled: ScheduledBatch) -> list[int]: ...

    def logprobs(self, queries: list[LogprobQuery]) -> dict[int, TokenLogprobs]: ...

    def release_blocks(self, block_ids: list[int]) -> None: ...


class EngineCore:
    """Not thread-safe; EngineLoop drives it.

    Args:
        runner: computes batches; has the KV blocks.
        config: limits of a step.
        max_model_len: longest context in tokens; fits into the runner's blocks.
        vocab_size: token ids are in [0, vocab_size).
        clock: seconds, monotonic; it sizes steps and never changes a token.

    Raises:
        InvalidConfig: one sequence of max_model_len tokens would not fit into the blocks.
    """

    def __init__(
        self,
        runner: Runner,
        config: EngineConfig,
        *,
        max_model_len: int,
        vocab_size: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        capacity = runner.num_blocks * BLOCK_SIZE
        if not 2 <= max_model_len <= capacity:
            raise InvalidConfig(
                f"max_model_len is {max_model_len}; it must be from 2 to the {capacity} tokens of the KV pool"
            )
        max_tokens = config.max_num_batched_tokens
        self.max_model_len = max_model_len
        self.vocab_size = vocab_size
        self.max_running = min(config.max_num_seqs, max_tokens)
        self.times = StepTimes()
        self.watch: StepWatch = NoWatch()
        self._runner = runner
        self._clock = clock
        self._budget = StepBudget(max_tokens, config.max_step_ms)
        self._pool = BlockPool(runner.num_blocks, enable_prefix_caching=config.enable_prefix_caching)
        self._scheduler = Scheduler(self._pool, self._budget, self.max_running)
        self._next_seq_id = 0

    @property
    def has_work(self) -> bool:
        return bool(self._scheduler.groups)

    def step(self) -> StepOutput:
        """Schedule, forward, sample, update. There is work."""
        started = self._clock()
        batch = self._scheduler.schedule()
        if not batch.rows:
            raise IntegrityError(f"{self._scheduler.num_waiting} sequences wait, none runs and none can start")
        for row in batch.rows:
            if row.sequence.group.begun_at is None:
                row.sequence.group.begun_at = started
        self.watch.begin(row.sequence.group.request_id for row in batch.rows)
        sampled = self._runner.execute(batch)
        queries = queries_of(batch, sampled)
        result = self._scheduler.update(batch, sampled, self._runner.logprobs(queries) if queries else {})
        self.watch.end()
        elapsed_ms = 1000.0 * (self._clock() - started)
        self._budget.observe(batch.num_prefill_tokens, batch.num_decode_rows, elapsed_ms)
        self.times.add(elapsed_ms, batch.num_prefill_tokens, batch.num_decode_rows)
        return result

    @property
    def num_running(self) -> int:
        return len(self._scheduler.running)

    @property
    def has_waiting(self) -> bool:
        return len(self._scheduler.waiting) > 0

    def lines(self) -> Lines:
        """What waits now, and how fast it has been of late."""
        counts = self._scheduler.counts
        cost = PROMPT_COST * (counts.prompt_tokens - counts.prefix_hit_tokens) + OUTPUT_COST * counts.generated_tokens
        tenants = self._scheduler.tenants.open.values() if self.has_waiting else ()
        return Lines(
            {tenant.name: (tenant.counter, tenant.weight, len(tenant.waiting)) for tenant in tenants if tenant.waiting},
            num_starts=counts.starts,
            mean_cost=max(1.0, cost / max(1, counts.starts)),
        )

    def waiting_in_turn(self, lines: Lines) -> Iterator[tuple[int, str]]:
        """(how many go before it, request id) of those that have not begun, in the order in which they will."""
        waiting = [iter(self._scheduler.tenants.open[name].waiting) for name in lines.of]
        for position, at in enumerate(projected_turns(lines.of.values(), lines.mean_cost)):
            group = next(waiting[at]).group
            if group.num_cached_tokens is None:
                yield position, group.request_id

    def check(self, spec: SequenceGroupSpec) -> None:
        """Refuse what could never run. Reads constants only, so any thread may call it.

        Raises:
            ContextLengthExceeded: the prompt leaves no room for an answer.
            InvalidRequest: an empty prompt, or a token id outside of the vocabulary; names the field.
        """
        num_tokens = len(spec.prompt_ids)
        if num_tokens == 0:
            raise InvalidRequest("the prompt has no tokens; it needs at least one", param="prompt")
        if num_tokens >= self.max_model_len:
            raise ContextLengthExceeded(
                f"the prompt has {num_tokens} tokens; the context holds {self.max_model_len}, of which one at least "
                "is for the answer",
                param="prompt",
            )
        if not 0 < spec.weight < math.inf:
            raise InvalidRequest(f"weight is {spec.weight}; it must be above 0")
        self._check_ids("prompt", min(spec.prompt_ids), max(spec.prompt_ids))
        self._check_ids("stop_token_ids", *spec.sampling.stop_token_ids)
        self._check_ids("logit_bias", *spec.sampling.logit_bias)
        self._check_ids("allowed_token_ids", *(spec.sampling.allowed_token_ids or ()))
        if spec.resumed:
            self._check_resumed(spec)

    def _check_resumed(self, spec: SequenceGroupSpec) -> None:
        if len(spec.resumed) != spec.sampling.n:
            raise InvalidRequest(f"{len(spec.resumed)} answers are resumed; {spec.sampling.n} were asked for")
        for answer in spec.resumed:
            if not answer.is_finished and len(spec.prompt_ids) + len(answer.token_ids) >= self.max_model_len:
                raise ContextLengthExceeded(
                    f"{len(answer.token_ids)} tokens of an answer are known; with the prompt's {len(spec.prompt_ids)} "
                    f"they fill the context of {self.max_model_len}"
                )
            self._check_ids("resumed", *answer.token_ids)

    def _check_ids(self, param: str, *token_ids: int) -> None:
        for token_id in token_ids:
            if not 0 <= token_id < self.vocab_size:
                raise InvalidRequest(
                    f"{param} has token id {token_id}; ids go from 0 to {self.vocab_size - 1}", param=param
                )

    def add(self, spec: SequenceGroupSpec) -> None:
        """Queue a request.

        Raises:
            InvalidRequest: as `check` says, or the request id is in use. Nothing was added.
        """
        self.check(spec)
        if spec.request_id in self._scheduler.groups:
            raise InvalidRequest(f"request id {spec.request_id!r} is in use", param="request_id")
        group = SequenceGroup(
            spec, first_seq_id=self._next_seq_id, max_model_len=self.max_model_len, vocab_size=self.vocab_size
        )
        self._next_seq_id += len(group.sequences)
        self._scheduler.add(group)
        for sequence, answer in zip(group.sequences, spec.resumed, strict=False):
            if answer.is_finished:
                self._scheduler.end(sequence, FinishReason.STOP)

    def abort(self, request_id: str) -> list[SequenceOutput]:
        """End what is left of a request; the last outputs, none if it is unknown or finished. Its blocks are free."""
        return [s.make_output(finish_reason=FinishReason.ABORT) for s in self._scheduler.abort(request_id)]

    def finish(self, request_id: str, index: int) -> list[SequenceOutput]:
        """End one answer because of its text (a stop string); its last output, none if it has ended already."""
        group = self._scheduler.groups.get(request_id)
        if group is None or not 0 <= index < len(group.sequences):
            return []
        sequence = group.sequences[index]
        if sequence.status is SequenceStatus.FINISHED:
            return []
        self._scheduler.end(sequence, FinishReason.STOP)
        return [sequence.make_output(finish_reason=FinishReason.STOP)]

    def release_unused(self) -> None:
        """Give the memory of free blocks without cached tokens back."""
        self._release(self._pool.take_unused())

    def release_all_free(self) -> None:
        """Give the memory of all free blocks back; prefixes that nobody holds are forgotten."""
        self._release(self._pool.take_all_free())

    def _release(self, block_ids: list[int]) -> None:
        if block_ids:
            self._runner.release_blocks(block_ids)

    def check_idle(self) -> None:
        """Without work nobody holds a block. O(1). Raises IntegrityError."""
        self._pool.check_all_free()

    def check_integrity(self) -> None:
        """Compare all books. O(everything). Raises IntegrityError."""
        self._scheduler.check_integrity()

    def stats(self) -> EngineStats:
        """Figures of this moment; any thread may call it, a step under way may move some of them."""
        counts = self._scheduler.counts
        return EngineStats(
            num_running=len(self._scheduler.running),
            num_waiting=self._scheduler.num_waiting,
            num_blocks=self._pool.num_blocks,
            num_free_blocks=self._pool.num_free,
            num_cached_blocks=self._pool.num_cached,
            prompt_tokens=counts.prompt_tokens,
            generated_tokens=counts.generated_tokens,
            prefix_hit_tokens=counts.prefix_hit_tokens,
            preemptions=counts.preemptions,
            evictions=self._pool.num_evictions,
            num_steps=self.times.num_steps,
            total_step_ms=self.times.total_ms,
            last_step_ms=self.times.last_ms,
            mean_step_ms=self.times.mean_ms,
            num_decode_steps=self.times.num_decode_steps,
            decode_ms=self.times.decode_ms,
            step_seconds=self.times.seconds.copy(),
            step_tokens=self.times.tokens.copy(),
        )
