"""What a new model is to be made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class CreateSpec:
    """What `create` is asked for; what is None or empty is taken from the model that it is made from.

    Args:
        from_: the name of that model, or the path of a .gguf file; None if `files` are it.
        files: name -> "sha256:<hex>" of a blob in the store, or an absolute path here. GGUF files, or those
            of a folder of safetensors.
        adapters, drafts: LoRA adapters and draft models, as `files`.
        parameters: by Ollama's names, in the types that the API has.
        messages: {"role", "content"} each.
        quantize: a kind of corral.model.quantize.
        renderer, parser, requires: kept for Ollama, not used by Corral.
    """

    from_: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    adapters: dict[str, str] = field(default_factory=dict)
    template: str | None = None
    system: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    messages: tuple[dict[str, str], ...] = ()
    licenses: tuple[str, ...] = ()
    quantize: str | None = None
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None
    drafts: dict[str, str] = field(default_factory=dict)
