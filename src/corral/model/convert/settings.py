"""Numbers of a config.json: read, checked, and named when they are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from corral.errors import InvalidModelFile, UnsupportedModel


class Settings:
    """The part of a config.json that describes the decoder; `text_config` of models that see, too."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        text = config.get("text_config")
        self.path = path
        self.values: dict[str, Any] = {**config, **text} if isinstance(text, dict) else config

    def fail(self, key: str, fault: str) -> NoReturn:
        raise InvalidModelFile(self.path, 0, f"{key} {fault}")

    def refuse(self, reason: str) -> NoReturn:
        raise UnsupportedModel(f"{self.path}: {reason}")

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.values.get(key, default)
        value = default if value is None else value
        if type(value) is not int or not 0 < value < 1 << 31:
            self.fail(key, f"is {value!r:.40}; a whole number above 0 is needed")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        return self.number_of(key, self.values.get(key), default)

    def number_of(self, key: str, value: object, default: float | None = None) -> float:
        """`value`, which stands under `key`, as a finite number above 0."""
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            self.fail(key, f"is {value!r:.40}; a number above 0 is needed")
        return float(value)

    def rope(self, layer_type: str = "full_attention") -> dict[str, Any]:
        """Base and scaling of the rotary embedding, by transformers' names: new files have `rope_parameters`, for
        all layers or for each type of them, older ones `rope_theta` and `rope_scaling`."""
        found = self.values.get("rope_parameters")
        if isinstance(found, dict):
            inner = found.get(layer_type)
            return inner if isinstance(inner, dict) else found
        scaling = self.values.get("rope_scaling")
        theta = self.values.get("rope_theta")
        return {**(scaling if isinstance(scaling, dict) else {}), **({} if theta is None else {"rope_theta": theta})}
