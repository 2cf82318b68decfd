"""The parameters of a model by Ollama's names, in a Modelfile and in the `options` of a request: what type each has."""

from __future__ import annotations

from typing import Final

INTEGERS: Final = frozenset({"num_ctx", "num_predict", "repeat_last_n", "seed", "top_k"})
FLOATS: Final = frozenset({"frequency_penalty", "min_p", "presence_penalty", "repeat_penalty", "temperature", "top_p"})
TEXTS: Final = frozenset({"stop"})  # each may be given several times

# About Ollama's runner, or about samplers that it no longer has: read for their type, and then of no effect here.
UNUSED_INTEGERS: Final = frozenset(
    {"draft_num_predict", "main_gpu", "mirostat", "num_batch", "num_gpu", "num_gqa", "num_keep", "num_thread"}
)
UNUSED_FLOATS: Final = frozenset({"mirostat_eta", "mirostat_tau", "tfs_z", "typical_p"})
UNUSED_BOOLEANS: Final = frozenset(
    {"f16_kv", "logits_all", "low_vram", "numa", "penalize_newline", "use_mlock", "use_mmap", "vocab_only"}
)
