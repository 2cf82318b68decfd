"""Corral's side of the comparison: prefill, single-stream and batched decode through the whole engine.

`python -m benchmarks.corral_cells --model FILE` prints one JSON object, cell name -> tokens per second. The engine
schedules, computes and samples (greedily), as it does behind the server; only text and sockets are left out.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from corral.config import BLOCK_SIZE, EngineConfig
from corral.engine.core import EngineCore
from corral.engine.model_runner import ModelRunner
from corral.engine.sequence import SequenceGroupSpec
from corral.model.architectures import read_config
from corral.model.gguf import open_gguf
from corral.model.weights import load_model
from corral.sampling_params import SamplingParams


@dataclass(frozen=True)
class Sizes:
    """How many tokens each cell takes; the same numbers go to llama.cpp.

    Args:
        prefill: tokens of the prompt of the prefill cell.
        decode: tokens of the single stream.
        batches: numbers of streams; batch_prompt, batch_decode: prompt and answer of each.
    """

    prefill: int = 512
    decode: int = 64
    batches: tuple[int, ...] = (8, 16, 32)
    batch_prompt: int = 32
    batch_decode: int = 32


@dataclass(frozen=True)
class Step:
    """Duration in seconds, and the tokens that came out."""

    seconds: float
    num_tokens: int


class Bench:
    """A loaded model that can be timed."""

    def __init__(self, path: Path, num_threads: int, sizes: Sizes) -> None:
        self.sizes = sizes
        with open_gguf(path) as gguf:
            config = read_config(gguf)
            model = load_model(gguf, config, num_threads)
        self.weights_bytes = model.packed_bytes
        self.vocab_size = config.vocab_size
        # No budget by time and no prefix cache: every token is computed, in steps of 512 like llama.cpp's.
        engine_config = EngineConfig(
            max_num_seqs=64, max_num_batched_tokens=512, max_step_ms=1e9, enable_prefix_caching=False
        )
        longest = max(sizes.prefill + 2, sizes.decode + 2, sizes.batch_prompt + sizes.batch_decode + 2)
        per_seq = -(-longest // BLOCK_SIZE) + 1
        runner = ModelRunner(model, per_seq * (max(sizes.batches, default=1) + 1), engine_config)
        self.engine = EngineCore(
            runner, engine_config, max_model_len=longest + BLOCK_SIZE, vocab_size=config.vocab_size
        )
        self._rng = np.random.default_rng(0)

    def run(self, num_seqs: int, prompt: int, answer: int) -> list[Step]:
        """Every step of `num_seqs` streams with random prompts of `prompt` tokens and answers of `answer`."""
        sampling = SamplingParams(temperature=0.0, max_tokens=answer, ignore_eos=True)
        for number in range(num_seqs):
            ids = self._rng.integers(0, self.vocab_size, prompt).tolist()
            self.engine.add(SequenceGroupSpec(str(number), ids, sampling))
        steps = []
        while self.engine.has_work:
            started = time.perf_counter()
            result = self.engine.step()
            if result.failures:
                raise RuntimeError(f"the engine gave requests up: {result.failures}")
            steps.append(Step(time.perf_counter() - started, len(result.outputs)))
        return steps

    def prefill(self) -> float:
        """Prompt tokens per second; the first token of the answer is in the time."""
        steps = self.run(1, self.sizes.prefill, 1)
        return self.sizes.prefill / sum(step.seconds for step in steps)

    def decode(self, num_seqs: int, prompt: int, answer: int) -> float:
        """Tokens per second of all streams together, over the steps in which all of them decode."""
        steps = self.run(num_seqs, prompt, answer + 1)
        first = next(i for i, step in enumerate(steps) if step.num_tokens == num_seqs)
        timed = [step for step in steps[first + 1 :] if step.num_tokens == num_seqs]
        return sum(step.num_tokens for step in timed) / sum(step.seconds for step in timed)

    def cells(self) -> dict[str, float]:
        """All cells, after a warm-up."""
        sizes = self.sizes
        self.run(2, 64, 4)
        cells = {
            f"prefill {sizes.prefill}": self.prefill(),
            "decode 1": self.decode(1, 1, sizes.decode),
        }
        for batch in sizes.batches:
            cells[f"decode {batch}"] = self.decode(batch, sizes.batch_prompt, sizes.batch_decode)
        return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--threads", type=int, default=2, help="threads of the core (default 2)")
    parser.add_argument("--sizes", default="{}", help="JSON object with fields of Sizes")
    options = parser.parse_args()
    values = json.loads(options.sizes)
    if "batches" in values:
        values["batches"] = tuple(values["batches"])
    bench = Bench(options.model, options.threads, Sizes(**values))
    print(json.dumps({"weights_bytes": bench.weights_bytes, "cells": bench.cells()}))


if __name__ == "__main__":
    main()
