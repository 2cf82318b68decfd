"""Sequences that share blocks read them together; every logit is the same bits as with blocks of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from tests.native.tiny_model import F32, Q8_0_TYPE, Shape, build_model, random_weights

from corral import _native

FLOAT = Shape(num_heads=6, rope_style="half", num_layers=1, layer_is_local=(False,), hidden_size=32, vocab_size=40)
LOCAL = FLOAT.with_(
    num_layers=2, layer_is_local=(True, False), sliding_window=150, has_local_rope=True, attn_softcap=5.0
)
QUANTISED = FLOAT.with_(weight_type=Q8_0_TYPE, num_heads=4, num_kv_heads=1)
SHAPES = {"float": FLOAT, "local": LOCAL, "quantised": QUANTISED}
DTYPES = ["f16", "int8"]
MAX_TOKENS = 512


@dataclass(frozen=True)
class Node:
    """A sequence whose first `cut` tokens, whole blocks, are those of an earlier one."""

    tokens: list[int]
    parent: int
    cut: int


def random_tree(rng: np.random.Generator, vocab_size: int, count: int, longest: int) -> list[Node]:
    nodes: list[Node] = []
    for index in range(count):
        parent = int(rng.integers(0, index)) if index and rng.random() < 0.85 else -1
        inherited = nodes[parent].tokens if parent >= 0 else []
        cut = int(rng.integers(0, len(inherited) // 16 + 1)) * 16
        own = rng.integers(0, vocab_size, int(rng.integers(1, longest)))
        nodes.append(Node(inherited[:cut] + [int(i) for i in own], parent, cut))
    return nodes


def block_tables(nodes: list[Node], *, share: bool) -> tuple[list[list[int]], int]:
    """Tables with room for some tokens more, on shuffled blocks, and how many blocks they take."""
    lengths = [-(-(len(node.tokens) + 32) // 16) for node in nodes]
    shuffled = iter(np.random.default_rng(5).permutation(sum(lengths)).tolist())
    tables: list[list[int]] = []
    for node, length in zip(nodes, lengths, strict=True):
        table = list(tables[node.parent][: node.cut // 16]) if share and node.parent >= 0 else []
        tables.append(table + [next(shuffled) for _ in range(length - len(table))])
    return tables, sum(lengths)


def forward(decoder: _native.Decoder, parts: list[tuple[list[int], int, list[int]]]) -> list[F32]:
    """Logits of all tokens of each (tokens, start, block table)."""
    lengths = [len(tokens) for tokens, _, _ in parts]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    tables = np.zeros((len(parts), max(len(table) for _, _, table in parts)), np.int32)
    for row, (_, _, table) in enumerate(parts):
        tables[row, : len(table)] = table
    decoder.forward(
        np.concatenate([np.array(tokens, np.int32) for tokens, _, _ in parts]),
        offsets,
        np.array([start for _, start, _ in parts], np.int32),
        tables,
        np.arange(offsets[-1], dtype=np.int32),
    )
    return np.split(decoder.logits(), offsets[1:-1])


def run_tree(
    shape: Shape, nodes: list[Node], seed: int, *, share: bool, num_threads: int = 1, dtype: str = "f16"
) -> list[list[F32]]:
    """Feeds the prompts one by one, then all together in steps of some tokens each: the logits of those steps."""
    tables, num_blocks = block_tables(nodes, share=share)
    model = build_model(shape, random_weights(shape), num_threads)
    decoder = _native.Decoder(model, _native.KVCache(model, num_blocks, dtype), MAX_TOKENS, 64)
    for node, table in zip(nodes, tables, strict=True):
        first = node.cut if share else 0
        for start in range(first, len(node.tokens), MAX_TOKENS):
            forward(decoder, [(node.tokens[start : start + MAX_TOKENS], start, table)])
    rng = np.random.default_rng(seed)
    starts = [len(node.tokens) for node in nodes]
    found = []
    for most in (1, 1, 4):
        counts = rng.integers(1, most + 1, len(nodes))
        parts = [
            ([int(i) for i in rng.integers(0, shape.vocab_size, count)], starts[index], tables[index])
            for index, count in enumerate(counts)
        ]
        found.append(forward(decoder, parts))
        starts = [start + int(count) for start, count in zip(starts, counts, strict=True)]
    return found


def assert_same(found: list[list[F32]], wanted: list[list[F32]], message: str = "") -> None:
    for step, (left, right) in enumerate(zip(found, wanted, strict=True)):
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            np.testing.assert_array_equal(a, b, err_msg=f"{message} step {step}, sequence {index}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_shared_and_own_blocks_give_the_same_bits(name: str, seed: int, dtype: str) -> None:
    shape = SHAPES[name]
    nodes = random_tree(np.random.default_rng(seed), shape.vocab_size, 12, 450)
    wanted = run_tree(shape, nodes, seed, share=False, dtype=dtype)
    for num_threads in (1, 2, 4):
        found = run_tree(shape, nodes, seed, share=True, num_threads=num_threads, dtype=dtype)
        assert_same(found, wanted, f"{num_threads} threads")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sharers", [2, 33, 64])
def test_many_sequences_share_one_prompt(sharers: int, dtype: str) -> None:
    rng = np.random.default_rng(sharers)
    prompt = [int(i) for i in rng.integers(0, 40, 352)]
    nodes = [Node(prompt, -1, 0)]
    nodes += [Node(prompt + [int(i) for i in rng.integers(0, 40, 1 + i % 40)], 0, 352) for i in range(1, sharers)]
    wanted = run_tree(FLOAT, nodes, 1, share=False, dtype=dtype)
    assert_same(run_tree(FLOAT, nodes, 1, share=True, num_threads=2, dtype=dtype), wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_isa_gives_the_same_bits(dtype: str) -> None:
    nodes = random_tree(np.random.default_rng(9), LOCAL.vocab_size, 10, 400)
    info = _native.cpu_info()
    results = {}
    try:
        for isa in info["isas"]:
            _native.select_isa(isa)
            results[isa] = run_tree(LOCAL, nodes, 9, share=True, num_threads=2, dtype=dtype)
    finally:
        _native.select_isa(info["isa"])
    for isa, logits in results.items():
        assert_same(logits, results["scalar"], isa)
