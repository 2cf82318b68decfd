"""The models of this machine, without a server."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from corral.cli.model_card import ListedModel, ModelCard
from corral.errors import ModelNotFound

if TYPE_CHECKING:
    from pathlib import Path

    from corral.store.create import CreateSpec
    from corral.store.facts import ModelFacts
    from corral.store.library import Library, StoredModel
    from corral.store.local_model import LocalModel
    from corral.store.status import OnStatus

_PADDING = 30  # of a parameter's name, as /api/show has it


class LocalBackend:
    """The store of this machine, and Ollama's where there is one."""

    @property
    def _library(self) -> Library:
        from corral.store.library import Library

        return Library.open()

    def models(self) -> list[ListedModel]:
        from corral.store.facts import facts_of

        return [
            ListedModel(str(model.name), model.digest, model.size, model.modified_at, _details(facts_of(model)))
            for model in self._library.models()
        ]

    def card(self, name: str, *, verbose: bool = False) -> ModelCard:
        from corral.store.names import as_path, parse_name

        if as_path(name) is not None:
            from corral.store import resolve

            return _card_of_file(resolve(name, may_pull=False), verbose=verbose)
        model = self._library.find(parse_name(name))
        if model is None:
            raise ModelNotFound(f"model '{name}' not found")
        return _card_of_stored(model, verbose=verbose)

    def pull(self, name: str, on_status: OnStatus, *, insecure: bool = False) -> None:
        from corral.store.pull import pull

        pull(name, on_status, insecure=insecure)

    def push(self, name: str, on_status: OnStatus, *, insecure: bool = False) -> None:
        from corral.store.push import push

        push(name, on_status, insecure=insecure)

    def create(self, name: str, spec: CreateSpec, on_status: OnStatus) -> None:
        from corral.store.create import create

        create(name, spec, on_status)

    def copy(self, source: str, target: str) -> None:
        from corral.store.names import parse_name

        self._library.copy(parse_name(source), parse_name(target))

    def delete(self, name: str) -> None:
        from corral.store.names import parse_name

        self._library.delete(parse_name(name))


def _details(facts: ModelFacts) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(facts).items()}


def _card_of_stored(model: StoredModel, *, verbose: bool) -> ModelCard:
    from corral.store.create import modelfile_of
    from corral.store.facts import facts_of
    from corral.store.manifest import LICENSE

    facts = facts_of(model)
    return _card(model.to_local(), facts, modelfile_of(model), "\n".join(model.text(LICENSE)), verbose=verbose)


def _card_of_file(local: LocalModel, *, verbose: bool) -> ModelCard:
    from corral.store.facts import facts_of

    return _card(local, facts_of(local), f"FROM {local.path}\n", "", verbose=verbose)


def _card(local: LocalModel, facts: ModelFacts, modelfile: str, licence: str, *, verbose: bool) -> ModelCard:
    from corral.store.facts import model_info, tensors_of

    info = model_info(local.path, verbose=verbose)
    details = _details(facts)
    capabilities = tuple(details.pop("capabilities", ()))
    return ModelCard(
        details=details,
        capabilities=capabilities,
        parameters=parameter_lines(local.parameters),
        template=local.template or str(info.get("tokenizer.chat_template") or ""),
        system=local.system or "",
        license=licence,
        modelfile=modelfile,
        model_info=info,
        projector_info=_projector(local.projector, verbose=verbose),
        tensors=tuple(tensors_of(local.path)) if verbose else (),
    )


def _projector(path: Path | None, *, verbose: bool) -> dict[str, Any]:
    from corral.store.facts import model_info

    return {} if path is None else model_info(path, verbose=verbose)


def parameter_lines(parameters: dict[str, Any]) -> str:
    """A line for each value, the name padded as in /api/show; texts in quotation marks."""
    lines = []
    for name, value in parameters.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            shown = f'"{one}"' if isinstance(one, str) else str(one)
            lines.append(f"{name:<{_PADDING}} {shown}")
    return "\n".join(lines)
