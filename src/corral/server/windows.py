"""How much was used in the last minute, and on this day. Pure: whoever asks says what time it is."""

from __future__ import annotations

from collections import deque
from datetime import date, timedelta
from functools import lru_cache

MINUTE_S = 60.0
DAY_S = 86400
_GRAIN_S = 0.1  # uses so near to each other are one entry, which counts until its last one is a minute old


class Entry:
    """Uses that came at about the same time."""

    __slots__ = ("amount", "first", "last")

    def __init__(self, now: float) -> None:
        self.first = self.last = now
        self.amount = 0


class Minute:
    """The uses of the sixty seconds before any moment. Times are seconds that never go back."""

    __slots__ = ("_entries", "_total")

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._total = 0

    def total(self, now: float) -> int:
        entries = self._entries
        while entries and entries[0].last + MINUTE_S <= now:
            self._total -= entries.popleft().amount
        return self._total

    def add(self, now: float, amount: int) -> Entry:
        """Books a use; the entry is what it can be taken back with."""
        if not self._entries or now - self._entries[-1].first >= _GRAIN_S:
            self._entries.append(Entry(now))
        entry = self._entries[-1]
        entry.last = now
        entry.amount += amount
        self._total += amount
        return entry

    def take_back(self, now: float, entry: Entry, amount: int) -> None:
        """A use of that entry was none; nothing happens if it has gone from the window by itself."""
        self.total(now)
        if entry.last + MINUTE_S > now:
            entry.amount -= amount
            self._total -= amount

    def seconds_until_gone(self, now: float, amount: int) -> float | None:
        """Until so much has left the window, if nothing comes; None where there is not so much in it."""
        if amount > self.total(now):
            return None
        for entry in self._entries:
            if amount <= 0:
                break
            amount -= entry.amount
            left_s = entry.last + MINUTE_S - now
            if amount <= 0:
                return left_s
        return 0.0

    def seconds_until_empty(self, now: float) -> float:
        """Until nothing counts any more, if nothing comes."""
        self.total(now)
        return self._entries[-1].last + MINUTE_S - now if self._entries else 0.0


def day_of(seconds: float) -> int:
    """The UTC day of a Unix time, counted from 1970."""
    return int(seconds // DAY_S)


def seconds_left(seconds: float) -> float:
    """Of the UTC day of a Unix time."""
    return DAY_S - seconds % DAY_S


@lru_cache(maxsize=64)
def day_name(day: int) -> str:
    """A UTC day as 2026-01-31."""
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()
