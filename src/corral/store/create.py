"""`create`: a model of one's own, from another one, a GGUF file or a folder of safetensors, and what is added to it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from corral.errors import CorralError, InvalidRequest, ModelNotFound
from corral.store.create_spec import CreateSpec
from corral.store.import_weights import WeightImporter
from corral.store.library import Library
from corral.store.manifest import (
    ADAPTER,
    DRAFT,
    LICENSE,
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
from corral.store.model_config import manifest_of
from corral.store.modelfile import Command, format_modelfile
from corral.store.names import ModelName, as_path, parse_name
from corral.store.status import OnStatus, Status
from corral.store.stored_model import StoredModel

__all__ = ["CreateSpec", "create", "modelfile_of"]

_ORDER = (MODEL, PROJECTOR, ADAPTER, DRAFT, TEMPLATE, SYSTEM, PARAMS, MESSAGES, LICENSE)
_UNUSED = {"renderer": "RENDERER", "parser": "PARSER", "drafts": "DRAFT"}


def create(name: str, spec: CreateSpec, on_status: OnStatus, *, library: Library | None = None) -> StoredModel:
    """Makes the model `name`, in place of an older one of that name.

    Raises:
        InvalidModelName: `name` cannot be one.
        InvalidRequest: neither a model nor files to make it from, files that do not go together, or a wrong path.
        UnsupportedModel: weights or a template that Corral does not know; a template's error names the line.
        InvalidModelFile: damaged weights.
        InvalidConfig: no such quantisation.
        CorralError: no such model, no room, ...; nothing is changed.
    """
    library = library or Library.open()
    target = parse_name(name)
    manifest = _Builder(library, spec, on_status).manifest(target)
    on_status(Status("writing manifest"))
    stored = library.write(target, manifest)
    on_status(Status("success"))
    return stored


@dataclass
class _Builder:
    """Gathers the layers of a new model."""

    library: Library
    spec: CreateSpec
    on_status: OnStatus

    def layers(self) -> list[Layer]:
        spec = self.spec
        # What is wrong is said before gigabytes are fetched, converted or hashed.
        if spec.template is not None:
            _check_template(spec.template)
        if spec.quantize is not None:
            _check_quantize(spec.quantize)
        base = self._base_layers()
        importer = WeightImporter(self.library, self.on_status)
        for field, instruction in _UNUSED.items():
            if getattr(spec, field):
                self.on_status(Status(f"{instruction} is kept, but Corral does not use it"))
        if spec.quantize is not None:
            base = [importer.quantized(layer, spec.quantize) if layer.media_type == MODEL else layer for layer in base]
        if spec.adapters:
            new = [importer.gguf_layer(each, ADAPTER, "adapter") for each in spec.adapters.items()]
            base = [*(layer for layer in base if layer.media_type != ADAPTER), *new]
        base += [importer.gguf_layer(each, DRAFT, "draft") for each in spec.drafts.items()]
        base = self._replaced(base, TEMPLATE, spec.template, also=PROMPT)
        base = self._replaced(base, SYSTEM, spec.system)
        base = self._with_parameters(base)
        base = self._replaced(base, MESSAGES, _json(list(spec.messages)) if spec.messages else None)
        licences = [self._small(text, LICENSE) for text in spec.licenses]
        base += [layer for layer in licences if layer not in base]
        ordered = sorted(base, key=lambda layer: _ORDER.index(layer.media_type) if layer.media_type in _ORDER else 99)
        for layer in ordered:
            self.library.hold(layer.digest)
        return ordered

    def _base_layers(self) -> list[Layer]:
        spec = self.spec
        if spec.from_ and spec.files:
            raise InvalidRequest("both 'from' and 'files' were given; take one of them", param="files")
        if spec.files:
            return WeightImporter(self.library, self.on_status).layers(spec.files)
        if not spec.from_:
            raise InvalidRequest("neither 'from' or 'files' was specified", param="from")
        path = as_path(spec.from_)
        if path is not None:
            return WeightImporter(self.library, self.on_status).layers({path.name: str(path.absolute())})
        return self._layers_of_model(spec.from_)

    def _layers_of_model(self, name: str) -> list[Layer]:
        """Those of a model in the store; it is pulled if it is not there."""
        stored = self.library.find(parse_name(name))
        if stored is None:
            from corral.store.pull import pull

            def on_pull(status: Status) -> None:
                if status.status != "success":  # ours comes at the end
                    self.on_status(status)

            stored = pull(name, on_pull, library=self.library)
        for layer in stored.manifest.layers:
            if not self.library.hold(layer.digest):
                raise ModelNotFound(f"model {name!r} lacks its blob {layer.digest}: pull it again")
            self.on_status(Status(f"using existing layer {layer.digest}"))
        origin = str(stored.name)
        return [
            replace(layer, from_=origin) if layer.media_type == MODEL else layer for layer in stored.manifest.layers
        ]

    def _replaced(self, layers: list[Layer], media_type: str, text: str | None, also: str = "") -> list[Layer]:
        if text is None:
            return layers
        kept = [layer for layer in layers if layer.media_type not in (media_type, also)]
        return [*kept, self._small(text, media_type)] if text else kept

    def _with_parameters(self, layers: list[Layer]) -> list[Layer]:
        """The base's parameters, and ours over them; `stop` as a whole."""
        if not self.spec.parameters:
            return layers
        merged: dict[str, Any] = {}
        for layer in layers:
            if layer.media_type == PARAMS and (path := self.library.blob(layer.digest)) is not None:
                merged |= _parameters_in(path)
        return self._replaced(layers, PARAMS, _json(merged | self.spec.parameters))

    def _small(self, text: str, media_type: str) -> Layer:
        layer = self.library.add_bytes(text.encode("utf-8", "replace"), media_type)
        self.on_status(Status(f"creating new layer {layer.digest}"))
        return layer

    def manifest(self, name: ModelName) -> Manifest:
        layers = self.layers()
        if not any(layer.media_type == MODEL for layer in layers):
            raise InvalidRequest("a model needs weights: a .gguf file, or a model that has one", param="files")
        more = {key: text for key in ("renderer", "parser", "requires") if (text := getattr(self.spec, key))}
        return manifest_of(name, tuple(layers), self.library, more)


