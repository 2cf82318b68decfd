"""Bodies of the calls that change the store: pull, push, create, copy, delete, show. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from corral.errors import InvalidRequest
from corral.protocol.ollama.fields import Fields, model_name, shorten
from corral.protocol.ollama.options import check_options

_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class TransferCall:
    """/api/pull and /api/push."""

    model: str
    insecure: bool
    stream: bool


@dataclass(frozen=True, slots=True)
class ShowCall:
    model: str
    verbose: bool
    system: str


@dataclass(frozen=True, slots=True)
class CopyCall:
    source: str
    destination: str


@dataclass(frozen=True, slots=True)
class CreateCall:
    """/api/create. `files`, `adapters`: name -> "sha256:<hex>" of a blob sent before, never a path of this machine."""

    model: str
    from_: str
    files: dict[str, str]
    adapters: dict[str, str]
    template: str
    system: str
    parameters: dict[str, Any]
    messages: tuple[dict[str, str], ...]
    licenses: tuple[str, ...]
    quantize: str
    renderer: str
    parser: str
    requires: str
    stream: bool


def parse_pull(body: Mapping[str, Any]) -> TransferCall:
    """Raises InvalidRequest in Ollama's words, as all functions here."""
    fields = Fields(body, "PullRequest")
    call = _transfer(fields)
    if not call.model:
        raise InvalidRequest("invalid model name", param="model")
    return call


def parse_push(body: Mapping[str, Any]) -> TransferCall:
    call = _transfer(Fields(body, "PushRequest"))
    if not call.model:
        raise InvalidRequest("model is required", param="model")
    return call


def _transfer(fields: Fields) -> TransferCall:
    return TransferCall(model_name(fields), bool(fields.flag("insecure")), fields.flag("stream") is not False)


def parse_show(body: Mapping[str, Any]) -> ShowCall:
    fields = Fields(body, "ShowRequest")
    if not (model := model_name(fields)):
        raise InvalidRequest("model is required", param="model")
    check_options(fields.mapping("options"))
    return ShowCall(model, bool(fields.flag("verbose")), fields.text("system"))


def parse_copy(body: Mapping[str, Any]) -> CopyCall:
    fields = Fields(body, "CopyRequest")
    return CopyCall(fields.text("source"), fields.text("destination"))


def parse_delete(body: Mapping[str, Any]) -> str:
    """The model's name."""
    return model_name(Fields(body, "DeleteRequest"))


def parse_create(body: Mapping[str, Any]) -> CreateCall:
    fields = Fields(body, "CreateRequest")
    model = model_name(fields)
    if not model:
        raise InvalidRequest("invalid model name", param="model")
    if fields.text("remote_host"):
        raise InvalidRequest("this server cannot run this remote model", param="remote_host")
    from_, files = fields.text("from"), _read_files(fields, "files")
    if not from_ and not files:
        raise InvalidRequest("neither 'from' or 'files' was specified")
    adapters = _read_files(fields, "adapters")
    if len(adapters) > 1:
        raise InvalidRequest("only one adapter is currently supported", param="adapters")
    return CreateCall(
        model=model,
        from_=from_,
        files=files,
        adapters=adapters,
        template=fields.text("template"),
        system=fields.text("system"),
        parameters=check_options(fields.mapping("parameters")),
        messages=tuple(_read_message(entry) for entry in fields.objects("messages")),
        licenses=_read_licenses(fields.raw("license")),
        quantize=fields.text("quantize") or fields.text("quantization"),
        renderer=fields.text("renderer"),
        parser=fields.text("parser"),
        requires=fields.text("requires"),
        stream=fields.flag("stream") is not False,
    )


def parse_digest(text: str) -> str:
    """ "sha256:<hex>" in lower case; "-" may stand for ":"."""
    found = _DIGEST.fullmatch(text)
    if found is None:
        raise InvalidRequest("invalid digest format", param="digest")
    return f"sha256:{found.group(1).lower()}"


def _read_files(fields: Fields, name: str) -> dict[str, str]:
    found = {}
    for path, digest in fields.texts_of(name).items():
        parts = PurePosixPath(path).parts
        if not path or path.startswith("/") or "\\" in path or "\0" in path or ".." in parts:
            raise InvalidRequest("file path must be relative", param=name)
        try:
            found[path] = parse_digest(digest)
        except InvalidRequest as error:
            raise InvalidRequest(f"{error.message}: {shorten(digest)!r}", param=f"{name}.{shorten(path)}") from None
    return found


def _read_message(fields: Fields) -> dict[str, str]:
    return {"role": fields.text("role").lower(), "content": fields.text("content")}


def _read_licenses(value: object) -> tuple[str, ...]:
    licenses = [value] if isinstance(value, str) and value else value or []
    if not isinstance(licenses, list) or not all(isinstance(text, str) for text in licenses):
        raise InvalidRequest("license must be a string or a list of strings", param="license")
    return tuple(licenses)


def encode_status(status: str, digest: str = "", total: int = 0, completed: int = 0) -> dict[str, Any]:
    """A line of progress; what is not known is left out."""
    figures = {"digest": digest, "total": total, "completed": completed}
    return {"status": status} | {name: value for name, value in figures.items() if value}
