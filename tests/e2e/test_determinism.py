"""The same prompt gives the same bits: alone, in company, in any chunks, on any threads and ISA, preempted or cached.

The native decoder is compared logit by logit, bit for bit; the engine token by token. Tiny random models of every
family in the fast tests, SmolLM2 in the e2e ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corral import _native
from corral.config import BLOCK_SIZE, EngineConfig
from corral.engine.core import EngineCore
from corral.engine.model_runner import ModelRunner
from corral.engine.sequence import SequenceGroupSpec
from corral.model.tensor_type import TensorType
from corral.sampling_params import SamplingParams
from tests.support.gguf_writer import TinyModel, write_tiny_gguf
from tests.support.models import model_path
from tests.support.native_runner import FloatArray, NativeRunner, Part

CHUNKS = (1, 7, 64, 512)
NUM_COMPANIONS = 31
PROMPT_LENGTH = 150
NUM_TOKENS = 24
ISAS = tuple(_native.cpu_info()["isas"])

# Windows shorter than the prompt; K-quants, 32-blocks and floats.
TINY = {
    "llama": TinyModel(tensor_type=TensorType.Q4_K, head_type=TensorType.Q6_K),
    "qwen2": TinyModel(family="qwen2", tensor_type=TensorType.Q5_0, head_type=TensorType.Q8_0),
    "qwen3": TinyModel(family="qwen3", tensor_type=TensorType.Q4_1, head_dim=128),
    "gemma3": TinyModel(family="gemma3", tensor_type=TensorType.F16, num_kv_heads=1, sliding_window=40),
}


@pytest.fixture(scope="module", params=[*TINY, pytest.param("smollm2-135m", marks=pytest.mark.e2e)])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param in TINY:
        return write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "model.gguf", TINY[request.param])
    return model_path(request.param)


@pytest.fixture(scope="module")
def runner(path: Path) -> NativeRunner:
    return NativeRunner(path, num_tokens=6000, max_tokens=2048)


def draw_ids(seed: int, length: int, vocab_size: int) -> list[int]:
    rng = np.random.default_rng(seed)
    return [int(token_id) for token_id in rng.integers(0, vocab_size, length)]


@pytest.fixture(scope="module")
def prompt(runner: NativeRunner) -> list[int]:
    return draw_ids(1, PROMPT_LENGTH, runner.config.vocab_size)


@pytest.fixture(scope="module")
def alone(runner: NativeRunner, prompt: list[int]) -> FloatArray:
    """f32[T, vocab] of the prompt in one piece, with nobody else."""
    logits = runner.all_logits(prompt)
    assert np.isfinite(logits).all()
    assert len({row.tobytes() for row in logits}) == PROMPT_LENGTH  # a constant would agree with everything
    return logits


def assert_same_bits(logits: FloatArray, expected: FloatArray) -> None:
    differing = np.flatnonzero((logits.view(np.uint32) != expected.view(np.uint32)).any(axis=1))
    assert logits.shape == expected.shape
    assert not len(differing), f"rows {differing[:10]} differ, by {np.abs(logits - expected).max()} at most"


# ---- the native decoder ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", CHUNKS)
def test_chunks_change_no_bit(runner: NativeRunner, prompt: list[int], alone: FloatArray, chunk: int) -> None:
    assert_same_bits(runner.all_logits(prompt, chunk), alone)


def test_company_changes_no_bit(runner: NativeRunner, prompt: list[int], alone: FloatArray) -> None:
    """The prompt in chunks among 31 other sequences: prompts of all lengths, and some that decode one token."""
    num_blocks = -(-PROMPT_LENGTH // BLOCK_SIZE)
    free = np.random.default_rng(2).permutation(runner.num_blocks).tolist()
    own = [free.pop() for _ in range(num_blocks)]
    others = [
        (draw_ids(10 + i, 3 + 2 * i, runner.config.vocab_size), [free.pop() for _ in range(num_blocks)])
        for i in range(NUM_COMPANIONS)
    ]
    runner.forward([Part(ids, blocks) for ids, blocks in others])  # their prompts; from here on they decode too
    rows = []
    for step, first in enumerate(range(0, PROMPT_LENGTH, 50)):
        company = [
            Part(ids[:1], blocks, len(ids) + step) if i % 2 else Part(ids, blocks)
            for i, (ids, blocks) in enumerate(others)
        ]
        mine = Part(prompt[first : first + 50], own, first)
        logits = runner.forward([*company[:20], mine, *company[20:]])
        before = sum(len(part.token_ids) for part in company[:20])
        rows.append(logits[before : before + len(mine.token_ids)])
    assert_same_bits(np.concatenate(rows), alone)


def test_shared_prefix_changes_no_bit(runner: NativeRunner, prompt: list[int], alone: FloatArray) -> None:
    """Another sequence with the same beginning has computed the first blocks; only the rest is computed here."""
    shared = list(range(100, 104))
    runner.forward([Part(prompt[: 4 * BLOCK_SIZE], shared)])
    blocks = shared + list(range(200, 200 + -(-PROMPT_LENGTH // BLOCK_SIZE)))
    start = 4 * BLOCK_SIZE
    rest = np.concatenate([rows for _, rows in runner.logits(prompt, blocks=blocks, start=start)])
    assert_same_bits(rest, alone[start:])


def test_copied_blocks_change_no_bit(runner: NativeRunner, prompt: list[int], alone: FloatArray) -> None:
    """Copy-on-write: the sequence goes on in a copy of its last, half full block."""
    middle = 4 * BLOCK_SIZE + 5
    runner.forward([Part(prompt[:middle], range(5))])
    runner.kv_cache.copy_blocks(np.array([4], np.int32), np.array([300], np.int32))
    blocks = [0, 1, 2, 3, 300, *range(310, 320)]
    rest = np.concatenate([rows for _, rows in runner.logits(prompt, blocks=blocks, start=middle)])
    assert_same_bits(rest, alone[middle:])


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_threads_change_no_bit(path: Path, prompt: list[int], alone: FloatArray, num_threads: int) -> None:
    assert_same_bits(NativeRunner(path, num_threads=num_threads).all_logits(prompt, 64), alone)


@pytest.fixture
def restore_isa() -> Iterator[None]:
    active = _native.cpu_info()["isa"]
    yield
    _native.select_isa(active)


@pytest.mark.usefixtures("restore_isa")
@pytest.mark.parametrize("isa", ISAS)
def test_isa_changes_no_bit(path: Path, prompt: list[int], alone: FloatArray, isa: str) -> None:
    _native.select_isa(isa)
    rows = NativeRunner(path).all_logits(prompt[:20], 16)
    assert_same_bits(rows, alone[:20])


# ---- the engine -----------------------------------------------------------------------------------------------

GREEDY = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True)
SEEDED = SamplingParams(temperature=0.9, top_k=40, top_p=0.95, seed=7, max_tokens=NUM_TOKENS, ignore_eos=True)


def make_engine(runner: NativeRunner, num_blocks: int = 512, **settings: Any) -> EngineCore:
    config = replace(EngineConfig(max_num_seqs=64, max_step_ms=1e9), **settings)
    return EngineCore(
        ModelRunner(runner.model, num_blocks, config, runner.config.vocab_size),
        config,
        max_model_len=num_blocks * BLOCK_SIZE if num_blocks < 100 else 400,
        vocab_size=runner.config.vocab_size,
    )


def drain(engine: EngineCore) -> dict[str, list[int]]:
    """Steps until nothing is left; the answers by request id."""
    answers: dict[str, list[int]] = {}
    while engine.has_work:
        result = engine.step()
        assert not result.failures
        for output in result.outputs:
            answers.setdefault(output.request_id, []).extend(output.new_token_ids)
    engine.check_integrity()
    return answers


@pytest.fixture(scope="module", params=[GREEDY, SEEDED], ids=["greedy", "seeded"])
def sampling(request: pytest.FixtureRequest) -> SamplingParams:
    assert isinstance(request.param, SamplingParams)
    return request.param


@pytest.fixture(scope="module")
def answer_alone(runner: NativeRunner, prompt: list[int], sampling: SamplingParams) -> list[int]:
    engine = make_engine(runner)
    engine.add(SequenceGroupSpec("alone", prompt, sampling))
    answer = drain(engine)["alone"]
    assert len(answer) == NUM_TOKENS
    return answer


def test_greedy_answer_is_that_of_the_logits(runner: NativeRunner, prompt: list[int]) -> None:
    engine = make_engine(runner)
    engine.add(SequenceGroupSpec("alone", prompt, GREEDY))
    answer = drain(engine)["alone"]
    logits = runner.all_logits(prompt + answer)
    assert answer == logits[PROMPT_LENGTH - 1 : -1].argmax(axis=1).tolist()


def test_company_changes_no_token(
    runner: NativeRunner, prompt: list[int], sampling: SamplingParams, answer_alone: list[int]
) -> None:
    engine = make_engine(runner, max_num_batched_tokens=256)
    for i in range(NUM_COMPANIONS + 1):
        ids = prompt if i == 20 else draw_ids(10 + i, 3 + 2 * i, runner.config.vocab_size)
        engine.add(SequenceGroupSpec(str(i), ids, replace(sampling, seed=i if i != 20 else sampling.seed)))
    assert drain(engine)["20"] == answer_alone


@pytest.mark.parametrize("chunk", CHUNKS)
def test_chunks_change_no_token(
    runner: NativeRunner, prompt: list[int], sampling: SamplingParams, answer_alone: list[int], chunk: int
) -> None:
    engine = make_engine(runner, max_num_batched_tokens=chunk)
    engine.add(SequenceGroupSpec("chunked", prompt, sampling))
    assert drain(engine)["chunked"] == answer_alone


def test_preemption_changes_no_token(
    runner: NativeRunner, prompt: list[int], sampling: SamplingParams, answer_alone: list[int]
) -> None:
    """Four prompts of ten blocks in a pool of 43: each wants an eleventh at the same step, and the last one goes."""
    engine = make_engine(runner, num_blocks=43, enable_prefix_caching=False)
    ids = [draw_ids(50 + i, PROMPT_LENGTH, runner.config.vocab_size) for i in range(3)]
    for i, other in enumerate([*ids, prompt]):
        engine.add(SequenceGroupSpec(str(i), other, sampling))
    assert drain(engine)["3"] == answer_alone
    assert engine.stats().preemptions > 0


def test_prefix_hit_changes_no_token(
    runner: NativeRunner, prompt: list[int], sampling: SamplingParams, answer_alone: list[int]
) -> None:
    engine = make_engine(runner)
    engine.add(SequenceGroupSpec("first", prompt, sampling))
    drain(engine)
    engine.add(SequenceGroupSpec("second", prompt, sampling))
    assert drain(engine)["second"] == answer_alone
    assert engine.stats().prefix_hit_tokens == PROMPT_LENGTH // BLOCK_SIZE * BLOCK_SIZE
