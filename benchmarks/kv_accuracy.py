"""What int8 keys and values cost in accuracy: KL of the logits to those of the same model with an f16 cache.

    pip install '.[test]' && python -m benchmarks.kv_accuracy [MODEL ...] [--length 300]

Takes the real models of the tests and the prompts of their goldens, in steps of 512 tokens. Prints a Markdown table and
writes it to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import numpy as np
from benchmarks.divergence import compare, join, show_kl
from benchmarks.machine import machine_name
from tests.support.golden import GOLDEN_FOLDER, Golden, best_and_margin
from tests.support.models import MODELS, model_path
from tests.support.native_runner import NativeRunner

from corral import _native

RESULTS = Path(__file__).parent / "results"
HEAD = "| model | tokens | KL f16 -> int8 | rms of logits | same best token | same, clear | bytes a token: f16 | int8 |"


def row_of(name: str, length: int) -> str:
    """One line of the table."""
    ids = Golden.load(GOLDEN_FOLDER / f"{name}.npz").prompts[length].token_ids.tolist()
    logits, sizes = {}, []
    for dtype in ("f16", "int8"):
        runner = NativeRunner(model_path(name), kv_dtype=dtype)
        logits[dtype] = join(runner.logits(ids))
        sizes.append(f"{runner.config.kv_bytes_per_token(dtype):,}")
    everywhere = compare(logits["f16"], logits["int8"], np.ones(length, np.bool_))
    clear = compare(logits["f16"], logits["int8"], best_and_margin(logits["f16"])[1] > 0.1)
    return (
        f"| {name} | {length} | {show_kl(everywhere)} | {everywhere.rms:.4f} | {everywhere.same:.1%} "
        f"| {clear.same:.1%} | {' | '.join(sizes)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"default: {', '.join(MODELS)}")
    parser.add_argument("--length", type=int, default=300, choices=(17, 300, 1500), help="tokens of the prompt")
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
            f"# Int8 keys and values beside f16, {today}",
            "",
            f"The same model twice, {_native.cpu_info()['isa']} kernels; only the KV cache differs.",
            "KL: mean over all positions (median in brackets), of the whole vocabulary, in nats; `clear`: positions "
            "where the best token with f16 leads by more than 0.1. Made by `python -m benchmarks.kv_accuracy`.",
            "",
            *lines,
            "",
        ]
    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"kv-accuracy-{machine_name()}-{options.length}-{today}.md"
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
