"""Weights on their way into the store: GGUF files in place, safetensors converted, floats quantised."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from corral.errors import CorralError, InvalidRequest, ModelNotFound, UnsupportedModel
from corral.store.blobs import hash_file, make_folder, storing
from corral.store.library import Library
from corral.store.manifest import ADAPTER, MODEL, PROJECTOR, Layer
from corral.store.paths import BLOB_NAME, BLOBS, PARTIAL
from corral.store.status import OnStatus, Status

MakeFile = Callable[[Path, Callable[[int, int], None]], None]  # (target, on_progress)


class WeightImporter:
    """Makes layers of files; a file is a path of this machine, or "sha256:<hex>" of a blob."""

    def __init__(self, library: Library, on_status: OnStatus) -> None:
        self._library = library
        self._on_status = on_status

    def layers(self, files: dict[str, str]) -> list[Layer]:
        """The layers of a model's files: GGUF files as they are, else a folder of safetensors, converted.

        Raises:
            InvalidRequest: a name that is no file's, or files of neither kind.
            ModelNotFound: a file or blob that is not there.
            UnsupportedModel, InvalidModelFile: what Corral cannot read.
        """
        for name in files:
            if not name or Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
                raise InvalidRequest(f"file path must be relative: {name!r:.200}", param="files")
        ggufs = {name: where for name, where in files.items() if self._is_gguf(name, where)}
        if ggufs:
            return [self.gguf_layer(each, MODEL, "model") for each in sorted(ggufs.items())]
        if any(name.endswith(".safetensors") for name in files):
            return [self._converted(files)]
        shown = ", ".join(sorted(files)[:5])
        raise InvalidRequest(f"unknown type: none of {shown:.200} is a GGUF or safetensors file", param="files")

    def gguf_layer(self, file: tuple[str, str], media_type: str, what: str) -> Layer:
        """The layer of one GGUF file; what is in it decides between model, projector and adapter."""
        name, where = file
        path = self._path_of(name, where)
        self._on_status(Status("parsing GGUF"))
        found = _kind_of(path)
        if media_type == ADAPTER and found != ADAPTER:
            raise UnsupportedModel(f"{name} is no LoRA adapter: its general.type is not 'adapter'")
        media_type = found if media_type == MODEL else media_type
        if where.startswith("sha256:"):
            self._on_status(Status(f"using existing layer {where}"))
            return Layer(media_type, where, path.stat().st_size)
        if (digest := self._digest_in_store(path)) is not None:
            self._on_status(Status(f"using existing layer {digest}"))
            return Layer(media_type, digest, path.stat().st_size)
        layer = self._library.link_file(path, media_type, self._on_status)
        self._on_status(Status(f"using existing layer {layer.digest}"))
        return layer

    def quantized(self, layer: Layer, kind: str) -> Layer:
        """The same weights as `kind`, in a file of the store.

        Raises:
            InvalidConfig: no such kind.
            UnsupportedModel: they are quantised already.
        """
        from corral.model.quantize import check_kind, quantize_file

        kind = check_kind(kind)
        source = self._library.blob(layer.digest)
        if source is None:
            raise ModelNotFound(f"blob {layer.digest} is not in the store")
        made = self._made(
            f"quantizing model to {kind}",
            lambda target, on_progress: quantize_file(source, target, kind, on_progress),
        )
        return Layer(MODEL, made.digest, made.size, layer.from_)

    def _converted(self, files: dict[str, str]) -> Layer:
        from corral.model.convert import convert_safetensors

        with tempfile.TemporaryDirectory(prefix="corral-convert-") as scratch:
            folder = Path(scratch) / _called(files)  # it becomes the model's general.name
            folder.mkdir()
            for name, where in files.items():
                if "/" not in name:  # a folder within holds nothing that a conversion reads
                    (folder / name).symlink_to(self._path_of(name, where).absolute())
            return self._made(
                "converting model", lambda target, on_progress: convert_safetensors(folder, target, on_progress)
            )

    def _made(self, status: str, make: MakeFile) -> Layer:
        """The layer of a file that `make` writes."""

        def on_progress(done: int, total: int) -> None:
            self._on_status(Status(status, completed=done, total=total))

        with self._scratch() as scratch:
            with storing(scratch):
                make(scratch, on_progress)
                size = scratch.stat().st_size
                hashing = Status("verifying sha256 digest", total=size)
                digest = hash_file(scratch, lambda done: self._on_status(Status(hashing.status, "", size, done)))
            with self._library.lock(digest, lambda: None):
                if not self._library.hold(digest):
                    self._library.publish(scratch, digest)
        self._on_status(Status(f"creating new layer sha256:{digest}"))
        return Layer(MODEL, f"sha256:{digest}", size)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A path beside the blobs; whatever is there in the end goes."""
        folder = self._library.root / BLOBS
        with storing(folder):
            make_folder(folder)
        path = folder / f"sha256-{secrets.token_hex(32)}{PARTIAL}"  # as prune knows what is under way
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _path_of(self, name: str, where: str) -> Path:
        if where.startswith("sha256:"):
            self._library.hold(where)
            path = self._library.blob(where)
            if path is None:
                raise ModelNotFound(f'blob "{where}" of {name} not found: send it to /api/blobs first')
            return path
        path = Path(where)
        if not path.is_absolute():
            raise InvalidRequest(
                f"file {name!r:.100} is {where!r:.100}; a digest or a whole path is needed", param="files"
            )
        if not path.is_file():
            raise ModelNotFound(f"there is no file {path}")
        return path

    def _digest_in_store(self, path: Path) -> str | None:
        """A file of the store by its path, as `show --modelfile` names it."""
        match = BLOB_NAME.fullmatch(path.name)
        if match is None or path.parent.name != BLOBS or path.parent.parent not in self._library.roots:
            return None
        self._library.hold(match["hex"])
        return f"sha256:{match['hex']}" if self._library.blob(match["hex"]) else None

    def _is_gguf(self, name: str, where: str) -> bool:
        if name.endswith((".json", ".safetensors", ".jinja", "tokenizer.model")):
            return False
        try:
            with self._path_of(name, where).open("rb") as file:
                return file.read(4) == b"GGUF"
        except OSError as error:
            raise CorralError(f"{name} cannot be read: {error.strerror or error}") from error


def _called(files: dict[str, str]) -> str:
    """What the folder that `files` come from is called; blobs have lost it."""
    parents = {Path(where).parent.name for where in files.values() if not where.startswith("sha256:")}
    return parents.pop() or "model" if len(parents) == 1 else "model"


def _kind_of(path: Path) -> str:
    """MODEL, PROJECTOR or ADAPTER, as the file says it is.

    Raises:
        InvalidModelFile, UnsupportedModel: no GGUF file that Corral can open.
    """
    from corral.model.gguf import open_gguf

    with open_gguf(path) as gguf:
        if gguf.metadata.get("general.type") == "adapter":
            return ADAPTER
        is_projector = (
            gguf.metadata.get("general.type") == "mmproj" or gguf.metadata.get("general.architecture") == "clip"
        )
        return PROJECTOR if is_projector else MODEL
