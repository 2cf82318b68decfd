"""The config blob of a model that came without one, in the form that Ollama reads."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from corral.errors import CorralError, UnsupportedModel
from corral.store.facts import facts_of
from corral.store.local_model import LocalModel
from corral.store.manifest import CONFIG, MODEL, Layer, Manifest
from corral.store.names import ModelName
from corral.store.split import model_path

if TYPE_CHECKING:
    from corral.store.library import Library


def manifest_of(name: ModelName, layers: tuple[Layer, ...], library: Library) -> Manifest:
    """`layers` and a config that says what the model's own header says.

    Raises:
        InvalidModelFile: the model's file is no GGUF file, damaged or hostile.
    """
    paths = []
    for layer in layers:
        if layer.media_type == MODEL:
            blob = library.blob(layer.digest)
            if blob is None:
                raise CorralError(f"blob {layer.digest} of {name} has vanished; pull it again")
            paths.append((layer.digest, blob))
    path = model_path(paths)
    _check_readable(path)
    facts = facts_of(LocalModel(str(name), path))
    config = {
        "model_format": "gguf",
        "model_family": facts.family,
        "model_families": list(facts.families),
        "model_type": facts.parameter_size,
        "file_type": facts.quantization_level,
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
    }
    data = json.dumps(config, separators=(",", ":")).encode()
    added = library.add_bytes(data, CONFIG)
    return Manifest(added, layers)


def _check_readable(path: Path) -> None:
    """A sound file of a type that Corral cannot run yet may be kept; what is no GGUF file is refused."""
    from corral.model.gguf import open_gguf

    with contextlib.suppress(UnsupportedModel):
        open_gguf(path).close()
