"""Makes tests/golden/embeddings.npz anew: `pip install '.[reference,test]'`, then run this module with python -m.

Needs llama-cpp-python; takes some seconds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.support import llama_reference
from tests.support.embedding_zoo import EMBEDDING_ZOO, pooling_of, prompts_of, save_golden, write_embedding_model
from tests.support.llama_embeddings import llama_embeddings
from tests.support.random_models import file_digest


def main() -> None:
    vectors = {}
    for name in EMBEDDING_ZOO:
        with tempfile.TemporaryDirectory() as folder:
            path = write_embedding_model(name, Path(folder))
            vectors[name] = file_digest(path), llama_embeddings(path, prompts_of(name), pooling_of(name))
        print(name, flush=True)
    save_golden(llama_reference.version(), vectors)


if __name__ == "__main__":
    main()
