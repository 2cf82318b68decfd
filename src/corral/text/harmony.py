"""gpt-oss's answers: messages on channels. Analysis is thinking; what is final, or a commentary, is the answer."""

from __future__ import annotations

from corral.text.markers import Openings

CHANNEL, MESSAGE, START, END = "<|channel|>", "<|message|>", "<|start|>", "<|end|>"
CALL, CONSTRAIN, RETURN = "<|call|>", "<|constrain|>", "<|return|>"
MARKERS = (CHANNEL, MESSAGE, START, END, CALL, CONSTRAIN, RETURN)
_MAX_HEADER = 256  # characters
_HEADERS = (START, CHANNEL, MESSAGE, "to=")  # what one begins with
_ENDS = Openings((END, RETURN, CALL, START, CHANNEL))


class HarmonySplitter:
    """One answer. Messages to a function stay as they were written, for whoever reads calls.

    Args:
        prompt: it ends within a message's header, or within its text.
    """

    def __init__(self, prompt: str) -> None:
        self._held = ""
        self._is_in_header = True
        self._kind = "answer"
        self._given = {"thinking": False, "answer": False}
        self._is_call = False
        begun = prompt.rpartition(START)[2]
        self.push(begun[begun.find(CHANNEL) :] if CHANNEL in begun else "")
        self._given = {"thinking": False, "answer": False}

    def push(self, text: str) -> tuple[str, str]:
        """(thinking, answer) that are certain now."""
        self._held += text
        gained: dict[str, list[str]] = {"thinking": [], "answer": []}
        while self._read_header(gained) if self._is_in_header else self._read_text(gained):
            pass
        return "".join(gained["thinking"]), "".join(gained["answer"])

    def finish(self) -> tuple[str, str]:
        """What was held back, at the end of the answer."""
        held, self._held = self._held, ""
        if self._is_in_header and (not held.strip() or held.startswith((START, CHANNEL))):
            return "", ""  # a message without a text
        return (held, "") if self._kind == "thinking" else ("", held)

    def _read_header(self, gained: dict[str, list[str]]) -> bool:
        header, found, rest = self._held.partition(MESSAGE)
        begun = self._held.lstrip()
        is_header = begun.startswith(_HEADERS) or any(each.startswith(begun) for each in _HEADERS)
        if not is_header or len(header) > _MAX_HEADER + (0 if found else len(MESSAGE)):
            # A text without any header. Its first character goes at once, as it may be the beginning of a marker.
            self._is_in_header, self._is_call, self._kind = False, False, "answer"
            length = len(self._held) - len(begun) + 1
            gained["answer"].append(self._held[:length])
            self._held = self._held[length:]
            return True
        if not found:
            return False
        self._held, self._is_in_header = rest, False
        self._is_call = "to=" in header
        self._kind = "thinking" if "analysis" in header and not self._is_call else "answer"
        if self._is_call:
            gained["answer"].append(header + MESSAGE)
        elif self._given[self._kind]:
            gained[self._kind].append("\n")  # a message of its own
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
        self._is_in_header = True
        return True
