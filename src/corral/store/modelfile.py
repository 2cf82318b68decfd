"""Modelfiles: a model in a few lines of text, in Ollama's language."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from corral.errors import InvalidModelfile
from corral.model_parameters import FLOATS, INTEGERS, TEXTS, UNUSED_BOOLEANS, UNUSED_FLOATS, UNUSED_INTEGERS
from corral.store.create_spec import CreateSpec
from corral.store.names import as_path

MAX_BYTES = 16 << 20
COMMANDS = ("from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter", "message",
            "requires")  # fmt: skip
ROLES = ("system", "user", "assistant")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_WORD = re.compile(r"[^\s]+")
_SPACES = re.compile(r"[^\S\n]*")
_TRUTHS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}  # Go's strconv.ParseBool
# What a model's folder may hold besides weights, and what a conversion reads of it.
_FOLDER_PATTERNS = ("*.gguf", "*.safetensors", "*.json", "tokenizer.model", "chat_template.jinja")


@dataclass(frozen=True, slots=True)
class Command:
    """One instruction: `name` in lower case; `key` is a PARAMETER's name or a MESSAGE's role; `line` counts from 1."""

    name: str
    value: str
    key: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Modelfile:
    """The instructions, in order."""

    commands: tuple[Command, ...]

    def values(self, name: str) -> list[str]:
        return [command.value for command in self.commands if command.name == name]


def parse_modelfile(text: str | bytes) -> Modelfile:
    """Reads a Modelfile: UTF-8, or UTF-16 with its mark.

    Raises:
        InvalidModelfile: names the line, what stands there and what is allowed.
    """
    source = _decode(text) if isinstance(text, bytes) else text
    commands = tuple(_Reader(source.replace("\r\n", "\n")).commands())
    if not any(command.name == "from" for command in commands):
        raise InvalidModelfile("no FROM line: say what the model is made from, for instance FROM smollm2", 0)
    return Modelfile(commands)


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise InvalidModelfile(f"it has {len(data)} bytes; a Modelfile has at most {MAX_BYTES}", 0)
    mark, encoding = next(((mark, name) for mark, name in _BOMS if data.startswith(mark)), (b"", "utf-8"))
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidModelfile(f"it is no {encoding} text: byte {error.start} is {error.reason}", line) from None


class _Reader:
    """A position in the text of a Modelfile."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def commands(self) -> Iterable[Command]:
        while self._skip_blank():
            line = self._text.count("\n", 0, self._at) + 1
            name = self._word().lower()
            if name not in COMMANDS:
                shown = ", ".join(f'"{each}"' for each in COMMANDS[:-1])
                self._fail(f'command must be one of {shown}, or "{COMMANDS[-1]}"; it is {name!r:.60}', line)
            key = ""
            if name in ("parameter", "message"):
                key = self._word().lower()
                if name == "message" and key not in ROLES:
                    self._fail('message role must be one of "system", "user", or "assistant"', line)
            value = self._value(line)
            if not value and name not in ("system", "template", "license"):
                self._fail(f"{name.upper()} has no value", line)
            yield Command(name, value, key, line)

    def _skip_blank(self) -> bool:
        """To the next instruction; False at the end."""
        while self._at < len(self._text):
            if self._text[self._at].isspace():
                self._at += 1
            elif self._text[self._at] == "#":
                self._at = self._end_of_line()
            else:
                return True
        return False

    def _end_of_line(self) -> int:
        end = self._text.find("\n", self._at)
        return len(self._text) if end < 0 else end

    def _word(self) -> str:
        match = _WORD.match(self._text, self._at)
        word = match[0] if match else ""
        self._at += len(word)
        spaces = _SPACES.match(self._text, self._at)
        self._at = spaces.end() if spaces else self._at
        return word

    def _value(self, line: int) -> str:
        for quote in ('"""', '"'):
            if self._text.startswith(quote, self._at):
                return self._quoted(quote, line)
        end = self._end_of_line()
        value = self._text[self._at : end].strip()
        self._at = end
        return value

    def _quoted(self, quote: str, line: int) -> str:
        """What stands between quotes; the closing one ends its line, so that others may stand within."""
        start = self._at + len(quote)
        closing = re.compile(re.escape(quote) + r"[^\S\n]*(?=\n|\Z)").search(self._text, start)
        if closing is None:
            self._fail(f"the text after {quote} is not closed by {quote} at the end of a line", line)
        self._at = closing.end()
        return self._text[start : closing.start()]

    def _fail(self, fault: str, line: int) -> NoReturn:
        raise InvalidModelfile(fault, line)


