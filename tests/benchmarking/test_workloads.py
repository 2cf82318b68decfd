"""Prompts of the server benchmark: exact lengths, nothing shared that should not be."""

from __future__ import annotations

import itertools

import pytest
from benchmarks.workloads import WORKLOADS, Workload, text_of


def by_word(text: str) -> int:
    return len(text.split())


def by_piece(text: str) -> int:
    """Words of more than five letters are two tokens."""
    return sum(1 + (len(word) > 5) for word in text.split())


@pytest.mark.parametrize("count", [by_word, by_piece])
@pytest.mark.parametrize("num_tokens", [1, 2, 30, 80, 350])
def test_a_text_has_exactly_its_tokens(num_tokens: int, count: object) -> None:
    assert callable(count)
    for seed in "abcdefgh":
        assert count(text_of(num_tokens, seed, count)) == num_tokens


def test_a_length_that_no_text_has_is_refused() -> None:
    with pytest.raises(ValueError, match="no text of 3 tokens"):
        text_of(3, "seed", lambda text: 2 * by_word(text))


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_clients_and_repeats_share_no_beginning_but_what_is_meant(workload: Workload) -> None:
    chats = [workload.chats(repeat, by_word) for repeat in range(3)]
    assert all(len(of_repeat) == workload.clients for of_repeat in chats)
    assert chats[0] == workload.chats(0, by_word)
    if workload.text is not None:
        assert {chat[-1]["content"] for of_repeat in chats for chat in of_repeat} == {workload.text}
        return
    users = [chat[-1]["content"] for of_repeat in chats for chat in of_repeat]
    for one, other in itertools.combinations(users, 2):
        assert one.split()[:4] != other.split()[:4]
    if workload.system:
        systems = [{chat[0]["content"] for chat in of_repeat} for of_repeat in chats]
        assert [len(found) for found in systems] == [1, 1, 1]
        assert len(set.union(*systems)) == 3
        assert all(by_word(text) == workload.system for found in systems for text in found)
