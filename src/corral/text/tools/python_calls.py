"""Calls in Python's notation: f(city="Paris", days=3). They are read, never run."""

from __future__ import annotations

from corral.text.tools.notation import Notation, members_as_json
from corral.text.tools.reader import NotACallError, Reader, Reading

_NOTATION = Notation(('"""', "'''", '"', "'"), has_escapes=True, separator="=", closing=")")


def python_calls(reader: Reader, closing: str = "") -> Reading[None]:
    """The calls that come next: one a line, or separated by commas up to `closing`, which is taken.

    Raises:
        NotACallError: what comes is no call.
    """
    yield from _call(reader)
    while True:
        yield from reader.skip_space()
        if closing:
            if (yield from reader.expect(",", closing)) == closing:
                return
            yield from reader.skip_space()
        elif not _begins_name((yield from reader.peek())):
            return
        yield from _call(reader)


def _call(reader: Reader) -> Reading[None]:
    name = yield from reader.bare_word()
    if not name:
        raise NotACallError("a name is missing")
    yield from reader.expect("(")
    is_printed = name == "print" and name not in reader.tools  # as in print(default_api.f())
    if is_printed:
        name = yield from reader.bare_word()
        yield from reader.expect("(")
    if name not in reader.tools:
        name = name.rpartition(".")[2]
    reader.begin(name)
    yield from members_as_json(reader, _NOTATION)
    reader.whole()
    if is_printed:
        yield from reader.skip_space()
        yield from reader.one_of(")")


def _begins_name(character: str) -> bool:
    return character.isalpha() or character == "_"
