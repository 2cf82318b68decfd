"""What Ollama's API tells of a model, from the store and from the model's file. Everything here blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from corral.protocol.ollama.models import Details, ListedModel, ShownModel
from corral.store.facts import facts_of, model_info, tensors_of
from corral.store.local_model import LocalModel
from corral.store.manifest import LICENSE

if TYPE_CHECKING:
    from pathlib import Path

    from corral.server.store_access import StoreAccess
    from corral.store.library import StoredModel


def details_of(model: StoredModel | LocalModel) -> Details:
    """The file's header is read unless it is known already; of a damaged file there is next to nothing to tell."""
    facts = facts_of(model)
    return Details(
        parent_model=facts.parent_model,
        format=facts.format,
        family=facts.family,
        families=facts.families,
        parameter_size=facts.parameter_size,
        quantization_level=facts.quantization_level,
        context_length=facts.context_length,
        embedding_length=facts.embedding_length,
        capabilities=facts.capabilities,
    )


def list_models(served: Iterable[LocalModel], store: StoreAccess) -> list[ListedModel]:
    """The models that can be asked for, the newest first."""
    by_digest = {(str(stored.name), stored.digest): stored for stored in store.library.models()}
    listed = []
    for local in served:
        stored = by_digest.get((local.name, local.digest))
        size, modified_at = (stored.size, stored.modified_at) if stored else _file_facts(local.path)
        details = details_of(stored or local)
        listed.append(ListedModel(tagged(local.name), modified_at, size, digest_of(local), details))
    return sorted(listed, key=lambda model: model.modified_at, reverse=True)


def digest_of(local: LocalModel) -> str:
    """Of the manifest. A mere file has none, but clients take models of one digest for one: so what tells it apart."""
    if local.digest:
        return local.digest
    size, modified_at = _file_facts(local.path)
    return hashlib.sha256(f"{local.path}\0{size}\0{modified_at.timestamp()}".encode("utf-8", "replace")).hexdigest()


def tagged(name: str) -> str:
    """Clients expect a tag; a file that is served under its own name has none."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def show_model(local: LocalModel, store: StoreAccess, *, verbose: bool, system: str) -> ShownModel:
    """All that there is to tell of a model; `system` in place of its own.

    Raises:
        CorralError: its file or a layer is missing or damaged.
    """
    stored = store.find(local.name) if local.digest else None
    return ShownModel(
        license="\n".join(stored.text(LICENSE)) if stored else "",
        modelfile=store.modelfile(stored) if stored else f"FROM {local.path.name}\n",
        parameters=local.parameters,
        template=local.template or _own_template(local.path),
        system=system or local.system or "",
        messages=local.messages,
        details=details_of(stored or local),
        model_info=model_info(local.path, verbose=verbose),
        tensors=tensors_of(local.path),
        modified_at=stored.modified_at if stored else _file_facts(local.path)[1],
    )


def _own_template(path: Path) -> str:
    from corral.model.gguf import open_gguf

    with open_gguf(path) as gguf:
        template = gguf.metadata.get("tokenizer.chat_template")
    return template.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if isinstance(template, str) else ""


def _file_facts(path: Path) -> tuple[int, datetime]:
    """Size and time of a mere file; nothing of one that is gone."""
    try:
        status = path.stat()
    except OSError:
        return 0, datetime.fromtimestamp(0, UTC)
    return status.st_size, datetime.fromtimestamp(status.st_mtime, UTC)
