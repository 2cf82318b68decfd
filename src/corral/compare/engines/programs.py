"""Where engines are on this machine, and what they say of themselves."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corral.compare.engines import installed
from corral.compare.engines.engine import EngineMissing
from corral.compare.process import child_environment
from corral.config import said_in_environment

_ASK_S = 60.0


def find_program(engine: str, name: str, given: Path | None, inside: Sequence[str] = ()) -> Path | None:
    """What the user gave (a program, or a folder with it), else that of CORRAL_COMPARE_<NAME>, else that on PATH.

    Args:
        engine: for errors.
        name: of the program.
        inside: where in an environment's folder it may be besides bin/, as patterns.

    Raises:
        EngineMissing: nothing is there where the user said.
    """
    variable = f"CORRAL_COMPARE_{name.upper().replace('-', '_')}"
    where = f"--engine-path {engine}={given}" if given else variable
    said = said_in_environment(variable)
    if (place := given or (Path(said[1]).expanduser() if said else None)) is None:
        on_path = shutil.which(name)
        return Path(on_path) if on_path else None
    place = place.absolute()
    if place.is_dir():
        for pattern in (name, f"bin/{name}", *inside):
            if found := next(iter(sorted(place.glob(pattern))), None):
                return found
        raise EngineMissing(f"{where}: no {name} in that folder or its bin/")
    if not place.is_file():
        raise EngineMissing(f"{where}: there is no such file")
    return place


def ask(argv: Sequence[str]) -> str:
    """What a program prints, on both streams. Raises EngineMissing where it cannot be run, or fails."""
    name = Path(argv[0]).name
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=_ASK_S,
            env=child_environment({}), check=False,
        )  # fmt: skip
    except OSError as error:
        raise EngineMissing(f"{name} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise EngineMissing(f"{name} says nothing of its version in {_ASK_S:.0f} s") from error
    text = f"{done.stdout}\n{done.stderr}".strip()
    if done.returncode != 0:
        last = " / ".join(text.splitlines()[-2:])[-300:]
        raise EngineMissing(f"{name} cannot be run: it ended with code {done.returncode}: {last or 'it said nothing'}")
    return text


def python_of(program: Path) -> Path | None:
    """Of the environment that a program lies in; None if it lies in none."""
    python = program.parent / "python"
    return python if python.exists() else None


def ask_installed(python: Path, names: Sequence[str]) -> dict[str, Any]:
    """As installed.installed() of another interpreter, with "others". Raises EngineMissing."""
    text = ask([str(python), "-I", str(Path(installed.__file__)), *names])
    try:
        told = json.loads(text.splitlines()[0])
    except (ValueError, IndexError) as error:
        raise EngineMissing(f"the environment of {' or '.join(names)} does not tell what it has") from error
    return told if isinstance(told, dict) else {}
