"""What a template makes of messages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt, and the character that breaks up control tokens in what users wrote; for Tokenizer.encode_chat."""

    text: str
    guard: str

    @property
    def plain(self) -> str:
        """The prompt as the model is to read it."""
        return self.text.replace(self.guard, "")
