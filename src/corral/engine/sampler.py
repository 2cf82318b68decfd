"""SamplingParams of the rows to draw from -> the arrays of `_native.Decoder.sample`."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from corral.engine.sequence import Sequence
from corral.sampling_params import SamplingParams

if TYPE_CHECKING:
    from corral._native import Decoder
    from corral.engine.constraint import Mask
    from corral.engine.scheduled_batch import ScheduledRow

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int32]
_SUPPRESSED = -1e30  # finite, and so low that its probability is exactly 0 at any temperature


@dataclass(frozen=True, slots=True)
class SamplingArrays:
    """One entry per drawn row, in the order of `Decoder.sample`'s parameters; R rows."""

    temperature: _Floats  # [R]
    top_k: _Ints  # [R], 0 keeps all
    top_p: _Floats  # [R]
    min_p: _Floats  # [R]
    repetition_penalty: _Floats  # [R]
    presence_penalty: _Floats  # [R]
    frequency_penalty: _Floats  # [R]
    seeds: npt.NDArray[np.uint64]  # [R]
    positions: npt.NDArray[np.int64]  # [R], position of the token drawn, in its own sequence
    history_offsets: _Ints  # [R + 1]
    history_ids: _Ints  # [H], prompt and output, as far as penalties look back; nothing where none is set
    output_starts: _Ints  # [R], where the output begins in the row's history
    bias_offsets: _Ints  # [R + 1]
    bias_ids: _Ints
    bias_values: _Floats


def sequences_of_logits(rows: list[ScheduledRow]) -> list[Sequence | None]:
    """Whose token is drawn from each row of a step's logits; None where the logits only score a prompt."""
    sequences: list[Sequence | None] = []
    for row in rows:
        sequences += [None] * len(row.scored)
        if row.is_last:
            sequences.append(row.sequence)
    return sequences


def build_sampling_arrays(sequences: SequenceOf[Sequence | None]) -> SamplingArrays:
    """What the next token of each sequence is drawn with; where there is none, the cheapest draw.

    It depends on nothing but the sequence itself (params, seed, known tokens): not on the batch, the chunking or the
    blocks, so a recomputed sequence draws the same tokens again.
    """
    params = [_GREEDY if sequence is None else sequence.group.params for sequence in sequences]
    histories = [_EMPTY if sequence is None else _history(sequence) for sequence in sequences]
    biases = [[] if sequence is None else _biases(sequence) for sequence in sequences]
    return SamplingArrays(
        temperature=np.array([p.temperature for p in params], dtype=np.float32),
        top_k=np.array([max(p.top_k, 0) for p in params], dtype=np.int32),
        top_p=np.array([p.top_p for p in params], dtype=np.float32),
        min_p=np.array([p.min_p for p in params], dtype=np.float32),
        repetition_penalty=np.array([p.repetition_penalty for p in params], dtype=np.float32),
        presence_penalty=np.array([p.presence_penalty for p in params], dtype=np.float32),
        frequency_penalty=np.array([p.frequency_penalty for p in params], dtype=np.float32),
        seeds=np.array([0 if sequence is None else sequence.seed for sequence in sequences], dtype=np.uint64),
        positions=np.array([0 if sequence is None else sequence.num_tokens for sequence in sequences], dtype=np.int64),
        history_offsets=_offsets([len(history) for history in histories]),
        history_ids=np.concatenate(histories) if any(map(len, histories)) else _EMPTY,
        output_starts=np.array(
            [
                0 if sequence is None else _output_start(sequence, len(history))
                for sequence, history in zip(sequences, histories, strict=True)
            ],
            dtype=np.int32,
        ),
        bias_offsets=_offsets([len(bias) for bias in biases]),
        bias_ids=np.array([token_id for bias in biases for token_id, _ in bias], dtype=np.int32),
        bias_values=np.array([value for bias in biases for _, value in bias], dtype=np.float32),
    )


def sample(decoder: Decoder, sequences: list[Sequence | None], mask: Mask | None = None) -> list[int]:
    """Draw one token per sequence from the logit rows of the last forward; -1 where the logits were not finite.

    Args:
        sequences: one entry per logit row, see `sequences_of_logits`.
        mask: [R, ceil(V / 32)], what each row allows; None allows all.
    """
    if all(sequence is None for sequence in sequences):
        return []
    arrays = build_sampling_arrays(sequences)
    drawn = decoder.sample(
        arrays.temperature,
        arrays.top_k,
        arrays.top_p,
        arrays.min_p,
        arrays.repetition_penalty,
        arrays.presence_penalty,
        arrays.frequency_penalty,
        arrays.seeds,
        arrays.positions,
        arrays.history_offsets,
        arrays.history_ids,
        arrays.output_starts,
        arrays.bias_offsets,
        arrays.bias_ids,
        arrays.bias_values,
        mask,
    )
    token_ids: list[int] = drawn.tolist()
    return [token_id for sequence, token_id in zip(sequences, token_ids, strict=True) if sequence is not None]


_GREEDY = SamplingParams(temperature=0.0)
_EMPTY: _Ints = np.empty(0, dtype=np.int32)


def _history(sequence: Sequence) -> _Ints:
    params = sequence.group.params
    is_penalised = params.repetition_penalty != 1.0 or params.presence_penalty or params.frequency_penalty
    if not is_penalised or params.penalty_window == 0:
        return _EMPTY
    token_ids = sequence.token_ids if params.penalty_window is None else sequence.token_ids[-params.penalty_window :]
    # A copy: a view would forbid the token list to grow.
    return np.array(token_ids, dtype=np.int32)


def _output_start(sequence: Sequence, history_length: int) -> int:
    """Where the output begins in the last `history_length` tokens."""
    return max(0, history_length - sequence.num_output_tokens)


def _biases(sequence: Sequence) -> list[tuple[int, float]]:
    group = sequence.group
    biases = group.params.logit_bias
    if sequence.num_output_tokens < group.params.min_tokens:
        biases = biases | dict.fromkeys(sorted(group.stop_ids), _SUPPRESSED)
    if group.bad_ids:
        biases = biases | dict.fromkeys(_completions(sequence), _SUPPRESSED)
    return list(biases.items()) if biases else []


def _completions(sequence: Sequence) -> list[int]:
    """The tokens that would complete one of the bad token sequences."""
    output_length = sequence.num_output_tokens
    found = []
    for *begun, last in sequence.group.bad_ids:
        if len(begun) <= output_length and (not begun or sequence.token_ids[-len(begun) :].tolist() == begun):
            found.append(last)
    return found


def _offsets(lengths: list[int]) -> _Ints:
    return np.array([0, *accumulate(lengths)], dtype=np.int32)
