"""The quick way from a file to a pipeline, for processes that have imported little yet."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

from corral.config import EngineConfig
from corral.worker.opening import OnPlan, OnProgress, open_model

if TYPE_CHECKING:
    from corral.worker.pipeline import Pipeline


def load_pipeline(
    path: Path, config: EngineConfig, on_progress: OnProgress | None = None, on_plan: OnPlan | None = None
) -> Pipeline:
    """Pipeline.load, sooner: the first load of a process also imports the engine, beside which the core builds the
    tokenizer without the GIL."""
    with open_model(path) as model:
        from corral.worker.pipeline import Pipeline

        pipeline = Pipeline.of(model, config, on_progress, on_plan)
    _trim_heap()
    return pipeline


def _trim_heap() -> None:
    """What the load needed for a while goes back to the system: glibc would keep it, 10 MB of a large vocabulary."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none, and keep less
    if trim is not None:
        trim(0)
