"""gpt-oss: a call is a message on the commentary channel, to a function."""

from __future__ import annotations

from corral.text.harmony import CALL, CHANNEL, CONSTRAIN, END, MARKERS, MESSAGE, RETURN, START
from corral.text.tools.grammar import lark_json, lark_text
from corral.text.tools.offered import OfferedTools
from corral.text.tools.reader import NotACallError, Reader, Reading
from corral.text.tools.style import Terminal, ToolStyle

_RECIPIENT = "to=functions."


class Harmony(ToolStyle):
    """<|channel|>commentary to=functions.f <|constrain|>json<|message|>{...}<|call|>; analysis may say so, too.

    The other messages have been told apart by then: thinking is gone, and of the answer there is the mere text.
    """

    name = "harmony"
    openings = (CHANNEL, START)
    markers = MARKERS

    def calls(self, reader: Reader, opening: str) -> Reading[None]:
        """As ToolStyle.calls. The recipient stands in the role, or behind the channel."""
        header, _ = yield from reader.name_until(MESSAGE)
        _, found, recipient = header.partition(_RECIPIENT)
        name = recipient.replace(CHANNEL, " ").replace(CONSTRAIN, " ").split()
        if not found or not name:
            raise NotACallError("the message is for no function")
        reader.begin(name[0])
        yield from reader.skip_space()
        yield from reader.json(is_told=True)
        reader.whole()
        yield from reader.skip_space()
        yield from reader.one_of(CALL, END, RETURN)

    def call_grammar(self, tools: OfferedTools, terminal: Terminal) -> str:
        """As ToolStyle.call_grammar; one call, as this model ends its turn with it."""
        rules = [f"start: {' | '.join(f'call_{number}' for number in range(len(tools.names)))}"]
        for number, name in enumerate(tools.names):
            head = f"{terminal(CHANNEL)} {lark_text(f'commentary {_RECIPIENT}{name} ')} {terminal(CONSTRAIN)}"
            rules.append(
                f"call_{number}: {head} {lark_text('json')} {terminal(MESSAGE)} args_{number} {terminal(CALL)}"
            )
            rules.append(f"args_{number}: {lark_json(tools.schema_of(name))}")
        return "\n".join((*rules, ""))
