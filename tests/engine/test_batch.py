from __future__ import annotations

from array import array

from corral._native import Adapter
from corral.engine.batch import build_batch
from corral.engine.scheduled_batch import ScheduledRow
from corral.engine.sequence import Sequence, SequenceGroup, SequenceGroupSpec
from corral.model.adapter import LoadedAdapter
from corral.sampling_params import SamplingParams
from tests.native.tiny_model import Shape


def make_sequence(num_tokens: int, first: int, blocks: list[int], *, adapter: LoadedAdapter | None = None) -> Sequence:
    spec = SequenceGroupSpec("r", list(range(first, first + num_tokens)), SamplingParams(), adapter=adapter)
    sequence = SequenceGroup(spec, first_seq_id=0, max_model_len=64, vocab_size=1000).sequences[0]
    sequence.block_table = array("i", blocks)
    return sequence


def test_rows_become_flat_arrays() -> None:
    decode, chunk, whole = make_sequence(20, 0, [5, 6]), make_sequence(40, 100, [1, 2, 3]), make_sequence(3, 200, [9])
    batch = build_batch(
        [
            ScheduledRow(decode, start=19, num_tokens=1, is_last=True),
            ScheduledRow(chunk, start=16, num_tokens=4, is_last=False),
            ScheduledRow(whole, start=0, num_tokens=3, is_last=True),
        ]
    )
    assert batch.token_ids.tolist() == [19, 116, 117, 118, 119, 200, 201, 202]
    assert batch.seq_offsets.tolist() == [0, 1, 5, 8]
    assert batch.start_positions.tolist() == [19, 16, 0]
    assert batch.block_tables.tolist() == [[5, 6, 0], [1, 2, 3], [9, 0, 0]]
    assert batch.logit_rows.tolist() == [0, 7]
    assert batch.adapter_ids is None
    assert batch.adapters == ()
    for name in ("token_ids", "seq_offsets", "start_positions", "block_tables", "logit_rows"):
        assert getattr(batch, name).dtype == "int32"
        assert getattr(batch, name).flags.c_contiguous


def test_each_sequence_has_the_index_of_its_adapter() -> None:
    first, other, again = (LoadedAdapter(digest, Adapter(Shape().config())) for digest in ("a", "b", "a"))
    rows = []
    for adapter in (None, first, other, again, None):
        sequence = make_sequence(3, 0, [1], adapter=adapter)
        rows.append(ScheduledRow(sequence, start=0, num_tokens=3, is_last=True))
    batch = build_batch(rows)
    assert batch.adapter_ids is not None
    assert batch.adapter_ids.dtype == "int32"
    assert batch.adapter_ids.tolist() == [-1, 0, 1, 0, -1]
    assert batch.adapters == (first, other)


def test_sequences_can_grow_after_their_batch_was_built() -> None:
    sequence = make_sequence(3, 0, [1])
    batch = build_batch([ScheduledRow(sequence, start=0, num_tokens=3, is_last=True)])
    sequence.token_ids.append(9)
    sequence.block_table.append(2)
    assert batch.token_ids.tolist() == [0, 1, 2]
    assert batch.block_tables.tolist() == [[1]]
