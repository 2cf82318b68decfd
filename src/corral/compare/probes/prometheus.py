"""Prometheus' text format, as far as a probe has to read it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_SAMPLE = re.compile(
    r"^([A-Za-z_:][\w:]*)(\{[^\n]*\})?\s+([-+]?(?:Inf|NaN|\d[\d.eE+-]*|\.\d[\d.eE+-]*))(?:\s+[-\d.]+)?(?:\s+#.*)?$",
    re.ASCII,
)
MOST_LINES = 50_000


@dataclass(slots=True)
class Exposition:
    """Names of what it has, by kind, and the first lines that are none of the format's."""

    names: set[str] = field(default_factory=set)
    kinds: dict[str, str] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)

    def has(self, name: str) -> bool:
        """Also as a counter's `_total` or a histogram's `_bucket`."""
        return any(f"{name}{end}" in self.names for end in ("", "_total", "_bucket", "_count"))


def parse(text: str) -> Exposition:
    found = Exposition()
    for line in text.splitlines()[:MOST_LINES]:
        stripped = line.strip()
        if stripped.startswith("# TYPE "):
            parts = stripped.split()
            if len(parts) == 4:
                found.kinds[parts[2]] = parts[3]
        elif stripped and not stripped.startswith("#"):
            match = _SAMPLE.match(stripped)
            if match is None:
                found.odd.append(stripped)
            else:
                found.names.add(match.group(1))
    return found