def _check_quantize(kind: str) -> None:
    from corral.model.quantize import check_kind

    check_kind(kind)


def _check_template(source: str) -> None:
    """Raises UnsupportedModel, with the line, for a template that could not be rendered."""
    from corral.text.templates import make_template

    make_template(source)


def _parameters_in(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CorralError(f"{path}, the parameters of the base model, cannot be read: {error}") from error
    return value if isinstance(value, dict) else {}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def modelfile_of(model: StoredModel) -> str:
    """The Modelfile of a model, which `create` takes; weights and adapters are named by their paths here.

    Raises:
        CorralError: a file of the model is missing or damaged.
    """
    local = model.to_local()
    commands = [Command("from", str(local.path))]
    if local.projector is not None:
        commands.append(Command("from", str(local.projector)))
    commands += [Command("adapter", str(path)) for path in local.adapters]
    if local.template is not None:
        commands.append(Command("template", local.template))
    if local.system is not None:
        commands.append(Command("system", local.system))
    config = model.config()
    for key in ("renderer", "parser", "requires"):
        if isinstance(value := config.get(key), str) and value:
            commands.append(Command(key, value))
    for key, value in local.parameters.items():
        for each in value if isinstance(value, list) else [value]:
            text = str(each).lower() if isinstance(each, bool) else str(each)
            commands.append(Command("parameter", text, key))
    commands += [Command("message", message["content"], message["role"]) for message in local.messages]
    commands += [Command("license", text) for text in model.text(LICENSE)]
    head = (
        '# Modelfile generated by "corral show"\n# To build a new Modelfile based on this, replace FROM with:\n'
        f"# FROM {model.name}\n\n"
    )
    return head + format_modelfile(commands)
