from __future__ import annotations

from pathlib import Path

import pytest

from corral.errors import ModelNotFound
from corral.store import catalog
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


@pytest.mark.parametrize("text", ["smollm2", "smollm2:latest", "smollm2:135m", "SMOLLM2"])
def test_the_catalog_knows_all_tags_of_a_model(text: str) -> None:
    assert catalog.find(parse_name(text)).name == "smollm2"


@pytest.mark.parametrize(
    ("text", "near"), [("smollm", "'smollm2'"), ("smolm2", "'smollm2'"), ("smollm2:360m", "'smollm2:135m'")]
)
def test_an_unknown_name_gets_the_nearest_one_and_the_list(text: str, near: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        catalog.find(parse_name(text))
    message = str(caught.value)
    assert repr(text) in message
    assert f"Did you mean {near}?" in message
    assert "smollm2, smollm2:latest, smollm2:135m" in message
    assert "./model.gguf" in message


def test_a_name_like_no_other_gets_no_suggestion() -> None:
    with pytest.raises(ModelNotFound) as caught:
        catalog.find(parse_name("zzz"))
    assert "Did you mean" not in str(caught.value)


def test_the_catalog_is_sound() -> None:
    names = [name for entry in catalog.CATALOG for name in entry.names]
    assert len(names) == len(set(names))
    for entry in catalog.CATALOG:
        assert "latest" in entry.tags
        assert len(bytes.fromhex(entry.artifact.sha256)) == 32
        assert entry.artifact.size_bytes > 0
        assert entry.artifact.hub or entry.artifact.wheels
