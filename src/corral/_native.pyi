"""The C++ core: packed weights, paged KV cache, decoder, sampler and tokenizer.

Arrays are C-contiguous numpy arrays of exactly the dtype named; nothing is converted. A wrong dtype, dimension, size or
value raises ValueError with the numbers and changes nothing; an argument that is no array at all raises TypeError.
`add_tensor`, `map_tensor`, `forward`, `sample`, `log_probs`, `copy_blocks` and `release_blocks` release the GIL. They
share the threads of one Model: a call while another is running on the same Model raises RuntimeError. Adapters are
filled, and tables of strings are read, indexed and encoded with, without the GIL too.

Sizes in the signatures: T tokens of a step, S sequences, B blocks in a table row, R rows of logits, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

def cpu_info() -> dict[str, Any]:
    """`isa`: name of the active ISA; `isas`: those this machine has, best last; `num_cpus`: usable CPUs by affinity
    mask and cgroup quota."""

def select_isa(name: str) -> None:
    """Chooses the kernels of models made from now on: "scalar", "neon", "avx2", "avx2_vnni", "avx512" or "amx".
    Results are equal on all of them.

    Raises:
        ValueError: this machine lacks it; the text lists those it has.
    """

def packed_layout() -> int:
    """Number of the layout of packed matrices; what packed_tensor gave under another one must not be mapped."""

def quantize(type: int, values: npt.NDArray[np.float32]) -> bytes:  # noqa: A002
    """`values` [rows, cols] as blocks of Q4_0, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K, by id `type`; without the GIL.
    Raises ValueError for another type, cols that are no multiple of its block, NaN and infinity."""

class DecoderConfig:
    """Shapes of a model, and where the dense families differ.

    Args:
        num_heads: query heads, a multiple of num_kv_heads; num_heads * head_dim may differ from hidden_size.
        head_dim: values in a head, at most 1024.
        activation: "silu", "gelu_tanh" or "gelu" (by erf), of the feed-forward gate.
        rope_style: which values rotate as a pair: "interleaved" (2i, 2i + 1) or "half" (i, i + rope_dim / 2).
        rope_dim: how many values of a head rotate: even, at most head_dim.
        inv_freq: float32[rope_dim / 2], radians per token.
        local_inv_freq: the same for local layers; None: as inv_freq.
        rope_attn_factor: multiplies cos and sin.
        attn_scale: multiplies q . k.
        embedding_scale: multiplies the token embedding.
        sliding_window: on local layers key j is visible to query i iff i - j < sliding_window, or
            |i - j| <= sliding_window / 2 if not causal; 0 for no limit.
        layer_is_local: one value for each layer.
        attn_softcap: scores become cap * tanh(score / cap); 0 for none.
        logit_softcap: the same for logits.
        norm_kind: "rms", or "layer", which may have biases.
        is_post_norm: what a norm gives replaces the residual stream, as in BERT.
        is_causal: otherwise a token sees its whole sequence, which comes in one step.
        is_gated: otherwise the feed-forward is activation(up), and there is no ffn_gate.
        num_positions: learned position embeddings; 0 for none.
        num_token_types: token type embeddings, of which 0 is added to all tokens; 0 for none.
        dense_size: width between the two dense layers after the pooling, dense_2 and dense_3; 0 for none.

    Raises:
        ValueError: names the field, its value and what is allowed.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        hidden_size: int,
        intermediate_size: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        vocab_size: int,
        norm_eps: float,
        activation: str,
        rope_style: str,
        rope_dim: int,
        inv_freq: npt.NDArray[np.float32],
        local_inv_freq: npt.NDArray[np.float32] | None,
        rope_attn_factor: float,
        attn_scale: float,
        embedding_scale: float,
        sliding_window: int,
        layer_is_local: Sequence[bool],
        attn_softcap: float,
        logit_softcap: float,
        norm_kind: str = "rms",
        is_post_norm: bool = False,
        is_causal: bool = True,
        is_gated: bool = True,
        num_positions: int = 0,
        num_token_types: int = 0,
        dense_size: int = 0,
    ) -> None: ...

