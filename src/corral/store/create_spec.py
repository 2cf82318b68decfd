"""What a model is to be made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class CreateSpec:
    """One call of create. What is None or empty is taken over from the base model, if there is one.

    Args:
        from_: name of the base model.
        files: of the model itself: name -> "sha256:<hex>" of a blob, or the absolute path of a local file.
        adapters, drafts: as `files`.
        parameters: by Ollama's names, of the types that the API takes.
        messages: {"role", "content"} each.
        quantize: kind to which the model is brought, as "Q4_K_M".
        renderer, parser, requires: Ollama's; kept, and not used here.
    """

    from_: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    adapters: dict[str, str] = field(default_factory=dict)
    drafts: dict[str, str] = field(default_factory=dict)
    template: str | None = None
    system: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    messages: tuple[dict[str, str], ...] = ()
    licenses: tuple[str, ...] = ()
    quantize: str | None = None
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None
