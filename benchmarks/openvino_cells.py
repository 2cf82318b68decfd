"""OpenVINO GenAI's side of the comparison, in its own environment: its ContinuousBatchingPipeline reads the GGUF file.

`python -m benchmarks.openvino_cells --model FILE --cells JSON` prints one JSON object: versions, the ISA kernels run
on, cell name -> tokens per second. The pipeline is stepped like Corral's engine; only its steps are timed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import openvino
import openvino_genai
from benchmarks.cells import Cell, Regime, load

STEP_TOKENS = 512
KV_CACHE_GB = 2
RANDOM_IDS = 10_000  # ids are drawn below this: in every vocabulary of the models here
WARM_UPS = (Cell(2, 64, 4), Cell(1, 512, 0))  # the first forward of each shape lays the weights out


class Bench:
    """A loaded pipeline that can be timed."""

    def __init__(self, path: Path, num_threads: int) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = KV_CACHE_GB
        scheduler.max_num_batched_tokens = STEP_TOKENS
        scheduler.enable_prefix_caching = False
        scheduler.max_num_seqs = 64
        properties = {"INFERENCE_NUM_THREADS": num_threads}
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(str(path), scheduler, "CPU", properties)
        self._rng = np.random.default_rng(0)
        self._num_requests = 0

    def measure(self, cell: Cell) -> float:
        """Tokens per second, counted as corral_cells.Bench.measure does."""
        handles = [self._add(cell) for _ in range(cell.streams)]
        seconds, num_full_steps = 0.0, -1
        while num_full_steps < cell.answer:
            started = time.perf_counter()
            self._pipeline.step()
            elapsed = time.perf_counter() - started
            is_full = self._num_gained(handles) == cell.streams
            if cell.regime is Regime.PREFILL or (is_full and num_full_steps >= 0):
                seconds += elapsed
            num_full_steps += is_full
        for handle in handles:
            handle.stop()
        while self._pipeline.has_non_finished_requests():  # lets go of the stopped ones
            self._pipeline.step()
        num_tokens = cell.prompt if cell.regime is Regime.PREFILL else cell.answer
        return cell.streams * num_tokens / seconds

    def _add(self, cell: Cell) -> openvino_genai.GenerationHandle:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = cell.answer + 2 * -(-cell.streams * cell.prompt // STEP_TOKENS) + 8
        config.ignore_eos = True
        config.do_sample = False
        self._num_requests += 1
        prompt = self._rng.integers(0, RANDOM_IDS, (1, cell.prompt)).astype(np.int64)
        return self._pipeline.add_request(self._num_requests, openvino.Tensor(prompt), config)

    @staticmethod
    def _num_gained(handles: list[openvino_genai.GenerationHandle]) -> int:
        """Streams that the last step gave a token."""
        return sum(bool(handle.can_read() and handle.read()) for handle in handles)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--threads", type=int, default=2, help="of the pipeline (default 2)")
    parser.add_argument("--cells", required=True, type=load, help="JSON list of cells")
    options = parser.parse_args()
    bench = Bench(options.model, options.threads)
    for cell in WARM_UPS:
        bench.measure(cell)
    print(json.dumps({cell.name: bench.measure(cell) for cell in options.cells}))


if __name__ == "__main__":
    main()
