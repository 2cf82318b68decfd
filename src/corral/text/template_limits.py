"""What one rendering of a chat template may cost. A template comes with a model file, so it may be hostile."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from jinja2.utils import Namespace

from corral.limits import (
    MAX_RENDERED_CHARS,
    MAX_RENDERED_ITEMS,
    MAX_RENDERED_TOTAL_CHARS,
    MAX_TEMPLATE_CHARS,
    MAX_TEMPLATE_CPU_S,
)

_MAX_BITS = 4096


@dataclass(frozen=True, slots=True)
class TemplateLimits:
    """Limits of one rendering.

    Args:
        max_source_chars: longest template.
        max_cpu_s: CPU time of the rendering thread.
        max_chars: longest text that a template may make, the prompt included.
        max_total_chars: all texts made on the way, together.
        max_items: longest list, and most values in a nested one, that a template may make.
    """

    max_source_chars: int = MAX_TEMPLATE_CHARS
    max_cpu_s: float = MAX_TEMPLATE_CPU_S
    max_chars: int = MAX_RENDERED_CHARS
    max_total_chars: int = MAX_RENDERED_TOTAL_CHARS
    max_items: int = MAX_RENDERED_ITEMS


class TemplateLimitError(Exception):
    """A template did more than TemplateLimits allow. No subclass of what templates' own filters catch."""


class Budget:
    """What is left of the limits during one rendering.

    Everything a template can repeat (loops, calls, filters, operators) spends from it, so it needs no timer and no
    second thread, and works in any thread.
    """

    _LOOK_EVERY = 256  # units between two looks at the clock; a unit is about a microsecond of work

    def __init__(self, limits: TemplateLimits) -> None:
        self.limits = limits
        self._deadline = time.thread_time() + limits.max_cpu_s
        self._units_to_look = self._LOOK_EVERY
        self._chars_left = limits.max_total_chars

    def spend(self, units: int) -> None:
        self._units_to_look -= units
        if self._units_to_look < 0:
            self._units_to_look = self._LOOK_EVERY
            if time.thread_time() > self._deadline:
                raise TemplateLimitError(f"took more than {self.limits.max_cpu_s:g} s of CPU time")

    def check_chars(self, num_chars: int) -> None:
        """Call before a text of that length is made, where that can be known."""
        if num_chars > self.limits.max_chars:
            raise TemplateLimitError(f"makes a text of more than {self.limits.max_chars} characters")

    def check_items(self, num_items: int) -> None:
        if num_items > self.limits.max_items:
            raise TemplateLimitError(f"makes a list of more than {self.limits.max_items} values")

    def charge(self, value: Any) -> Any:
        """Pays for a value that was just made, and gives it back."""
        if isinstance(value, str):
            self.check_chars(len(value))
            self._chars_left -= len(value)
            self.spend(1 + len(value) // 1024)
            if self._chars_left < 0:
                raise TemplateLimitError(f"makes more than {self.limits.max_total_chars} characters of text in all")
        elif isinstance(value, list | tuple | dict):
            self.measure(value)
        elif isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise TemplateLimitError(f"makes a number of more than {_MAX_BITS} bits")
        return value

    def measure(self, value: Any, indent: int = 0) -> int:
        """Characters that a value written out will have at most, roughly.

        Values share parts, so a small one may be endless when written: each occurrence counts.
        """
        num_items = num_chars = 0
        stack = [(value, 0)]
        while stack:
            part, depth = stack.pop()
            num_items += 1
            if isinstance(part, str):
                num_chars += len(part)
            elif isinstance(part, Mapping):
                num_chars += sum(len(key) for key in part if isinstance(key, str))
                stack.extend((child, depth + 1) for child in part.values())
            elif isinstance(part, list | tuple):
                stack.extend((child, depth + 1) for child in part)
            elif isinstance(part, Namespace):
                raise TemplateError("a namespace cannot be written as text")
            num_chars += 8 + indent * depth
            if len(stack) + num_items > self.limits.max_items or num_chars > self.limits.max_chars:
                self.check_items(len(stack) + num_items)
                self.check_chars(num_chars)
        self.spend(num_items)
        return num_chars

    def metered(self, iterable: Iterable[Any]) -> Iterator[Any]:
        """The same items, each paid for."""
        for item in iterable:
            self.spend(1)
            yield item


CURRENT_BUDGET: ContextVar[Budget] = ContextVar("CURRENT_BUDGET")  # of the rendering in this thread
