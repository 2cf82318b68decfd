"""The workloads: sizes, seeds, and what two prompts may have in common."""

from __future__ import annotations

import pytest

from corral.compare import profiles
from corral.compare.profiles import STORY, STORY_CLIENTS, Make, profile
from corral.compare.prompts import NoSuchText, sized, text_of
from corral.compare.workload import Call, Workload
from corral.errors import InvalidConfig
from tests.support.simulated_engine import count_words


def count_pieces(text: str) -> int:
    """A tokenizer that splits long words, so that words are not tokens."""
    return sum(1 + len(word) // 6 for word in text.split())


def calls_of(workload: Workload, repeat: int) -> list[Call]:
    return [call for calls in workload.calls(repeat) for call in calls]


def words_of(call: Call) -> str:
    return call.messages[-1]["content"]


@pytest.mark.parametrize("num_tokens", [1, 7, 128, 1000])
def test_texts_have_exactly_so_many_tokens(num_tokens: int) -> None:
    assert count_pieces(text_of(num_tokens, "seed", count_pieces)) == num_tokens


def test_a_vocabulary_without_such_a_text_is_told() -> None:
    with pytest.raises(NoSuchText):
        text_of(5, "seed", lambda text: 2 * len(text.split()))


def test_template_tokens_do_not_push_a_prompt_over_its_size() -> None:
    """Measuring bug 3: 4096 tokens that become 4109 cost a second step."""
    make = Make(count_words, template_tokens=13)
    workload = profiles.unique(make, clients=1, num_calls=2, prompt=96, answer=4)
    assert [count_words(words_of(call)) + 13 for call in calls_of(workload, 0)] == [96, 96]
    assert sized(5, 13) == 1


@pytest.mark.parametrize("name", ["quick", "full"])
def test_no_two_prompts_begin_alike_unless_that_is_measured(name: str) -> None:
    """Measuring bug 4: a cache of prefixes answers what it has seen before, in an earlier repeat or load too."""
    seen: list[str] = []
    for workload in profile(name, Make(count_words)):
        for repeat in range(2):
            conversations = workload.calls(repeat)
            firsts = [calls[0].messages[0]["content"] for calls in conversations]
            seen += [firsts[0]] if workload.name.startswith("shared-system") else firsts
    assert len({text[:20] for text in seen}) == len(seen)


def test_the_articles_own_test_is_the_articles() -> None:
    article = profile("article", Make(count_words))
    own = [workload for workload in article if not workload.is_streamed]
    assert [len(workload.calls(0)) for workload in own] == list(STORY_CLIENTS) == [1, 2, 4, 8, 16, 32, 50]
    assert {words_of(call) for workload in own for call in calls_of(workload, 1)} == {STORY}
    repaired = [workload for workload in article if workload.is_streamed]
    assert [len(workload.calls(0)) for workload in repaired] == list(STORY_CLIENTS)
    asked = [words_of(call) for workload in repaired for repeat in (0, 1) for call in calls_of(workload, repeat)]
    assert len(set(asked)) == len(asked)
    assert all(text.endswith(STORY) and not text.startswith("Tell") for text in asked)
    assert all(call.is_exact for workload in repaired for call in calls_of(workload, 0))


@pytest.mark.parametrize("name", profiles.NAMES)
def test_the_same_seed_gives_every_engine_the_same(name: str) -> None:
    first, again, other = (profile(name, Make(count_words, seed=seed)) for seed in (1, 1, 2))
    assert len({workload.name for workload in first}) == len(first)
    for one, same, another in zip(first, again, other, strict=True):
        assert calls_of(one, 3) == calls_of(same, 3)
        if one.is_streamed:
            assert calls_of(one, 3) != calls_of(another, 3)
            assert calls_of(one, 3) != calls_of(one, 4)


def test_answers_can_be_held_short() -> None:
    workloads = profile("full", Make(count_words, max_tokens=8))
    assert {call.max_tokens for workload in workloads for call in calls_of(workload, 0)} == {8}


def test_what_is_shared_is_shared_within_a_repeat() -> None:
    workload = profiles.shared_system(Make(count_words), clients=3, system=50, prompt=5, answer=4)
    systems = [{call.messages[0]["content"] for call in calls_of(workload, repeat)} for repeat in (0, 1)]
    assert [len(found) for found in systems] == [1, 1]
    assert systems[0] != systems[1]


def test_an_unknown_profile_is_told() -> None:
    with pytest.raises(InvalidConfig, match="article, quick, full"):
        profile("slow", Make(count_words))
