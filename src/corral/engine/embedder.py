"""Texts to vectors: gathers the inputs of many requests into batches, beside what the engine generates. Ids only."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from corral.config import BLOCK_SIZE, EngineConfig
from corral.engine.batch import Batch
from corral.engine.budget import StepBudget
from corral.engine.pooling import F32, Pool, normalized, rows_wanted
from corral.engine.watch import NoWatch, StepWatch
from corral.errors import CorralError, InsufficientMemory, InvalidRequest
from corral.model.plan import EmbeddingShape


@dataclass(frozen=True, slots=True)
class EmbeddingSpec:
    """Texts to be embedded, as token ids; each has one token at least and fits into the context.

    `dimensions` is how many values of each vector are wanted; None wants all.
    """

    request_id: str
    inputs: Sequence[Sequence[int]]
    dimensions: int | None = None


# A request's vectors, one for each input in order, of length 1; or why there are none.
EmbeddingResult = list[F32] | CorralError


class HiddenRunner(Protocol):
    """What computes hidden states: EmbeddingRunner, or a scripted one in tests."""

    def compute(self, batch: Batch) -> F32: ...

    def project(self, vector: F32) -> F32: ...

    def release_blocks(self, block_ids: list[int]) -> None: ...

    def resident_kv_bytes(self) -> int: ...


@dataclass(slots=True)
class _Job:
    spec: EmbeddingSpec
    vectors: list[F32 | None]
    next_input: int = 0
    num_open: int = 0  # inputs without their vector


@dataclass(slots=True)
class _Text:
    """An input that is being computed: positions [0, num_done) have their K and V in the blocks."""

    job: _Job
    index: int
    token_ids: Sequence[int]
    num_done: int = 0
    blocks: list[int] = field(default_factory=list)
    pool: Pool = field(default_factory=Pool)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Tokens [start, start + count) of a text, in one step."""

    text: _Text
    start: int
    count: int
    rows: range  # those that the pooling reads, counted from start


