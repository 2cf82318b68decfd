"""From the engine's log-probabilities, of ids, to those that a client sees."""

from __future__ import annotations

from corral.engine.output import TokenLogprobs
from corral.request import TokenLogprob
from corral.text.tokenizer import Tokenizer


def describe(logprobs: tuple[TokenLogprobs, ...], tokenizer: Tokenizer) -> tuple[TokenLogprob, ...]:
    """The same with the bytes that each token stands for."""
    return tuple(
        TokenLogprob(
            each.token_id,
            tokenizer.token_bytes(each.token_id),
            each.logprob,
            tuple(
                (tokenizer.token_bytes(token_id), logprob)
                for token_id, logprob in zip(each.top_ids, each.top_logprobs, strict=True)
            ),
            tuple(each.top_ids),
        )
        for each in logprobs
    )
