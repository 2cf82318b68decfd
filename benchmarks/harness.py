"""What programs do alike that run for long: options, messages, result files, an orderly end."""

from __future__ import annotations

import argparse
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
MIN_REPEATS = 5  # what a median should have


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


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Those that say how long a run takes and where its result goes."""
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--repeats", type=int, default=MIN_REPEATS, help=f"turns of each (default {MIN_REPEATS})")
    parser.add_argument("--max-minutes", type=float, default=60, help="no repeat is begun that would pass this (60)")
    parser.add_argument("--note", help="goes into the machine card; say how the rivals were built")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")


def check_common_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends the program with a message if one of them makes no sense."""
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; it must be at least 1")
    if not options.model.is_file():
        parser.error(f"--model {options.model} is not a file")
