"""The memory plan: what weights and KV cache will take, and what context and how many users fit, before a load."""

from __future__ import annotations

from dataclasses import dataclass

from corral.config import BLOCK_SIZE, EngineConfig
from corral.errors import InsufficientMemory, InvalidConfig
from corral.model.config import ModelConfig
from corral.model.gguf import GGUFFile
from corral.model.memory import MemoryStatus, read_memory, size_text
from corral.model.tensor_type import TensorType

POOL_SHARE = 0.8  # of the memory left beside the weights, at most this much becomes KV pool
MIN_CONTEXT = 256  # a context lowered below this serves nobody
SHORT_CONTEXT = 1024  # the second context that concurrency is stated for
PROCESS_BYTES = 256 << 20  # interpreter, libraries, tokenizer
_PAGE_BYTES = 4096

# Bytes of a packed tile of 16 columns x 256 k: (header, one chunk of 32 k); a shorter last tile has less of both.
# See native/quant/tile_format.h.
_TILES: dict[TensorType, tuple[int, int]] = {
    TensorType.Q4_0: (256, 256),
    TensorType.Q4_1: (512, 256),
    TensorType.Q5_0: (256, 320),
    TensorType.Q5_1: (512, 320),
    TensorType.Q8_0: (256, 512),
    TensorType.IQ4_NL: (256, 256),
    TensorType.Q2_K: (320, 128),
    TensorType.Q3_K: (320, 192),
    TensorType.Q4_K: (320, 256),
    TensorType.Q5_K: (320, 320),
    TensorType.Q6_K: (320, 384),
    TensorType.IQ4_XS: (192, 256),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load will take and give. Bytes, tokens and counts; nothing is reserved by making one.

    Args:
        weights_bytes: packed weights; `file_bytes` is what they take in the file.
        work_bytes: process, activations and logits.
        kv_dtype: what K and V are kept as.
        kv_bytes_per_token: K and V of one token in all layers.
        num_blocks: size of the KV pool, in blocks of BLOCK_SIZE tokens; its memory is touched when used.
        max_model_len: longest context, at most the model's own `context_length`.
        max_num_seqs: sequences that may run at once.
        fits: weights, work memory and one sequence of max_model_len fit into the memory that is free.
        notes: what was lowered, and why.
    """

    name: str
    architecture: str
    file_bytes: int
    weights_bytes: int
    work_bytes: int
    kv_dtype: str
    kv_bytes_per_token: int
    num_blocks: int
    max_model_len: int
    context_length: int
    max_num_seqs: int
    memory: MemoryStatus
    fits: bool
    notes: tuple[str, ...] = ()

    @property
    def pool_tokens(self) -> int:
        return self.num_blocks * BLOCK_SIZE

    @property
    def pool_bytes(self) -> int:
        return self.pool_tokens * self.kv_bytes_per_token

    @property
    def short_context(self) -> int:
        return min(SHORT_CONTEXT, self.max_model_len)

    def max_users(self, context: int) -> int:
        """Sequences of `context` tokens that run at once without sharing or preemption."""
        return min(self.max_num_seqs, self.num_blocks // _blocks_of(context))

    def describe(self) -> str:
        """The table that `corral plan` and every load print."""
        in_file = f"{size_text(self.weights_bytes)} packed, {size_text(self.file_bytes)} in the file"
        token = f"{size_text(self.kv_bytes_per_token)} a token as {self.kv_dtype}"
        pool = f"{token}, a pool of {size_text(self.pool_bytes)} for {self.pool_tokens:,} tokens that fills when used"
        rows = [
            ("model", f"{self.name} ({self.architecture})"),
            ("weights", in_file),
            ("work memory", size_text(self.work_bytes)),
            ("KV cache", pool),
            ("context", f"{self.max_model_len:,} tokens; the model's own limit is {self.context_length:,}"),
            (
                "users at once",
                f"{self.max_users(self.short_context):,} with {self.short_context:,} tokens each, "
                f"{self.max_users(self.max_model_len):,} with the full context",
            ),
            ("memory", f"{size_text(self.memory.free)} free of {size_text(self.memory.total)}"),
            *(("note", note) for note in self.notes),
        ]
        return "\n".join(f"{label:<15}{value}" for label, value in rows)


def make_plan(
    gguf: GGUFFile, config: ModelConfig, engine_config: EngineConfig, memory: MemoryStatus | None = None
) -> Plan:
    """The plan for this machine, or for `memory`.

    Raises:
        InsufficientMemory: the model does not fit; the message holds the whole plan.
        InvalidConfig: max_model_len is beyond the model's context.
    """
    plan = estimate(gguf, config, engine_config, memory)
    if not plan.fits:
        raise refusal(plan)
    return plan


def refusal(plan: Plan) -> InsufficientMemory:
    """What a plan that does not fit is refused with; the message holds the whole plan."""
    one_context = _blocks_of(plan.max_model_len) * BLOCK_SIZE * plan.kv_bytes_per_token
    kv_bytes = max(one_context, plan.pool_bytes)
    return InsufficientMemory(
        f"{plan.name} does not fit: it needs {size_text(plan.weights_bytes)} for weights, "
        f"{size_text(plan.work_bytes)} to work and {size_text(kv_bytes)} for the KV cache; "
        f"{size_text(plan.memory.free)} are free. Take a smaller model or quantisation, lower max_model_len or "
        f"kv_cache_bytes, or free some memory.\n{plan.describe()}"
    )


def estimate(
    gguf: GGUFFile, config: ModelConfig, engine_config: EngineConfig, memory: MemoryStatus | None = None
) -> Plan:
    """The plan, whether it fits or not: see Plan.fits.

    Raises:
        InvalidConfig: max_model_len is beyond the model's context.
    """
    return plan_sizes(read_sizes(gguf, config), config, engine_config, memory or read_memory())


@dataclass(frozen=True, slots=True)
class WeightSizes:
    """Bytes of all weights, packed and as they are in the file."""

    packed_bytes: int
    file_bytes: int


def read_sizes(gguf: GGUFFile, config: ModelConfig) -> WeightSizes:
    """All that a plan needs of the file besides its config."""
    file_bytes = sum(gguf.tensors[name].num_bytes for name in config.tensor_roles)
    return WeightSizes(packed_weight_bytes(gguf, config), file_bytes)


def plan_sizes(sizes: WeightSizes, config: ModelConfig, engine_config: EngineConfig, memory: MemoryStatus) -> Plan:
    """`estimate` of a file that has been read: arithmetic only.

    Raises:
        InvalidConfig: as `estimate`.
    """
    wanted = engine_config.max_model_len
    if wanted is not None and wanted > config.context_length:
        raise InvalidConfig(
            f"max_model_len is {wanted}; {config.name} was made for contexts of up to {config.context_length} tokens"
        )
    weights_bytes = sizes.packed_bytes
    work_bytes = _work_bytes(config, engine_config)
    left = memory.free - weights_bytes - work_bytes
    kv_bytes_per_token = config.kv_bytes_per_token(engine_config.kv_dtype)
    block_bytes = BLOCK_SIZE * kv_bytes_per_token
    if engine_config.kv_cache_bytes is not None:
        budget = engine_config.kv_cache_bytes
        pool_may_fit = budget <= left
    else:
        budget = int(max(0, left) * POOL_SHARE)
        pool_may_fit = left > 0
    budget_blocks = budget // block_bytes
    max_model_len = wanted or config.context_length
    notes = []
    if wanted is None and _blocks_of(max_model_len) > budget_blocks:
        max_model_len = max(min(MIN_CONTEXT, max_model_len), budget_blocks * BLOCK_SIZE)
        notes.append(f"the context is lowered to {max_model_len:,} tokens: the KV cache of a longer one does not fit")
    one_sequence = _blocks_of(max_model_len)
    num_blocks = min(budget_blocks, engine_config.max_num_seqs * one_sequence)
    if engine_config.kv_cache_bytes is not None:
        num_blocks = budget_blocks
    return Plan(
        name=config.name,
        architecture=config.architecture,
        file_bytes=sizes.file_bytes,
        weights_bytes=weights_bytes,
        work_bytes=work_bytes,
        kv_dtype=engine_config.kv_dtype,
        kv_bytes_per_token=kv_bytes_per_token,
        num_blocks=num_blocks,
        max_model_len=max_model_len,
        context_length=config.context_length,
        max_num_seqs=engine_config.max_num_seqs,
        memory=memory,
        fits=pool_may_fit and num_blocks >= one_sequence,
        notes=tuple(notes),
    )


def packed_weight_bytes(gguf: GGUFFile, config: ModelConfig) -> int:
    """Bytes of all weights once packed: never below what the native model takes, and at most some percent above."""
    total = 0
    for name, role in config.tensor_roles.items():
        if not role.is_matrix:
            total += role.cols * 4
            continue
        groups = -(-role.rows // 16)
        size = groups * _packed_group_bytes(gguf.tensors[name].type, role.cols)
        total += -(-size // _PAGE_BYTES) * _PAGE_BYTES
    return total


def _packed_group_bytes(tensor_type: TensorType, cols: int) -> int:
    """Bytes of 16 packed rows of `cols` weights."""
    if tensor_type.is_float:
        return 16 * tensor_type.block_bytes * (cols + cols % 2)
    header, chunk = _TILES[tensor_type]
    tiles, tail_chunks = cols // 256, cols % 256 // 32
    tail_header = -(-tail_chunks * header // 8 // 64) * 64
    return tiles * (header + 8 * chunk) + tail_header + tail_chunks * chunk


def _work_bytes(config: ModelConfig, engine_config: EngineConfig) -> int:
    """The process, activations of one step (f32 and quantised) and logits of every running sequence."""
    attention = (3 * config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    row_floats = 6 * config.hidden_size + 3 * config.intermediate_size + attention
    activations = engine_config.max_num_batched_tokens * row_floats * 5
    logits = engine_config.max_num_seqs * config.vocab_size * 4
    return PROCESS_BYTES + activations + logits


def _blocks_of(tokens: int) -> int:
    return -(-tokens // BLOCK_SIZE)
