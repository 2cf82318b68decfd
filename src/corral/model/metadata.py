"""Typed, range-checked reading of GGUF metadata: the values are a stranger's."""

from __future__ import annotations

import math
from typing import Any, NoReturn

from corral._native import StringTable
from corral.errors import InvalidModelFile, UnsupportedModel
from corral.model.gguf import GGUFFile


class MetadataReader:
    """Reads the keys of one family. Names are given without the family's prefix: "block_count" is
    "llama.block_count" in the file.

    Every method raises InvalidModelFile for a missing key (without default), a wrong type or a value out of range.
    """

    def __init__(self, gguf: GGUFFile, architecture: str) -> None:
        self.gguf = gguf
        self.architecture = architecture

    def key(self, name: str) -> str:
        return f"{self.architecture}.{name}"

    def has(self, name: str) -> bool:
        return self.key(name) in self.gguf.metadata

    def fail(self, name: str, fault: str) -> NoReturn:
        """A fault of the key `name`, at its offset in the file."""
        self.fail_key(self.key(name), fault)

    def fail_key(self, key: str, fault: str) -> NoReturn:
        """As `fail`, of a key with its whole name."""
        raise InvalidModelFile(self.gguf.path, self.gguf.key_offsets.get(key, 0), f"{key} {fault}")

    def refuse(self, what: str) -> NoReturn:
        """A sound file that asks for something Corral does not compute."""
        raise UnsupportedModel(f"{self.gguf.path}: {what}")

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number in [low, high]."""
        return self._checked_integer(name, self._get(name, default), low, high)

    def uniform_integer(self, name: str, low: int, high: int, num_layers: int, default: int | None = None) -> int:
        """A whole number, or an array with one equal number for each layer.

        Raises:
            UnsupportedModel: the layers differ.
        """
        value = self._get(name, default)
        if isinstance(value, StringTable):
            value = value.to_list()
        if not isinstance(value, list):
            return self._checked_integer(name, value, low, high)
        if len(value) != num_layers:
            self.fail(name, f"has {len(value)} values; {num_layers} layers need one each")
        for item in value:
            self._checked_integer(name, item, low, high)
        if len(set(value)) > 1:
            self.refuse(f"{self.key(name)} differs from layer to layer ({sorted(set(value))}), which is not supported")
        return int(value[0])

    def number(
        self, name: str, low: float, high: float, default: float | None = None, *, exclusive_low: bool = False
    ) -> float:
        """A finite number in [low, high], or in (low, high] with `exclusive_low`."""
        value = self._get(name, default)
        allowed = f"above {low:g} and at most {high:g}" if exclusive_low else f"from {low:g} to {high:g}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(name, f"is {_shown(value)}; it must be a number {allowed}")
        if not math.isfinite(value) or not low <= value <= high or (exclusive_low and value == low):
            self.fail(name, f"is {value!r}; it must be {allowed}")
        return float(value)

    def boolean(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            self.fail(name, f"is {_shown(value)}; it must be true or false")
        return value

    def string(self, name: str, default: str) -> str:
        value = self._get(name, default)
        if not isinstance(value, str):
            self.fail(name, f"is {_shown(value)}; it must be a string")
        return value

    def _get(self, name: str, default: Any) -> Any:
        value = self.gguf.metadata.get(self.key(name), default)
        if value is None:
            self.fail(name, "is missing")
        return value

    def _checked_integer(self, name: str, value: object, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(name, f"is {_shown(value)}; it must be a whole number from {low} to {high}")
        if not low <= value <= high:
            self.fail(name, f"is {value}; it must be from {low} to {high}")
        return value


def _shown(value: object) -> str:
    """A value in an error message: short, whatever it is."""
    return f"an array of {len(value)}" if isinstance(value, list | StringTable) else f"{value!r:.80}"
