"""The chat as a person at a terminal has it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import environment
from tests.cli.terminal_session import CTRL_C, CTRL_D, ENTER, TerminalSession, terminal_session

COMMAND = [sys.executable, "-m", "tests.cli.scripted_chat"]
UP = "\x1b[A"
TAB = "\t"
CTRL_G = "\x07"
CTRL_L = "\x0c"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def chat(home: Path) -> Iterator[TerminalSession]:
    with terminal_session(COMMAND, environment(CORRAL_HOME=str(home))) as session:
        session.expect(">>>")
        yield session


def say(chat: TerminalSession, line: str, *expected: str) -> None:
    """Types a line, and waits for the prompt after what it makes the chat show."""
    chat.press(f"{line}{ENTER}")
    for text in expected:
        chat.expect(text)
    chat.expect(">>>")


def test_answers_come_until_the_person_leaves(chat: TerminalSession) -> None:
    say(chat, "hello there", "HELLO THERE")
    say(chat, "again", "AGAIN")
    chat.press(f"/bye{ENTER}")
    chat.expect("the chat has ended")
    assert chat.wait() == 0


def test_ctrl_d_leaves(chat: TerminalSession) -> None:
    chat.press(CTRL_D)
    chat.expect("the chat has ended")
    assert chat.wait() == 0


def test_ctrl_c_stops_the_answer_and_not_the_chat(chat: TerminalSession) -> None:
    chat.press(f"forever{ENTER}")
    chat.expect("on on on")
    chat.press(CTRL_C)
    chat.expect(">>>")
    say(chat, "still there", "STILL THERE")
    chat.press(CTRL_D)
    assert chat.wait() == 0


def test_ctrl_c_at_the_prompt_says_how_to_leave(chat: TerminalSession) -> None:
    chat.press(CTRL_C)
    chat.expect("Use Ctrl + d or /bye to exit.")
    chat.expect(">>>")
    chat.press(CTRL_D)
    assert chat.wait() == 0


@pytest.mark.parametrize(("script", "error"), [("too long", "too long by far"), ("full", "the queue is full")])
def test_an_error_is_said_and_the_chat_goes_on(chat: TerminalSession, script: str, error: str) -> None:
    say(chat, script, f"Error: {error}")
    say(chat, "how many", "2 messages")  # the system message and this one


def test_a_dead_engine_ends_the_chat(chat: TerminalSession) -> None:
    chat.press(f"engine dies{ENTER}")
    chat.expect("the scripted engine has died")
    assert chat.wait() == 1


def test_an_unknown_command_is_not_sent_to_the_model(chat: TerminalSession) -> None:
    say(chat, "/frobnicate", "Unknown command '/frobnicate'. Type /? for help")
    say(chat, "/set frob", "Unknown command '/set frob'")
    say(chat, "/show frob", "Unknown command '/show frob'")
    assert "/FROBNICATE" not in chat.screen
    say(chat, "/etc/hosts is a path", "/ETC/HOSTS IS A PATH")


def test_several_lines_are_one_message(chat: TerminalSession) -> None:
    chat.press(f'"""first{ENTER}')
    chat.expect("...")
    chat.press(f'second"""{ENTER}')
    chat.expect("FIRST SECOND")
    chat.expect(">>>")


def test_what_is_pasted_is_one_message(chat: TerminalSession) -> None:
    chat.press("\x1b[200~pasted one\npasted two\x1b[201~")
    chat.press(ENTER)
    chat.expect("PASTED ONE PASTED TWO")


def test_the_history_lasts_from_chat_to_chat(chat: TerminalSession, home: Path) -> None:
    say(chat, "once more", "ONCE MORE")
    chat.press(f"{UP}{ENTER}")
    chat.expect("ONCE MORE")
    chat.expect(">>>")
    say(chat, "/set nohistory")
    say(chat, "a secret", "A SECRET")
    chat.press(CTRL_D)
    assert chat.wait() == 0
    kept = (home / "history").read_text()
    assert "once more" in kept
    assert "a secret" not in kept
    assert (home / "history").stat().st_mode & 0o077 == 0
    with terminal_session(COMMAND, environment(CORRAL_HOME=str(home))) as second:
        second.expect(">>>")
        second.press(f"{UP}{UP}{ENTER}")
        second.expect("ONCE MORE")


