"""Log-probabilities of drawn tokens, for the requests that ask for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from corral.engine.output import TokenLogprobs

if TYPE_CHECKING:
    from corral._native import Decoder
    from corral.engine.scheduled_batch import ScheduledBatch


@dataclass(frozen=True, slots=True)
class LogprobQuery:
    """What to look up: `token_id` and the `num_top` likeliest tokens, in row `index` of the last step's logits."""

    index: int
    token_id: int
    num_top: int


def queries_of(batch: ScheduledBatch, sampled: list[int]) -> list[LogprobQuery]:
    """Of the rows whose requests ask; a row without a token has no distribution either."""
    queries = []
    tokens, at = iter(sampled), 0
    for row in batch.rows:
        params = row.sequence.group.params
        for position in row.scored:
            queries.append(LogprobQuery(at, row.sequence.token_ids[position + 1], params.prompt_logprobs or 0))
            at += 1
        if row.is_last:
            token_id = next(tokens)
            if params.logprobs is not None and token_id >= 0:
                queries.append(LogprobQuery(at, token_id, params.logprobs))
            at += 1
    return queries


def look_up(decoder: Decoder, queries: list[LogprobQuery]) -> dict[int, TokenLogprobs]:
    """Row of the logits -> the log-softmax of its logits as the model gave them: before bias, penalties, temperature
    and cuts."""
    token_logprobs, top_ids, top_logprobs = decoder.log_probs(
        np.array([query.index for query in queries], dtype=np.int32),
        np.array([query.token_id for query in queries], dtype=np.int32),
        max(query.num_top for query in queries),
    )
    found = {}
    for at, query in enumerate(queries):
        found[query.index] = TokenLogprobs(
            query.token_id,
            float(token_logprobs[at]),
            tuple(top_ids[at, : query.num_top].tolist()),
            tuple(top_logprobs[at, : query.num_top].tolist()),
        )
    return found
