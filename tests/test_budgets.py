"""A file that outgrows 400 lines has two subjects: split it at the noun."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_LINES = 400
FOLDERS = {"src": ("*.py", "*.pyi"), "native": ("*.cc", "*.h", "*.inl"), "tests": ("*.py",), "benchmarks": ("*.py",)}


def budgeted_files() -> list[Path]:
    return sorted(path for folder, globs in FOLDERS.items() for glob in globs for path in (ROOT / folder).rglob(glob))


@pytest.mark.parametrize("path", budgeted_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_has_one_subject(path: Path) -> None:
    num_lines = len(path.read_text().splitlines())
    assert num_lines <= MAX_LINES, f"{path.relative_to(ROOT)} has {num_lines} lines; split it at the noun"
