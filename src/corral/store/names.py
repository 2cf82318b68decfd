"""What a user may call a model: [host/][namespace/]model[:tag][@sha256:digest], or a path.

The rules are those of Ollama's parser. No part can be "..", be empty, or hold a separator, so that the parts of a
checked name are safe as names of folders.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from corral.errors import InvalidModelName

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
MIN_DIGEST_HEX = 12  # what `list` shows as ID, so what people paste

_FIRST = "[A-Za-z0-9_]"
_PARTS = {  # part -> (what it may be, the rule in words)
    "host": (re.compile(_FIRST + r"[A-Za-z0-9_.:-]{0,349}"), "1 to 350 letters, digits, '_', '-', '.' and ':'"),
    "namespace": (re.compile(_FIRST + r"[A-Za-z0-9_-]{0,79}"), "1 to 80 letters, digits, '_' and '-'"),
    "model": (re.compile(_FIRST + r"[A-Za-z0-9_.-]{0,79}"), "1 to 80 letters, digits, '_', '-' and '.'"),
    "tag": (re.compile(_FIRST + r"[A-Za-z0-9_.-]{0,79}"), "1 to 80 letters, digits, '_', '-' and '.'"),
}
_DIGEST = re.compile(rf"sha256[:-](?P<hex>[0-9a-fA-F]{{{MIN_DIGEST_HEX},64}})")
HUB_HOSTS = ("hf.co", "huggingface.co")  # there, a tag may be a file's name


@dataclass(frozen=True, slots=True)
class ModelName:
    """A checked name; the case is kept, but names that differ in nothing else are one: compare `key`.

    Args:
        digest: hex, at least 12 digits, of the manifest that is meant; empty for whichever has the name now.
        given: what the user wrote.
        is_insecure: it was written with http://.
    """

    host: str
    namespace: str
    model: str
    tag: str
    digest: str = ""
    given: str = ""
    is_insecure: bool = False

    def __str__(self) -> str:
        """The shortest text that means it: without default host and namespace, always with the tag."""
        short = f"{self.model}:{self.tag}"
        is_default_host = self.host.lower() == DEFAULT_HOST
        if is_default_host and self.namespace.lower() == DEFAULT_NAMESPACE:
            return short
        return f"{self.namespace}/{short}" if is_default_host else f"{self.host}/{self.namespace}/{short}"

    @property
    def full(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def key(self) -> str:
        """Equal for names that are the same: the full one in lower case."""
        return self.full.lower()

    @property
    def parts(self) -> tuple[str, str, str, str]:
        return (self.host, self.namespace, self.model, self.tag)


def as_path(text: str) -> Path | None:
    """The path that `text` is, or None if it reads as a name or an address.

    A path begins with a dot, a slash or a tilde, or ends in .gguf, or has a slash and exists. A bare word is a name
    even where a file is called so: what lies in the current folder must not take the place of a model.
    """
    if "://" in text or text.lower().startswith((*(f"{host}/" for host in HUB_HOSTS), "pypi:")):
        return None
    if text.startswith((".", os.sep, "~")) or text.lower().endswith(".gguf") or (os.sep in text and _exists(text)):
        return Path(text).expanduser()
    return None


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long, or a NUL in it
        return False


def parse_name(text: str) -> ModelName:
    """`text` as a name; what is missing is registry.ollama.ai, library and latest.

    Raises:
        InvalidModelName: says which part is wrong and what is allowed.
    """
    scheme, found, rest = text.rpartition("://")
    if found and scheme.lower() not in ("http", "https"):
        raise _invalid(text, f"scheme {_shown(scheme)} is neither http nor https")
    rest, at, pinned = rest.partition("@")
    digest = _DIGEST.fullmatch(pinned)
    if at and digest is None:
        raise _invalid(text, f"{_shown(pinned)} is no digest; it must be sha256: and 12 to 64 hex digits")
    path, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:  # a colon before the last slash is that of host:port
        path, tag = rest, DEFAULT_TAG
    pieces = path.split("/")
    if len(pieces) > 3 or (found and len(pieces) < 3):
        raise _invalid(
            text,
            "it has more parts than host/namespace/model"
            if len(pieces) > 3
            else "after a scheme, host/namespace/model follows",
        )
    host, namespace, model = [DEFAULT_HOST, DEFAULT_NAMESPACE][: 3 - len(pieces)] + pieces
    for part, value in (("host", host), ("namespace", namespace), ("model", model), ("tag", tag)):
        pattern, rule = _PARTS[part]
        if pattern.fullmatch(value) is None:
            raise _invalid(text, f"{part} {_shown(value)} must be {rule}, the first one a letter, digit or '_'")
    hex_digest = digest["hex"].lower() if digest else ""
    return ModelName(host, namespace, model, tag, hex_digest, text, scheme.lower() == "http")


def name_of_parts(host: str, namespace: str, model: str, tag: str) -> ModelName | None:
    """The name that a manifest's path spells; None if it cannot be one."""
    for (pattern, _rule), value in zip(_PARTS.values(), (host, namespace, model, tag), strict=True):
        if pattern.fullmatch(value) is None:
            return None
    name = ModelName(host, namespace, model, tag)
    return ModelName(host, namespace, model, tag, given=str(name))


def _shown(value: str) -> str:
    """A part in an error message: short, whatever it is."""
    return repr(value) if len(value) <= 100 else f"{value[:40]!r}... of {len(value)} characters"


def _invalid(text: str, fault: str) -> InvalidModelName:
    return InvalidModelName(
        f"invalid model name {_shown(text)}: {fault}. A name is model, model:tag, namespace/model or "
        "host/namespace/model:tag, for instance smollm2:135m; a path to a file begins with ./ or /"
    )
