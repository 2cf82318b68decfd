"""Goldens of logits: what llama.cpp and the f32 reference answered, small enough for git, and how far others are off.

A golden keeps llama.cpp's best token and its lead at every position, and at some positions the log-probabilities of
the TOP_K likeliest tokens, of llama.cpp and of the reference. The rest of the vocabulary is one bucket, so a
divergence computed from a golden is a lower bound of the true one (merging outcomes never raises a KL divergence).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int32]

GOLDEN_FOLDER = Path(__file__).parent.parent / "golden" / "logits"
TOP_K = 64
CLEAR_MARGIN = 0.1  # lead of llama.cpp's best token, in logits, above which the best token must agree
MAX_SAMPLED_ROWS = 32


@dataclass(frozen=True, slots=True)
class TopLogprobs:
    """The likeliest tokens at R positions: ids i32[R, K], logprobs f32[R, K]; rest f32[R], the log of what is left."""

    ids: IntArray
    logprobs: FloatArray
    rest: FloatArray

    @classmethod
    def of(cls, logits: FloatArray) -> Self:
        """From f32[R, vocab]."""
        logprobs = log_softmax(logits)
        ids = np.argsort(-logits, axis=1, kind="stable")[:, :TOP_K].astype(np.int32)
        return cls(ids, np.take_along_axis(logprobs, ids, 1).astype(np.float32), _log_rest(logprobs, ids))

    def divergence(self, logits: FloatArray) -> DoubleArray:
        """f64[R]: lower bound of KL(these probabilities || softmax(logits)), in nats; logits is f32[R, vocab]."""
        logprobs = log_softmax(logits)
        own = self.logprobs.astype(np.float64)
        other = np.take_along_axis(logprobs, self.ids, 1)
        total = (np.exp(own) * (own - other)).sum(axis=1)
        has_rest = np.isfinite(self.rest)
        own_rest = np.where(has_rest, self.rest, 0.0).astype(np.float64)
        other_rest = np.where(has_rest, _log_rest(logprobs, self.ids), 0.0).astype(np.float64)
        return np.asarray(total + np.where(has_rest, np.exp(own_rest) * (own_rest - other_rest), 0.0))

    def squared_error(self, logits: FloatArray) -> DoubleArray:
        """f64[R]: mean squared difference of the log-probabilities of the kept tokens."""
        other = np.take_along_axis(log_softmax(logits), self.ids, 1)
        return np.asarray(np.square(other - self.logprobs).mean(axis=1))


@dataclass(frozen=True, slots=True)
class Distance:
    """Mean and median divergence (nats) and root mean square error of log-probabilities, over the sampled positions.

    The first position of some models has activations so large that int8 cannot hold them beside the others: it alone
    can make the mean, of any engine. The median tells about the rest.
    """

    kl: float
    median_kl: float
    rms: float

    @classmethod
    def between(cls, truth: TopLogprobs, logits: FloatArray) -> Self:
        """From the truth's positions and f32[R, vocab] of somebody else."""
        return cls.mean(truth.divergence(logits), truth.squared_error(logits))

    @classmethod
    def mean(cls, divergences: DoubleArray, squared_errors: DoubleArray) -> Self:
        return cls(float(divergences.mean()), float(np.median(divergences)), float(np.sqrt(squared_errors.mean())))


@dataclass(frozen=True, slots=True)
class PromptGolden:
    """One prompt of T tokens.

    Args:
        token_ids: i32[T].
        best: i32[T], llama.cpp's likeliest token at each position; margin: f16[T], its lead in logits.
        exact_best: i32[T], the f32 reference's likeliest token.
        rows: i32[R], the sampled positions.
        llama, exact: what llama.cpp and the f32 reference say there.
        llama_divergence, llama_squared_error: f64[R], llama.cpp's own distance from the reference.
    """

    token_ids: IntArray
    best: IntArray
    margin: npt.NDArray[np.float16]
    exact_best: IntArray
    rows: IntArray
    llama: TopLogprobs
    exact: TopLogprobs
    llama_divergence: DoubleArray
    llama_squared_error: DoubleArray

    @property
    def clear(self) -> npt.NDArray[np.bool_]:
        """bool[T]: positions where llama.cpp's best token leads by more than CLEAR_MARGIN."""
        return np.asarray(self.margin > CLEAR_MARGIN)


