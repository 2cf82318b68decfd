"""Modelfiles: every instruction, every quote, and what is said of those that cannot be obeyed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import InvalidModelfile
from corral.store.modelfile import COMMANDS, Command, format_modelfile, parse_modelfile, to_spec

FULL = '''
# a comment
FROM smollm2:135m
parameter temperature 0.5
PARAMETER num_ctx 4096
PARAMETER stop "<|end|>"
PARAMETER stop User:
PARAMETER use_mmap true
TEMPLATE """{{ .System }}
USER: {{ .Prompt }}
"""
SYSTEM You are a horse.
MESSAGE user Hello!
MESSAGE assistant """Neigh.
Neigh."""
LICENSE "MIT"
LICENSE """
the long one
"""
RENDERER qwen3-coder
PARSER qwen3-coder
REQUIRES 0.14.0
'''


def test_every_instruction_is_read(tmp_path: Path) -> None:
    spec = to_spec(parse_modelfile(FULL), tmp_path)
    assert spec.from_ == "smollm2:135m"
    assert spec.parameters == {"temperature": 0.5, "num_ctx": 4096, "stop": ["<|end|>", "User:"], "use_mmap": True}
    assert spec.template == "{{ .System }}\nUSER: {{ .Prompt }}\n"
    assert spec.system == "You are a horse."
    assert spec.messages == ({"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Neigh.\nNeigh."})
    assert spec.licenses == ("MIT", "\nthe long one\n")
    assert (spec.renderer, spec.parser, spec.requires) == ("qwen3-coder", "qwen3-coder", "0.14.0")


@pytest.mark.parametrize(
    "data",
    [
        b"FROM x\nSYSTEM \xc3\xa4h\n",
        b"\xef\xbb\xbfFROM x\r\nSYSTEM \xc3\xa4h\r\n",
        "\ufeffFROM x\nSYSTEM äh\n".encode("utf-16-le"),
        b"\xfe\xff" + "FROM x\nSYSTEM äh".encode("utf-16-be"),
    ],
)
def test_encodings_and_line_ends(data: bytes) -> None:
    assert parse_modelfile(data).values("system") == ["äh"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no FROM line"),
        ("SYSTEM hi", "no FROM line"),
        ("FROM x\nFRUM y", r"\(line 2\) command must be one of .*'frum'"),
        ("FROM x\nMESSAGE robot hi", r"\(line 2\) message role must be one of \"system\", \"user\", or \"assistant\""),
        ("FROM", r"\(line 1\) FROM has no value"),
        ('FROM x\n\nSYSTEM """never closed', r"\(line 3\) the text after \"\"\" is not closed"),
        ('FROM x\nSYSTEM "never closed', r"\(line 2\)"),
        ("FROM x\nPARAMETER top_k", "PARAMETER has no value"),
        (b"FROM x\nSYSTEM \xff", r"\(line 2\) it is no utf-8 text"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text: str | bytes, words: str) -> None:
    with pytest.raises(InvalidModelfile, match=words):
        parse_modelfile(text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("PARAMETER colour blue", "unknown parameter 'colour'"),
        ("PARAMETER top_k many", "invalid int value 'many'"),
        ("PARAMETER top_p high", "invalid float value 'high'"),
        ("PARAMETER use_mmap perhaps", "invalid bool value 'perhaps'"),
        ("ADAPTER ./nowhere.gguf", "ADAPTER names './nowhere.gguf', which does not exist"),
        ("FROM y", "a second FROM"),
        ("FROM ./nowhere.gguf", "which does not exist"),
    ],
)
def test_what_cannot_be_obeyed_is_named_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(InvalidModelfile, match=rf"\(line 2\).*{words}"):
        to_spec(parse_modelfile(f"FROM x\n{line}"), tmp_path)


def test_paths_start_from_the_modelfile(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    spec = to_spec(parse_modelfile("FROM ./m.gguf\nADAPTER ./a.gguf"), tmp_path)
    assert spec.files == {"m.gguf": str(tmp_path / "m.gguf")}
    assert spec.adapters == {"a.gguf": str(tmp_path / "a.gguf")}
    assert spec.from_ is None


def test_a_folder_means_what_is_in_it(tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json", "tokenizer.json", "README.md"):
        (tmp_path / name).write_text("")
    spec = to_spec(parse_modelfile("FROM ."), tmp_path)
    assert set(spec.files) == {"model.safetensors", "config.json", "tokenizer.json"}


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelfile, match="no Modelfile or safetensors files found"):
        to_spec(parse_modelfile("FROM ."), tmp_path)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=1).filter(
    # What the language itself cannot say: a value of spaces alone, or three quotes at the end of a line.
    lambda text: '"""' not in text and not text.endswith('"') and not text[0].isspace() and not text[-1].isspace()
)


@given(st.lists(st.builds(Command, st.sampled_from([*COMMANDS[:4], "renderer"]), texts), max_size=4))
def test_what_is_formatted_reads_back(commands: list[Command]) -> None:
    commands = [Command("from", "x"), *commands]
    read = parse_modelfile(format_modelfile(commands)).commands
    assert [(command.name, command.value) for command in read] == [(c.name, c.value) for c in commands]
