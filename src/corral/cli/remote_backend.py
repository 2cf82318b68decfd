"""The models of a Corral server, through Ollama's native API."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.cli.model_card import ListedModel, ModelCard
from corral.errors import CorralError, DownloadError
from corral.store.status import OnStatus, Status

if TYPE_CHECKING:
    from corral.cli.native_client import NativeClient
    from corral.store.create import CreateSpec

_READ_BYTES = 1 << 20
_DIGEST = "sha256:"


class RemoteBackend:
    def __init__(self, client: NativeClient) -> None:
        self.client = client

    def models(self) -> list[ListedModel]:
        found = self.client.call("GET", "/api/tags").get("models")
        return [_listed(model) for model in found or [] if isinstance(model, dict)]

    def card(self, name: str, *, verbose: bool = False) -> ModelCard:
        told = self.client.call("POST", "/api/show", {"model": name, "verbose": verbose})
        texts = ("parameters", "template", "system", "license", "modelfile", "requires")
        return ModelCard(
            details=_object(told, "details"),
            capabilities=tuple(str(capability) for capability in told.get("capabilities") or ()),
            model_info=_object(told, "model_info"),
            projector_info=_object(told, "projector_info"),
            tensors=tuple(tensor for tensor in told.get("tensors") or () if isinstance(tensor, dict)),
            **{field: str(told.get(field) or "") for field in texts},
        )

    def pull(self, name: str, on_status: OnStatus, *, insecure: bool = False) -> None:
        self._follow("/api/pull", {"model": name, "insecure": insecure, "stream": True}, on_status)

    def push(self, name: str, on_status: OnStatus, *, insecure: bool = False) -> None:
        self._follow("/api/push", {"model": name, "insecure": insecure, "stream": True}, on_status)

    def create(self, name: str, spec: CreateSpec, on_status: OnStatus) -> None:
        """Files of this machine are sent there first, unless the server has them."""
        if getattr(spec, "drafts", None):
            raise CorralError("a DRAFT cannot be sent to a server; create the model on the server's own machine")
        body: dict[str, Any] = {
            "model": name,
            "from": spec.from_,
            "files": self._uploaded(spec.files, on_status),
            "adapters": self._uploaded(spec.adapters, on_status),
            "template": spec.template,
            "system": spec.system,
            "parameters": spec.parameters,
            "messages": [dict(message) for message in spec.messages],
            "license": list(spec.licenses),
            "quantize": spec.quantize,
            "renderer": spec.renderer,
            "parser": spec.parser,
            "requires": spec.requires,
            "stream": True,
        }
        self._follow("/api/create", {field: value for field, value in body.items() if value}, on_status)

    def copy(self, source: str, target: str) -> None:
        self.client.call("POST", "/api/copy", {"source": source, "destination": target})

    def delete(self, name: str) -> None:
        self.client.call("DELETE", "/api/delete", {"model": name})

    def running(self) -> list[dict[str, Any]]:
        """The models that are loaded, as /api/ps tells."""
        return [model for model in self.client.call("GET", "/api/ps").get("models") or [] if isinstance(model, dict)]

    def unload(self, name: str) -> None:
        self.client.call("POST", "/api/generate", {"model": name, "keep_alive": 0, "stream": False})

    def _follow(self, route: str, body: dict[str, Any], on_status: OnStatus) -> None:
        last = ""
        for part in self.client.stream(route, body):
            last = str(part.get("status") or "")
            total, completed = part.get("total"), part.get("completed")
            on_status(
                Status(
                    last,
                    str(part.get("digest") or ""),
                    total if isinstance(total, int) else 0,
                    completed if isinstance(completed, int) else 0,
                )
            )
        if last != "success":
            raise DownloadError(f"{self.client.address} ended before it was done; its last word was {last!r}")

    def _uploaded(self, files: dict[str, str], on_status: OnStatus) -> dict[str, str]:
        """The same files by digest, all of which the server has now."""
        return {
            name: value if value.startswith(_DIGEST) else self._upload(Path(value), on_status)
            for name, value in files.items()
        }

    def _upload(self, path: Path, on_status: OnStatus) -> str:
        try:
            digest = _DIGEST + _sha256(path)
            if not self.client.has_blob(digest):
                self.client.upload(digest, path, _watched(path, on_status))
        except OSError as error:
            raise CorralError(f"cannot read {path}: {error.strerror or error}") from error
        return digest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _watched(path: Path, on_status: OnStatus) -> Iterator[bytes]:
    total, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            done += len(data)
            yield data
            on_status(Status(f"copying file {path.name}", total=total, completed=done))


def _listed(model: dict[str, Any]) -> ListedModel:
    size = model.get("size")
    return ListedModel(
        name=str(model.get("name") or model.get("model") or ""),
        digest=str(model.get("digest") or "").removeprefix(_DIGEST),
        size=size if isinstance(size, int) else 0,
        modified_at=parse_time(model.get("modified_at")),
        details=_object(model, "details"),
    )


def parse_time(value: object) -> datetime | None:
    """An RFC 3339 time; None for anything else, and for the zero time that means none."""
    try:
        when = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return when if when is not None and when.tzinfo is not None and when.year > 1 else None


def _object(told: dict[str, Any], field: str) -> dict[str, Any]:
    value = told.get(field)
    return value if isinstance(value, dict) else {}
