"""Corral's side of the comparison: prefill, single-stream and batched decode through the whole engine.

`python -m benchmarks.corral_cells --model FILE --cells JSON` prints one JSON object, cell name -> tokens per second.
The engine schedules, computes and samples (greedily), as it does behind the server; only text and sockets are left out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from benchmarks.cells import Cell, Regime, load

from corral.config import BLOCK_SIZE, EngineConfig
from corral.engine.core import EngineCore
from corral.engine.model_runner import ModelRunner
from corral.engine.sequence import SequenceGroupSpec
from corral.model.architectures import read_config
from corral.model.gguf import open_gguf
from corral.model.weights import load_model
from corral.sampling_params import SamplingParams

STEP_TOKENS = 512  # as llama.cpp's -ub
WARM_UP = Cell(2, 64, 4)


class Bench:
    """A loaded model that can be timed on `cells`."""

    def __init__(self, path: Path, num_threads: int, cells: Sequence[Cell]) -> None:
        with open_gguf(path) as gguf:
            config = read_config(gguf)
            model = load_model(gguf, config, num_threads)
        self.vocab_size = config.vocab_size
        # No budget by time and no prefix cache: every token is computed.
        engine_config = EngineConfig(
            max_num_seqs=max(cell.streams for cell in (WARM_UP, *cells)),
            max_num_batched_tokens=STEP_TOKENS,
            max_step_ms=1e9,
            enable_prefix_caching=False,
        )
        blocks = max(cell.streams * (-(-_context(cell) // BLOCK_SIZE) + 1) for cell in (WARM_UP, *cells))
        longest = max(_context(cell) for cell in (WARM_UP, *cells))
        runner = ModelRunner(model, blocks, engine_config, self.vocab_size)
        self.engine = EngineCore(runner, engine_config, max_model_len=longest, vocab_size=self.vocab_size)
        self._rng = np.random.default_rng(0)
        self._num_requests = 0

    def measure(self, cell: Cell) -> float:
        """Tokens per second: of the prompts, the first token drawn included, or of all answers together.

        Answers are timed over `answer` steps in which every stream gains a token; what early streams gain while
        others' prompts are computed does not count. What is left then is aborted.
        """
        ids = self._add(cell)
        seconds, num_full_steps, wanted = 0.0, -1, max(cell.answer, 0)
        while num_full_steps < wanted:
            started = time.perf_counter()
            result = self.engine.step()
            elapsed = time.perf_counter() - started
            if result.failures:
                raise RuntimeError(f"the engine gave requests up: {result.failures}")
            is_full = len(result.outputs) == cell.streams
            if cell.regime is Regime.PREFILL or (is_full and num_full_steps >= 0):
                seconds += elapsed
            num_full_steps += is_full  # the first one may hold parts of prompts: it starts the clock
        for request_id in ids:
            self.engine.abort(request_id)
        num_tokens = cell.prompt if cell.regime is Regime.PREFILL else cell.answer
        return cell.streams * num_tokens / seconds

    def _add(self, cell: Cell) -> list[str]:
        """The requests, with answers that none of them ends before all are timed."""
        sampling = SamplingParams(temperature=0.0, max_tokens=_context(cell) - cell.prompt, ignore_eos=True)
        ids = []
        for _ in range(cell.streams):
            self._num_requests += 1
            ids.append(str(self._num_requests))
            prompt = self._rng.integers(0, self.vocab_size, cell.prompt).tolist()
            self.engine.add(SequenceGroupSpec(ids[-1], prompt, sampling))
        return ids


def _context(cell: Cell) -> int:
    """Tokens of a stream: a first one may answer through all the steps that compute the others' prompts."""
    return cell.prompt + cell.answer + 2 * -(-cell.streams * cell.prompt // STEP_TOKENS) + 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--threads", type=int, default=2, help="threads of the core (default 2)")
    parser.add_argument("--cells", required=True, type=load, help="JSON list of cells")
    options = parser.parse_args()
    bench = Bench(options.model, options.threads, options.cells)
    bench.measure(WARM_UP)
    print(json.dumps({cell.name: bench.measure(cell) for cell in options.cells}))


if __name__ == "__main__":
    main()
