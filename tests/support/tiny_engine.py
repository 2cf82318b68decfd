"""The whole engine over the native core with tiny random weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from corral._native import DecoderConfig, Model
from corral.config import EngineConfig
from corral.engine.core import EngineCore
from corral.engine.model_runner import ModelRunner
from corral.engine.sequence import SequenceGroupSpec

VOCAB_SIZE = 96
HIDDEN_SIZE = 64
HEAD_DIM = 32
NUM_LAYERS = 2
MAX_MODEL_LEN = 256
F32 = 0


def make_model(*, poisoned_token: int | None = None) -> Model:
    rng = np.random.default_rng(3)
    config = DecoderConfig(
        num_layers=NUM_LAYERS,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=128,
        num_heads=2,
        num_kv_heads=1,
        head_dim=HEAD_DIM,
        vocab_size=VOCAB_SIZE,
        norm_eps=1e-5,
        activation="silu",
        rope_style="half",
        rope_dim=HEAD_DIM,
        inv_freq=(10000.0 ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)).astype(np.float32),
        local_inv_freq=None,
        rope_attn_factor=1.0,
        attn_scale=HEAD_DIM**-0.5,
        embedding_scale=1.0,
        sliding_window=0,
        layer_is_local=[False] * NUM_LAYERS,
        attn_softcap=0.0,
        logit_softcap=0.0,
    )
    model = Model(config, 2, pin=False)

    def add(role: str, layer: int, rows: int, cols: int) -> None:
        data = rng.standard_normal((rows, cols)).astype(np.float32) * cols**-0.5
        if rows == 1:
            data = 1 + 0.1 * data
        if role == "token_embd":
            data *= 8
            if poisoned_token is not None:
                data[poisoned_token] = np.nan
        model.add_tensor(role, layer, F32, rows, cols, data.astype(np.float32).tobytes())

    add("token_embd", 0, VOCAB_SIZE, HIDDEN_SIZE)
    add("output", 0, VOCAB_SIZE, HIDDEN_SIZE)
    add("output_norm", 0, 1, HIDDEN_SIZE)
    for layer in range(NUM_LAYERS):
        for role, rows, cols in (
            ("attn_norm", 1, HIDDEN_SIZE),
            ("attn_q", 2 * HEAD_DIM, HIDDEN_SIZE),
            ("attn_k", HEAD_DIM, HIDDEN_SIZE),
            ("attn_v", HEAD_DIM, HIDDEN_SIZE),
            ("attn_output", HIDDEN_SIZE, 2 * HEAD_DIM),
            ("ffn_norm", 1, HIDDEN_SIZE),
            ("ffn_gate", 128, HIDDEN_SIZE),
            ("ffn_up", 128, HIDDEN_SIZE),
            ("ffn_down", HIDDEN_SIZE, 128),
        ):
            add(role, layer, rows, cols)
    model.finish()
    return model


def make_core(model: Model, *, num_blocks: int = 64, max_model_len: int = MAX_MODEL_LEN, **options: Any) -> EngineCore:
    config = EngineConfig(**({"max_num_seqs": 16, "max_num_batched_tokens": 64} | options))
    runner = ModelRunner(model, num_blocks, config, VOCAB_SIZE)
    return EngineCore(runner, config, max_model_len=max_model_len, vocab_size=VOCAB_SIZE)


def run(core: EngineCore, specs: list[SequenceGroupSpec]) -> dict[tuple[str, int], tuple[int, ...]]:
    for spec in specs:
        core.add(spec)
    tokens: dict[tuple[str, int], tuple[int, ...]] = {}
    while core.has_work:
        result = core.step()
        assert not result.failures
        for output in result.outputs:
            key = (output.request_id, output.index)
            tokens[key] = tokens.get(key, ()) + output.new_token_ids
        core.check_integrity()
    core.check_idle()
    return tokens
