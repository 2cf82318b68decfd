from __future__ import annotations

from pathlib import Path

import pytest

from corral.errors import ModelNotFound
from corral.store.names import as_path, parse_name


@pytest.mark.parametrize("text", ["./m.gguf", "m.gguf", "M.GGUF", "/models/m", "models/m", ".", "../m"])
def test_a_separator_a_dot_or_the_suffix_make_a_path(text: str) -> None:
    assert as_path(text) == Path(text)


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert as_path("~/m.gguf") == Path("/home/someone/m.gguf")


@pytest.mark.parametrize("text", ["smollm2", "smollm2:135m", "qwen2.5-coder"])
def test_a_name_is_no_path(text: str) -> None:
    assert as_path(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("smollm2", "smollm2:latest"), ("SmolLM2:135M", "smollm2:135m"), ("q2.5_x:a-b", "q2.5_x:a-b")],
)
def test_names_are_lower_case_and_have_a_tag(text: str, expected: str) -> None:
    assert str(parse_name(text)) == expected


@pytest.mark.parametrize("text", ["", "a b", "-x", ":x", "x:", "x:y:z", "name\n", "ü", "x" * 81])
def test_what_cannot_be_a_name_is_refused(text: str) -> None:
    with pytest.raises(ModelNotFound, match="cannot be a model's name"):
        parse_name(text)
