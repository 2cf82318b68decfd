"""A model's card as tables, for `corral show` and the chat's /show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from corral.cli import human
from corral.cli.model_card import ModelCard

_MAX_LINES = 2  # of the system message and of the licence
_MAX_ITEMS = 3  # of an array


def describe(card: ModelCard, *, verbose: bool = False) -> str:
    """The tables: Model, Capabilities, Projector, Parameters, Metadata and Tensors if `verbose`, System, License."""
    return "\n\n".join(f"  {title}\n{human.table(rows, indent=4)}" for title, rows in _sections(card, verbose) if rows)


def _sections(card: ModelCard, verbose: bool) -> Iterator[tuple[str, Sequence[Sequence[str]]]]:
    yield "Model", _model_rows(card)
    yield "Capabilities", [(capability,) for capability in card.capabilities]
    yield "Projector", _projector_rows(card.projector_info)
    yield "Parameters", [_split(line) for line in card.parameters.splitlines() if line.strip()]
    if verbose:
        yield "Metadata", [(key, _value(value)) for key, value in sorted(card.model_info.items())]
        yield "Tensors", [_tensor_row(tensor) for tensor in card.tensors]
    yield "System", _first_lines(card.system)
    yield "License", _first_lines(card.license)


def _model_rows(card: ModelCard) -> list[tuple[str, str]]:
    info, details = card.model_info, card.details
    family = str(info.get("general.architecture") or details.get("family") or "")
    rows = [
        ("architecture", family),
        ("parameters", str(details.get("parameter_size") or "")),
        ("context length", str(info.get(f"{family}.context_length") or details.get("context_length") or "")),
        ("embedding length", str(info.get(f"{family}.embedding_length") or details.get("embedding_length") or "")),
        ("quantization", str(details.get("quantization_level") or "")),
        ("requires", card.requires),
    ]
    return [row for row in rows if row[1]]


def _projector_rows(info: dict[str, Any]) -> list[tuple[str, str]]:
    family = str(info.get("general.architecture") or "")
    wanted = (
        ("architecture", "general.architecture"),
        ("embedding length", f"{family}.vision.embedding_length"),
        ("dimensions", f"{family}.vision.projection_dim"),
    )
    return [(label, str(info[key])) for label, key in wanted if key in info]


def _split(line: str) -> tuple[str, str]:
    name, _, value = line.strip().partition(" ")
    return name, human.short(value.strip())


def _value(value: object) -> str:
    if not isinstance(value, list):
        return human.short(str(value))
    items = ", ".join(str(item) for item in value[:_MAX_ITEMS])
    return human.short(f"[{items}, ...+{len(value) - _MAX_ITEMS} more]" if len(value) > _MAX_ITEMS else f"[{items}]")


def _tensor_row(tensor: dict[str, Any]) -> tuple[str, str, str]:
    shape = tensor.get("shape")
    numbers = " ".join(str(size) for size in shape) if isinstance(shape, list | tuple) else ""
    return str(tensor.get("name") or ""), str(tensor.get("type") or ""), f"[{numbers}]"


def _first_lines(text: str) -> list[tuple[str]]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    shown = [(line,) for line in lines[:_MAX_LINES]]
    return [*shown, ("...",)] if len(lines) > _MAX_LINES else shown
