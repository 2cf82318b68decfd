"""The import law of docs/architecture.md, held by a walk over every import statement."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "corral"
NOUNS = {
    "errors",
    "limits",
    "config",
    "sampling_params",
    "request",
    "histogram",
    "model_parameters",
    "grammar",
    "tool_call",
    "logs",
}

# Room -> rooms of Corral that it may import, besides itself and the nouns.
ALLOWED: dict[str, set[str]] = {
    **{noun: set() for noun in NOUNS},
    "_native": set(),
    "model": {"_native"},
    "text": {"_native"},  # takes a plain mapping of metadata
    "engine": {"_native", "model"},
    "worker": {"model", "text", "engine"},
    "llm": {"worker", "store"},
    "store": {"model.gguf", "model.convert", "model.quantize", "text.templates"},  # the last three for create alone
    "protocol": set(),
    "server": {"protocol", "worker", "model", "store"},
    "compare": set(),  # talks HTTP only
    "cli": {"server", "protocol", "worker", "model", "store", "compare", "text"},
    "__init__": {"llm"},
    "__main__": {"cli"},
}
INTS_ONLY = {"engine/sequence.py", "engine/block_pool.py", "engine/scheduler.py", "engine/budget.py"}
TOUCH_NATIVE = {
    *("engine/embedding_runner.py", "engine/logprobs.py", "engine/model_runner.py", "engine/sampler.py"),
    *("model/adapter.py", "model/cpu.py", "model/weights.py"),
    *("model/gguf.py", "model/gguf_reader.py", "model/metadata.py", "model/quantize.py"),
    *("text/byte_level.py", "text/vocabulary.py"),
}


def source_files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module name that a file imports, at any depth; names bound by `from corral import x` too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "corral":
                yield from (f"corral.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", source_files(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_room_imports_only_the_rooms_below_it(path: Path) -> None:
    room = room_of(path)
    assert room in ALLOWED, f"{path}: {room} is a new room; give it a place in the law"
    for name in imports(path):
        if not name.startswith("corral.") or name == "corral.__version__":
            continue
        target = name.removeprefix("corral.")
        head = target.split(".")[0]
        may = head in NOUNS or head == room or any(target == a or target.startswith(a + ".") for a in ALLOWED[room])
        assert may, f"{path.relative_to(SOURCE)} imports {name}; {room} may import {sorted(ALLOWED[room] | NOUNS)}"


@pytest.mark.parametrize("name", sorted(INTS_ONLY))
def test_the_schedulers_core_needs_no_compiler(name: str) -> None:
    for imported in imports(SOURCE / name):
        assert imported.split(".")[0] != "numpy", name
        assert imported != "corral._native", name


def test_only_a_few_files_touch_native_code() -> None:
    touching = {
        str(path.relative_to(SOURCE))
        for path in source_files()
        if any(name == "corral._native" or name.startswith("corral._native.") for name in imports(path))
        and room_of(path) in {"engine", "model", "text", "worker", "server"}
    }
    assert touching <= TOUCH_NATIVE


def test_no_pickle_crosses_a_process() -> None:
    banned = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve"}
    for path in source_files():
        assert not banned & {name.split(".")[0] for name in imports(path)}, path


def test_the_environment_is_read_in_config_only() -> None:
    for path in source_files():
        if path.name != "config.py" or path.parent != SOURCE:
            assert not re.search(r"os\.(environ\.get|getenv)", path.read_text()), f"{path}: read it in config.py"


def test_no_wait_loses_a_cancellation() -> None:
    """As asyncio.wait_for does in Python 3.11, when what it waits for ends in the same turn of the loop."""
    for path in source_files():
        assert "asyncio.wait_for(" not in path.read_text(), f"{path}: write `async with asyncio.timeout(...)`"
