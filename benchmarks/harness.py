"""What programs do alike that run for long: messages, result files, an orderly end."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.machine import machine_name

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RESULTS = Path(__file__).parent / "results"


def say(text: str) -> None:
    """Progress, to stderr."""
    print(text, file=sys.stderr, flush=True)


def unwind_on_sigterm() -> None:
    """Makes SIGTERM end the program like Ctrl-C, so that the processes it has started end too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def write_result(folder: Path, stem: str, run: DataclassInstance, page: str) -> None:
    """Writes <machine>-<stem>.json and .md into `folder`, in place of older ones."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{machine_name()}-{stem}"
    path.with_name(f"{path.name}.json").write_text(json.dumps(asdict(run), indent=1) + "\n", encoding="utf-8")
    path.with_name(f"{path.name}.md").write_text(page, encoding="utf-8")
