"""Models of a registry that speaks Ollama's protocol: a manifest, then each blob that it names."""

from __future__ import annotations

import hashlib
import json

from corral.errors import DigestMismatch, DownloadError, ModelNotFound, UnsupportedModel
from corral.store.manifest import CONFIG, MAX_MANIFEST_BYTES, MODEL, Layer, Manifest, parse_manifest
from corral.store.names import ModelName
from corral.store.pulling import Puller
from corral.store.registry import MANIFEST_HEADERS, Registry, open_registry, told
from corral.store.transport.download import Remote
from corral.store.transport.transfer import AccessRefused

_MAX_CONFIG_BYTES = 4 << 20


def pull(name: ModelName, puller: Puller) -> Manifest:
    """The manifest of `name`, all of whose blobs are then in the library.

    Raises:
        ModelNotFound: the registry has no such model; the text begins as Ollama's does.
        DownloadError: it cannot be reached, or refuses.
        UnsupportedModel: its weights are not GGUF, or it runs elsewhere.
    """
    with open_registry(name, puller.patience, insecure=puller.insecure) as registry:
        manifest = _manifest(registry)
        _check_kind(manifest, registry)
        layers = sorted(manifest.all_layers, key=lambda layer: layer.size)  # the small ones say early what is wrong
        for digest in dict.fromkeys(layer.digest for layer in layers):
            layer = next(layer for layer in layers if layer.digest == digest)
            _fetch(registry, puller, layer)
            if layer.media_type == CONFIG:
                _check_config(puller, layer, name)
        return manifest


def _manifest(registry: Registry) -> Manifest:
    name = registry.name
    url = registry.url("manifests", name.tag)
    reply = registry.ask("GET", url, headers=MANIFEST_HEADERS, max_bytes=MAX_MANIFEST_BYTES)
    if reply.status == 404:
        raise ModelNotFound(
            f"pull model manifest: file does not exist: {registry.host} has no model {str(name)!r}{told(reply)}"
        )
    if not reply.is_success:
        raise DownloadError(f"pull model manifest: {registry.host} answered {reply.status} {reply.reason}{told(reply)}")
    digest = hashlib.sha256(reply.body).hexdigest()
    if name.digest and not digest.startswith(name.digest):
        raise DigestMismatch(
            f"{registry.host} has {name.full} with digest {digest[:12]} now; {name.digest} was asked for. "
            "Leave out the digest to get what is there"
        )
    return parse_manifest(reply.body, url)


def _check_kind(manifest: Manifest, registry: Registry) -> None:
    if not manifest.of_type(MODEL):
        kinds = sorted({layer.media_type.rpartition(".")[2] for layer in manifest.layers})
        raise UnsupportedModel(
            f"{registry.name} of {registry.host} has no GGUF weights (its layers: {', '.join(kinds) or 'none'}); "
            "models that run elsewhere and safetensors ones cannot be run here"
        )


def _check_config(puller: Puller, layer: Layer, name: ModelName) -> None:
    """Refuse what cannot be run before gigabytes of it arrive."""
    path = puller.library.blob(layer.digest)
    if path is None or layer.size > _MAX_CONFIG_BYTES:
        return
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return  # nothing is read from it
    kind = config.get("model_format", "gguf") if isinstance(config, dict) else "gguf"
    if kind not in ("", "gguf"):
        raise UnsupportedModel(f"{name} is in the format {str(kind)[:40]!r}; GGUF is what can be run")


def _fetch(registry: Registry, puller: Puller, layer: Layer) -> None:
    """One blob; a token that ran out on the way is renewed once."""
    url = registry.url("blobs", layer.digest)
    for is_last in (False, True):
        headers = tuple(registry.headers().items())
        remote = Remote(str(url), layer.digest, layer.size, layer.hex, headers=headers)
        try:
            puller.fetch(registry.client, remote, layer.media_type)
            return
        except AccessRefused:
            if is_last:
                raise
            registry.authorization = ""
            registry.ask("HEAD", url)  # signs in
