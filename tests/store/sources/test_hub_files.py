from __future__ import annotations

import pytest

from corral.errors import DownloadError, ModelNotFound
from corral.store.sources.hub_files import RepoFile, choose

QUANTS = ("Q2_K", "Q4_K_S", "Q4_K_M", "Q5_K_M", "Q8_0", "f16")


def repo(*paths: str) -> list[RepoFile]:
    return [RepoFile(path) for path in paths]


def chosen(files: list[RepoFile], tag: str = "latest") -> list[str]:
    return [file.path for file in choose(files, tag, "org/repo").files]


MANY = repo("README.md", "mmproj-model-f16.gguf", "model.imatrix.gguf", *(f"Model-7B-{q}.gguf" for q in QUANTS))


@pytest.mark.parametrize("tag", ["latest", "Q4_K_M", "q4_k_m", "Model-7B-Q4_K_M.gguf", "model-7b-q4_k_m"])
def test_the_quantisation_that_the_tag_means_is_chosen(tag: str) -> None:
    assert chosen(MANY, tag) == ["Model-7B-Q4_K_M.gguf"]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (("m.gguf",), "m.gguf"),
        (("weights/odd name.gguf", "mmproj-F16.gguf"), "weights/odd name.gguf"),
        (("m-Q8_0.gguf", "m-Q2_K.gguf"), "m-Q8_0.gguf"),
        (("m-IQ1_S.gguf", "m.Q4_0.gguf", "m-F16.gguf"), "m.Q4_0.gguf"),
        (("m-UD-Q4_K_XL.gguf", "m-Q4_K_S.gguf"), "m-UD-Q4_K_XL.gguf"),
        (("m-F16.gguf", "m-BF16.gguf"), "m-BF16.gguf"),
    ],
)
def test_without_a_tag_q4_k_m_or_the_next_best_is_chosen(paths: tuple[str, ...], expected: str) -> None:
    assert chosen(repo(*paths)) == [expected]


def test_a_tag_does_not_match_the_beginning_of_another() -> None:
    files = repo("m-Q4_K_M.gguf", "m-Q4_K_S.gguf")
    with pytest.raises(ModelNotFound, match=r"has no 'Q4_K'; name one of these.*: Q4_K_M, Q4_K_S"):
        choose(files, "Q4_K", "org/repo")


def test_the_plain_kind_is_preferred_to_the_one_with_a_prefix() -> None:
    files = repo("m-UD-Q4_K_M.gguf", "m-Q4_K_M.gguf")
    assert chosen(files, "Q4_K_M") == ["m-Q4_K_M.gguf"]
    assert chosen(files, "UD-Q4_K_M") == ["m-UD-Q4_K_M.gguf"]


def test_two_models_of_one_kind_are_told_apart_by_name() -> None:
    files = repo("a-Q4_K_M.gguf", "b-Q4_K_M.gguf")
    for tag in ("latest", "Q4_K_M"):
        with pytest.raises(ModelNotFound, match=r"2 models of.*a-Q4_K_M, b-Q4_K_M"):
            choose(files, tag, "org/repo")
    assert chosen(files, "b-Q4_K_M") == ["b-Q4_K_M.gguf"]


def test_where_nothing_can_be_chosen_by_itself_all_is_listed() -> None:
    with pytest.raises(
        ModelNotFound, match=r"that it could choose by itself; name one of these, as hf.co/org/repo:NAME: one, two"
    ):
        choose(repo("one.gguf", "two.gguf"), "latest", "org/repo")


def test_a_repository_without_gguf_says_so() -> None:
    with pytest.raises(ModelNotFound, match=r"no \.gguf file.*-GGUF"):
        choose(repo("model.safetensors", "mmproj.gguf"), "latest", "org/repo")


def test_all_parts_of_a_split_model_come_in_order() -> None:
    parts = [f"Q4_K_M/m-Q4_K_M-{n:05d}-of-00003.gguf" for n in (3, 1, 2)]
    assert chosen(repo(*parts, "m-Q8_0.gguf"), "q4_k_m") == sorted(parts)


@pytest.mark.parametrize("numbers", [(1, 2), (2, 3), (1, 3)])
def test_a_missing_part_is_an_error(numbers: tuple[int, ...]) -> None:
    parts = [f"m-Q4_K_M-{n:05d}-of-00003.gguf" for n in numbers]
    with pytest.raises(DownloadError, match="2 of the 3 parts"):
        choose(repo(*parts), "latest", "org/repo")
