"""Files and blobs -> layers: told apart by what they hold; converted and quantised where asked for."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from corral.errors import CorralError, InvalidRequest
from corral.store.facts import ModelFacts, facts_of
from corral.store.library import Library
from corral.store.local_model import LocalModel
from corral.store.manifest import ADAPTER, MODEL, PROJECTOR, Layer
from corral.store.status import OnStatus, Status

_CHUNK = 4 << 20
_GGUF_MAGIC = b"GGUF"
_TYPES = {"adapter": ADAPTER, "mmproj": PROJECTOR, "projector": PROJECTOR}

Progress = Callable[[int, int], None]  # (done, total)


class Weights:
    """Makes the layers of large files."""

    def __init__(self, library: Library, on_status: OnStatus) -> None:
        self._library = library
        self._tell = on_status

    def layers(self, files: Mapping[str, str]) -> list[Layer]:
        """Layers of a model's files: a GGUF file, perhaps with a projector, or a folder's safetensors.

        Raises:
            InvalidRequest: they make no model, or two.
            CorralError: a file is damaged or missing.
        """
        if any(name.endswith(".safetensors") for name in files):
            return [self._converted(files)]
        made = []
        for name, origin in files.items():
            path = self._path(origin)
            if not _is_gguf(path):
                raise InvalidRequest(f"{name}: unknown type; a GGUF file or safetensors are needed", param="files")
            self._tell(Status("parsing GGUF"))
            made.append(self._layer(path, origin, _type_of(path)))
        models = [layer for layer in made if layer.media_type == MODEL]
        if len(models) > 1:
            raise InvalidRequest(
                f"{len(models)} model files ({', '.join(files)}); give one: of a folder, name the file", param="files"
            )
        return made

    def of_kind(self, files: Mapping[str, str], media_type: str) -> list[Layer]:
        """Layers of GGUF files that are to be `media_type`."""
        kind = media_type.rpartition(".")[2]
        made = []
        for name, origin in files.items():
            path = self._path(origin)
            if not _is_gguf(path):
                raise InvalidRequest(f"{kind} {name} is no GGUF file; only those are supported", param=kind)
            if media_type == ADAPTER and _type_of(path) != ADAPTER:
                raise InvalidRequest(f"{kind} {name} is a GGUF file, but no LoRA adapter", param=kind)
            made.append(self._layer(path, origin, media_type))
        return made

    def facts(self, layer: Layer) -> ModelFacts:
        """What the file of a layer says of itself."""
        return facts_of(LocalModel("", self._path(layer.digest)))

    def quantized(self, layers: list[Layer], kind: str) -> list[Layer]:
        """The layers with the model's own brought to another kind of numbers.

        Raises:
            InvalidRequest: no such kind.
        """
        from corral.model.quantize import KINDS, quantize_file

        wanted = next((known for known in KINDS if known.upper() == kind.upper()), None)
        if wanted is None:
            raise InvalidRequest(f"unknown quantization {kind!r:.60}; there are {', '.join(KINDS)}", param="quantize")
        index = next(i for i, layer in enumerate(layers) if layer.media_type == MODEL)
        source = layers[index]
        told = f"quantizing {self.facts(source).quantization_level} model to {wanted}"
        with self._scratch() as target:
            quantize_file(self._path(source.digest), target, wanted, self._progress(told))
            made = self._publish(target, MODEL)
        return [*layers[:index], made, *layers[index + 1 :]]

    def _converted(self, files: Mapping[str, str]) -> Layer:
        from corral.model.convert import convert_safetensors

        with tempfile.TemporaryDirectory(prefix="corral-create-") as folder, self._scratch() as target:
            for name, origin in files.items():
                link = Path(folder, name)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(self._path(origin))
            convert_safetensors(Path(folder), target, self._progress("converting model"))
            return self._publish(target, MODEL)

    def _path(self, origin: str) -> Path:
        if not origin.startswith("sha256:"):
            return Path(origin)
        path = self._library.blob(origin)
        if path is None:
            raise InvalidRequest(f'blob "{origin:.80}" not found', param="files")
        return path

    def _layer(self, path: Path, origin: str, media_type: str) -> Layer:
        if origin.startswith("sha256:"):
            self._library.hold(origin)
            self._tell(Status(f"using existing layer {origin}", origin))
            return Layer(media_type, origin.lower(), path.stat().st_size)
        layer = self._library.link_file(path, media_type, self._tell)
        self._tell(Status(f"creating new layer {layer.digest}", layer.digest, layer.size, layer.size))
        return layer

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A place beside the blobs for a file whose digest is not known yet."""
        place = self._library.blob_target("0" * 64)
        path = place.with_name(f"{place.name}.partial-create-{uuid.uuid4().hex}")
        try:
            yield path
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _publish(self, whole: Path, media_type: str) -> Layer:
        digest = hashlib.sha256()
        try:
            size = whole.stat().st_size
            with whole.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise CorralError(f"{whole} cannot be read: {error.strerror}") from error
        name = f"sha256:{digest.hexdigest()}"
        self._library.publish(whole, name)
        self._tell(Status(f"creating new layer {name}", name, size, size))
        return Layer(media_type, name, size)

    def _progress(self, status: str) -> Progress:
        self._tell(Status(status))
        return lambda done, total: self._tell(Status(status, "", total, done))


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}", param="files") from error


def _type_of(path: Path) -> str:
    """Whether a GGUF file is a model, an adapter or a projector; a damaged one is refused."""
    from corral.model.gguf import open_gguf

    with open_gguf(path) as gguf:
        if gguf.metadata.get("general.architecture") == "clip":
            return PROJECTOR
        return _TYPES.get(str(gguf.metadata.get("general.type", "")).lower(), MODEL)