class Model:
    """The packed weights of one model, with the threads that compute on them.

    Args:
        num_threads: workers, the calling thread among them; 1 to 1024.
        pin: worker i runs on the i-th CPU of the affinity mask, the calling thread only during a call. Not done when
            there are fewer CPUs than workers.
    """

    def __init__(self, config: DecoderConfig, num_threads: int, pin: bool = True) -> None: ...
    def add_tensor(self, role: str, layer: int, type: int, rows: int, cols: int, data: Buffer) -> None:  # noqa: A002
        """Packs a matrix, or copies a vector as float32, into memory of its own; `data` may be given up afterwards.
        A tensor added again replaces the first.

        Args:
            role: matrices ([rows = outputs, cols = K]): token_embd, output (absent: tied to token_embd), and as the
                config asks position_embd, token_types, dense_2, dense_3; of a layer: attn_q, attn_k, attn_v,
                attn_output, ffn_gate, ffn_up, ffn_down. Vectors (rows = 1; F32, F16 or BF16): output_norm; of a layer:
                attn_norm, ffn_norm, and if the model has them attn_q_bias, attn_k_bias, attn_v_bias, attn_output_bias,
                ffn_up_bias, ffn_down_bias, attn_q_norm, attn_k_norm (head_dim values), attn_post_norm, ffn_post_norm;
                output_norm_bias, attn_norm_bias and ffn_norm_bias of layer norms.
            layer: from 0; ignored for roles of the whole model.
            type: id of the GGUF tensor type.
            data: the tensor as it stands in the file, rows * cols values.

        Raises:
            ValueError: the role, layer, type, shape or number of bytes is wrong.
            MemoryError: the machine has no more address space.
        """

    def map_tensor(self, role: str, layer: int, type: int, rows: int, cols: int, data: Buffer) -> None:  # noqa: A002
        """Takes a packed matrix without a copy, and keeps `data` alive; it must not change. Reads its pages in order.

        The content is not checked: any bytes compute, if only to nonsense.

        Args:
            role: of a matrix, as for add_tensor; so are layer, type, rows and cols.
            data: what packed_tensor gave, at an address that is a multiple of 64.

        Raises:
            ValueError: the role, layer, type, shape, alignment or number of bytes is wrong.
        """

    def packed_tensor(self, role: str, layer: int) -> memoryview:
        """The bytes of a packed matrix, read-only, not copied; they outlive the model while they are held.

        Raises:
            ValueError: no matrix has that role, or it has not been added.
        """

    def finish(self) -> None:
        """Call after the last tensor.

        Raises:
            ValueError: names the tensors that are missing.
        """

    @property
    def packed_bytes(self) -> int:
        """Memory of the weights in bytes."""

    @property
    def num_threads(self) -> int:
        """Workers, the calling thread among them."""

class KVCache:
    """Keys and values in blocks of 16 tokens, all layers of a block side by side, in one virtual range.

    Memory is taken when a block is first written and given back by release_blocks.

    Args:
        num_blocks: size of the pool, from 1.
        dtype: "f16", or "int8" with an f16 scale for each 32 values of a key or value.

    Raises:
        ValueError: num_blocks or dtype is none of these.
    """

    def __init__(self, model: Model, num_blocks: int, dtype: str = "f16") -> None: ...
    @property
    def block_bytes(self) -> int:
        """Bytes of one block."""

    @property
    def num_blocks(self) -> int:
        """Blocks of the pool."""

    @property
    def block_size(self) -> int:
        """Tokens in a block: 16."""

    def copy_blocks(self, src: npt.NDArray[np.int32], dst: npt.NDArray[np.int32]) -> None:
        """Copies block src[i] to block dst[i], in order."""

    def release_blocks(self, ids: npt.NDArray[np.int32]) -> None:
        """Gives the memory of the blocks back to the system; their contents are lost."""

    def resident_bytes(self) -> int:
        """Bytes of the cache that are in memory now."""

