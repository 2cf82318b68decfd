"""What a user may call a model: a catalog name with an optional tag, or a path."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from corral.errors import ModelNotFound

DEFAULT_TAG = "latest"

_NAME = re.compile(r"(?P<model>[a-z0-9][a-z0-9._-]{0,79})(?::(?P<tag>[a-z0-9_][a-z0-9._-]{0,79}))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelName:
    """`model:tag`, in lower case; `given` is what the user wrote."""

    model: str
    tag: str
    given: str

    def __str__(self) -> str:
        return f"{self.model}:{self.tag}"


def as_path(text: str) -> Path | None:
    """The path that `text` is, or None if it reads as a name.

    It is a path if it contains a separator, starts with a dot or a tilde, or ends in .gguf.
    """
    if os.sep in text or text.startswith((".", "~")) or text.lower().endswith(".gguf"):
        return Path(text).expanduser()
    return None


def parse_name(text: str) -> ModelName:
    """`text` as a name; without a tag it is the one tagged `latest`.

    Raises:
        ModelNotFound: `text` cannot be a name.
    """
    match = _NAME.fullmatch(text)
    if match is None:
        raise ModelNotFound(
            f"{text!r} cannot be a model's name; a name is letters, digits, '.', '_' and '-', with an optional :tag, "
            "for instance smollm2 or smollm2:135m. A path to a .gguf file works too, for instance ./model.gguf"
        )
    return ModelName(match["model"].lower(), (match["tag"] or DEFAULT_TAG).lower(), text)
