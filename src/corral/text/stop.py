"""Stop strings: the text before one is given out, the string itself and what follows never is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StopResult:
    """Text that may be shown, and the stop string that has ended the answer, if one has."""

    text: str
    matched: str | None = None


class StopMatcher:
    """Finds the stop string that is complete first; of several that end at the same character, the longest.

    Text is held back only as long as it is the beginning of some stop string (Aho-Corasick: constant time per
    character, however many strings there are).

    Args:
        stops: the strings.
        is_shown: the one that has ended the answer is part of it.
    """

    def __init__(self, stops: Iterable[str], *, is_shown: bool = False) -> None:
        self._is_shown = is_shown
        self._next: list[dict[str, int]] = [{}]  # per node: character -> node; node 0 is the empty text
        self._depth = [0]
        self._matched: list[str | None] = [None]  # the longest stop string that ends at the node
        for stop in dict.fromkeys(stops):
            if not stop:
                raise ValueError("a stop string must not be empty")
            self._add(stop)
        self._fail = self._links()
        self._node = 0
        self._held = ""
        self._is_over = False

    def _add(self, stop: str) -> None:
        node = 0
        for character in stop:
            if character not in self._next[node]:
                self._next[node][character] = len(self._next)
                self._next.append({})
                self._depth.append(self._depth[node] + 1)
                self._matched.append(None)
            node = self._next[node][character]
        self._matched[node] = stop

    def _links(self) -> list[int]:
        """Per node the node of its longest proper ending; breadth first, as each link needs the shorter ones."""
        fail = [0] * len(self._next)
        queue = list(self._next[0].values())
        for node in queue:
            self._matched[node] = self._matched[node] or self._matched[fail[node]]
            for character, child in self._next[node].items():
                shorter = fail[node]
                while shorter and character not in self._next[shorter]:
                    shorter = fail[shorter]
                fail[child] = self._next[shorter].get(character, 0)
                queue.append(child)
        return fail

    def push(self, text: str) -> StopResult:
        """The text that is certain to precede any stop string. After a match nothing more is given out."""
        if self._is_over or not text:
            return StopResult("")
        if not self._next[0]:
            return StopResult(text)
        next_nodes, fail, node = self._next, self._fail, self._node
        for index, character in enumerate(text):
            while node and character not in next_nodes[node]:
                node = fail[node]
            node = next_nodes[node].get(character, 0)
            if (stop := self._matched[node]) is not None:
                self._is_over = True
                seen = self._held + text[: index + 1]
                self._held = ""
                return StopResult(seen if self._is_shown else seen[: len(seen) - len(stop)], stop)
        self._node = node
        seen = self._held + text
        cut = len(seen) - self._depth[node]
        self._held = seen[cut:]
        return StopResult(seen[:cut])

    def finish(self) -> str:
        """The text still held back, at the end of an answer that no stop string has ended."""
        self._is_over = True
        held, self._held = self._held, ""
        return held