@dataclass(frozen=True, slots=True)
class Golden:
    """All prompts of one model; `info` says what made them (engine, settings, digest of the model file)."""

    info: dict[str, str]
    prompts: dict[int, PromptGolden]

    def save(self, path: Path) -> None:
        """Writes one compressed npz."""
        arrays: dict[str, npt.NDArray[Any]] = {"info": np.frombuffer(json.dumps(self.info).encode(), np.uint8)}
        for length, prompt in self.prompts.items():
            arrays |= {f"{length}/{name}": array for name, array in _to_arrays(prompt).items()}
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # numpy's stub takes keywords for flags

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            info = json.loads(arrays["info"].tobytes())
            lengths = sorted({int(name.split("/")[0]) for name in arrays.files if "/" in name})
            return cls(info, {length: _from_arrays(arrays, f"{length}/") for length in lengths})


def log_softmax(logits: FloatArray) -> DoubleArray:
    """f64[R, vocab] of f32[R, vocab]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def best_and_margin(logits: FloatArray) -> tuple[IntArray, FloatArray]:
    """The likeliest token of each row (the lowest id wins ties) and its lead over the second."""
    top_two = np.partition(logits, -2, axis=1)[:, -2:]
    return logits.argmax(axis=1).astype(np.int32), top_two.max(axis=1) - top_two.min(axis=1)


def sampled_rows(length: int) -> IntArray:
    """At most MAX_SAMPLED_ROWS positions, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, MAX_SAMPLED_ROWS)).round()).astype(np.int32)


def make_prompt_golden(
    token_ids: list[int], llama_chunks: Iterable[tuple[int, FloatArray]], exact_logits: FloatArray
) -> PromptGolden:
    """From llama.cpp's logits in chunks of positions, and the reference's of all positions: f32[T, vocab]."""
    rows = sampled_rows(len(token_ids))
    best, margin, kept = [], [], []
    for start, logits in llama_chunks:
        chunk_best, chunk_margin = best_and_margin(logits)
        best.append(chunk_best)
        margin.append(chunk_margin.astype(np.float16))
        kept.append(logits[rows[(rows >= start) & (rows < start + len(logits))] - start])
    llama_rows, exact = np.concatenate(kept), TopLogprobs.of(exact_logits[rows])
    return PromptGolden(
        np.array(token_ids, np.int32),
        np.concatenate(best),
        np.concatenate(margin),
        exact_logits.argmax(axis=1).astype(np.int32),
        rows,
        TopLogprobs.of(llama_rows),
        exact,
        exact.divergence(llama_rows),
        exact.squared_error(llama_rows),
    )


def _log_rest(logprobs: DoubleArray, ids: IntArray) -> FloatArray:
    """f32[R]: log of the probability outside `ids`; -inf if they are the whole vocabulary."""
    if ids.shape[1] == logprobs.shape[1]:
        return np.full(len(ids), -np.inf, np.float32)
    probabilities = np.exp(logprobs)
    np.put_along_axis(probabilities, ids, 0.0, 1)
    return np.asarray(np.log(np.maximum(probabilities.sum(axis=1), 1e-300)), dtype=np.float32)


def _to_arrays(prompt: PromptGolden) -> dict[str, npt.NDArray[Any]]:
    plain = ("token_ids", "best", "margin", "exact_best", "rows", "llama_divergence", "llama_squared_error")
    arrays: dict[str, npt.NDArray[Any]] = {name: getattr(prompt, name) for name in plain}
    for source in ("llama", "exact"):
        top: TopLogprobs = getattr(prompt, source)
        arrays |= {f"{source}_ids": top.ids, f"{source}_logprobs": top.logprobs, f"{source}_rest": top.rest}
    return arrays


def _from_arrays(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> PromptGolden:
    def top(source: str) -> TopLogprobs:
        return TopLogprobs(*(arrays[f"{prefix}{source}_{part}"] for part in ("ids", "logprobs", "rest")))

    return PromptGolden(
        arrays[prefix + "token_ids"],
        arrays[prefix + "best"],
        arrays[prefix + "margin"],
        arrays[prefix + "exact_best"],
        arrays[prefix + "rows"],
        top("llama"),
        top("exact"),
        arrays[prefix + "llama_divergence"],
        arrays[prefix + "llama_squared_error"],
    )
