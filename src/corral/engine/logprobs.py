"""Log-probabilities of drawn tokens, for the requests that ask for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from corral.engine.output import TokenLogprobs

if TYPE_CHECKING:
    from corral._native import Decoder


@dataclass(frozen=True, slots=True)
class LogprobQuery:
    """What to look up: `token_id` and the `num_top` likeliest tokens, of drawn row `index` of the last step."""

    index: int
    token_id: int
    num_top: int


def look_up(decoder: Decoder, queries: list[LogprobQuery]) -> dict[int, TokenLogprobs]:
    """Index of a drawn row -> the log-softmax of its logits as the model gave them: before bias, penalties, temperature
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
