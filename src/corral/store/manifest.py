"""Manifests: which files make up a model. The format is Docker's version 2, schema 2, with Ollama's media types."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corral.errors import CorralError, InvalidManifest
from corral.store.paths import digest_hex

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
_IMAGE = "application/vnd.ollama.image."
MODEL = _IMAGE + "model"
PROJECTOR = _IMAGE + "projector"
ADAPTER = _IMAGE + "adapter"
DRAFT = _IMAGE + "draft"
TEMPLATE = _IMAGE + "template"
PROMPT = _IMAGE + "prompt"  # what templates were called once
SYSTEM = _IMAGE + "system"
PARAMS = _IMAGE + "params"
MESSAGES = _IMAGE + "messages"
LICENSE = _IMAGE + "license"

MAX_MANIFEST_BYTES = 4 << 20
_MAX_SIZE = 1 << 53


@dataclass(frozen=True, slots=True)
class Layer:
    """A file of a model. `digest` is "sha256:<hex>"; `from_` names the model that it was taken from, if any."""

    media_type: str
    digest: str
    size: int
    from_: str = ""

    @property
    def hex(self) -> str:
        """The digest's 64 hex digits."""
        return self.digest.removeprefix("sha256:")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a model, in the order of the file. A config without digest stands for none."""

    config: Layer
    layers: tuple[Layer, ...]

    @property
    def all_layers(self) -> tuple[Layer, ...]:
        """The layers, then the config if there is one."""
        return (*self.layers, self.config) if self.config.digest else self.layers

    @property
    def digests(self) -> frozenset[str]:
        """Hex digests of all that it names."""
        return frozenset(layer.hex for layer in self.all_layers)

    @property
    def size(self) -> int:
        """Bytes of all that it names."""
        return sum(layer.size for layer in self.all_layers)

    def of_type(self, media_type: str) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.layers if layer.media_type == media_type)


def parse_manifest(data: bytes, origin: object = "the manifest") -> Manifest:
    """Reads and checks a manifest; `origin` says in errors where it is from.

    Raises:
        InvalidManifest: not JSON, too large, or not the shape of a manifest; names the field.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise InvalidManifest(origin, f"it has {len(data)} bytes; a manifest has at most {MAX_MANIFEST_BYTES}")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidManifest(origin, f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidManifest(origin, f"it is {_kind(value)}; a manifest is an object")
    version = value.get("schemaVersion")
    if version != 2 or isinstance(version, bool):
        raise InvalidManifest(origin, f"schemaVersion is {version!r:.60}; 2 is read")
    layers = value.get("layers")
    if not isinstance(layers, list):
        raise InvalidManifest(origin, f"layers is {_kind(layers)}; it must be a list")
    config = value.get("config")
    return Manifest(
        _layer(config, "config", origin) if config is not None else Layer(CONFIG, "", 0),
        tuple(_layer(layer, f"layers[{index}]", origin) for index, layer in enumerate(layers)),
    )


def encode_manifest(manifest: Manifest) -> bytes:
    """The JSON text, byte for byte as Ollama writes it, so that equal models have equal digests."""
    value = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _encoded(manifest.config),
        "layers": [_encoded(layer) for layer in manifest.layers],
    }
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for character in "&<>\u2028\u2029":  # what Go's encoder escapes
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


def read_manifest(path: Path) -> tuple[Manifest, bytes]:
    """The manifest in a file, and its bytes.

    Raises:
        FileNotFoundError: there is none.
        InvalidManifest: it cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InvalidManifest(path, f"it cannot be read: {error.strerror or error}") from error
    return parse_manifest(data, path), data


def _layer(value: object, field: str, origin: object) -> Layer:
    if not isinstance(value, dict):
        raise InvalidManifest(origin, f"{field} is {_kind(value)}; it must be an object")
    media_type, from_ = value.get("mediaType", ""), value.get("from", "")
    digest: Any = value.get("digest")
    size = value.get("size")
    for key, text in (("mediaType", media_type), ("digest", digest), ("from", from_)):
        if not isinstance(text, str):
            raise InvalidManifest(origin, f"{field}.{key} is {_kind(text)}; it must be a string")
        if not text.isprintable():
            raise InvalidManifest(origin, f"{field}.{key} is {text!r:.60}; it must be printable text")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= _MAX_SIZE:
        raise InvalidManifest(origin, f"{field}.size is {size!r:.60}; it must be a number of bytes")
    if field == "config" and not digest:
        return Layer(media_type, "", 0)
    try:
        return Layer(media_type, f"sha256:{digest_hex(digest)}", size, from_)
    except CorralError as error:
        raise InvalidManifest(origin, f"{field}.digest: {error}") from None


def _encoded(layer: Layer) -> dict[str, Any]:
    value: dict[str, Any] = {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}
    return value | {"from": layer.from_} if layer.from_ else value


def _kind(value: object) -> str:
    """A JSON value in an error message."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "missing"}
    return names.get(type(value), "a number")
