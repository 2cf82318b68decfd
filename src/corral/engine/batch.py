"""The flat arrays of one forward, as `_native.Decoder.forward` takes them."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from corral.engine.scheduled_batch import ScheduledRow

if TYPE_CHECKING:
    from corral.model.adapter import LoadedAdapter

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Batch:
    """T tokens of S sequences, R of them with logits, tables of up to B blocks. All arrays are int32.

    Token t of sequence s, t in [seq_offsets[s], seq_offsets[s + 1]), has position
    start_positions[s] + t - seq_offsets[s]. Table entries behind a sequence's last block are 0 and not read.
    """

    token_ids: Int32Array  # [T]
    seq_offsets: Int32Array  # [S + 1]
    start_positions: Int32Array  # [S]
    block_tables: Int32Array  # [S, B]
    logit_rows: Int32Array  # [R], rows in [0, T)
    adapter_ids: Int32Array | None = None  # [S], -1 for none; None where no sequence has one
    adapters: tuple[LoadedAdapter, ...] = ()


def build_batch(rows: list[ScheduledRow]) -> Batch:
    """Flatten scheduled rows; the copies of long tables and prompts run in C."""
    token_ids: array[int] = array("i")
    offsets = [0]
    logit_rows = []
    tables = np.zeros((len(rows), max((len(r.sequence.block_table) for r in rows), default=0)), dtype=np.int32)
    for at, row in enumerate(rows):
        table = row.sequence.block_table
        tables[at, : len(table)] = np.frombuffer(table, dtype=np.int32)
        token_ids.extend(row.sequence.token_ids[row.start : row.start + row.num_tokens])
        logit_rows += [offsets[-1] + position - row.start for position in row.scored]
        offsets.append(len(token_ids))
        if row.is_last:
            logit_rows.append(len(token_ids) - 1)
    adapter_ids, adapters = _adapters_of(rows)
    return Batch(
        token_ids=np.frombuffer(token_ids, dtype=np.int32) if token_ids else np.empty(0, dtype=np.int32),
        seq_offsets=np.array(offsets, dtype=np.int32),
        start_positions=np.array([row.start for row in rows], dtype=np.int32),
        block_tables=tables,
        logit_rows=np.array(logit_rows, dtype=np.int32),
        adapter_ids=adapter_ids,
        adapters=adapters,
    )


def _adapters_of(rows: list[ScheduledRow]) -> tuple[Int32Array | None, tuple[LoadedAdapter, ...]]:
    """Equal contents are one adapter, whoever loaded them: their rows are computed together."""
    if all(row.sequence.group.adapter is None for row in rows):
        return None, ()
    numbers: dict[str, int] = {}
    adapters: list[LoadedAdapter] = []
    ids = []
    for row in rows:
        adapter = row.sequence.group.adapter
        if adapter is None:
            ids.append(-1)
            continue
        number = numbers.setdefault(adapter.digest, len(adapters))
        if number == len(adapters):
            adapters.append(adapter)
        ids.append(number)
    return np.array(ids, dtype=np.int32), tuple(adapters)
