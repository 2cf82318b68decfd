"""Which tokens the next step computes, and what its results mean for queues and blocks."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter

from corral.config import BLOCK_SIZE
from corral.engine.block_pool import BlockPool, IntegrityError
from corral.engine.budget import StepBudget
from corral.engine.linked_list import LinkedList
from corral.engine.output import SequenceOutput, StepOutput, TokenLogprobs
from corral.engine.scheduled_batch import ScheduledBatch, ScheduledRow
from corral.engine.sequence import Sequence, SequenceGroup, SequenceStatus
from corral.errors import CorralError
from corral.request import FinishReason

_AGE = attrgetter("seq_id")
_NO_LOGPROBS: Mapping[int, TokenLogprobs] = {}


@dataclass(slots=True)
class SchedulerCounts:
    """Totals since the start."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    prefix_hit_tokens: int = 0
    preemptions: int = 0


class Scheduler:
    """First come, first served, under one token budget.

    `running` is kept in order of age. Only running sequences hold blocks, so preemption can always free all of them.

    Args:
        pool: the KV blocks.
        budget: sizes the prompt part of a step.
        max_running: most sequences of a step; at most the step's token budget, so that each gets its token.
    """

    def __init__(self, pool: BlockPool, budget: StepBudget, max_running: int) -> None:
        self.pool = pool
        self.budget = budget
        self.max_running = max_running
        self.running: list[Sequence] = []
        self.waiting: LinkedList[Sequence] = LinkedList()
        self.groups: dict[str, SequenceGroup] = {}
        self.num_held = 0  # siblings whose leader has not computed the prompt yet
        self.counts = SchedulerCounts()

    @property
    def num_waiting(self) -> int:
        return len(self.waiting) + self.num_held

    def add(self, group: SequenceGroup) -> None:
        """Queue a group behind all others. Its request id is new, and its longest sequence fits into the pool alone."""
        self.groups[group.request_id] = group
        self.waiting.push_tail(group.leader)
        if not group.is_forked:
            self.num_held += len(group.sequences) - 1

    # ---- schedule ---------------------------------------------------------------------------------------------

    def schedule(self) -> ScheduledBatch:
        """The next step: running sequences, oldest first, then waiting ones while there is room."""
        batch = ScheduledBatch()
        num_decoding = sum(sequence.num_new_tokens == 1 for sequence in self.running)
        # Decode rows have their tokens reserved: a long prompt never costs a stream its turn.
        num_prompts = len(self.running) - num_decoding + len(self.waiting)
        prefill_left = self.budget.prefill_tokens(num_decoding, num_prompts)
        # Logits are kept for as many tokens as there may be sequences: those drawn now, and scored ones of prompts.
        logits_left = max(2, self.max_running - num_decoding)
        at = 0
        while at < len(self.running):
            sequence = self.running[at]
            num_tokens = sequence.num_new_tokens
            if num_tokens > 1:
                num_tokens = min(num_tokens, prefill_left, _most_tokens(sequence, logits_left))
                prefill_left -= num_tokens
                logits_left -= _num_logits(sequence, num_tokens)
            if num_tokens:
                if not self._make_room(sequence, sequence.num_computed_tokens + num_tokens):
                    break
                batch.append(sequence, num_tokens)
            at += 1
        self._admit_waiting(batch, prefill_left, logits_left)
        batch.copies = self.pool.take_copies()
        return batch

    def _admit_waiting(self, batch: ScheduledBatch, tokens_left: int, logits_left: int) -> None:
        while tokens_left > 0 and len(self.running) < self.max_running:
            sequence = self.waiting.head
            if sequence is None or _most_tokens(sequence, logits_left) < 1 or not self._admit(sequence):
                break
            num_tokens = min(sequence.num_new_tokens, tokens_left, _most_tokens(sequence, logits_left))
            tokens_left -= num_tokens
            logits_left -= _num_logits(sequence, num_tokens)
            batch.append(sequence, num_tokens)

    def _make_room(self, sequence: Sequence, end: int) -> bool:
        """Blocks for tokens [0, end), preempting the youngest while they lack; False if that was `sequence` itself."""
        while not self._take_blocks(sequence, end):
            youngest = self.running[-1]
            self._preempt(youngest)
            if youngest is sequence:
                return False
        return True

    def _take_blocks(self, sequence: Sequence, end: int) -> bool:
        """All blocks that tokens [num_computed_tokens, end) are written to, or none and False."""
        table = sequence.block_table
        first = sequence.num_computed_tokens // BLOCK_SIZE
        # Only the first block written can have other holders or a name; those behind it were taken for this sequence.
        must_copy = first < len(table) and not self.pool.is_writable(table[first])
        num_missing = -(-end // BLOCK_SIZE) - len(table)
        if must_copy + max(0, num_missing) > self.pool.num_free:
            return False
        if must_copy:
            table[first] = self.pool.copy_on_write(table[first])
        if num_missing > 0:
            table.extend(self.pool.allocate(num_missing))
        return True

    def _admit(self, sequence: Sequence) -> bool:
        """Move the head of the queue to the running ones with blocks for all its known tokens, if they are free."""
        shared, num_computed = self._find_shared(sequence)
        num_copies = int(num_computed // BLOCK_SIZE < len(shared))
        num_taken = -(-sequence.num_tokens // BLOCK_SIZE) - len(shared) + num_copies + self.pool.num_free_among(shared)
        # Every running sequence will soon want one more block: leave that many, or it would preempt the newcomer.
        # So the preempted, at the head now, cannot come back in the step that took its blocks.
        if num_taken > self.pool.num_free - len(self.running):
            return False
        self.waiting.remove(sequence)
        self._start(sequence, shared, num_computed)
        if not self._take_blocks(sequence, sequence.num_tokens):
            raise IntegrityError(f"{num_taken} blocks counted as enough for sequence {sequence.seq_id} were not")
        return True

    def _find_shared(self, sequence: Sequence) -> tuple[list[int], int]:
        """Blocks to share with a live sibling or from the cache, and the tokens they save.

        The last known token is never among them: it must be computed for its logits.
        """
        if sequence.group.prompt_logprobs is not None:
            return [], 0  # what is not computed has no logits
        cached = self.pool.match(sequence.chain, (sequence.num_tokens - 1) // BLOCK_SIZE)
        num_prompt_tokens = sequence.group.num_prompt_tokens
        donor = sequence.group.find_donor()
        if donor is None or len(cached) * BLOCK_SIZE >= num_prompt_tokens - 1:
            return cached, len(cached) * BLOCK_SIZE
        return list(donor.block_table[: -(-num_prompt_tokens // BLOCK_SIZE)]), num_prompt_tokens - 1

    def _start(self, sequence: Sequence, shared: list[int], num_computed: int) -> None:
        self.pool.share(shared)
        sequence.block_table.extend(shared)
        sequence.num_computed_tokens = num_computed
        sequence.status = SequenceStatus.RUNNING
        insort(self.running, sequence, key=_AGE)
        if sequence.group.num_cached_tokens is None:
            sequence.group.num_cached_tokens = num_computed
            self.counts.prefix_hit_tokens += num_computed
            self.counts.prompt_tokens += sequence.group.num_prompt_tokens

    def _preempt(self, sequence: Sequence) -> None:
        """Take everything from a running sequence; it will compute its tokens again, or find them in the cache."""
        self._stop_running(sequence)
        sequence.num_computed_tokens = 0
        sequence.status = SequenceStatus.WAITING
        self.waiting.push_head(sequence)
        self.counts.preemptions += 1

    def _stop_running(self, sequence: Sequence) -> None:
        del self.running[bisect_left(self.running, sequence.seq_id, key=_AGE)]
        self.pool.free(sequence.block_table)
        del sequence.block_table[:]

    # ---- update -----------------------------------------------------------------------------------------------

    def update(
        self, batch: ScheduledBatch, sampled: list[int], logprobs: Mapping[int, TokenLogprobs] = _NO_LOGPROBS
    ) -> StepOutput:
        """Book a step's results.

        Args:
            sampled: one id per row with `is_last`, -1 where nothing could be drawn.
            logprobs: by row of the step's logits, of those that asked for them; see ScheduledRow.
        """
        if len(sampled) != sum(row.is_last for row in batch.rows):
            raise IntegrityError(f"the runner drew {len(sampled)} tokens for {sum(r.is_last for r in batch.rows)} rows")
        result = StepOutput()
        tokens, at = iter(sampled), 0
        for row in batch.rows:
            group = row.sequence.group
            self._book_computed(row)
            if group.prompt_logprobs is not None:
                group.prompt_logprobs += [logprobs[at + i] for i in range(len(row.scored))]
            at += len(row.scored)
            if not row.is_last:
                continue
            token_id = next(tokens)
            if token_id < 0:
                result.failures[group.request_id] = row.sequence.failure or _not_finite(row.sequence)
            else:
                result.outputs.append(self._book_token(row.sequence, token_id, logprobs.get(at)))
            at += 1
        for request_id in result.failures:
            self._discard(request_id)
        result.outputs = [output for output in result.outputs if output.request_id not in result.failures]
        return result

    def _book_computed(self, row: ScheduledRow) -> None:
        sequence = row.sequence
        sequence.num_computed_tokens += row.num_tokens
        for index in range(row.start // BLOCK_SIZE, sequence.num_computed_tokens // BLOCK_SIZE):
            sequence.block_table[index] = self.pool.register(sequence.block_table[index], sequence.chain, index)
        group = sequence.group
        if not group.is_forked and sequence.num_computed_tokens >= group.num_prompt_tokens:
            self._fork(sequence)

    def _fork(self, leader: Sequence) -> None:
        """Let the siblings go: they share the prompt's blocks and compute its last token each for itself."""
        group = leader.group
        group.is_forked = True
        num_prompt_tokens = group.num_prompt_tokens
        prompt_blocks = list(leader.block_table[: -(-num_prompt_tokens // BLOCK_SIZE)])
        late = []
        for sibling in group.sequences[leader.index + 1 :]:
            if sibling.status is SequenceStatus.FINISHED:
                continue
            self.num_held -= 1
            leader.chain.share_with(sibling.chain, num_prompt_tokens // BLOCK_SIZE)
            if len(self.running) < self.max_running:
                self._start(sibling, prompt_blocks, num_prompt_tokens - 1)
            else:
                late.append(sibling)
        for sibling in reversed(late):
            self.waiting.push_head(sibling)

    def _book_token(self, sequence: Sequence, token_id: int, logprobs: TokenLogprobs | None) -> SequenceOutput:
        sequence.token_ids.append(token_id)
        self.counts.generated_tokens += 1
        reason = sequence.find_finish(token_id)
        is_stop = reason is FinishReason.STOP
        group = sequence.group
        prompt_logprobs, group.prompt_logprobs = group.prompt_logprobs, None
        output = sequence.make_output(
            new_token_ids=() if is_stop else (token_id,),
            finish_reason=reason,
            stop_token=token_id if is_stop else None,
            logprobs=() if is_stop or logprobs is None else (logprobs,),
            prompt_logprobs=tuple(prompt_logprobs or ()),
        )
        if reason is not None:
            self.end(sequence, reason)
        return output

    def _discard(self, request_id: str) -> None:
        """End a request whose logits were not finite; nobody may share what it computed."""
        group = self.groups.get(request_id)
        for sequence in group.sequences if group else ():
            self.pool.forget(sequence.block_table)
        self.abort(request_id)

    # ---- ends -------------------------------------------------------------------------------------------------

    def abort(self, request_id: str) -> list[Sequence]:
        """End what is left of a request; the sequences ended. Unknown and finished requests have none."""
        group = self.groups.get(request_id)
        if group is None:
            return []
        ended = [sequence for sequence in group.sequences if sequence.status is not SequenceStatus.FINISHED]
        for sequence in reversed(ended):  # the leader last, so that no sibling takes its place
            self.end(sequence, FinishReason.ABORT)
        return ended

    def end(self, sequence: Sequence, reason: FinishReason) -> None:
        """Finish one sequence in any state but FINISHED; its blocks are free at once."""
        group = sequence.group
        if not group.is_forked and sequence is not group.leader:
            self.num_held -= 1
        elif group.is_forked or not self._pass_on_lead(sequence):
            self._leave(sequence)
        sequence.status = SequenceStatus.FINISHED
        sequence.finish_reason = reason
        group.num_unfinished -= 1
        if group.num_unfinished == 0:
            del self.groups[group.request_id]

    def _leave(self, sequence: Sequence) -> None:
        if sequence.status is SequenceStatus.RUNNING:
            self._stop_running(sequence)
        else:
            self.waiting.remove(sequence)

    def _pass_on_lead(self, leader: Sequence) -> bool:
        """Give the place of a leader that ends before the fork, with blocks and all, to its next sibling, if any."""
        held = (s for s in leader.group.sequences[leader.index + 1 :] if s.status is not SequenceStatus.FINISHED)
        heir = next(held, None)
        if heir is None:
            return False
        self.num_held -= 1
        leader.group.leader = heir
        if leader.status is SequenceStatus.RUNNING:
            heir.status = leader.status
            heir.num_computed_tokens = leader.num_computed_tokens
            heir.block_table, leader.block_table = leader.block_table, heir.block_table
            self.running[bisect_left(self.running, leader.seq_id, key=_AGE)] = heir
        else:
            self.waiting.insert_before(leader, heir)
            self.waiting.remove(leader)
        return True

    # ---- books ------------------------------------------------------------------------------------------------

    def check_integrity(self) -> None:
        """Compare queues, groups and blocks with one another. O(everything).

        Raises:
            IntegrityError: names what does not agree.
        """
        self.pool.check_integrity(sequence.block_table for sequence in self.running)
        check_queues(self)


def check_queues(scheduler: Scheduler) -> None:
    """Every live sequence is in exactly the place its status says."""
    alive = [s for g in scheduler.groups.values() for s in g.sequences if s.status is not SequenceStatus.FINISHED]
    running = [s for s in alive if s.status is SequenceStatus.RUNNING]
    queued = [s for s in alive if s.is_linked]
    if sorted(running, key=_AGE) != scheduler.running:
        raise IntegrityError(f"{len(running)} sequences say they run; the list has {len(scheduler.running)}, by age")
    if any(s.status is not SequenceStatus.WAITING for s in queued) or len(queued) != len(scheduler.waiting):
        raise IntegrityError(f"{len(queued)} sequences are queued; the queue has {len(scheduler.waiting)}")
    if len(alive) - len(running) - len(queued) != scheduler.num_held:
        raise IntegrityError(f"{len(alive) - len(running) - len(queued)} siblings are held, not {scheduler.num_held}")
    if any(s.block_table or s.num_computed_tokens for s in alive if s.status is SequenceStatus.WAITING):
        raise IntegrityError("a waiting sequence holds blocks")
    for sequence in running:
        if len(sequence.block_table) * BLOCK_SIZE < sequence.num_computed_tokens:
            raise IntegrityError(f"sequence {sequence.seq_id} has more computed tokens than block slots")


def _most_tokens(sequence: Sequence, logits_left: int) -> int:
    """Tokens of a chunk; they are bounded by the logits if those are kept."""
    return max(0, logits_left) if sequence.group.prompt_logprobs is not None else sequence.num_new_tokens


def _num_logits(sequence: Sequence, num_tokens: int) -> int:
    return num_tokens if sequence.group.prompt_logprobs is not None else 1


def _not_finite(sequence: Sequence) -> CorralError:
    return CorralError(
        f"the model's logits at position {sequence.num_tokens} of request {sequence.group.request_id} were not finite; "
        "the request was given up"
    )
