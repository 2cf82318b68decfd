from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import InvalidModelName
from corral.store.names import as_path, name_of_parts, parse_name
from corral.store.paths import MANIFESTS

EIGHTY = "8" * 80


@pytest.mark.parametrize("text", ["./m.gguf", "m.gguf", "M.GGUF", "/models/m", "models/m.gguf", ".", "..", "../m"])
def test_a_dot_a_slash_in_front_or_the_suffix_make_a_path(text: str) -> None:
    assert as_path(text) == Path(text)


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert as_path("~/m.gguf") == Path("/home/someone/m.gguf")


@pytest.mark.parametrize(
    "text",
    [
        *("smollm2", "smollm2:135m", "qwen2.5-coder", "someone/model", "hf.co/a/b", "host:5000/ns/m", "", "a\0/b"),
        *("hf.co/a/b:Some-Model.Q4_K_M.gguf", "https://host/x.gguf", "pypi:some-model", "x/" * 3000),
    ],
)
def test_a_name_or_an_address_is_no_path(text: str) -> None:
    assert as_path(text) is None


def test_what_exists_is_a_path_if_it_has_a_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "m").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert as_path("models/m") == Path("models/m")
    assert as_path("models/n") is None
    assert as_path("models") is None, "a folder that happens to be here must not take a model's place"


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("smollm2", "registry.ollama.ai/library/smollm2:latest", "smollm2:latest"),
        ("SmolLM2:135M", "registry.ollama.ai/library/SmolLM2:135M", "SmolLM2:135M"),
        ("q2.5_x:a-b", "registry.ollama.ai/library/q2.5_x:a-b", "q2.5_x:a-b"),
        ("ns/m", "registry.ollama.ai/ns/m:latest", "ns/m:latest"),
        ("Registry.Ollama.ai/Library/m:t", "Registry.Ollama.ai/Library/m:t", "m:t"),
        ("host/library/m:t", "host/library/m:t", "host/library/m:t"),
        ("host:5000/ns/m", "host:5000/ns/m:latest", "host:5000/ns/m:latest"),
        ("https://host/ns/m:t", "host/ns/m:t", "host/ns/m:t"),
        ("_why/_the/_lucky:_stiff", "_why/_the/_lucky:_stiff", "_why/_the/_lucky:_stiff"),
        (f"{'3' * 350}/{EIGHTY}/{EIGHTY}:{EIGHTY}",) + (f"{'3' * 350}/{EIGHTY}/{EIGHTY}:{EIGHTY}",) * 2,
    ],
)
def test_what_is_missing_is_filled_in_and_left_out_again(text: str, full: str, short: str) -> None:
    name = parse_name(text)
    assert (name.full, str(name), name.given) == (full, short, text)
    assert parse_name(short).key == name.key == full.lower()


def test_only_http_is_insecure() -> None:
    assert parse_name("http://host/ns/m").is_insecure
    assert not parse_name("https://host/ns/m").is_insecure
    assert not parse_name("host/ns/m").is_insecure


def test_a_name_can_be_pinned_to_a_digest() -> None:
    name = parse_name("host:80/ns/m:t@sha256:" + "0aB" * 4)
    assert (name.digest, name.tag, str(name)) == ("0ab" * 4, "t", "host:80/ns/m:t")
    assert parse_name("m@sha256-" + "0" * 64).digest == "0" * 64


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "a b", "-x", ":x", "x:", "x:y:z", "name\n", "ü", "x" * 81, "x:" + "y" * 81, "^", "m+q"),
        *(
            "..",
            ".",
            "../m",
            "a/../b",
            "../../../etc/passwd",
            "a/b/..",
            "m:..",
            "m:../x",
            ".hidden",
            "/a/b",
            "//",
            "a//b",
        ),
        *("m\0", "a\0b/c", "a\\b", "C:\\m", "a/b/c/d", "host/name:space/m:t", "n.s/m", "h/-n/m", "h" * 351 + "/n/m"),
        *("ｍodel", "mоdel", "m\u200bx", "m\u2024\u2024", "m%2f..", "~root"),
        *("m@", "@", "m@sha256:123", "m@sha256:" + "g" * 64, "m@sha256:" + "0" * 65, "m@md5:" + "0" * 32),
        *("m@sha256:" + "0" * 12 + "/../x", "m@a@b", "ftp://h/n/m", "http://m", "http://n/m", "http://", "a" * 100_000),
    ],
)
def test_what_cannot_be_a_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidModelName, match=r"^invalid model name ") as caught:
        parse_name(text)
    assert len(str(caught.value)) < 600


def test_the_error_names_the_part_and_the_rule() -> None:
    with pytest.raises(InvalidModelName, match=r"'a b/m:t': namespace 'a b' must be 1 to 80 letters, digits, '_'"):
        parse_name("a b/m:t")


@given(st.one_of(st.text(), st.text("ab./:@-_~\0\\\n", max_size=30)))
def test_no_text_leads_out_of_the_store(text: str) -> None:
    root = Path("/store")
    try:
        name = parse_name(text)
    except InvalidModelName:
        return
    path = root.joinpath(MANIFESTS, *name.parts)
    assert len(path.parts) == len((root / MANIFESTS).parts) + 4
    assert ".." not in path.parts
    assert path.relative_to(root / MANIFESTS).parts == name.parts
    assert parse_name(name.full).key == name.key
    assert parse_name(str(name)).key == name.key


def test_a_path_of_a_manifest_spells_a_name_or_none() -> None:
    name = name_of_parts("registry.ollama.ai", "library", "M", "T")
    assert name is not None
    assert (str(name), name.given) == ("M:T", "M:T")
    assert name_of_parts("registry.ollama.ai", "library", "m", ".DS_Store") is None
    assert name_of_parts("registry.ollama.ai", "a.b", "m", "t") is None