def test_the_environment_switches_the_history_off(home: Path) -> None:
    with terminal_session(COMMAND, environment(CORRAL_HOME=str(home), OLLAMA_NOHISTORY="1")) as chat:
        chat.expect(">>>")
        say(chat, "a secret", "A SECRET")
        chat.press(CTRL_D)
        assert chat.wait() == 0
    assert not (home / "history").exists()


def test_a_history_that_cannot_be_written_is_said_once(home: Path) -> None:
    (home / "history").mkdir()
    with terminal_session(COMMAND, environment(CORRAL_HOME=str(home))) as chat:
        chat.expect("no history is kept")
        chat.expect(">>>")
        say(chat, "fine", "FINE")


def test_settings_reach_the_model(chat: TerminalSession) -> None:
    say(chat, "settings", "0.3 () None ['You are terse.']")
    say(chat, "/set parameter temperature 0.7", "Set parameter 'temperature' to '0.7'")
    say(chat, "/set parameter stop END STOP", "Set parameter 'stop' to 'END, STOP'")
    say(chat, "/set think high", "Set 'think' mode to 'high'.")
    say(chat, "/set system Be brief.", "Set system message.")
    say(chat, "settings", "0.7 ('END', 'STOP') high ['Be brief.']")
    say(chat, "/set nothink", "Set 'nothink' mode.")
    say(chat, "settings", "False ['Be brief.']")
    say(chat, "/show parameters", "Model defined parameters:", "User defined parameters:", "temperature", "0.7")
    say(chat, "/show system", "Be brief.")


def test_a_setting_that_cannot_be_is_said(chat: TerminalSession) -> None:
    say(chat, "/set parameter warmth 9", "Couldn't set parameter: unknown parameter 'warmth'")
    say(chat, "/set parameter top_k many", "Couldn't set parameter: parameter 'top_k' is 'many'")
    say(chat, "/set format yaml", "Invalid or missing format")
    say(chat, "/set think harder", "Unknown level 'harder'")
    say(chat, "/set parameter top_p 9", "Couldn't set parameter: top_p is 9.0")
    say(chat, "/set format json", "Set format to 'json' mode.")
    say(chat, "settings", "terse.'] json_object")
    say(chat, "/set noformat", "Disabled format.")
    say(chat, "settings", "0.3 ()")


def test_a_system_message_may_have_lines(chat: TerminalSession) -> None:
    chat.press(f'/set system """one{ENTER}')
    chat.press(f'two"""{ENTER}')
    chat.expect("Set system message.")
    chat.expect(">>>")
    say(chat, "settings", r"['one\ntwo']")


def test_the_model_is_shown(chat: TerminalSession) -> None:
    say(chat, "/show info", "Model", "architecture", "llama", "context length", "8192", "Capabilities", "tools")
    say(chat, "/show license", "Apache License")
    say(chat, "/show modelfile", "FROM scripted")
    say(chat, "/show template", "{{ .Prompt }}")
    say(chat, "/list", "NAME", "scripted", "0123456789ab", "98 MB")


def test_the_conversation_is_cleared_saved_and_moved(chat: TerminalSession) -> None:
    say(chat, "hello", "HELLO")
    say(chat, "how many", "4 messages")
    say(chat, "/save mine", "Created new model 'mine'")
    say(chat, "/clear", "Cleared session context")
    say(chat, "how many", "2 messages")
    say(chat, "/load nothing", "Loading model 'nothing'", "Couldn't find model 'nothing'")
    say(chat, "/load other", "Loading model 'other'")
    say(chat, "how many", "2 messages")
    say(chat, "/load", "/load <modelname>")
    chat.press(f"/exit{ENTER}")
    chat.expect("saved: ('create', 'mine'")
    chat.expect("the chat has ended")
    assert chat.wait() == 0


