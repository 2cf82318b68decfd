"""A GGUF file as bf16 safetensors, for engines that read no GGUF: run by the interpreter of their environment.

    python -I dequantize.py MODEL.gguf FOLDER

The folder is there when it is whole, or not at all. It imports nothing of Corral's.
"""

from __future__ import annotations

import sys
from pathlib import Path


def dequantize(source: Path, target: Path) -> None:
    """Weights, tokenizer and chat template of the same file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    more = {}
    try:
        from transformers import GgufConfig

        more["quantization_config"] = GgufConfig(dequantize=True)  # newer ones keep quantised weights without it
    except ImportError:
        pass
    unfinished = target.with_name(target.name + ".unfinished")
    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(
        str(source.parent), gguf_file=source.name, dtype=torch.bfloat16, **more
    ).to(torch.bfloat16)
    if hasattr(model.config, "quantization_config"):  # it would be read as a quantised model
        del model.config.quantization_config
        model.hf_quantizer = None
        model.is_quantized = False
    model.save_pretrained(str(unfinished))
    tokenizer.save_pretrained(str(unfinished))
    unfinished.rename(target)


if __name__ == "__main__":
    dequantize(Path(sys.argv[1]), Path(sys.argv[2]))
