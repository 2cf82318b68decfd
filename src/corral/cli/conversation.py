"""A conversation with a model: what has been said, and the settings that its person may change."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from corral.cli.answer import Answer, AnsweringModel, Question, timings
from corral.cli.answer_printer import AnswerPrinter
from corral.cli.terminal import notice, warn


@dataclass
class Conversation:
    """`options` are by Ollama's names; `messages` hold no system message, which is `system`."""

    system: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    format: str | dict[str, Any] | None = None
    think: bool | str | None = None
    keep_alive: str | float | None = None
    is_verbose: bool = False
    is_formatted: bool = True
    hides_thinking: bool = False
    messages: list[dict[str, Any]] = field(default_factory=list)

    def question(self, text: str) -> Question:
        opening = [{"role": "system", "content": self.system}] if self.system else []
        asked = [*opening, *self.messages, {"role": "user", "content": text}]
        return Question(asked, dict(self.options), self.format, self.think, self.keep_alive)

    def ask(self, model: AnsweringModel, text: str) -> Answer:
        """Streams the answer to stdout and remembers both; Ctrl-C ends it early, and what is there counts.

        A question without an answer is forgotten: it may be put again, shorter.

        Raises:
            CorralError: what came in place of an answer.
        """
        answer = Answer()
        printer = AnswerPrinter(
            is_formatted=self.is_formatted and self.format is None, hides_thinking=self.hides_thinking
        )
        try:
            with closing(model.stream(self.question(text), answer)) as pieces:
                for piece in pieces:
                    printer.write(piece)
        except KeyboardInterrupt:  # stops the answer, not the program
            pass
        finally:
            printer.end()
        if answer.usage.dropped_messages:
            notice(f"the context is full: the oldest {answer.usage.dropped_messages} message(s) were left out")
        if self.is_verbose:
            warn(timings(answer))
        if answer.text:
            self.messages += [{"role": "user", "content": text}, {"role": "assistant", "content": answer.text}]
        return answer
