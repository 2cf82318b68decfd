"""gpt-oss's answers: messages on channels. Analysis is thinking; what is final, or a commentary, is the answer."""

from __future__ import annotations

from corral.text.markers import Openings

CHANNEL, MESSAGE, START, END = "<|channel|>", "<|message|>", "<|start|>", "<|end|>"
CALL, CONSTRAIN, RETURN = "<|call|>", "<|constrain|>", "<|return|>"
MARKERS = (CHANNEL, MESSAGE, START, END, CALL, CONSTRAIN, RETURN)
_MAX_HEADER = 256  # characters
_ENDS = Openings((END, RETURN, CALL, START, CHANNEL))


class HarmonySplitter:
    """One answer. Messages to a function stay as they were written, for whoever reads calls.

    Args:
        prompt: it ends within a message's header, or within its text.
    """

    def __init__(self, prompt: str) -> None:
        self._held = ""
        self._header: str | None = ""  # what it has so far; None in a message's text
        self._kind = "answer"
        self._given = {"thinking": False, "answer": False}
        self._is_call = False
        begun = prompt.rpartition(START)[2] if START in prompt else ""
        self.push(begun)
        self._given = {"thinking": False, "answer": False}

    def push(self, text: str) -> tuple[str, str]:
        """(thinking, answer) that are certain now."""
        self._held += text
        gained: dict[str, list[str]] = {"thinking": [], "answer": []}
        while self._read_header(gained) if self._header is not None else self._read_text(gained):
            pass
        return "".join(gained["thinking"]), "".join(gained["answer"])

    def finish(self) -> tuple[str, str]:
        """What was held back, at the end of the answer."""
        held, self._held = (self._header or "") + self._held, ""
        if self._header is not None and (not held.strip() or held.startswith((START, CHANNEL))):
            return "", ""  # a message without a text
        return (held, "") if self._kind == "thinking" else ("", held)

    def _read_header(self, gained: dict[str, list[str]]) -> bool:
        header, found, rest = self._held.partition(MESSAGE)
        if found and len(header) <= _MAX_HEADER:
            self._held, self._header = rest, None
            self._is_call = "to=" in header
            self._kind = "thinking" if "analysis" in header and not self._is_call else "answer"
            if self._is_call:
                gained["answer"].append(header + MESSAGE)
            elif self._given[self._kind]:
                gained[self._kind].append("\n")  # a message of its own
            return True
        begun = self._held.lstrip()
        is_header = len(self._held) <= _MAX_HEADER + len(MESSAGE) and (
            not begun or any(m.startswith(begun) or begun.startswith(m) for m in (START, CHANNEL, "assistant", "to="))
        )
        if is_header:
            return False
        self._header, self._is_call, self._kind = None, False, "answer"  # a text without any header
        return True

    def _read_text(self, gained: dict[str, list[str]]) -> bool:
        match = _ENDS.search(self._held)
        end = match.start() if match else len(self._held) - _ENDS.num_open(self._held, 0)
        if end:
            gained[self._kind].append(self._held[:end])
            self._given[self._kind] = True
        self._held = self._held[end:]
        if match is None:
            return False
        marker = match[0]
        if marker in (END, RETURN, CALL):
            self._held = self._held[len(marker) :]
            if self._is_call:
                gained["answer"].append(marker)
        self._header = ""
        return True