class Embedder:
    """Not thread-safe; EngineLoop drives it. Requests take turns by inputs, so that a large one holds nobody up.

    The vector of an input depends on nothing but the input: not on its company in a step, nor on how it was cut.

    Args:
        make_runner: called at the first step: a model that only generates pays nothing.
        pooling: "mean", "cls" or "last".
        is_causal: inputs may be computed in pieces; otherwise each is in one step.
        shape: the bounds of a step.
        config: `max_step_ms`.
        clock: seconds; it sizes steps and never changes a vector.
    """

    def __init__(
        self,
        make_runner: Callable[[EmbeddingShape], HiddenRunner],
        *,
        pooling: str,
        is_causal: bool,
        vocab_size: int,
        shape: EmbeddingShape,
        config: EngineConfig,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.max_model_len = shape.max_model_len
        self.vocab_size = vocab_size
        self.num_tokens = 0  # computed so far, for statistics
        self.watch: StepWatch = NoWatch()
        self._make_runner = make_runner
        self._runner: HiddenRunner | None = None
        self._pooling = pooling
        self._is_causal = is_causal
        self._shape = shape
        self._budget = StepBudget(shape.max_tokens, config.max_step_ms / 2)
        self._clock = clock
        self._free = list(range(shape.num_blocks - 1, -1, -1))  # the last one given back is taken first
        self._touched = 0  # blocks below it may hold memory
        self._jobs: dict[str, _Job] = {}
        self._turns: deque[_Job] = deque()  # jobs with inputs that have not begun
        self._partial: _Text | None = None

    @property
    def has_work(self) -> bool:
        return bool(self._jobs)

    @property
    def num_requests(self) -> int:
        """Requests that have not ended; any thread may ask."""
        return len(self._jobs)

    def resident_kv_bytes(self) -> int:
        """KV memory that is really in use now; any thread may ask."""
        return 0 if self._runner is None else self._runner.resident_kv_bytes()

    def check(self, spec: EmbeddingSpec) -> None:
        """Refuse what could never run. Reads constants only, so any thread may call it.

        Raises:
            InvalidRequest: no input, an empty or too long one, or a token id outside of the vocabulary.
        """
        if not spec.inputs:
            raise InvalidRequest("there is no input; at least one is needed", param="input")
        for token_ids in spec.inputs:
            if not 0 < len(token_ids) <= self.max_model_len:
                raise InvalidRequest(
                    f"an input has {len(token_ids)} tokens; there must be from 1 to {self.max_model_len}", param="input"
                )
            if min(token_ids) < 0 or max(token_ids) >= self.vocab_size:
                wrong = next(i for i in token_ids if not 0 <= i < self.vocab_size)
                raise InvalidRequest(
                    f"input has token id {wrong}; ids go from 0 to {self.vocab_size - 1}", param="input"
                )

    def add(self, spec: EmbeddingSpec) -> None:
        """Queue a request that `check` has let pass; its id is not in use."""
        job = _Job(spec, [None] * len(spec.inputs), num_open=len(spec.inputs))
        self._jobs[spec.request_id] = job
        self._turns.append(job)

    def abort(self, request_id: str) -> bool:
        """Forget a request; False if it is unknown or finished."""
        job = self._jobs.pop(request_id, None)
        if job is None:
            return False
        if job.next_input < len(job.spec.inputs):
            self._turns.remove(job)
        if self._partial is not None and self._partial.job is job:
            self._free.extend(reversed(self._partial.blocks))
            self._partial = None
        return True

    def step(self, *, is_shared: bool) -> dict[str, EmbeddingResult]:
        """Compute one batch; the requests that it ended. There is work.

        Args:
            is_shared: streams wait for their next token: the step should take half of max_step_ms at most.
        """
        try:
            if self._runner is None:
                self._runner = self._make_runner(self._shape)
        except MemoryError:
            return self._give_up(InsufficientMemory("the system gives no memory for the K and V of a batch of texts"))
        started = self._clock()
        pieces = self._take_pieces(self._budget.prefill_tokens(1 if is_shared else 0))
        runner = self._runner
        self.watch.begin(piece.text.job.spec.request_id for piece in pieces)
        hidden = runner.compute(_flatten(pieces))
        self.watch.end()
        num_tokens = sum(piece.count for piece in pieces)
        self.num_tokens += num_tokens
        self._budget.observe(num_tokens, 0, 1000.0 * (self._clock() - started))
        return self._finish(pieces, hidden, runner)

    def release(self) -> None:
        """Give the memory of the blocks back; there is no work."""
        if self._runner is not None and self._touched:
            self._runner.release_blocks(list(range(self._touched)))
        self._touched = 0

    def _give_up(self, error: CorralError) -> dict[str, EmbeddingResult]:
        ended: dict[str, EmbeddingResult] = dict.fromkeys(self._jobs, error)
        self._jobs.clear()
        self._turns.clear()
        return ended

    def _take_pieces(self, max_tokens: int) -> list[_Piece]:
        """What the next step computes: in turns one input of each request, as long as there is room."""
        pieces: list[_Piece] = []
        left = max_tokens if self._is_causal else self._shape.max_tokens
        while left > 0 and len(pieces) < self._shape.max_texts and (text := self._next_text(left)) is not None:
            length = len(text.token_ids)
            count = min(length - text.num_done, left)
            start, text.num_done = text.num_done, text.num_done + count
            self._take_blocks(text)
            pieces.append(_Piece(text, start, count, rows_wanted(self._pooling, length, start, count)))
            self._partial = text if text.num_done < length else None
            left -= count
        return pieces

    def _next_text(self, room: int) -> _Text | None:
        if self._partial is not None:
            return self._partial
        if not self._turns:
            return None
        job = self._turns[0]
        token_ids = job.spec.inputs[job.next_input]
        if not self._is_causal and len(token_ids) > room:
            return None
        self._turns.popleft()
        text = _Text(job, job.next_input, token_ids)
        job.next_input += 1
        if job.next_input < len(job.spec.inputs):
            self._turns.append(job)
        return text

    def _take_blocks(self, text: _Text) -> None:
        while len(text.blocks) * BLOCK_SIZE < text.num_done:
            text.blocks.append(self._free.pop())
            self._touched = max(self._touched, text.blocks[-1] + 1)

    def _finish(self, pieces: list[_Piece], hidden: F32, runner: HiddenRunner) -> dict[str, EmbeddingResult]:
        ended: dict[str, EmbeddingResult] = {}
        row = 0
        for piece in pieces:
            text, job = piece.text, piece.text.job
            text.pool.add(hidden[row : row + len(piece.rows)])
            row += len(piece.rows)
            if text.num_done < len(text.token_ids):
                continue
            self._free.extend(reversed(text.blocks))
            job.vectors[text.index] = normalized(runner.project(text.pool.vector()), job.spec.dimensions)
            job.num_open -= 1
            if job.num_open == 0:
                del self._jobs[job.spec.request_id]
                ended[job.spec.request_id] = _checked([vector for vector in job.vectors if vector is not None])
        return ended


def _checked(vectors: list[F32]) -> EmbeddingResult:
    if all(np.isfinite(vector).all() for vector in vectors):
        return vectors
    return CorralError("the model's hidden states are not finite for one of the inputs; the weights may be damaged")


def _flatten(pieces: list[_Piece]) -> Batch:
    token_ids: array[int] = array("i")
    offsets = [0]
    rows: list[int] = []
    tables = np.zeros((len(pieces), max(len(piece.text.blocks) for piece in pieces)), dtype=np.int32)
    for at, piece in enumerate(pieces):
        tables[at, : len(piece.text.blocks)] = piece.text.blocks
        rows.extend(range(offsets[-1] + piece.rows.start, offsets[-1] + piece.rows.stop))
        token_ids.extend(piece.text.token_ids[piece.start : piece.start + piece.count])
        offsets.append(len(token_ids))
    return Batch(
        token_ids=np.frombuffer(token_ids, dtype=np.int32),
        seq_offsets=np.array(offsets, dtype=np.int32),
        start_positions=np.array([piece.start for piece in pieces], dtype=np.int32),
        block_tables=tables,
        logit_rows=np.array(rows, dtype=np.int32),
    )
