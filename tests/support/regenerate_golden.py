"""Makes tests/golden/logits anew: `pip install '.[reference,test]' && python -m tests.support.regenerate_golden`.

Needs llama-cpp-python and the real models (fetched like the e2e tests do); takes some ten minutes and 10 GB.
Give model names to make only those, as `python -m tests.support.regenerate_golden llama-yarn smollm2-135m`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import numpy as np

from tests.support import llama_reference
from tests.support.golden import (
    GOLDEN_FOLDER,
    FloatArray,
    Golden,
    PromptGolden,
    best_and_margin,
    make_prompt_golden,
)
from tests.support.llama_reference import LlamaModel
from tests.support.models import MODELS, model_path
from tests.support.random_adapters import ADAPTERS, write_zoo_adapter
from tests.support.random_models import PROMPT_LENGTHS, ZOO, file_digest, random_prompt, write_zoo_model
from tests.support.reference_model import ReferenceModel

GREEDY_FILE = GOLDEN_FOLDER / "greedy.json"
GREEDY_TOKENS = 48
GREEDY_PROMPTS = (
    "The three largest oceans of the Earth are",
    "def fibonacci(n):\n    ",
    "Question: Why is the sky blue?\nAnswer:",
)


class CachedReference(ReferenceModel):
    """Dequantises each tensor once; the four prompts share it. An adapter is merged into the weights."""

    def __init__(self, path: Path, adapter: Path | None = None) -> None:
        super().__init__(path)
        self._weights: dict[str, FloatArray] = {}
        self._deltas = {} if adapter is None else read_deltas(adapter)

    def weight(self, name: str) -> FloatArray:
        if name not in self._weights:
            self._weights[name] = super().weight(name) + self._deltas.get(name, np.float32(0))
        return self._weights[name]


def read_deltas(adapter: Path) -> dict[str, FloatArray]:
    """Name of a tensor -> what the adapter adds to it: f32[rows, cols]."""
    reader = gguf.GGUFReader(adapter)
    halves = {tensor.name: tensor.data.astype(np.float64) for tensor in reader.tensors}
    field = reader.fields.get("adapter.lora.alpha")
    alpha = float(field.contents()) if field else 0.0
    deltas = {}
    for name, a in halves.items():
        if name.endswith(".lora_a"):
            base = name.removesuffix(".lora_a")
            scale = alpha / len(a) if alpha else 1.0
            deltas[base] = (scale * halves[base + ".lora_b"] @ a).astype(np.float32)
    return deltas


def real_prompt(model: LlamaModel, length: int) -> list[int]:
    """`length` tokens of prompt.txt (a window of its own for each length), after BOS if the file asks for one."""
    ids = model.encode((GOLDEN_FOLDER / "prompt.txt").read_text(encoding="utf-8"))
    has_bos = ids[0] != model.encode("The")[-1]
    head, body = (ids[:1], ids[1:]) if has_bos else ([], ids)
    count = length - len(head)
    if count > len(body):
        raise ValueError(f"prompt.txt has {len(body)} tokens; {count} are needed")
    start = {17: 200, 300: len(body) - count}.get(length, 0)
    return head + body[start : start + count]


def make_golden(name: str, path: Path, adapter: Path | None = None) -> Golden:
    """The golden of the model file `path`, a key of ZOO or of MODELS, or of one of ZOO with an adapter."""
    info = {"engine": llama_reference.version(), "settings": llama_reference.SETTINGS, "sha256": file_digest(path)}
    if adapter is not None:
        info["adapter_sha256"] = file_digest(adapter)
    reference = CachedReference(path, adapter)
    prompts: dict[int, PromptGolden] = {}
    with LlamaModel(path, adapter=adapter) as llama:
        for length in PROMPT_LENGTHS:
            ids = random_prompt(name, length) if name in ZOO else real_prompt(llama, length)
            prompts[length] = make_prompt_golden(ids, llama.logits(ids), reference.logits(ids))
    return Golden(info, prompts)


def make_greedy(path: Path) -> list[dict[str, object]]:
    """llama.cpp's greedy continuation of each prompt, with the lead of each token it chose."""
    answers: list[dict[str, object]] = []
    with LlamaModel(path) as llama:
        for prompt in GREEDY_PROMPTS:
            prompt_ids = llama.encode(prompt)
            llama.reset()
            chosen: list[int] = []
            margins: list[float] = []
            logits = llama.step(prompt_ids, 0)
            while len(chosen) < GREEDY_TOKENS:
                best, margin = best_and_margin(logits[-1:])
                chosen.append(int(best[0]))
                margins.append(round(float(margin[0]), 4))
                logits = llama.step(chosen[-1:], len(prompt_ids) + len(chosen) - 1)
            answers.append({"prompt": prompt, "prompt_ids": prompt_ids, "ids": chosen, "margins": margins})
    return answers


@contextmanager
def model_file(name: str) -> Iterator[Path]:
    """The file of a real model, or of a model of the zoo, written for the moment."""
    if name in MODELS:
        yield model_path(name)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield write_zoo_model(name, Path(folder))


def main() -> None:
    known = [*ZOO, *ADAPTERS, *MODELS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="MODEL", help=f"default: all of {', '.join(known)}")
    names = parser.parse_args().names or known
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"unknown model {', '.join(unknown)}; known are {', '.join(known)}")

    greedy = json.loads(GREEDY_FILE.read_text(encoding="utf-8")) if GREEDY_FILE.exists() else {}
    for name in names:
        base = ADAPTERS[name][0] if name in ADAPTERS else name
        with model_file(base) as path:
            adapter = write_zoo_adapter(name, path.parent) if name in ADAPTERS else None
            golden = make_golden(base, path, adapter)
            if name in MODELS:
                greedy[name] = make_greedy(path)
        golden.save(GOLDEN_FOLDER / f"{name}.npz")
        summary = ", ".join(
            f"{length}: {np.mean(prompt.clear):.0%} clear, llama.cpp KL {prompt.llama_divergence.mean():.1e}"
            for length, prompt in golden.prompts.items()
        )
        print(f"{name}: {summary}", flush=True)
    GREEDY_FILE.write_text(json.dumps(dict(sorted(greedy.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
