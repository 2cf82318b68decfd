from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from corral.cli import human

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        *((0, "0 B"), (999, "999 B"), (1000, "1 KB"), (1550, "1.6 KB"), (98_362_432, "98 MB")),
        *((1_200_000_000, "1.2 GB"), (2_000_000_000, "2 GB"), (13_000_000_000_000, "13 TB")),
    ],
)
def test_size(num_bytes: int, text: str) -> None:
    assert human.size(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.4, "Less than a second ago"), (1, "1 second ago"), (59, "59 seconds ago"), (60, "About a minute ago")),
        *((150, "2 minutes ago"), (3600, "About an hour ago"), (7200, "2 hours ago"), (172_800, "2 days ago")),
        *((86_400 * 14, "2 weeks ago"), (86_400 * 61, "2 months ago"), (86_400 * 800, "2 years ago")),
        *((-240, "4 minutes from now"), (-86_400 * 365 * 30, "Forever")),
    ],
)
def test_moment(seconds: float, text: str) -> None:
    assert human.moment(NOW - timedelta(seconds=seconds), NOW) == text


def test_no_moment() -> None:
    assert human.moment(None) == "Never"
    assert human.moment(None, never="Forever") == "Forever"


@pytest.mark.parametrize(("seconds", "text"), [(5.9, "5s"), (62, "1m2s"), (3723, "1h2m3s")])
def test_clock(seconds: float, text: str) -> None:
    assert human.clock(seconds) == text


def test_table_aligns_and_steers_no_terminal() -> None:
    assert human.table([("A", "B"), ("long", "\x1b[31mx")]) == "A       B\nlong    ?[31mx"
    assert human.table([("a", "b", "")], gap=1, indent=2) == "  a b"
    assert human.table([]) == ""


def test_a_value_too_long_for_a_table_is_cut() -> None:
    assert human.short("x" * 60) == "x" * 60
    assert human.short("x" * 61) == "x" * 57 + "..."
