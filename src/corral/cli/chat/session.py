"""The chat itself: ask, answer, remember, until the person leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from corral.cli.chat.commands import is_command, is_leaving, obey
from corral.cli.chat.editor import LineEditor
from corral.cli.chat.words import unquoted
from corral.cli.progress import show_status
from corral.cli.terminal import warn
from corral.errors import CorralError, EngineDead

if TYPE_CHECKING:
    from corral.cli.answer import AnsweringModel
    from corral.cli.backend import Backend
    from corral.cli.conversation import Conversation
    from corral.store.status import Status

OpenModel = Callable[[str], "AnsweringModel"]


class Chat:
    """One person and a model, which /load may change; `close` gives the model back.

    Args:
        open_model: loads a model by its name, where this one runs.
        backend: the models that are there.
    """

    def __init__(
        self, model: AnsweringModel, conversation: Conversation, backend: Backend, open_model: OpenModel
    ) -> None:
        self.model = model
        self.conversation = conversation
        self.backend = backend
        self.editor = LineEditor(self._model_names)
        self._open_model = open_model

    def run(self) -> None:
        """Read, answer, repeat. Ctrl-C stops an answer; Ctrl-D or /bye ends the chat.

        Raises:
            EngineDead: there is nothing left to talk to.
        """
        while (text := self._read()) is not None:
            try:
                if is_command(text):
                    obey(self, text)
                elif question := unquoted(text):
                    self.conversation.ask(self.model, question)
            except EngineDead:
                raise
            except CorralError as error:
                warn(f"Error: {error}")
            except KeyboardInterrupt:  # stops a command, as it stops an answer
                warn("")

    def load(self, name: str) -> None:
        """Talk to another model from here on, with the same settings; what was said to the last one is forgotten.

        Raises:
            CorralError: it cannot be loaded; the chat stays with the model it has, if that can be.
        """
        if name != self.model.name:
            self.backend.card(name)  # before the model that is here makes room for it
            self.model.close()
            self.model = self._reopened(name)
        self.conversation.messages.clear()

    def _reopened(self, name: str) -> AnsweringModel:
        try:
            return self._open_model(name)
        except CorralError as error:
            warn(f"Error: {error}; going on with {self.model.name}")
            return self._open_model(self.model.name)

    def save(self, name: str) -> None:
        """The model with this conversation's settings and messages, under a name of its own. Raises CorralError."""
        from corral.cli.chat.saving import spec_of

        with show_status() as on_status:

            def on_progress(status: Status) -> None:
                if status.total:  # weights on their way; the small steps say nothing to somebody who chats
                    on_status(status)

            self.backend.create(name, spec_of(self.model.name, self.conversation), on_progress)

    def close(self) -> None:
        self.model.close()

    def _read(self) -> str | None:
        """What the person wrote, or None to leave."""
        while True:
            try:
                text = self.editor.read().strip()
            except KeyboardInterrupt:
                warn("\nUse Ctrl + d or /bye to exit.")
            except EOFError:
                return None
            else:
                if text:
                    return None if is_leaving(text) else text

    def _model_names(self) -> list[str]:
        try:
            return [model.name for model in self.backend.models()]
        except CorralError:
            return []  # a completion says no errors