def format_modelfile(commands: Iterable[Command]) -> str:
    """The text of a Modelfile, which reads back as `commands`."""
    return "".join(f"{_formatted(command)}\n" for command in commands)


def _formatted(command: Command) -> str:
    words = [command.name.upper(), *([command.key] if command.key else []), _quote(command.value)]
    return " ".join(words)


def _quote(value: str) -> str:
    if "\n" in value or '"' in value:
        return f'"""{value}"""'
    return f'"{value}"' if value != value.strip() or not value or value.startswith("#") else value


def to_spec(modelfile: Modelfile, folder: Path) -> CreateSpec:
    """What a Modelfile asks for; its paths start from `folder`.

    Raises:
        InvalidModelfile: an unknown parameter, a value of a wrong type, several models, or a path that leads nowhere.
    """
    from_, files = _sources(modelfile, folder)
    return CreateSpec(
        from_=from_,
        files=files,
        adapters={
            path.name: str(path)
            for command in modelfile.commands
            if command.name == "adapter"
            for path in [_existing(command, folder)]
        },
        template=_last(modelfile, "template"),
        system=_last(modelfile, "system"),
        parameters=_parameters(modelfile),
        messages=tuple(
            {"role": command.key, "content": command.value}
            for command in modelfile.commands
            if command.name == "message"
        ),
        licenses=tuple(modelfile.values("license")),
        renderer=_last(modelfile, "renderer"),
        parser=_last(modelfile, "parser"),
        requires=_last(modelfile, "requires"),
        drafts={
            path.name: str(path)
            for command in modelfile.commands
            if command.name == "draft"
            for path in [_existing(command, folder)]
        },
    )


def _sources(modelfile: Modelfile, folder: Path) -> tuple[str | None, dict[str, str]]:
    """The model that FROM names, or the files that it means."""
    from_: str | None = None
    files: dict[str, str] = {}
    for command in (command for command in modelfile.commands if command.name == "from"):
        path = as_path(command.value)
        if path is None and (folder / command.value).is_dir() and command.value in (".", ".."):
            path = Path(command.value)
        if path is None:
            if from_ is not None or files:
                raise InvalidModelfile("a second FROM may name a file only, such as a projector", command.line)
            from_ = command.value
            continue
        files |= _files_of(command, _existing(command, folder))
    return from_, files


def _files_of(command: Command, path: Path) -> dict[str, str]:
    if path.is_file():
        return {path.name: str(path)}
    found = [each for pattern in _FOLDER_PATTERNS for each in sorted(path.glob(pattern)) if each.is_file()]
    if not any(each.suffix in (".gguf", ".safetensors") for each in found):
        raise InvalidModelfile(
            f"no Modelfile or safetensors files found: {path} holds no .gguf file either", command.line
        )
    return {each.name: str(each) for each in found}


def _existing(command: Command, folder: Path) -> Path:
    path = folder / Path(command.value).expanduser()
    try:
        is_there = path.exists()
    except (OSError, ValueError):  # too long, or a NUL in it
        is_there = False
    if not is_there:
        raise InvalidModelfile(
            f"{command.name.upper()} names {command.value!r:.200}, which does not exist", command.line
        )
    return path.absolute()


def _last(modelfile: Modelfile, name: str) -> str | None:
    return next(reversed(modelfile.values(name)), None)


def _parameters(modelfile: Modelfile) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for command in modelfile.commands:
        if command.name == "parameter":
            value = _typed(command)
            if command.key in TEXTS:
                found.setdefault(command.key, []).append(value)
            else:
                found[command.key] = value
    return found


def _typed(command: Command) -> Any:
    key, text = command.key, command.value
    try:
        if key in INTEGERS or key in UNUSED_INTEGERS:
            return int(text)
        if key in FLOATS or key in UNUSED_FLOATS:
            return float(text)
    except ValueError:
        kind = "int" if key in INTEGERS or key in UNUSED_INTEGERS else "float"
        raise InvalidModelfile(f"PARAMETER {key}: invalid {kind} value {text!r:.60}", command.line) from None
    if key in UNUSED_BOOLEANS:
        if text.lower() not in _TRUTHS:
            raise InvalidModelfile(f"PARAMETER {key}: invalid bool value {text!r:.60}", command.line)
        return _TRUTHS[text.lower()]
    if key not in TEXTS:
        known = ", ".join(sorted(INTEGERS | FLOATS | TEXTS))
        raise InvalidModelfile(f"unknown parameter '{key:.60}'; there are {known}", command.line)
    return text
