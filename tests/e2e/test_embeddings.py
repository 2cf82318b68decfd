"""Embeddings bit by bit, whatever computes them; and those of the real all-MiniLM-L6-v2, a wheel of which exists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from corral import _native
from corral.llm import LLM
from corral.model.architectures import read_config
from corral.model.gguf import open_gguf
from corral.model.plan import packed_weight_bytes
from corral.model.weights import load_model
from corral.text.tokenizer import Tokenizer
from tests.support.embedding_zoo import EMBEDDING_ZOO, write_embedding_model
from tests.support.minilm import berts_tokenizer, minilm_path
from tests.text.corpus import TEXTS, random_texts

ISAS = tuple(_native.cpu_info()["isas"])
# The first values of "why is the sky blue?" that Ollama's own tests expect of all-minilm.
SKY = (0.010071031, -0.0017594866, 0.050072223, 0.046929732, 0.05491682)


QUICK = ("bert-q8_0", "nomic", "gemma-embedding")  # the others are computed in the same ways


def prompts(vocab_size: int) -> list[list[int]]:
    rng = np.random.default_rng(7)
    return [[int(i) for i in rng.integers(0, vocab_size, length)] for length in (1, 270, 17, 2)]


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in EMBEDDING_ZOO]
)
def test_no_machine_and_no_company_shows_in_the_bits(name: str, tmp_path: Path) -> None:
    path = write_embedding_model(name, tmp_path)
    found: list[npt.NDArray[np.float32]] = []
    settings = [(isa, 1, 512) for isa in ISAS] + [(ISAS[-1], 3, 512), (ISAS[-1], 2, 24)]
    for isa, num_threads, max_tokens in settings:
        options = {"isa": isa, "num_threads": num_threads, "max_num_batched_tokens": max_tokens, "max_num_seqs": 8}
        with LLM(path, cache_weights=False, max_model_len=500, **options) as llm:
            texts = prompts(EMBEDDING_ZOO[name].vocab_size)
            found.append(np.stack(llm.embed(texts)))
            if isa != "scalar":
                found.append(np.stack([llm.embed([text])[0] for text in texts]))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.fixture(scope="module")
def minilm() -> Iterator[LLM]:
    with LLM(minilm_path(), num_threads=2) as llm:
        yield llm


@pytest.mark.e2e
def test_minilm_gives_the_known_values(minilm: LLM) -> None:
    [vector] = minilm.embed("why is the sky blue?")
    assert len(vector) == 384
    np.testing.assert_allclose(vector[:5], SKY, atol=2e-4)


@pytest.mark.e2e
def test_minilm_knows_what_is_alike(minilm: LLM) -> None:
    horse, pony, tax = minilm.embed(
        ["A horse runs in the field", "The pony gallops over a meadow", "Income tax is due"]
    )
    assert horse @ pony > 0.5 > 0.2 > horse @ tax


@pytest.mark.e2e
def test_minilm_has_berts_tokens() -> None:
    with open_gguf(minilm_path()) as file:
        tokenizer = Tokenizer.from_metadata(file.metadata)
    bert = berts_tokenizer()
    for text in (*TEXTS, *random_texts(400, 20240229)):
        assert tokenizer.encode(text, add_special=True, parse_special=False) == bert.encode(text).ids, text


@pytest.mark.e2e
def test_minilm_takes_the_memory_that_the_plan_says() -> None:
    with open_gguf(minilm_path()) as file:
        config = read_config(file)
        planned = packed_weight_bytes(file, config)
        packed = load_model(file, config, 2).packed_bytes
    assert packed <= planned <= 1.01 * packed
