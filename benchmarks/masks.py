"""What a grammar costs: decode steps of many streams that each follow a JSON schema, beside free ones.

    pip install . && python -m benchmarks.masks --model FILE [--streams 32] [--steps 48] [--repeats 5]

Both kinds take turns, repeat by repeat, with the same prompts and settings; a step is scheduled, computed, masked and
sampled as behind the server. Prints a Markdown table with medians, the lowest and the highest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from benchmarks.machine import machine_name
from benchmarks.spread import with_range

from corral.config import BLOCK_SIZE, EngineConfig
from corral.engine.core import EngineCore
from corral.engine.model_runner import ModelRunner
from corral.engine.sequence import SequenceGroupSpec
from corral.grammar import Grammar, GrammarKind
from corral.model.architectures import read_config
from corral.model.gguf import open_gguf
from corral.model.weights import load_model
from corral.sampling_params import SamplingParams
from corral.text.grammar.compile import GrammarCompiler
from corral.text.tokenizer import Tokenizer

PROMPT_TOKENS = 64
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["cat", "dog", "horse"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 8},
    },
    "required": ["name", "age", "kind", "tags"],
    "additionalProperties": False,
}
SCHEMA = {"type": "array", "items": PERSON, "minItems": 500}  # no answer comes to its end


class Bench:
    """A loaded model whose decode steps can be timed."""

    def __init__(self, path: Path, num_threads: int, num_streams: int, num_steps: int) -> None:
        with open_gguf(path) as gguf:
            config = read_config(gguf)
            model = load_model(gguf, config, num_threads)
            tokenizer = Tokenizer.from_metadata(gguf.metadata)
        self._num_streams = num_streams
        self._num_steps = num_steps
        self._end_ids = tokenizer.eog_ids
        self._compiler = GrammarCompiler(tokenizer, config.vocab_size)
        engine_config = EngineConfig(max_num_seqs=num_streams, max_step_ms=1e9, enable_prefix_caching=False)
        length = PROMPT_TOKENS + num_steps + 2 * num_streams
        runner = ModelRunner(model, num_streams * (-(-length // BLOCK_SIZE) + 1), engine_config, config.vocab_size)
        self._engine = EngineCore(runner, engine_config, max_model_len=length, vocab_size=config.vocab_size)
        self._prompts = np.random.default_rng(0).integers(0, config.vocab_size, (num_streams, PROMPT_TOKENS)).tolist()
        self._num_requests = 0

    def step_ms(self, grammar: Grammar | None) -> float:
        """Median of the steps in which every stream gains a token."""
        ids = []
        for number, prompt in enumerate(self._prompts):
            self._num_requests += 1
            ids.append(str(self._num_requests))
            sampling = SamplingParams(temperature=0.8, seed=number, ignore_eos=True)
            constraint = None if grammar is None else self._compiler.compile(grammar)
            self._engine.add(SequenceGroupSpec(ids[-1], prompt, sampling, self._end_ids, constraint=constraint))
        times: list[float] = []
        while len(times) < self._num_steps:
            started = time.perf_counter()
            result = self._engine.step()
            elapsed = time.perf_counter() - started
            if result.failures:
                raise RuntimeError(f"the engine gave requests up: {result.failures}")
            if len(result.outputs) == self._num_streams:
                times.append(1000 * elapsed)
        for request_id in ids:
            self._engine.abort(request_id)
        return statistics.median(times[1:])  # the first one may have computed prompts, too


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--threads", type=int, default=2, help="threads of the core (default 2)")
    parser.add_argument("--streams", type=int, default=32, help="sequences of a step (default 32)")
    parser.add_argument("--steps", type=int, default=48, help="steps timed in a repeat (default 48)")
    parser.add_argument("--repeats", type=int, default=5, help="of both kinds, in turns (default 5)")
    options = parser.parse_args()
    bench = Bench(options.model, options.threads, options.streams, options.steps)
    grammar = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(SCHEMA))
    for kind in (None, grammar):
        bench.step_ms(kind)
    free, constrained = [], []
    for _ in range(options.repeats):
        free.append(bench.step_ms(None))
        constrained.append(bench.step_ms(grammar))
    costs = [100 * (b / a - 1) for a, b in zip(free, constrained, strict=True)]
    print(f"{options.model.name}, {options.streams} streams, {options.threads} threads, on {machine_name()}\n")
    print("| decode step, ms, free | with a JSON schema | the schema's share, % |")
    print("|---|---|---|")
    print(f"| {with_range(free)} | {with_range(constrained)} | {with_range(costs)} |")


if __name__ == "__main__":
    main()
