from __future__ import annotations

from typing import Any

import pytest

from corral.errors import InvalidRequest
from corral.sampling_params import SamplingParams


@pytest.mark.parametrize(
    "given",
    [
        {"temperature": 100},
        {"temperature": 2.5},
        {"logprobs": 0},
        {"logprobs": 20},
        {"penalty_window": 0},
        {"penalty_window": 64},
    ],
)
def test_what_is_allowed(given: dict[str, Any]) -> None:
    params = SamplingParams(**given)
    assert {name: getattr(params, name) for name in given} == given


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"temperature": 100.5}, "temperature is 100.5; it must be a number from 0 to 100"),
        ({"temperature": -0.1}, "from 0 to 100"),
        ({"logprobs": 21}, "logprobs is 21; it must be a whole number from 0 to 20"),
        ({"logprobs": -1}, "logprobs is -1"),
        ({"logprobs": True}, "logprobs is True"),
        ({"penalty_window": -1}, "penalty_window is -1; it must be a whole number from 0"),
        ({"penalty_window": 1.5}, "penalty_window is 1.5"),
    ],
)
def test_what_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        SamplingParams(**given)
    assert caught.value.param == next(iter(given))
