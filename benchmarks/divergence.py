"""How far two sets of logits lie apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from tests.support.golden import FloatArray, log_softmax

ROWS_AT_ONCE = 64  # f64 log-probabilities of a vocabulary of 262,144 are 2 MB a row


@dataclass(frozen=True)
class Pair:
    """From `truth` to `other`, over all positions: KL (nats), rms of logits, share of equal best tokens."""

    mean_kl: float
    median_kl: float
    rms: float
    same: float


def join(chunks: Iterable[tuple[int, FloatArray]]) -> FloatArray:
    """f32[T, vocab] of chunks of positions."""
    return np.concatenate([rows for _, rows in chunks])


def compare(truth: FloatArray, other: FloatArray, where: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Pair:
    """`where` are the positions that count for the best tokens."""
    divergences: list[float] = []
    for first in range(0, len(truth), ROWS_AT_ONCE):
        own = log_softmax(truth[first : first + ROWS_AT_ONCE])
        divergences += (np.exp(own) * (own - log_softmax(other[first : first + ROWS_AT_ONCE]))).sum(axis=1).tolist()
    same = truth.argmax(axis=1) == other.argmax(axis=1)
    squares = sum(float(np.square(a - b).mean()) for a, b in zip(truth, other, strict=True))
    return Pair(
        float(np.mean(divergences)),
        float(np.median(divergences)),
        float(np.sqrt(squares / len(truth))),
        float(same[where].mean()),
    )


def show_kl(pair: Pair) -> str:
    """Mean, and the median in brackets."""
    return f"{pair.mean_kl:.2e} ({pair.median_kl:.2e})"
