"""The built-in catalog: its data, and how it is looked through."""

from __future__ import annotations

import re

import pytest

from corral.errors import ModelNotFound
from corral.model.architectures import ARCHITECTURES
from corral.store import catalog
from corral.store.names import parse_name

EMBEDDING_FAMILIES = {"bert", "nomic-bert"}


@pytest.mark.parametrize("text", ["smollm2", "smollm2:latest", "smollm2:135m", "SMOLLM2"])
def test_all_tags_of_a_model_lead_to_it(text: str) -> None:
    assert catalog.find(parse_name(text)).artifact.filename == "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.parametrize(
    ("text", "near"), [("smollm", "'smollm2'"), ("smolm2", "'smollm2'"), ("smollm2:360", "'smollm2:360m'")]
)
def test_an_unknown_name_gets_the_nearest_one_and_the_list(text: str, near: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        catalog.find(parse_name(text))
    message = str(caught.value)
    assert repr(text) in message
    assert f"Did you mean {near}?" in message
    assert "smollm2, qwen3, qwen2.5" in message
    assert "corral search" in message
    assert "./model.gguf" in message


def test_a_name_like_no_other_gets_no_suggestion() -> None:
    with pytest.raises(ModelNotFound) as caught:
        catalog.find(parse_name("zzz"))
    assert "Did you mean" not in str(caught.value)


def test_every_name_leads_to_one_entry() -> None:
    names = [name for entry in catalog.CATALOG for name in entry.names]
    assert len(names) == len(set(names))
    assert len(catalog.CATALOG) >= 30


@pytest.mark.parametrize("entry", catalog.CATALOG, ids=lambda entry: entry.names[-1])
def test_an_entry_is_sound(entry: catalog.CatalogEntry) -> None:
    artifact = entry.artifact
    assert re.fullmatch(r"[0-9a-f]{64}", artifact.sha256)
    assert artifact.filename.endswith(".gguf")
    assert entry.family in ARCHITECTURES or entry.family in EMBEDDING_FAMILIES
    assert entry.licence
    assert entry.about
    assert artifact.hub is not None
    assert artifact.hub.filename == artifact.filename
    assert re.fullmatch(r"main|[0-9a-f]{40}", artifact.hub.revision)
    # A file holds between 4 and 9 bits a weight: a digit too many in a size would show.
    weights = float(entry.parameters[:-1]) * {"M": 1e6, "B": 1e9}[entry.parameters[-1]]
    assert 3.5 < 8 * artifact.size_bytes / weights < 11


def test_digests_tell_models_apart() -> None:
    digests = [entry.artifact.sha256 for entry in catalog.CATALOG]
    assert len(digests) == len(set(digests))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["coder"], {"qwen2.5-coder"}),
        (["EMBEDDINGS"], {"all-minilm", "nomic-embed-text", "qwen3-embedding"}),
        (["qwen3", "14b"], {"qwen3"}),
        (["apache", "bert"], {"all-minilm", "nomic-embed-text"}),
        (["no such thing"], set()),
    ],
)
def test_a_search_finds_entries_with_every_word(words: list[str], expected: set[str]) -> None:
    assert {entry.name for entry in catalog.search(words)} == expected


def test_a_search_for_nothing_lists_everything() -> None:
    assert catalog.search() == list(catalog.CATALOG)
