"""Embeddings of llama.cpp, through the C interface of llama-cpp-python (the `reference` extra)."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from tests.support.llama_reference import NUM_THREADS, FloatArray, discard_log

MAX_TOKENS = 1024
POOLINGS = {"mean": 1, "cls": 2, "last": 3}


def llama_embeddings(path: Path, prompts: list[list[int]], pooling: str) -> list[FloatArray]:
    """One vector of length 1 for each prompt.

    Raises:
        RuntimeError: llama.cpp cannot load or run the file.
    """
    llama_cpp.llama_log_set(discard_log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model_params = llama_cpp.llama_model_default_params()
    model_params.use_extra_bufts = False
    model: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
    if not model:
        raise RuntimeError(f"llama.cpp cannot load {path}")
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = MAX_TOKENS
    params.n_threads = params.n_threads_batch = NUM_THREADS
    params.flash_attn_type = 0
    params.embeddings = True
    params.pooling_type = POOLINGS[pooling]
    context: Any = llama_cpp.llama_init_from_model(model, params)
    try:
        return [_embed(model, context, prompt) for prompt in prompts]
    finally:
        llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(model)


def _embed(model: Any, context: Any, token_ids: list[int]) -> FloatArray:
    if memory := llama_cpp.llama_get_memory(context):
        llama_cpp.llama_memory_clear(memory, True)
    batch = llama_cpp.llama_batch_init(len(token_ids), 0, 1)
    try:
        batch.n_tokens = len(token_ids)
        for row, token_id in enumerate(token_ids):
            batch.token[row] = token_id
            batch.pos[row] = row
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = 0
            batch.logits[row] = 1
        if (code := llama_cpp.llama_decode(context, batch)) != 0:
            raise RuntimeError(f"llama_decode returned {code}")
    finally:
        llama_cpp.llama_batch_free(batch)
    size = llama_cpp.llama_model_n_embd(model)
    vector = np.ctypeslib.as_array(llama_cpp.llama_get_embeddings_seq(context, 0), shape=(size,)).copy()
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)
