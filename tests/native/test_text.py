"""Tables of strings and byte-pair merging, as Python sees them; native/tests/text_test.cc has what needs no Python."""

from __future__ import annotations

import struct
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral._native import BytePairEncoder, StringIndex, StringTable, find_bad_merge


def written(*strings: bytes) -> bytes:
    return b"".join(struct.pack("<Q", len(each)) + each for each in strings)


@given(st.lists(st.binary()))
def test_any_bytes_are_strings_with_surrogate_escapes(strings: list[bytes]) -> None:
    data = b"head" + written(*strings) + b"tail"
    table, end = StringTable.read(data, 4, len(data), len(strings), 1 << 20)
    assert end == len(data) - 4
    expected = [each.decode("utf-8", "surrogateescape") for each in strings]
    assert table.to_list() == expected == [table[i] for i in range(len(table))]
    assert StringTable(expected).to_list() == expected
    assert table.longest_bytes == max(map(len, strings), default=0)
    index = StringIndex(table)
    assert all(index.find(text) == expected.index(text) for text in expected)
    assert (index.duplicate is None) == (len(set(strings)) == len(strings))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_the_longest_text_is_counted_in_characters(texts: list[str]) -> None:
    assert StringTable(texts).longest_characters == max(map(len, texts), default=0)


@pytest.mark.parametrize(("offset", "end"), [(0, 100), (9, 8), (1 << 63, 1 << 63)])
def test_reading_beyond_the_data_is_refused(offset: int, end: int) -> None:
    with pytest.raises(ValueError, match=r"\[offset, end\)"):
        StringTable.read(written(b"a"), offset, end, 1, 10)


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(ValueError, match="string 1 holds halves"):
        StringTable(["a", "\ud800"])
    strings: list[Any] = ["a", b"b"]
    with pytest.raises(TypeError):
        StringTable(strings)


def test_indexes_are_those_of_a_sequence() -> None:
    table = StringTable(["a", "b"])
    assert (table[-1], table[-2], len(table)) == ("b", "a", 2)
    for index in (2, -3):
        with pytest.raises(IndexError, match="of 2 strings"):
            table[index]


def test_half_a_pair_is_found_nowhere() -> None:
    assert StringIndex(StringTable(["a", "\udcff"])).find("\ud800") is None


def test_an_index_and_an_encoder_keep_their_tables_alive() -> None:
    index = StringIndex(StringTable(["ab"]))
    assert index.find("ab") == 0
    tokens = StringTable(["a", "b", "ab"])
    encoder = BytePairEncoder(tokens, StringIndex(tokens), StringTable(["a b"]), b"\1\1\1", False)
    del tokens
    assert encoder.encode(array("H", [ord("a"), 256 + ord("b"), ord("b")])) == [2, 1]


def test_an_encoder_refuses_what_does_not_belong_together() -> None:
    tokens, merges = StringTable(["a", "b"]), StringTable(["a b"])
    with pytest.raises(ValueError, match="another table"):
        BytePairEncoder(tokens, StringIndex(StringTable(["a", "b"])), merges, b"\1\1", False)
    with pytest.raises(ValueError, match="is_usable"):
        BytePairEncoder(tokens, StringIndex(tokens), merges, b"\1", False)
    bad = StringTable(["a b", "ab"])
    assert find_bad_merge(bad) == 1
    assert find_bad_merge(merges) is None
    with pytest.raises(ValueError, match="merge 1 is no pair"):
        BytePairEncoder(tokens, StringIndex(tokens), bad, b"\1\1", False)


def test_units_are_pairs_of_bytes() -> None:
    tokens = StringTable(["a"])
    encoder = BytePairEncoder(tokens, StringIndex(tokens), StringTable([]), b"\1", False)
    with pytest.raises(ValueError, match="uint16"):
        encoder.encode(b"abc")
    assert encoder.encode(array("H", [0xFF00 + ord("a")])) == [0]  # bits beyond are not looked at
