"""Makes tests/golden/embeddings.npz and wordpiece.json anew: `python -m tests.support.regenerate_embeddings`.

Needs the `reference` and `test` extras; takes some seconds.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from tests.support import llama_reference
from tests.support.embedding_zoo import (
    EMBEDDING_ZOO,
    GOLDEN_FILE,
    pooling_of,
    prompts_of,
    save_golden,
    write_embedding_model,
)
from tests.support.encoder_writer import write_tiny_encoder
from tests.support.llama_embeddings import llama_embeddings
from tests.support.random_models import file_digest
from tests.support.regenerate_tokenizer_golden import LlamaVocabulary
from tests.text.corpus import TEXTS

WORDPIECE_FILE = GOLDEN_FILE.with_name("wordpiece.json")


def write_wordpiece_golden() -> None:
    """llama.cpp's tokens of the corpus on the toy vocabulary, as digests."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = LlamaVocabulary(write_tiny_encoder(Path(folder) / "tiny.gguf"))
        encoded = [json.dumps(tokenizer.encode(text, True, False)).encode() for text in TEXTS]
    digests = [hashlib.sha256(ids).hexdigest()[:16] for ids in encoded]
    golden = {"reference": llama_reference.version().partition(";")[0], "digests": digests}
    WORDPIECE_FILE.write_text(json.dumps(golden, indent=1) + "\n")


def main() -> None:
    write_wordpiece_golden()
    vectors = {}
    for name in EMBEDDING_ZOO:
        with tempfile.TemporaryDirectory() as folder:
            path = write_embedding_model(name, Path(folder))
            vectors[name] = file_digest(path), llama_embeddings(path, prompts_of(name), pooling_of(name))
        print(name, flush=True)
    save_golden(llama_reference.version(), vectors)


if __name__ == "__main__":
    main()
