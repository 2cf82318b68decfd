"""A model of the store: its manifest, and what is read from its layers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.errors import CorralError
from corral.store.local_model import LocalModel
from corral.store.manifest import (
    ADAPTER,
    MESSAGES,
    MODEL,
    PARAMS,
    PROJECTOR,
    PROMPT,
    SYSTEM,
    TEMPLATE,
    Layer,
    Manifest,
)
from corral.store.names import ModelName
from corral.store.split import model_path

if TYPE_CHECKING:
    from corral.store.library import Library

MAX_SMALL_BYTES = 16 << 20  # of a template, a system message, parameters, ...


@dataclass(frozen=True, slots=True)
class StoredModel:
    """What a name means in the store.

    Args:
        digest: hex SHA-256 of the manifest's file.
        size: bytes of all that the manifest names.
        modified_at: when the manifest was written, UTC.
        root: the model folder that has the manifest.
    """

    name: ModelName
    manifest: Manifest
    digest: str
    size: int
    modified_at: datetime
    root: Path
    library: Library

    def to_local(self) -> LocalModel:
        """The model with its files and all that its small layers say.

        Raises:
            CorralError: a file is missing, has changed or is damaged; says what to do.
        """
        digests = [layer.digest for layer in self.manifest.of_type(MODEL)]
        models = list(zip(digests, self._paths(MODEL), strict=True))
        if not models:
            raise CorralError(f"model {str(self.name)!r} has no file that Corral can run: its manifest names no GGUF")
        templates = [*self.text(PROMPT), *self.text(TEMPLATE)]
        return LocalModel(
            name=str(self.name),
            path=model_path(models),
            adapters=self._paths(ADAPTER),
            projector=next(iter(self._paths(PROJECTOR)), None),
            template=templates[-1] if templates else None,
            system=next(reversed(self.text(SYSTEM)), None),
            parameters=self._parameters(),
            messages=self._messages(),
            digest=self.digest,
        )

    def text(self, media_type: str) -> list[str]:
        """What the small layers of a type say, in order.

        Raises:
            CorralError: a layer is missing, too large, damaged or no text.
        """
        return [self.read_layer(layer).decode("utf-8", "replace") for layer in self.manifest.of_type(media_type)]

    def config(self) -> dict[str, Any]:
        """The config blob: how its maker called format, family and types. Nothing of it is checked; {} if none."""
        if not self.manifest.config.digest:
            return {}
        value = self._json(self.manifest.config)
        return value if isinstance(value, dict) else {}

    def read_layer(self, layer: Layer) -> bytes:
        """The bytes of a small layer, checked against its digest.

        Raises:
            CorralError: it is missing, too large or damaged.
        """
        path = self._path(layer)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_SMALL_BYTES + 1)
        except OSError as error:
            raise CorralError(f"{path}, of model {str(self.name)!r}, cannot be read: {error.strerror}") from error
        if len(data) > MAX_SMALL_BYTES:
            raise CorralError(
                f"{path}, the {_kind(layer)} of model {str(self.name)!r}, is larger than {MAX_SMALL_BYTES} bytes"
            )
        if hashlib.sha256(data).hexdigest() != layer.hex:
            raise CorralError(
                f"{path}, the {_kind(layer)} of model {str(self.name)!r}, is damaged: its bytes are not what its "
                f"digest says; {self._remedy()}"
            )
        return data

    def _parameters(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for layer in self.manifest.of_type(PARAMS):
            value = self._json(layer)
            if not isinstance(value, dict):
                raise self._malformed(layer, "an object")
            found |= value
        return found

    def _messages(self) -> tuple[dict[str, str], ...]:
        found: list[dict[str, str]] = []
        for layer in self.manifest.of_type(MESSAGES):
            value = self._json(layer)
            if not isinstance(value, list):
                raise self._malformed(layer, "a list of messages")
            for message in value:
                role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (0, 0)
                if not isinstance(role, str) or not isinstance(content, str):
                    raise self._malformed(layer, "a list of messages, each with role and content")
                found.append({"role": role, "content": content})
        return tuple(found)

    def _json(self, layer: Layer) -> Any:
        try:
            return json.loads(self.read_layer(layer))
        except (ValueError, RecursionError) as error:
            raise CorralError(
                f"{self._path(layer)}, the {_kind(layer)} of model {str(self.name)!r}, is not JSON: {error}"
            ) from None

    def _malformed(self, layer: Layer, expected: str) -> CorralError:
        return CorralError(f"{self._path(layer)}, the {_kind(layer)} of model {str(self.name)!r}, must be {expected}")

    def _paths(self, media_type: str) -> tuple[Path, ...]:
        return tuple(self._path(layer) for layer in self.manifest.of_type(media_type))

    def _path(self, layer: Layer) -> Path:
        path = self.library.blob(layer.digest)
        if path is None:
            remedy = self._remedy()
            fault = self.library.fault(layer.digest)
            if fault is None:
                fault = f"its {_kind(layer)}, blob {layer.digest}, is missing"
            else:
                remedy = (
                    "register it again with `corral create`, or, if its bytes are as before, run `corral store verify`"
                )
            raise CorralError(f"model {str(self.name)!r} cannot be used: {fault}; {remedy}")
        return path

    def _remedy(self) -> str:
        if self.root != self.library.root:
            return f"it is Ollama's, in {self.root}: `ollama pull {self.name}` gets it again"
        return f"`corral pull {self.name}` gets it again, or `corral create` if it was made here"


def _kind(layer: Layer) -> str:
    """ "template", "params", ...: the end of the media type."""
    return layer.media_type.rpartition(".")[2].partition("+")[0] or "layer"
