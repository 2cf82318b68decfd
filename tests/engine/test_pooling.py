from __future__ import annotations

import math

import numpy as np
import pytest

from corral.engine.pooling import Pool, normalized, rows_wanted


@pytest.mark.parametrize(
    ("pooling", "wanted"),
    [("mean", [[0, 1, 2], [0, 1], [0]]), ("cls", [[0], [], []]), ("last", [[], [], [0]])],
)
def test_the_rows_that_a_pooling_reads(pooling: str, wanted: list[list[int]]) -> None:
    pieces = [(0, 3), (3, 2), (5, 1)]
    assert [list(rows_wanted(pooling, 6, start, count)) for start, count in pieces] == wanted


def test_the_mean_does_not_show_how_the_rows_came() -> None:
    rows = np.random.default_rng(1).standard_normal((300, 7)).astype(np.float32) * np.float32(1e3)
    whole = Pool()
    whole.add(rows)
    np.testing.assert_allclose(whole.vector(), rows.astype(np.float64).mean(axis=0), rtol=1e-6)
    for cuts in ([1], [150], [1, 2, 3, 299], list(range(1, 300)), [100, 100, 200]):
        pieces = Pool()
        for piece in np.split(rows, cuts):
            pieces.add(piece)
        np.testing.assert_array_equal(pieces.vector(), whole.vector())


def test_a_vector_of_length_one() -> None:
    vector = np.array([3.0, 4.0, 12.0], np.float32)
    np.testing.assert_allclose(normalized(vector), vector / 13, rtol=1e-7)
    np.testing.assert_array_equal(normalized(vector, 2), np.array([0.6, 0.8], np.float32))
    huge = normalized(np.array([1e38, -1e38], np.float32))
    np.testing.assert_allclose(huge, [math.sqrt(0.5), -math.sqrt(0.5)], rtol=1e-7)
    assert normalized(vector).dtype == np.float32


def test_zeros_stay_zeros() -> None:
    np.testing.assert_array_equal(normalized(np.zeros(4, np.float32), 3), np.zeros(3, np.float32))
