"""Logits of llama.cpp, through the C interface of llama-cpp-python (the `reference` extra)."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import llama_cpp
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

# The settings of every golden: two threads, no flash attention, KV in f16, one sequence, default micro-batch of 512.
# Weights stay in the file's layout (no repacking, no AMX), so that the goldens are the same on more machines; AMX,
# besides, crashes in builds by gcc 12.
NUM_THREADS = 2
BATCH_SIZE = 512
SETTINGS = "n_threads=2 flash_attn=off type_k=f16 type_v=f16 n_batch=512 n_ubatch=512 use_extra_bufts=false"


def version() -> str:
    """Package version and the CPU features llama.cpp runs with."""
    features = llama_cpp.llama_print_system_info().decode().strip()
    return f"llama-cpp-python {llama_cpp.__version__}; {features}"


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _discard_log(_level: int, _text: bytes, _user_data: object) -> None:
    """llama.cpp's own log would drown the report; faults come back as return codes."""


class LlamaModel:
    """A GGUF file loaded by llama.cpp.

    Args:
        path: the file.
        num_ctx: longest prompt in tokens.
        adapter: a LoRA adapter to apply, as it is.

    Raises:
        RuntimeError: llama.cpp cannot load or run it.
    """

    def __init__(self, path: Path, num_ctx: int = 2048, adapter: Path | None = None) -> None:
        llama_cpp.llama_log_set(_discard_log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        model_params.use_extra_bufts = False
        self._model: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = num_ctx
        params.n_batch = params.n_ubatch = BATCH_SIZE
        params.n_threads = params.n_threads_batch = NUM_THREADS
        params.flash_attn_type = 0  # disabled
        self._context: Any = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError(f"llama.cpp cannot make a context of {num_ctx} tokens for {path}")
        if adapter is not None:
            self._apply(adapter)
        self._vocab: Any = llama_cpp.llama_model_get_vocab(self._model)
        self.vocab_size: int = llama_cpp.llama_vocab_n_tokens(self._vocab)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the context and the model."""
        with contextlib.suppress(AttributeError):
            llama_cpp.llama_free(self._context)
            llama_cpp.llama_model_free(self._model)
            del self._context, self._model

    def _apply(self, adapter: Path) -> None:
        """The model frees it with itself."""
        loaded = llama_cpp.llama_adapter_lora_init(self._model, str(adapter).encode())
        if not loaded:
            raise RuntimeError(f"llama.cpp cannot load the adapter {adapter}")
        adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(
            ctypes.cast(loaded, llama_cpp.llama_adapter_lora_p_ctypes)
        )
        if llama_cpp.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(1.0)):
            raise RuntimeError(f"llama.cpp cannot apply the adapter {adapter}")

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, with the BOS token if the file asks for one; special tokens are not parsed."""
        data = text.encode()
        ids = (llama_cpp.llama_token * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(self._vocab, data, len(data), ids, len(ids), True, False)
        if count < 0:
            raise RuntimeError(f"llama.cpp needs {-count} tokens for a text of {len(data)} bytes")
        return list(ids[:count])

    def logits(self, token_ids: list[int]) -> Iterator[tuple[int, FloatArray]]:
        """(position of the first row, f32[rows, vocab]) for a fresh sequence, `BATCH_SIZE` positions at a time."""
        self.reset()
        for start in range(0, len(token_ids), BATCH_SIZE):
            yield start, self.step(token_ids[start : start + BATCH_SIZE], start)

    def reset(self) -> None:
        """Forgets the sequence."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)

    def step(self, token_ids: list[int], start: int) -> FloatArray:
        """Appends tokens at position `start` and gives the logits of all of them: f32[tokens, vocab]."""
        count = len(token_ids)
        batch = llama_cpp.llama_batch_init(count, 0, 1)
        try:
            batch.n_tokens = count
            for row, token_id in enumerate(token_ids):
                batch.token[row] = token_id
                batch.pos[row] = start + row
                batch.n_seq_id[row] = 1
                batch.seq_id[row][0] = 0
                batch.logits[row] = 1
            if (code := llama_cpp.llama_decode(self._context, batch)) != 0:
                raise RuntimeError(f"llama_decode returned {code} at position {start}")
        finally:
            llama_cpp.llama_batch_free(batch)
        rows = np.ctypeslib.as_array(llama_cpp.llama_get_logits(self._context), shape=(count, self.vocab_size))
        return rows.copy()
