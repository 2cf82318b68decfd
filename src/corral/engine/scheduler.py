"""Which tokens the next step computes, and what its results mean for queues and blocks."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from operator import attrgetter

from corral.config import BLOCK_SIZE
from corral.engine.block_pool import BlockPool, IntegrityError
from corral.engine.budget import StepBudget
from corral.engine.fair_queue import OUTPUT_COST, PROMPT_COST, FairQueue, Tenant, turn_of, youngest_of_richest
from corral.engine.ledger import Ledger
from corral.engine.output import SequenceOutput, StepOutput, TokenLogprobs
from corral.engine.queue_checks import check_queues
from corral.engine.scheduled_batch import ScheduledBatch, ScheduledRow, StepRoom
from corral.engine.sequence import Sequence, SequenceGroup, SequenceStatus
from corral.engine.stats import SchedulerCounts
from corral.errors import CorralError
from corral.request import FinishReason

_AGE = attrgetter("seq_id")
_NO_LOGPROBS: Mapping[int, TokenLogprobs] = {}


class Scheduler:
    """First come, first served, under one token budget; the tenants of a shared engine take turns (see FairQueue).

    `running` is kept in order of age. Only running sequences hold blocks, so preemption can always free all of them.
    The oldest that runs is never preempted, and so something always comes to its end.

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
        self.tenants: Ledger[Tenant] = Ledger(Tenant)
        self.waiting = FairQueue(self.tenants)
        self.groups: dict[str, SequenceGroup] = {}
        self.num_held = 0  # siblings whose leader has not computed the prompt yet
        self.counts = SchedulerCounts()

    @property
    def num_waiting(self) -> int:
        return len(self.waiting) + self.num_held

    def add(self, group: SequenceGroup) -> None:
        """Queue a group behind its tenant's others. Its id is new; its longest sequence fits into the pool alone."""
        self.groups[group.request_id] = group
        group.account = self.tenants.enter(group.tenant, group.weight)
        self.waiting.push(group.leader)
        if not group.is_forked:
            self.num_held += len(group.sequences) - 1

    # ---- schedule ---------------------------------------------------------------------------------------------

    def schedule(self) -> ScheduledBatch:
        """The next step: running sequences, oldest first, then waiting ones while there is room."""
        batch = ScheduledBatch()
        is_shared = len(self.tenants.open) > 1
        if is_shared:
            self._make_place()
        num_decoding = sum(sequence.num_new_tokens == 1 for sequence in self.running)
        # Decode rows have their tokens reserved: a long prompt never costs a stream its turn.
        num_prompts = len(self.running) - num_decoding + len(self.waiting)
        # Logits are kept for as many tokens as there may be sequences: those drawn now, and scored ones of prompts.
        room = StepRoom(self.budget.prefill_tokens(num_decoding, num_prompts), max(2, self.max_running - num_decoding))
        at = 0
        while at < len(self.running):
            sequence = self.running[at]
            num_tokens = sequence.num_new_tokens
            is_prompt = num_tokens > 1
            if is_prompt and not is_shared:
                num_tokens = room.take(sequence)
            if not self._make_room(at, sequence, sequence.num_computed_tokens + (num_tokens or 1)):
                continue
            if not is_prompt:
                batch.append(sequence, 1)
            elif num_tokens and not is_shared:
                self._append(batch, sequence, num_tokens)
            at += 1
        if is_shared:
            self._share_room(batch, room)
        else:
            while self._may_start(room) and (head := self._admit_head(self.waiting.head, room)) is not None:
                self._append(batch, head, room.take(head))
        batch.copies = self.pool.take_copies()
        return batch

    def _append(self, batch: ScheduledBatch, sequence: Sequence, num_tokens: int) -> None:
        """Tokens of a prompt, on its tenant's account."""
        end = min(sequence.num_computed_tokens + num_tokens, sequence.group.num_prompt_tokens)
        if end > sequence.num_charged_tokens:
            sequence.group.account.charge(PROMPT_COST * (end - sequence.num_charged_tokens))
            sequence.num_charged_tokens = end
        batch.append(sequence, num_tokens)

    def _share_room(self, batch: ScheduledBatch, room: StepRoom) -> None:
        """Prompts by their tenants' turns: a long one of one tenant does not hold up the short ones of another."""
        begun: dict[Tenant, deque[Sequence]] = {}
        for sequence in self.running:
            if sequence.num_new_tokens > 1:
                begun.setdefault(sequence.group.account, deque()).append(sequence)
        may_start = True
        while room.tokens > 0:
            may_start = may_start and self._may_start(room)
            tenants = [t for t in self.tenants.open.values() if t in begun or (may_start and t.waiting)]
            if not tenants:
                break
            tenant = min(tenants, key=turn_of)
            chosen: Sequence | None
            if tenant in begun:
                chosen = begun[tenant].popleft()
                if not begun[tenant]:
                    del begun[tenant]
            else:
                chosen = self._admit_head(tenant.waiting.head, room)
                may_start = chosen is not None  # nobody passes the one that finds no place
            if chosen is not None and (num_tokens := room.take(chosen)):
                self._append(batch, chosen, num_tokens)

    def _may_start(self, room: StepRoom) -> bool:
        return room.tokens > 0 and len(self.running) < self.max_running

    def _admit_head(self, sequence: Sequence | None, room: StepRoom) -> Sequence | None:
        """A head of the queue, running now; None if there is none or it finds no place."""
        if sequence is None or room.most_tokens(sequence) < 1 or not self._admit(sequence):
            return None
        return sequence

    def _make_place(self) -> None:
        """Preempt for a tenant whose turn it is and that has nothing running, so that nobody holds all the places."""
        head = self.waiting.head
        if head is None or head.group.account.num_running:
            return
        tenant = head.group.account
        while len(self.running) >= self.max_running or not self._fits(head, *self._find_shared(head)):
            rich = [s for s in self.running if (t := s.group.account).num_running > 1 and t.counter >= tenant.counter]
            if not rich:
                return
            self._preempt(youngest_of_richest(rich))

    def _make_room(self, at: int, sequence: Sequence, end: int) -> bool:
        """Blocks for tokens [0, end) of running[at], preempting while they lack; False if that was `sequence` itself.

        It goes by the tenants' turns, then by age: the youngest of the tenant that has had most. Those before `at`
        stay, they are in the step; and the oldest does, so that there is an end.
        """
        while not self._take_blocks(sequence, end):
            victim = youngest_of_richest(self.running[max(at, 1) :] or self.running)
            self._preempt(victim)
            if victim is sequence:
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
        """Move a head of the queue to the running ones with blocks for all its known tokens, if they are free."""
        shared, num_computed = self._find_shared(sequence)
        if not self._fits(sequence, shared, num_computed):
            return False
        self.waiting.remove(sequence)
        self._start(sequence, shared, num_computed)
        if not self._take_blocks(sequence, sequence.num_tokens):
            raise IntegrityError(f"the blocks counted as enough for sequence {sequence.seq_id} were not")
        return True

    def _fits(self, sequence: Sequence, shared: list[int], num_computed: int) -> bool:
        num_copies = int(num_computed // BLOCK_SIZE < len(shared))
        num_taken = -(-sequence.num_tokens // BLOCK_SIZE) - len(shared) + num_copies + self.pool.num_free_among(shared)
        # Every running sequence will soon want one more block: leave that many, or it would preempt the newcomer.
        # So the preempted, at the head now, cannot come back in the step that took its blocks.
        return num_taken <= self.pool.num_free - len(self.running)

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
        sequence.num_charged_tokens = max(sequence.num_charged_tokens, num_computed)
        sequence.status = SequenceStatus.RUNNING
        sequence.group.account.num_running += 1
        insort(self.running, sequence, key=_AGE)
        if sequence.group.num_cached_tokens is None:
            sequence.group.num_cached_tokens = num_computed
            self.counts.starts += 1
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
        sequence.group.account.num_running -= 1
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
        sequence.group.account.charge(OUTPUT_COST)
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
            self.tenants.leave(group.account)

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


def _not_finite(sequence: Sequence) -> CorralError:
    return CorralError(
        f"the model's logits at position {sequence.num_tokens} of request {sequence.group.request_id} were not finite; "
        "the request was given up"
    )
