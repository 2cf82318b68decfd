from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral.text.special_tokens import SpecialToken, SpecialTokenSplitter


def split_as_llama_cpp(text: str, tokens: list[SpecialToken]) -> list[str | int]:
    """Token by token, the longest first, each cut out of what is left of the text."""
    pieces: list[str | int] = [text] if text else []
    for token in sorted(tokens, key=lambda t: (-len(t.text.encode()), t.id)):
        after: list[str | int] = []
        for piece in pieces:
            while isinstance(piece, str) and token.text in piece:
                left, right = piece.split(token.text, 1)
                left = left.rstrip(" \t\n\v\f\r") if token.strips_left else left
                after += [left, token.id] if left else [token.id]
                piece = right.lstrip(" \t\n\v\f\r") if token.strips_right else right
            if piece != "":
                after.append(piece)
        pieces = after
    return pieces


texts = st.text("ab<|\n é", max_size=40)
token_lists = st.lists(st.tuples(st.text("ab<|\n é", min_size=1, max_size=5), st.booleans(), st.booleans()), max_size=8)


@given(texts, token_lists)
def test_the_pieces_are_those_of_cutting_token_by_token(text: str, drawn: list[tuple[str, bool, bool]]) -> None:
    unique = {name: (left, right) for name, left, right in drawn}
    tokens = [SpecialToken(i, name, *strips) for i, (name, strips) in enumerate(unique.items())]
    assert SpecialTokenSplitter(tokens).split(text) == split_as_llama_cpp(text, tokens)


def test_a_longer_token_goes_first_even_where_a_shorter_one_begins_earlier() -> None:
    splitter = SpecialTokenSplitter([SpecialToken(1, "abc"), SpecialToken(2, "bcde")])
    assert splitter.split("abcde abc") == ["a", 2, " ", 1]


def test_a_shorter_token_takes_the_place_of_a_longer_one_that_does_not_fit() -> None:
    splitter = SpecialTokenSplitter([SpecialToken(1, "ab"), SpecialToken(2, "abc"), SpecialToken(3, "cdefg")])
    assert splitter.split("abcdefg") == [1, 3]


def test_a_token_with_bytes_that_are_not_utf_8_is_never_found() -> None:
    assert SpecialTokenSplitter([SpecialToken(1, "\udcff"), SpecialToken(2, "")]).split("a\ufffd") == ["a\ufffd"]


def test_a_token_of_one_character_after_the_guard_is_text() -> None:
    splitter = SpecialTokenSplitter([SpecialToken(1, "~")])
    assert splitter.split("a~b\ufdd0~c", "\ufdd0") == ["a", 1, "b\ufdd0~c"]
