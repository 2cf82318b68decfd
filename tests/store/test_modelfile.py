from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from corral.errors import InvalidRequest
from corral.store.modelfile import Command, format_modelfile, parse_modelfile, to_spec
from corral.store.options import checked_options

WHOLE = '''# a comment
FROM smollm2:135m
  parameter temperature 0.7
PARAMETER stop "<|user|>"
Parameter stop """
"""
PARAMETER num_ctx 4096
TEMPLATE """{{ if .System }}"{{ .System }}"
{{ end }}{{ .Prompt }}"""
SYSTEM You are # not a comment
MESSAGE user Hello
MESSAGE assistant """Hi,
there"""
LICENSE "MIT
"
LICENSE Apache
RENDERER qwen3
PARSER qwen3
REQUIRES 0.14.0
'''


def values(text: str | bytes) -> list[tuple[str, str, str]]:
    return [(command.name, command.key, command.args) for command in parse_modelfile(text).commands]


def test_every_instruction() -> None:
    assert values(WHOLE) == [
        ("from", "", "smollm2:135m"),
        ("parameter", "temperature", "0.7"),
        ("parameter", "stop", "<|user|>"),
        ("parameter", "stop", "\n"),
        ("parameter", "num_ctx", "4096"),
        ("template", "", '{{ if .System }}"{{ .System }}"\n{{ end }}{{ .Prompt }}'),
        ("system", "", "You are # not a comment"),
        ("message", "user", "Hello"),
        ("message", "assistant", "Hi,\nthere"),
        ("license", "", "MIT\n"),
        ("license", "", "Apache"),
        ("renderer", "", "qwen3"),
        ("parser", "", "qwen3"),
        ("requires", "", "0.14.0"),
    ]
    assert [command.line for command in parse_modelfile(WHOLE).commands][:4] == [2, 3, 4, 5]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_and_line_ends(encoding: str) -> None:
    text = 'FROM x\r\nSYSTEM """naïve\r\nhorse \U0001f40e"""\r\n'
    assert values(text.encode(encoding))[1] == ("system", "", "naïve\r\nhorse \U0001f40e")
    big = codecs.BOM_UTF16_BE + "FROM x".encode("utf-16-be")
    assert values(big) == [("from", "", "x")]
    assert values("\ufeffFROM x\rSYSTEM y") == [("from", "", "x"), ("system", "", "y")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "^no FROM line$"),
        ("SYSTEM x", "^no FROM line$"),
        ("FROM x\nFORM y", r'^\(line 2\): command must be one of "from", "license",'),
        ("FROM x\n\nMESSAGE tool y", r'^\(line 3\): message role must be one of "system", "user", or "assistant"$'),
        ("FROM x\nPARAMETER", r"^\(line 2\): PARAMETER needs"),
        ('FROM x\nSYSTEM """abc\n', r"^\(line 2\): unexpected EOF"),
        ('FROM x\nSYSTEM "', r"^\(line 2\): unexpected EOF"),
        ("FROM\nSYSTEM x", r"^\(line 1\): FROM needs a value"),
        ("FROM x\n{}", r"^\(line 2\): command must"),
        ("FROM x\n" + "#" * (17 << 20), "are allowed"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        parse_modelfile(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("PARAMETER warmth 1", r"^\(line 2\): unknown parameter 'warmth'$"),
        ("PARAMETER num_ctx 4.5", r"^\(line 2\): invalid int value \[4.5\]"),
        ("PARAMETER num_ctx " + "9" * 5000, "invalid int value"),
        ("PARAMETER temperature hot", r"invalid float value \[hot\]"),
        ("PARAMETER temperature nan", "invalid float value"),
        ("PARAMETER use_mmap maybe", "invalid bool value"),
        ("REQUIRES soon", "valid semver"),
        ("ADAPTER ./none.gguf", "no such file"),
        ("DRAFT \0", "no such file"),
    ],
)
def test_values_that_make_no_model(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=words):
        to_spec(parse_modelfile(f"FROM x\n{text}"), tmp_path)


def test_a_spec() -> None:
    spec = to_spec(parse_modelfile(WHOLE), Path())
    assert spec.from_ == "smollm2:135m"
    assert spec.parameters == {"temperature": 0.7, "stop": ["<|user|>", "\n"], "num_ctx": 4096}
    assert spec.messages == ({"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi,\nthere"})
    assert spec.licenses == ("MIT\n", "Apache")
    assert (spec.renderer, spec.parser, spec.requires) == ("qwen3", "qwen3", "0.14.0")
    old = to_spec(parse_modelfile("FROM x\nPARAMETER mirostat 2\nPARAMETER use_mmap true\nPARAMETER seed -1"), Path())
    assert old.parameters == {"use_mmap": True, "seed": -1}


def test_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    spec = to_spec(parse_modelfile("FROM ./m.gguf\nADAPTER a.gguf\nDRAFT a.gguf"), tmp_path)
    assert spec.from_ is None
    assert spec.files == {"m.gguf": str(tmp_path / "m.gguf")}
    assert spec.adapters == spec.drafts == {"a.gguf": str(tmp_path / "a.gguf")}
    weights = tmp_path / "w"
    weights.mkdir()
    for name in ("model-1.safetensors", "model-2.safetensors", "config.json", "notes.txt"):
        (weights / name).write_bytes(b"{}")
    assert list(to_spec(parse_modelfile("FROM ./w"), tmp_path).files) == [
        "model-1.safetensors",
        "model-2.safetensors",
        "config.json",
    ]
    (weights / "config.json").unlink()
    (weights / "config.json").symlink_to("/etc/hostname")
    with pytest.raises(InvalidRequest, match="insecure path"):
        to_spec(parse_modelfile("FROM ./w"), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidRequest, match="no Modelfile or safetensors"):
        to_spec(parse_modelfile("FROM ./empty"), tmp_path)
    with pytest.raises(InvalidRequest, match="no such file"):
        to_spec(parse_modelfile("FROM ./none.gguf"), tmp_path)


TEXTS = ["", "x", " x ", '"', '"x" y', 'a\n"b"\n', '"""', "\n", "# x", "{{ .X }}\r\n", '"""a"""', "\t", 'say "x"']


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_written_reads_back(text: str) -> None:
    commands = [Command("from", "x"), Command("system", text), Command("message", text, key="user")]
    written = format_modelfile(commands)
    assert values(written) == [(command.name, command.key, command.args) for command in commands]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"x": 1}, "unknown parameter 'x'"),
        ({"num_ctx": "4"}, "option 'num_ctx' must be of type integer"),
        ({"num_ctx": True}, "must be of type integer"),
        ({"temperature": "hot"}, "must be of type number"),
        ({"use_mmap": 1}, "must be of type boolean"),
        ({"stop": [1]}, "must be of type array of strings"),
    ],
)
def test_options_of_a_request(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        checked_options(options)


def test_options_take_their_types() -> None:
    assert checked_options({"temperature": 1, "num_ctx": 8.0, "stop": "x", "mirostat": 1}) == {
        "temperature": 1.0,
        "num_ctx": 8,
        "stop": ["x"],
    }