def test_help_tells_what_there_is(chat: TerminalSession) -> None:
    say(chat, "/?", "Available Commands:", "/set", "/bye")
    say(chat, "/help set", "/set parameter", "/set nothink")
    say(chat, "/help show", "/show template")
    say(chat, "/? shortcuts", "Ctrl + g")
    say(chat, "/set parameter", "Available Parameters:", "temperature <float>")


def test_commands_are_completed(chat: TerminalSession) -> None:
    chat.press(f"/cl{TAB}{ENTER}")
    chat.expect("Cleared session context")
    chat.expect(">>>")
    chat.press(f"/set ver{TAB}{ENTER}")
    chat.expect("Set 'verbose' mode.")
    chat.expect(">>>")
    chat.press(f"/load oth{TAB}{ENTER}")
    chat.expect("Loading model 'other'")


def test_markdown_is_formatted_and_nothing_is_lost(chat: TerminalSession) -> None:
    say(chat, "markdown", "Heading", "Some bold and code.", " • one", " • two", "print('`<b>`')", "The end.")
    shown = chat.raw[chat.raw.rindex("The end.") - 2000 :]
    assert "\x1b[1m" in shown or "\x1b[1;" in shown, "bold is not bold"
    say(chat, "/set nowordwrap", "Set 'nowordwrap' mode.")
    say(chat, "markdown", "# Heading", "Some **bold** and `code`.", "- one", "```python")
    say(chat, "/set wordwrap", "Set 'wordwrap' mode.")


def test_thinking_is_shown_apart(chat: TerminalSession) -> None:
    say(chat, "think", "Thinking...", "step 0", "step 2", "...done thinking.", "the answer")


def test_thinking_can_be_hidden(home: Path) -> None:
    with terminal_session([*COMMAND, "--hidethinking"], environment(CORRAL_HOME=str(home))) as chat:
        chat.expect(">>>")
        say(chat, "think", "the answer")
        assert "step" not in chat.screen


def test_an_editor_writes_the_message(home: Path) -> None:
    editor = home / "editor"
    editor.write_text('#!/bin/sh\necho "and more" >> "$1"\n')
    editor.chmod(0o755)
    with terminal_session(COMMAND, environment(CORRAL_HOME=str(home), CORRAL_EDITOR=str(editor))) as chat:
        chat.expect(">>>")
        chat.press(f"some {CTRL_G}")
        chat.expect("and more")
        chat.press(ENTER)
        chat.expect("SOME AND MORE")


def test_an_editor_that_is_not_there_is_said(home: Path) -> None:
    with terminal_session(COMMAND, environment(CORRAL_HOME=str(home), CORRAL_EDITOR="/no/editor")) as chat:
        chat.expect(">>>")
        chat.press(f"text{CTRL_G}")
        chat.expect("there is no editor '/no/editor'")
        chat.press(ENTER)
        chat.expect("TEXT")


def test_ctrl_l_clears_the_screen(chat: TerminalSession) -> None:
    say(chat, "hello", "HELLO")
    before = len(chat.raw)
    chat.press(f"{CTRL_L}x{ENTER}")
    chat.expect("X")
    assert "\x1b[2J" in chat.raw[before:] or "\x1b[H" in chat.raw[before:]


def test_verbose_timings_follow_each_answer(home: Path) -> None:
    with terminal_session([*COMMAND, "--verbose"], environment(CORRAL_HOME=str(home))) as chat:
        chat.expect(">>>")
        say(chat, "one two", "ONE TWO", "load duration:        1.50s", "eval count:           2 token(s)")
        say(chat, "three", "load duration:        0.0ms")
        say(chat, "/set quiet", "Set 'quiet' mode.")
        seen = chat.screen.count("eval count:")
        say(chat, "four", "FOUR")
        assert chat.screen.count("eval count:") == seen
