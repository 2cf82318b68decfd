"""Makes tests/golden/checkpoints.npz anew, the logits of transformers itself:

pip install '.[test]' torch transformers && python -m tests.support.regenerate_checkpoint_golden
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from tests.support.random_checkpoints import CONFIGS, GOLDEN, random_ids, write_checkpoint


def main() -> None:
    """Loads each checkpoint as transformers does, and keeps what it answers: f32[LENGTH, vocabulary]."""
    arrays = {}
    for name in CONFIGS:
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Path(folder), name)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
            with torch.no_grad():
                logits = model(torch.tensor([random_ids()])).logits[0]
        arrays[name] = logits.numpy()[::4]
        print(name, "spread", float(logits.std()))
    np.savez_compressed(GOLDEN, **{name: array.astype(np.float32) for name, array in arrays.items()})


if __name__ == "__main__":
    main()
