"""Modelfiles: Ollama's recipe of a model, read and written."""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corral.errors import InvalidRequest
from corral.store.create_spec import CreateSpec
from corral.store.model_files import files_of
from corral.store.names import as_path
from corral.store.options import DEPRECATED, parse_option

MAX_BYTES = 16 << 20
ROLES = ("system", "user", "assistant")
_INSTRUCTIONS = (
    *("from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter", "message"),
    "requires",
)
_UNKNOWN = (
    "command must be one of " + ", ".join(f'"{name}"' for name in _INSTRUCTIONS[:-1]) + f', or "{_INSTRUCTIONS[-1]}"'
)
_ROLE = 'message role must be one of "system", "user", or "assistant"'
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)?")
_VERSION = re.compile(r"v?\d+(\.\d+){0,2}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


@dataclass(frozen=True, slots=True)
class Command:
    """One instruction: its name in lower case, its value without quotes, and its line.

    `key` is a PARAMETER's name, or the role of a MESSAGE.
    """

    name: str
    args: str
    line: int = 0
    key: str = ""


@dataclass(frozen=True, slots=True)
class Modelfile:
    commands: tuple[Command, ...]


def parse_modelfile(text: str | bytes) -> Modelfile:
    """Reads a Modelfile.

    Raises:
        InvalidRequest: "(line N): ...", in Ollama's words where it has some.
    """
    lines = _LINE.findall(_decoded(text))
    commands: list[Command] = []
    number = 0
    while number < len(lines):
        line = lines[number].strip(" \t\r\n")
        if not line or line.startswith("#"):
            number += 1
            continue
        command, number = _command(lines, number)
        commands.append(command)
    if all(command.name != "from" for command in commands):
        raise InvalidRequest("no FROM line", param="modelfile")
    return Modelfile(tuple(commands))


def _decoded(text: str | bytes) -> str:
    if len(text) > MAX_BYTES:
        raise InvalidRequest(f"a Modelfile of {len(text)} bytes; {MAX_BYTES} are allowed", param="modelfile")
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    for mark, encoding in _BOMS:
        if text.startswith(mark):
            return text[len(mark) :].decode(encoding, "replace")
    return text.decode("utf-8", "replace")


def _command(lines: list[str], begin: int) -> tuple[Command, int]:
    """The instruction that begins at a line, and the number of the line after it."""
    word = re.match(r"[ \t]*([A-Za-z]+)(?:[ \t]+|$)", lines[begin].rstrip("\r\n"))
    name = word[1].lower() if word else ""
    if word is None or name not in _INSTRUCTIONS:
        raise _fault(begin, _UNKNOWN)
    position = word.end()
    key = ""
    if name in ("parameter", "message"):
        found = re.compile(r"([A-Za-z0-9_]+)(?:[ \t]+|$)").match(lines[begin].rstrip("\r\n"), position)
        if name == "message" and (found is None or found[1] not in ROLES):
            raise _fault(begin, _ROLE)
        if found is None:
            raise _fault(begin, "PARAMETER needs a name and a value")
        key, position = found[1], found.end()
    raw = lines[begin][position:]
    for end in range(begin + 1, len(lines) + 1):
        value = _unquoted(raw.strip())
        if value is not None:
            break
        raw += lines[end] if end < len(lines) else ""
    else:
        raise _fault(begin, "unexpected EOF: a quoted value is not closed")
    if not value and name in ("from", "adapter", "draft", "parameter"):
        raise _fault(begin, f"{name.upper()} {key}".strip() + " needs a value")
    return Command(name, value, begin + 1, key), end


def _unquoted(text: str) -> str | None:
    """The value without its quotes; None if it is not over yet."""
    for mark in ('"""', '"'):
        if text.startswith(mark):
            is_closed = len(text) >= 2 * len(mark) and text.endswith(mark)
            return text[len(mark) : -len(mark)] if is_closed else None
    return text


def _fault(line: int, fault: str) -> InvalidRequest:
    return InvalidRequest(f"(line {line + 1}): {fault}", param="modelfile")


def format_modelfile(commands: Iterable[Command]) -> str:
    """The text that parse_modelfile reads the same commands from.

    Where no kind of quotes can hold a value, as one with lines that end in three quotes, what comes back is not it.
    """
    lines = []
    for command in commands:
        words = [command.name.upper(), command.key, _quoted(command.args)]
        lines.append(" ".join(word for word in words if word))
    return "".join(f"{line}\n" for line in lines)


def _quoted(text: str) -> str:
    candidates = (text, f'"{text}"', f'"""{text}"""')
    if not text:
        return '""'
    return next((each for each in candidates if _is_read_back(each, text)), candidates[-1])


def _is_read_back(written: str, text: str) -> bool:
    lines = [line for line in _LINE.findall(f"SYSTEM {written}\n") if line]
    with contextlib.suppress(InvalidRequest):
        command, end = _command(lines, 0)
        return command.args == text and end == len(lines)
    return False


def to_spec(modelfile: Modelfile, folder: Path) -> CreateSpec:
    """What a Modelfile asks for.

    Args:
        folder: where it lies; relative paths start there.

    Raises:
        InvalidRequest: a parameter is unknown or not of its type, a version is none, or a file is not there.
    """
    spec: dict[str, Any] = {"files": {}, "adapters": {}, "drafts": {}, "parameters": {}}
    messages: list[dict[str, str]] = []
    licenses: list[str] = []
    for command in modelfile.commands:
        name, args = command.name, command.args
        try:
            if name == "from":
                files = files_of(args, folder, must_exist=as_path(args) is not None)
                spec["files"].update(files)
                if not files:
                    spec["from_"] = args
            elif name in ("adapter", "draft"):
                spec[f"{name}s"].update(files_of(args, folder, must_exist=True))
            elif name == "parameter":
                _add_parameter(spec["parameters"], command.key, args)
            elif name == "message":
                messages.append({"role": command.key, "content": args})
            elif name == "license":
                licenses.append(args)
            elif name == "requires" and not _VERSION.fullmatch(args):
                raise InvalidRequest("requires must be a valid semver (e.g. 0.14.0)", param="requires")
            else:
                spec[name] = args
        except InvalidRequest as error:
            raise _fault(command.line - 1, error.message) from error
    return CreateSpec(**spec, messages=tuple(messages), licenses=tuple(licenses))


def _add_parameter(parameters: dict[str, Any], name: str, text: str) -> None:
    if name in DEPRECATED:
        return
    value = parse_option(name, text)
    parameters[name] = parameters[name] + value if isinstance(value, list) and name in parameters else value
