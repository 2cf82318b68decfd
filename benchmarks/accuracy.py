"""How exact Corral's and llama.cpp's logits are: KL over the whole vocabulary to an f32 decoder in NumPy.

    pip install '.[reference,test]' && python -m benchmarks.accuracy [MODEL ...] [--length 300]

Takes the real models of the tests and the prompts of their goldens. Prints a Markdown table and writes it to
benchmarks/results/. The f32 decoder dequantises the same file, so only arithmetic is compared: activations rounded to
int8, sums, keys and values in f16.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import numpy as np
from benchmarks.divergence import compare, join, show_kl
from benchmarks.machine import machine_name
from tests.support import llama_reference
from tests.support.golden import GOLDEN_FOLDER, Golden, best_and_margin
from tests.support.llama_reference import LlamaModel
from tests.support.models import MODELS, model_path
from tests.support.native_runner import NativeRunner
from tests.support.reference_model import ReferenceModel

from corral import _native

RESULTS = Path(__file__).parent / "results"
HEAD = (
    "| model | tokens | KL f32 -> Corral | KL f32 -> llama.cpp | KL llama.cpp -> Corral "
    "| rms of logits: Corral | llama.cpp | best token as f32: Corral | llama.cpp | Corral as llama.cpp, clear |"
)


def row_of(name: str, length: int) -> str:
    """One line of the table."""
    ids = Golden.load(GOLDEN_FOLDER / f"{name}.npz").prompts[length].token_ids.tolist()
    path = model_path(name)
    corral = join(NativeRunner(path).logits(ids))
    with LlamaModel(path) as model:
        llama = join(model.logits(ids))
    exact = ReferenceModel(path).logits(ids)
    everywhere = np.ones(len(ids), np.bool_)
    own, rival = compare(exact, corral, everywhere), compare(exact, llama, everywhere)
    mutual = compare(llama, corral, best_and_margin(llama)[1] > 0.1)
    return (
        f"| {name} | {length} | {show_kl(own)} | {show_kl(rival)} | {show_kl(mutual)} | {own.rms:.4f} "
        f"| {rival.rms:.4f} | {own.same:.1%} | {rival.same:.1%} | {mutual.same:.1%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"default: {', '.join(MODELS)}")
    parser.add_argument("--length", type=int, default=300, choices=(1, 17, 300, 1500), help="tokens of the prompt")
    options = parser.parse_args()
    names = options.models or list(MODELS)
    if unknown := sorted(set(names) - set(MODELS)):
        parser.error(f"unknown model {', '.join(unknown)}; known are {', '.join(MODELS)}")
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    lines = [HEAD, "|---" * (HEAD.count("|") - 1) + "|"]
    for name in names:
        lines.append(row_of(name, options.length))
        print(lines[-1], flush=True)
    text = "\n".join(
        [
            f"# Logits beside an f32 decoder, {today}",
            "",
            f"Corral: {_native.cpu_info()['isa']} kernels. Rival: {llama_reference.version()}",
            f"({llama_reference.SETTINGS}).",
            "KL: mean over all positions (median in brackets), of the whole vocabulary, in nats; `clear`: positions "
            "where llama.cpp's best token leads by more than 0.1. Made by `python -m benchmarks.accuracy`.",
            "The first position of the 1.5B model has activations that int8 holds badly; it makes the mean there.",
            "",
            *lines,
            "",
        ]
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"accuracy-{machine_name()}-{options.length}-{today}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
