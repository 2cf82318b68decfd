"""What a worker tells about its model and its load."""

from __future__ import annotations

from dataclasses import dataclass, field

from corral.histogram import STEP_S, STEP_TOKENS, Histogram


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A loaded model, as far as a server or a user may ask."""

    name: str
    architecture: str
    context_length: int  # tokens, what the model was trained for
    max_model_len: int  # tokens, what this worker serves
    vocab_size: int
    isa: str
    num_threads: int
    weights_bytes: int
    load_s: float
    kv_limit_bytes: int = 0  # the pool's size; its memory is touched when used
    is_embedding: bool = False  # made for embeddings: it cannot generate
    embedding_length: int = 0  # values in an embedding
    step_bytes: int = 0  # of the weights, what every step reads


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """A snapshot. `num_used_blocks` are those that live requests hold; cached prefixes count as free."""

    num_requests: int = 0
    num_running: int = 0
    num_waiting: int = 0
    num_blocks: int = 0
    num_used_blocks: int = 0
    num_cached_blocks: int = 0
    kv_resident_bytes: int = 0
    num_steps: int = 0
    num_preemptions: int = 0
    num_evictions: int = 0  # cached blocks that were given to others
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    num_adapters: int = 0
    adapter_bytes: int = 0
    num_decode_steps: int = 0  # that computed no prompt; each reads all weights
    decode_s: float = 0.0  # that they took
    step_seconds: Histogram = field(default_factory=lambda: Histogram(STEP_S))
    step_tokens: Histogram = field(default_factory=lambda: Histogram(STEP_TOKENS))
    read_bandwidth: float = 0.0  # bytes a second at which the weights can be read; 0 until it has been measured
