"""What is said of a pair of engines, and what is not; what to choose when."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from corral.compare.report.chapters.tables import unbeaten
from corral.compare.report.choose import LEAST_RATIO, choices, lead
from corral.compare.report.figures import Figures
from corral.compare.report.ratio import Ratio, paired_ratio, unpaired_ratio
from corral.compare.report.same_work import doubts
from corral.compare.report.verdicts import judge, verdicts
from corral.compare.results import Comparison, GreatestRate, Verdict
from tests.compare.simulated_results import FAST, LOADS, PLAIN, comparison, empty, hostile, row, run


def by_repeat(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_a_clear_difference() -> None:
    ratio = paired_ratio(by_repeat(20, 21, 19, 20, 22), by_repeat(10, 10.5, 10, 9.5, 10), 1)
    assert ratio is not None
    assert ratio.value == pytest.approx(2.0)
    assert ratio.low is not None
    assert ratio.high is not None
    assert 1.8 < ratio.low <= ratio.value <= ratio.high < 2.3
    assert judge(ratio) == 1


def test_noise_is_no_difference() -> None:
    ratio = paired_ratio(by_repeat(10, 13, 9, 12, 8), by_repeat(11, 9, 12, 10, 10), 1)
    assert ratio is not None
    assert not ratio.is_known
    assert judge(ratio) == 0


def test_drift_that_meets_both_is_taken_out_by_pairing() -> None:
    """Every round is slower than the one before, for both engines; one is always 10 % better."""
    first, second = by_repeat(110, 88, 66, 44, 22), by_repeat(100, 80, 60, 40, 20)
    assert judge(paired_ratio(first, second, 1)) == 1
    assert judge(unpaired_ratio(first, second, 1)) == 0


def test_a_difference_that_nobody_feels_is_none() -> None:
    ratio = paired_ratio(by_repeat(100.5, 100.6, 100.5), by_repeat(100.0, 100.1, 100.0), 1)
    assert ratio is not None
    assert ratio.is_known
    assert judge(ratio) == 0


def test_too_few_repeats_have_no_interval() -> None:
    assert paired_ratio(by_repeat(2, 2), by_repeat(1, 1), 1) == Ratio(2.0, None, None)
    assert unpaired_ratio(by_repeat(2), by_repeat(1, 1, 1), 1) == Ratio(2.0, None, None)
    assert judge(Ratio(2.0, None, None)) == 0


def test_zeros() -> None:
    assert paired_ratio({}, by_repeat(1.0), 1) is None
    assert paired_ratio(by_repeat(0, 1, 1), by_repeat(1, 1, 1), 1) is None
    nothing = paired_ratio(by_repeat(0, 0, 0), by_repeat(1, 2, 1), 1)
    assert nothing == Ratio(0.0, 0.0, 0.0)
    assert judge(nothing) == -1
    assert judge(paired_ratio(by_repeat(1, 2, 1), by_repeat(0, 0, 0), 1)) == 1
    assert paired_ratio(by_repeat(0, 0, 0), by_repeat(0, 0, 0), 1) is None


def test_the_same_seed_gives_the_same_interval() -> None:
    ones, others = by_repeat(10, 13, 9, 12, 8), by_repeat(11, 9, 12, 10, 10)
    assert paired_ratio(ones, others, 5) == paired_ratio(ones, others, 5)


def of(found: list[Verdict], criterion: str, workload: str = "story-50", second: str = "llama.cpp") -> Verdict:
    """Between Corral and another."""
    return next(
        v for v in found if (v.criterion, v.workload, v.first, v.second) == (criterion, workload, "corral", second)
    )


def test_winners_are_told_by_what_is_better() -> None:
    found = verdicts(Figures(comparison()))
    rate, wait = of(found, "output_rate"), of(found, "first_token_p50")
    assert rate.winner == wait.winner == "corral"
    assert rate.ratio > 1
    assert wait.ratio > 1  # the shorter wait is the better one
    lost = of(found, "token_time_p50", "story-1")
    assert lost.winner == "llama.cpp"
    assert lost.ratio < 1
    assert "llama.cpp is 1.1" in lost.text


def test_one_repeat_decides_nothing_and_says_so() -> None:
    found = verdicts(Figures(comparison(1)))
    assert found
    assert {verdict.winner for verdict in found} == {""}
    assert all(verdict.text.startswith("too few repeats") for verdict in found)
    assert all(not choice.reasons for choice in choices(Figures(comparison(1)), found))


def test_workloads_that_differ_in_clients_alone_make_a_sweep() -> None:
    figures = Figures(comparison(1))
    assert figures.sweeps() == {"story-N": ["story-1", "story-8", "story-50"]}


def test_the_same_engine_twice_has_no_winner() -> None:
    made = empty()
    made.engines = [row("corral"), row("llama.cpp")]
    for repeat in range(5):
        for name in ("corral", "llama.cpp"):
            one = run(LOADS["story-8"], "same", FAST, repeat if name == "corral" else 4 - repeat)
            one.engine, one.repeat = name, repeat
            made.runs.append(one)
    verdict = of(verdicts(Figures(made)), "output_rate", "story-8")
    assert verdict.winner == ""
    assert verdict.text.startswith("no detectable difference")


def failing(num_errors: int) -> Comparison:
    made = empty()
    made.engines = [row("corral"), row("llama.cpp")]
    for repeat in range(3):
        made.runs.append(run(LOADS["story-50"], "corral", FAST, repeat))
        made.runs.append(run(LOADS["story-50"], "llama.cpp", PLAIN, repeat, ["503"] * num_errors))
    return made


def test_latencies_of_the_few_that_were_answered_are_not_compared() -> None:
    figures = Figures(failing(40))
    found = verdicts(figures)
    assert of(found, "first_token_p50").text == "no verdict: 120 of 150 requests to llama.cpp failed"
    assert of(found, "first_token_p50").winner == ""
    assert of(found, "output_rate").winner == "corral"  # what was answered was answered
    assert unbeaten(found, "first_token_p50", "story-50") == set()
    assert unbeaten(found, "output_rate", "story-50") == {"corral"}
    other = choices(figures, found)[1]
    assert ("no request may fail", "Stories for 50 at once: 120 of 150 failed.") in other.losses


def test_who_fails_its_requests_is_no_rival() -> None:
    """The third engine answers few, and those soon; the first leads the second all the same."""
    made = failing(0)
    made.engines.append(row("hasty"))
    hasty = replace(FAST, first_s=0.01)
    made.runs += [run(LOADS["story-50"], "hasty", hasty, repeat, ["503"] * 45) for repeat in range(3)]
    figures = Figures(made)
    ours, _, third = choices(figures, verdicts(figures))
    assert "the first word has to come soon" in {reason.wish for reason in ours.reasons}
    assert "the first word has to come soon" not in {reason.wish for reason in third.reasons}


def test_the_smallest_installation_is_a_reason_and_a_larger_one_a_loss() -> None:
    made = comparison()
    for engine, size in zip(made.engines, (215_000_000, 35_000_000, None), strict=False):
        engine.install_bytes = size
    figures = Figures(made)
    ours, plain, unknown = choices(figures, verdicts(figures))
    told = ("disk space is scarce", "Disk space of the installation: 35.0 MB against 215 MB of corral.")
    assert told in plain.reasons
    assert "disk space is scarce" in {reason.wish for reason in ours.losses}
    assert "disk space is scarce" not in {reason.wish for reason in unknown.reasons + unknown.losses}


def test_an_engine_that_only_fails_has_no_rate() -> None:
    figures = Figures(failing(50))
    assert not [v for v in verdicts(figures) if v.criterion == "output_rate"]
    assert figures.failed("llama.cpp", "story-50") == (150, 150)


def test_who_keeps_the_limits_at_no_rate_loses_plainly() -> None:
    made = comparison()
    made.rates = [GreatestRate(name, i, rate) for name, rate in (("corral", 0.0), ("llama.cpp", 2.0)) for i in range(3)]
    figures = Figures(made)
    found = verdicts(figures)
    verdict = of(found, "greatest_rate", "")
    assert verdict.winner == "llama.cpp"
    assert verdict.text == "llama.cpp alone has more than zero"
    assert math.isinf(lead(verdict))
    assert "0 req/s against 2.00 req/s of llama.cpp" in choices(figures, found)[0].losses[0].evidence


def test_a_reason_beats_everybody_and_names_its_figures() -> None:
    figures = Figures(comparison())
    found = verdicts(figures)
    ours, plain, heavy = choices(figures, found)
    wish = next(reason for reason in ours.reasons if reason.wish == "the first word has to come soon")
    assert "against" in wish.evidence
    assert "95 % interval" in wish.evidence
    assert not heavy.reasons
    assert {reason.wish for reason in ours.losses} >= {"each answer has to flow fast"}
    assert {reason.wish for reason in plain.reasons} >= {"each answer has to flow fast"}
    for verdict in found:
        if verdict.winner:
            assert lead(verdict) > 1
    assert LEAST_RATIO > 1


def test_what_another_engine_passes_is_told_where_one_fails() -> None:
    figures = Figures(comparison())
    _, plain, _ = choices(figures, verdicts(figures))
    assert ("security counts", "It fails what another engine passes: key on every route.") in plain.losses


def test_doubts_go_beside_the_choice() -> None:
    figures = Figures(comparison())
    assert [*doubts(figures)] == ["vllm"]
    threads, agreement = choices(figures, [])[2].warnings
    assert threads == "it has 4 threads, not the 2 that were asked for"
    assert "greedy answers part" in agreement


def test_shorter_answers_are_doubtful() -> None:
    made = comparison()
    for one in made.runs:
        if one.engine == "llama.cpp":
            one.answer_tokens = [tokens // 2 for tokens in one.answer_tokens]
    assert "shorter" in doubts(Figures(made))["llama.cpp"][0]


def test_less_context_than_was_asked_for_is_doubtful() -> None:
    made = comparison()
    made.asked["context"] = 16384
    assert "8,192 tokens of context" in doubts(Figures(made))["corral"][0]


def test_hostile_numbers_decide_nothing() -> None:
    figures = Figures(hostile())
    assert {verdict.winner for verdict in verdicts(figures)} == {""}
