"""What a backend tells of a model, wherever the model lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model as `list` tells of it; `digest` is the manifest's, in hex, `details` are as in /api/tags."""

    name: str
    digest: str
    size: int
    modified_at: datetime | None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """All that `show` tells; the fields are those of /api/show."""

    details: dict[str, Any] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    parameters: str = ""  # a line each, the name padded
    template: str = ""
    system: str = ""
    license: str = ""
    modelfile: str = ""
    requires: str = ""
    model_info: dict[str, Any] = field(default_factory=dict)
    projector_info: dict[str, Any] = field(default_factory=dict)
    tensors: tuple[dict[str, Any], ...] = ()
