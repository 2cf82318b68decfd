"""The line that a person types at: history, completion, several lines in one message, a text editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.shortcuts import CompleteStyle

from corral.cli.chat.words import QUOTES, WORDS
from corral.cli.terminal import warn
from corral.config import data_home, is_history_off, text_editor

if TYPE_CHECKING:
    from prompt_toolkit.key_binding import KeyPressEvent

PROMPT = ">>> "
CONTINUATION = "... "
PLACEHOLDER = "Send a message (/? for help)"
_EDITORS = ("nano", "vi")


class LineEditor:
    """Reads one message after another. `model_names` are completed after /load."""

    def __init__(self, model_names: Callable[[], Iterable[str]]) -> None:
        self._history = _History(history_path()) if not is_history_off() else None
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,  # Enter decides, below
            prompt_continuation=CONTINUATION,
            history=self._history or InMemoryHistory(),
            key_bindings=_bindings(),
            completer=_CommandCompleter(model_names),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            placeholder=FormattedText([("ansibrightblack", PLACEHOLDER)]),
            reserve_space_for_menu=0,
        )

    def read(self) -> str:
        """What was typed, quotes around several lines included.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            EOFError: Ctrl-D on an empty line.
        """
        return self._session.prompt()

    def keep_history(self, is_kept: bool) -> None:
        if self._history is not None:
            self._history.is_kept = is_kept
        elif is_kept:
            warn("the environment has switched the history off (CORRAL_NOHISTORY)")


def history_path() -> Path:
    return data_home() / "history"


def is_open(text: str) -> bool:
    '''Whether a line break belongs to the message: its """ have no end yet.'''
    start = text.lstrip()
    head, _, value = start.partition(" ")
    if head == "/set":
        word, _, value = value.lstrip().partition(" ")
        start = value.lstrip() if word == "system" else ""
    return start.startswith(QUOTES) and QUOTES not in start[len(QUOTES) :]


class _History(FileHistory):
    """History in a file that only its owner reads; without the file, for this chat only."""

    def __init__(self, path: Path) -> None:
        self.is_kept = True
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        except OSError as error:
            warn(f"no history is kept: {path}: {error.strerror or error}")
            path = Path(os.devnull)
        super().__init__(str(path))

    def store_string(self, string: str) -> None:
        if not self.is_kept:
            return
        try:
            super().store_string(string)
        except OSError as error:
            self.is_kept = False
            warn(f"no history is kept from here on: {error.strerror or error}")


class _CommandCompleter(Completer):
    """The words of slash commands, and names of models where one is wanted."""

    def __init__(self, model_names: Callable[[], Iterable[str]]) -> None:
        self._model_names = model_names

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        *before, word = text.split(" ")
        path = " ".join(before)
        candidates = self._model_names() if path == "/load" else WORDS.get(path, ())
        for candidate in candidates:
            if candidate.startswith(word):
                yield Completion(candidate, start_position=-len(word))


def _bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("c-g")
    def edit(event: KeyPressEvent) -> None:
        buffer = event.current_buffer

        def change() -> None:
            text = edit_text(buffer.text)
            if text is not None:
                buffer.document = Document(text, len(text))

        run_in_terminal(change)

    return bindings


def edit_text(text: str) -> str | None:
    """`text` after the person has changed it in their editor; None, with a word on stderr, if that failed."""
    with tempfile.NamedTemporaryFile("w+", suffix=".md", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        editor = text_editor()
        for command in [editor] if editor else _EDITORS:
            try:
                done = subprocess.run([*shlex.split(command), file.name], check=False)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                warn(f"cannot start the editor {command!r}: {error}")
                return None
            if done.returncode != 0:
                warn(f"the editor {command!r} ended with {done.returncode}; the message is as it was")
                return None
            return Path(file.name).read_text(encoding="utf-8", errors="replace").rstrip("\n")
    warn(f"there is no editor {editor!r}" if editor else "no editor was found; set EDITOR to one")
    return None
