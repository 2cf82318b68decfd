"""From the hidden states of a text's tokens to the one vector that stands for it. The same bits on every machine."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]


def rows_wanted(pooling: str, length: int, start: int, count: int) -> range:
    """Which of the tokens [start, start + count) of a text of `length` the pooling reads, counted from `start`.

    Args:
        pooling: "mean", "cls" (the first token) or "last".
    """
    if pooling == "mean":
        return range(count)
    position = 0 if pooling == "cls" else length - 1
    return range(position - start, position - start + 1) if start <= position < start + count else range(0)


class Pool:
    """Takes the wanted rows of one text, in order and in pieces of any size."""

    def __init__(self) -> None:
        self._sum: npt.NDArray[np.float64] = np.empty(0)  # no row yet
        self._count = 0

    def add(self, rows: F32) -> None:
        """f32[count, hidden]."""
        if len(rows) == 0:
            return
        # One row after the other, the sum so far among them: the pieces leave no trace in the bits.
        wide = rows.astype(np.float64)
        self._sum = np.add.reduce(np.vstack((self._sum, wide)) if self._count else wide, axis=0)
        self._count += len(rows)

    def vector(self) -> F32:
        """f32[hidden], the mean of the rows; there is one at least."""
        return (self._sum / self._count).astype(np.float32)


def normalized(vector: F32, dimensions: int | None = None) -> F32:
    """The first `dimensions` values, made a vector of length 1; a vector of zeros stays."""
    values = vector[:dimensions].astype(np.float64)
    length = math.sqrt(
        math.fsum((values * values).tolist())
    )  # fsum is exact: no order of adding is better than another
    return (values / length if length > 0 else values).astype(np.float32)
