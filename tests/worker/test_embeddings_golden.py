"""Embeddings of every family beside llama.cpp's, which are in tests/golden/embeddings.npz.

llama.cpp computes GELU by its tanh form in f16, Corral by erf, as the models were trained: with float weights that is
the difference that is left.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from corral.llm import LLM
from tests.support.embedding_zoo import EMBEDDING_ZOO, IS_FLOAT, load_golden, prompts_of, write_embedding_model
from tests.support.random_models import file_digest


@pytest.mark.parametrize("name", EMBEDDING_ZOO)
def test_vectors_agree_with_llama_cpp(name: str, tmp_path: Path) -> None:
    path = write_embedding_model(name, tmp_path)
    digest, wanted = load_golden(name)
    assert file_digest(path) == digest, "the writer has drifted; make the golden anew"
    with LLM(path, num_threads=2, cache_weights=False) as llm:
        got = np.stack(llm.embed(prompts_of(name)))
    cosines = (got.astype(np.float64) * wanted).sum(axis=1)
    assert cosines.min() > (0.9999 if IS_FLOAT[name] else 0.999), cosines
