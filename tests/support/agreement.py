"""How far somebody's logits agree with a golden: the figures that the law of the logits tests is about."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from tests.support.golden import Distance, FloatArray, Golden, PromptGolden, TopLogprobs, best_and_margin

MIN_TOP1_SHARE = 0.99
MAX_KL = 1e-3
KL_FLOOR = 1e-7
RMS_FLOOR = 1e-4
RMS_NOISE = 1.05
MEDIAN_NOISE = 1.2

# token ids -> (first position, f32[rows, vocab]) of one chunk of positions after the other
LogitsOf = Callable[[list[int]], Iterable[tuple[int, FloatArray]]]


@dataclass(frozen=True)
class Agreement:
    """Over one or more prompts.

    Args:
        num_clear: positions where llama.cpp's best token leads clearly.
        num_same: those of them with the same best token; num_exact_same: those where the f32 reference has it.
        to_llama: distance from llama.cpp at the sampled positions.
        to_exact: distance from the f32 reference there.
        llama_to_exact: llama.cpp's own distance from it, at the same positions.
        kl_uncertainty: standard error of the difference of the two divergences, position by position.
    """

    num_clear: int
    num_same: int
    num_exact_same: int
    to_llama: Distance
    to_exact: Distance
    llama_to_exact: Distance
    kl_uncertainty: float

    @property
    def top1_share(self) -> float:
        return self.num_same / self.num_clear

    @property
    def is_near_llama(self) -> bool:
        """As near to llama.cpp as two engines can be that round on their own.

        The bounds are the issue's, MIN_TOP1_SHARE and MAX_KL. Where llama.cpp itself is farther than that from the f32
        reference, nobody can keep them without copying its roundings: two independent errors of its size then add up,
        to twice its divergence, and to sqrt(2) times its number of other best tokens (counts, so two deviations of a
        Poisson count are allowed on top).
        """
        num_expected = math.sqrt(2) * (self.num_clear - self.num_exact_same)
        num_allowed = max((1 - MIN_TOP1_SHARE) * self.num_clear, num_expected + 2 * math.sqrt(num_expected))
        is_same = self.num_clear - self.num_same <= num_allowed
        return is_same and all(
            found <= max(MAX_KL, 2 * own)
            for found, own in (
                (self.to_llama.kl, self.llama_to_exact.kl),
                (self.to_llama.median_kl, self.llama_to_exact.median_kl),
            )
        )

    @property
    def is_as_exact_as_llama(self) -> bool:
        """No farther from the reference than llama.cpp, as far as the sampled positions can tell.

        Roundings of activations are random, so either engine may be ahead by some percent at a given set of positions:
        the mean divergence may exceed llama.cpp's by two standard errors, the median and the rms by their noise. Below
        the floors it is the f32 of the golden itself that is measured.
        """
        own, other = self.to_exact, self.llama_to_exact
        return (
            own.kl <= max(other.kl + 2 * self.kl_uncertainty, KL_FLOOR)
            and own.median_kl <= max(other.median_kl * MEDIAN_NOISE, KL_FLOOR)
            and own.rms <= max(other.rms * RMS_NOISE, RMS_FLOOR)
        )

    def __str__(self) -> str:
        own, other = self.to_exact, self.llama_to_exact
        return (
            f"same best token at {self.num_same} (f32: {self.num_exact_same}) of {self.num_clear} clear positions; "
            f"KL from llama.cpp {self.to_llama.kl:.2e} (median {self.to_llama.median_kl:.2e}); "
            f"from f32, llama.cpp in brackets: KL {own.kl:.2e} ({other.kl:.2e} +- {self.kl_uncertainty:.0e}), "
            f"median {own.median_kl:.2e} ({other.median_kl:.2e}), rms {own.rms:.4f} ({other.rms:.4f})"
        )


def compare_with_golden(golden: Golden, logits_of: LogitsOf) -> Agreement:
    """The figures of whoever computes `logits_of`, over all prompts together; each sampled position counts once."""
    prompts = list(golden.prompts.values())
    found = [_read_prompt(prompt, logits_of(prompt.token_ids.tolist())) for prompt in prompts]
    llama_divergence = np.concatenate([prompt.llama_divergence for prompt in prompts])
    divergence = np.concatenate(
        [prompt.exact.divergence(rows) for prompt, (_, rows) in zip(prompts, found, strict=True)]
    )
    return Agreement(
        num_clear=int(sum(prompt.clear.sum() for prompt in prompts)),
        num_same=sum(num_same for num_same, _ in found),
        num_exact_same=int(sum((prompt.clear & (prompt.exact_best == prompt.best)).sum() for prompt in prompts)),
        to_llama=_distance((prompt.llama, rows) for prompt, (_, rows) in zip(prompts, found, strict=True)),
        to_exact=_distance((prompt.exact, rows) for prompt, (_, rows) in zip(prompts, found, strict=True)),
        llama_to_exact=Distance.mean(
            llama_divergence, np.concatenate([prompt.llama_squared_error for prompt in prompts])
        ),
        kl_uncertainty=float(np.std(divergence - llama_divergence) / np.sqrt(len(divergence))),
    )


def _read_prompt(golden: PromptGolden, chunks: Iterable[tuple[int, FloatArray]]) -> tuple[int, FloatArray]:
    """How many clear positions have llama.cpp's best token, and f32[R, vocab] of the sampled positions."""
    best, sampled = [], []
    for start, logits in chunks:
        best.append(best_and_margin(logits)[0])
        in_chunk = (golden.rows >= start) & (golden.rows < start + len(logits))
        sampled.append(logits[golden.rows[in_chunk] - start])
    is_same = np.concatenate(best) == golden.best
    return int((is_same & golden.clear).sum()), np.concatenate(sampled)


def _distance(pairs: Iterable[tuple[TopLogprobs, FloatArray]]) -> Distance:
    results = [(truth.divergence(rows), truth.squared_error(rows)) for truth, rows in pairs]
    return Distance.mean(*(np.concatenate(values) for values in zip(*results, strict=True)))
