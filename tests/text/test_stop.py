from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.text.stop import StopMatcher, StopResult


def first_stop(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The text before the stop string that ends first, the longest of equals; or all of it."""
    for end in range(1, len(text) + 1):
        if matched := [stop for stop in stops if text[:end].endswith(stop)]:
            stop = max(matched, key=len)
            return text[: end - len(stop)], stop
    return text, None


def may_begin_a_stop(text: str, stops: list[str]) -> int:
    """Length of the longest ending of `text` that some stop string begins with."""
    return max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)


letters = "aé😀\n"
stop_lists = st.lists(st.text(letters, min_size=1, max_size=5), max_size=4)


@given(st.data(), st.text(letters, max_size=25), stop_lists)
def test_shows_what_a_look_at_the_whole_text_would_show(data: Any, text: str, stops: list[str]) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    matcher, shown, seen, found = StopMatcher(stops), "", "", None
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        result = matcher.push(text[begin:end])
        shown, seen, found = shown + result.text, text[:end], found or result.matched
        if found is None:
            assert shown == seen[: len(seen) - may_begin_a_stop(seen, stops)]
    shown += matcher.finish()
    assert (shown, found) == first_stop(text, stops)


def test_nothing_comes_after_a_match() -> None:
    matcher = StopMatcher(["</s>"])
    assert matcher.push("hi</") == StopResult("hi")
    assert matcher.push("s>more") == StopResult("", "</s>")
    assert matcher.push("even more") == StopResult("")
    assert matcher.finish() == ""


def test_without_stop_strings_text_passes_at_once() -> None:
    matcher = StopMatcher([])
    assert matcher.push("abc") == StopResult("abc")
    assert matcher.finish() == ""


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopMatcher(["a", ""])
