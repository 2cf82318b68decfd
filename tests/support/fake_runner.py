"""A runner whose tokens are a pure function of the token history, and whose KV cache tells on whoever spoils it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from corral.config import BLOCK_SIZE, EngineConfig
from corral.engine.core import EngineCore
from corral.engine.logprobs import LogprobQuery
from corral.engine.output import TokenLogprobs
from corral.engine.scheduled_batch import ScheduledBatch, ScheduledRow
from corral.engine.sequence import Sequence, SequenceGroupSpec
from corral.request import FinishReason

VOCAB_SIZE = 50
MAX_MODEL_LEN = 128


def extend_history(history: bytes, token_id: int) -> bytes:
    """Fingerprint of all tokens up to one more, in place of the K and V that a model would write."""
    return hashlib.blake2b(history + token_id.to_bytes(4, "little"), digest_size=8).digest()


def start_history(salt: str) -> bytes:
    """The salt is part of the fingerprint, so that blocks shared across salts are noticed."""
    return hashlib.blake2b(salt.encode(), digest_size=8).digest()


def draw(history: bytes, seed: int, position: int, *, greedy: bool) -> int:
    """The next token: of the history alone, or of seed and position too."""
    key = b"" if greedy else seed.to_bytes(8, "little") + position.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(history + key, digest_size=4).digest(), "little") % VOCAB_SIZE


@dataclass(frozen=True)
class Expected:
    """One answer as it comes out undisturbed."""

    token_ids: tuple[int, ...]  # without the stop token
    finish_reason: FinishReason
    stop_token: int | None


def expect(spec: SequenceGroupSpec, index: int, max_model_len: int = MAX_MODEL_LEN) -> Expected:
    """What FakeRunner must answer, computed from the spec alone; its sampling has a seed or is greedy."""
    params = spec.sampling
    stop_ids = set(params.stop_token_ids) | (set() if params.ignore_eos else set(spec.eog_ids))
    history = start_history(spec.cache_salt)
    for token_id in spec.prompt_ids:
        history = extend_history(history, token_id)
    output: list[int] = []
    while True:
        position = len(spec.prompt_ids) + len(output)
        token_id = draw(history, (params.seed or 0) + index, position, greedy=params.is_greedy)
        if token_id in stop_ids and len(output) >= params.min_tokens:
            return Expected(tuple(output), FinishReason.STOP, token_id)
        output.append(token_id)
        if len(output) == params.max_tokens or position + 1 == max_model_len:
            return Expected(tuple(output), FinishReason.LENGTH, None)
        history = extend_history(history, token_id)


@dataclass
class FakeRunner:
    """Keeps for each (block, slot) the fingerprint that was written there, and checks at every step what is read.

    A lost copy-on-write, a block evicted or shared too early, a token skipped or a write into somebody else's
    block leaves a fingerprint that is not the reader's own.
    """

    num_blocks: int = 64
    broken_requests: set[str] = field(default_factory=set)  # their logits are not finite
    failure: Exception | None = None  # raised by the next step
    released: list[int] = field(default_factory=list)
    num_computed: int = 0
    num_copied: int = 0
    num_logprobs: int = 0
    batches: list[tuple[int, int]] = field(default_factory=list)  # (prefill tokens, decode rows)
    max_tokens: int | None = None
    on_execute: Callable[[ScheduledBatch], None] | None = None
    on_release: Callable[[list[int]], None] | None = None

    def __post_init__(self) -> None:
        self.slots: list[list[bytes | None]] = [[None] * BLOCK_SIZE for _ in range(self.num_blocks)]
        self._histories: dict[int, list[bytes]] = {}  # seq id -> fingerprint at each position

    def execute(self, scheduled: ScheduledBatch) -> list[int]:
        if self.on_execute is not None:
            self.on_execute(scheduled)
        if self.failure is not None:
            raise self.failure
        self._copy(scheduled.copies)
        written: dict[tuple[int, int], int] = {}
        for row in scheduled.rows:
            self._write(row, written)
        for row in scheduled.rows:
            self._read(row)
        num_tokens = sum(row.num_tokens for row in scheduled.rows)
        assert num_tokens == scheduled.num_prefill_tokens + scheduled.num_decode_rows
        assert self.max_tokens is None or num_tokens <= self.max_tokens, "a step is bounded by the token budget"
        self.num_computed += num_tokens
        self.batches.append((scheduled.num_prefill_tokens, scheduled.num_decode_rows))
        return [self._sample(row.sequence) for row in scheduled.rows if row.is_last]

    def logprobs(self, queries: list[LogprobQuery]) -> dict[int, TokenLogprobs]:
        """Made-up figures that tell whose they are: -token_id / 100, and ids counted from 0."""
        self.num_logprobs += len(queries)
        return {
            query.index: TokenLogprobs(
                query.token_id,
                -query.token_id / 100,
                tuple(range(query.num_top)),
                tuple(-i / 10 for i in range(query.num_top)),
            )
            for query in queries
        }

    def release_blocks(self, block_ids: list[int]) -> None:
        for block_id in block_ids:
            self.slots[block_id] = [None] * BLOCK_SIZE
        self.released.extend(block_ids)
        if self.on_release is not None:
            self.on_release(block_ids)

    def _copy(self, copies: list[tuple[int, int]]) -> None:
        sources, destinations = {s for s, _ in copies}, [d for _, d in copies]
        assert len(set(destinations)) == len(destinations), "two copies into one block"
        assert sources.isdisjoint(destinations), "the order of copies must not matter"
        for source, destination in copies:
            self.slots[destination] = list(self.slots[source])
        self.num_copied += len(copies)

    def history(self, sequence: Sequence) -> list[bytes]:
        """Fingerprints of all known tokens of a sequence."""
        known = self._histories.setdefault(sequence.seq_id, [start_history(sequence.group.cache_salt)])
        for token_id in sequence.token_ids[len(known) - 1 :]:
            known.append(extend_history(known[-1], token_id))
        return known[1:]

    def _write(self, row: ScheduledRow, written: dict[tuple[int, int], int]) -> None:
        assert row.num_tokens > 0
        assert row.start == row.sequence.num_computed_tokens
        history = self.history(row.sequence)
        for position in range(row.start, row.start + row.num_tokens):
            place = (row.sequence.block_table[position // BLOCK_SIZE], position % BLOCK_SIZE)
            assert place not in written, f"sequences {written[place]} and {row.sequence.seq_id} write to {place}"
            written[place] = row.sequence.seq_id
            self.slots[place[0]][place[1]] = history[position]

    def _read(self, row: ScheduledRow) -> None:
        history = self.history(row.sequence)
        for position in range(row.start + row.num_tokens):
            block_id = row.sequence.block_table[position // BLOCK_SIZE]
            assert self.slots[block_id][position % BLOCK_SIZE] == history[position], (
                f"sequence {row.sequence.seq_id} reads foreign KV at position {position}, block {block_id}"
            )

    def _sample(self, sequence: Sequence) -> int:
        if sequence.group.request_id in self.broken_requests:
            return -1
        history = self.history(sequence)[-1]
        return draw(history, sequence.seed, sequence.num_tokens, greedy=sequence.group.params.is_greedy)


class FakeClock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def make_core(
    runner: FakeRunner,
    *,
    max_model_len: int = MAX_MODEL_LEN,
    max_num_seqs: int = 8,
    max_num_batched_tokens: int = 64,
    enable_prefix_caching: bool = True,
    clock: FakeClock | None = None,
) -> EngineCore:
    """A core over a fake runner that also holds every step to its token budget."""
    runner.max_tokens = max_num_batched_tokens
    config = EngineConfig(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        enable_prefix_caching=enable_prefix_caching,
    )
    return EngineCore(runner, config, max_model_len=max_model_len, vocab_size=VOCAB_SIZE, clock=clock or FakeClock())