class Adapter:
    """A LoRA adapter for models of one config, in float32."""

    def __init__(self, config: DecoderConfig) -> None: ...
    def add(
        self, role: str, layer: int, rank: int, type_a: int, a: Buffer, type_b: int, b: Buffer, scale: float
    ) -> None:
        """Makes W x into W x + scale * B (A x), for W one of attn_q, attn_k, attn_v, attn_output, ffn_gate, ffn_up and
        ffn_down; A is [rank, inputs] and B [outputs, rank], of these ggml types. ValueError names what does not fit;
        RuntimeError: a forward has used the adapter, or another thread is changing it."""

    @property
    def num_bytes(self) -> int:
        """Memory in bytes."""

class Decoder:
    """Forward pass and sampling over one model and one KV cache.

    The logits, K and V of a row depend only on its own sequence: bit for bit the same alone or in a batch, whatever
    the cut of the prompt and the number of threads.

    Args:
        model: finished.
        kv_cache: made for this model.
        max_tokens: most rows of a step; scratch for as many is set aside (touched when used).
        max_seqs: most sequences of a step, at most max_tokens.
    """

    def __init__(self, model: Model, kv_cache: KVCache, max_tokens: int, max_seqs: int) -> None: ...
    def forward(
        self,
        token_ids: npt.NDArray[np.int32],
        seq_offsets: npt.NDArray[np.int32],
        start_positions: npt.NDArray[np.int32],
        block_tables: npt.NDArray[np.int32],
        logit_rows: npt.NDArray[np.int32],
        adapter_ids: npt.NDArray[np.int32] | None = None,
        adapters: Sequence[Adapter] = (),
    ) -> None:
        """Computes one step: writes K and V of all rows and keeps the logits of some.

        Args:
            token_ids: [T], 1 to max_tokens, each below the vocabulary size.
            seq_offsets: [S + 1] sequence s has rows [seq_offsets[s], seq_offsets[s + 1]).
            start_positions: [S] row t of sequence s has position start_positions[s] + t - seq_offsets[s].
            block_tables: [S, B] block of each 16 positions, up to the last position of the step.
            logit_rows: [R] rows whose logits are kept, in this order; at most max_tokens.
            adapter_ids: [S] the sequence's adapter as an index into `adapters`, -1 for none; None: nobody has one.
        """

    def embed(
        self,
        token_ids: npt.NDArray[np.int32],
        seq_offsets: npt.NDArray[np.int32],
        start_positions: npt.NDArray[np.int32],
        block_tables: npt.NDArray[np.int32],
        rows: npt.NDArray[np.int32],
    ) -> npt.NDArray[np.float32]:
        """As `forward`, without logits: [R, hidden_size], what the last norm makes of `rows`."""

    def project(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """dense_3 * dense_2 * row for each of [R, hidden_size].

        Raises:
            ValueError: the model has no dense layers, or the shape is wrong.
        """

    def sample(
        self,
        temperature: npt.NDArray[np.float32],
        top_k: npt.NDArray[np.int32],
        top_p: npt.NDArray[np.float32],
        min_p: npt.NDArray[np.float32],
        repetition_penalty: npt.NDArray[np.float32],
        presence_penalty: npt.NDArray[np.float32],
        frequency_penalty: npt.NDArray[np.float32],
        seeds: npt.NDArray[np.uint64],
        positions: npt.NDArray[np.int64],
        history_offsets: npt.NDArray[np.int32],
        history_ids: npt.NDArray[np.int32],
        output_starts: npt.NDArray[np.int32],
        bias_offsets: npt.NDArray[np.int32],
        bias_ids: npt.NDArray[np.int32],
        bias_values: npt.NDArray[np.float32],
        mask: npt.NDArray[np.uint32] | None,
    ) -> npt.NDArray[np.int32]:
        """Draws a token for each of the R rows of the last forward's logits; the logits stay as they are.

        In this order: mask, bias, penalties (repetition over all of the history; frequency and presence over its
        output), temperature, min_p, top_k, top_p (of what top_k left, the lower id first among equals), draw.

        Args:
            temperature: [R] 0 takes the greatest logit, the lowest id among equals.
            top_k: [R] 0 or below keeps all.
            top_p: [R] above 0; 1 keeps all.
            min_p: [R] 0 keeps all.
            repetition_penalty: [R] above 0; 1 for none.
            presence_penalty: [R] 0 for none.
            frequency_penalty: [R] 0 for none.
            seeds: [R] the draw depends on (seed, position) alone.
            positions: [R] position of the token to be drawn.
            history_offsets: [R + 1] tokens so far of row r: history_ids[history_offsets[r]:history_offsets[r + 1]];
                may be empty for a row without penalties.
            history_ids: prompt and output tokens of all rows.
            output_starts: [R] where the output begins, counted from the beginning of the row's history.
            bias_offsets: [R + 1] parts of bias_ids and bias_values.
            bias_ids: tokens whose logits are raised by bias_values.
            bias_values: finite.
            mask: [R, ceil(V / 32)] bit i of word w allows token 32 w + i; None allows all.

        Returns:
            [R] token ids; -1 for a row whose logits hold NaN or that allows nothing.
        """

    def log_probs(
        self, rows: npt.NDArray[np.int32], token_ids: npt.NDArray[np.int32], top: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The log-softmax of `rows` of the last forward's logits, in nats (NaN if a logit is): of one token of each,
        then ids and values of its `top` (up to 64) likeliest, [Q, top], the lower id first among equals."""

    def logits(self) -> npt.NDArray[np.float32]:
        """[R, V] a copy of the last forward's logits."""

class StringTable:
    """An immutable sequence of strings, in one block of memory. Bytes that are no UTF-8 are surrogate escapes.

    Args:
        strings: at most 2^32 - 2 of them, if they are to be searched.

    Raises:
        ValueError: a string holds halves of surrogate pairs.
    """

    def __init__(self, strings: Sequence[str]) -> None: ...
    @staticmethod
    def read(data: Buffer, offset: int, end: int, count: int, max_bytes: int) -> tuple[StringTable, int]:
        """Reads strings as GGUF files write them, each a little-endian u64 length and its bytes, from
        data[offset:end]; returns them and where the next one would begin.

        It stops, with fewer than `count`, before one that goes beyond `end` or is longer than `max_bytes`.
        """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> str: ...
    def to_list(self) -> list[str]:
        """All strings."""

    @property
    def longest_bytes(self) -> int:
        """Bytes of the longest string; 0 if there is none."""

    @property
    def longest_characters(self) -> int:
        """Characters of the longest string."""

class StringIndex:
    """Finds strings of a table.

    Raises:
        ValueError: the strings were chosen to have equal hashes.
    """

    def __init__(self, table: StringTable) -> None: ...
    def find(self, text: str) -> int | None:
        """The first string that is `text`."""

    @property
    def duplicate(self) -> tuple[int, int] | None:
        """Two strings of the table that are the same."""

def find_bad_merge(merges: StringTable) -> int | None:
    """The first merge that is no pair: two parts that are not empty, with a space between, in UTF-8."""

class BytePairEncoder:
    """Byte-level BPE over words that are split already. Immutable; any thread may use it.

    Args:
        tokens: written in GPT-2's alphabet of bytes.
        index: of `tokens`.
        merges: the first one merges first; parts and results need not be tokens.
        is_usable: a byte for each token; text never becomes one where it is 0.
        keeps_whole_words: a word that is a token is taken as it is, without merging.

    Raises:
        ValueError: a merge that is no pair, or merges that were chosen to have equal hashes.
    """

    def __init__(
        self, tokens: StringTable, index: StringIndex, merges: StringTable, is_usable: Buffer, keeps_whole_words: bool
    ) -> None: ...
    def encode(self, units: Buffer) -> list[int]:
        """The ids of a text, given as uint16: its bytes, plus 256 for each that does not begin a word."""

    @property
    def num_missing_bytes(self) -> int:
        """Bytes that are no token by themselves; they are left out of texts."""

    @property
    def first_unnamed(self) -> str | None:
        """The first text of several characters that the merges name and that is no usable token."""
