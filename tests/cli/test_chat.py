from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.cli.conftest import environment
from tests.cli.terminal_session import CTRL_C, CTRL_D, ENTER, TerminalSession, terminal_session

COMMAND = [sys.executable, "-m", "tests.cli.scripted_chat"]


@pytest.fixture
def chat() -> Iterator[TerminalSession]:
    with terminal_session(COMMAND, environment()) as session:
        session.expect(">>>")
        yield session


def test_answers_come_until_the_person_leaves(chat: TerminalSession) -> None:
    chat.press(f"hello there{ENTER}")
    chat.expect("HELLO THERE")
    chat.expect(">>>")
    chat.press(f"again{ENTER}")
    chat.expect("AGAIN")
    chat.expect(">>>")
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
    chat.press(f"still there{ENTER}")
    chat.expect("STILL THERE")
    chat.expect(">>>")
    chat.press(CTRL_D)
    assert chat.wait() == 0


def test_ctrl_c_at_the_prompt_says_how_to_leave(chat: TerminalSession) -> None:
    chat.press(CTRL_C)
    chat.expect("Ctrl-D or /bye leaves the chat")
    chat.expect(">>>")
    chat.press(CTRL_D)
    assert chat.wait() == 0


@pytest.mark.parametrize(("script", "error"), [("too long", "too long by far"), ("full", "the queue is full")])
def test_an_error_is_said_and_the_chat_goes_on(chat: TerminalSession, script: str, error: str) -> None:
    chat.press(f"{script}{ENTER}")
    chat.expect(f"Error: {error}")
    chat.expect(">>>")
    chat.press(f"short{ENTER}")
    chat.expect("SHORT")


def test_a_dead_engine_ends_the_chat(chat: TerminalSession) -> None:
    chat.press(f"engine dies{ENTER}")
    chat.expect("the scripted engine has died")
    assert chat.wait() == 1


def test_an_unknown_command_is_not_sent_to_the_model(chat: TerminalSession) -> None:
    chat.press(f"/frobnicate{ENTER}")
    chat.expect("unknown command /frobnicate")
    chat.expect(">>>")
    assert "/FROBNICATE" not in chat.screen


def test_the_up_key_brings_the_last_question_back(chat: TerminalSession) -> None:
    chat.press(f"once more{ENTER}")
    chat.expect("ONCE MORE")
    chat.expect(">>>")
    chat.press(f"\x1b[A{ENTER}")
    chat.expect("ONCE MORE")


def test_verbose_timings_follow_each_answer() -> None:
    with terminal_session([*COMMAND, "--verbose"], environment()) as chat:
        chat.expect(">>>")
        chat.press(f"one two{ENTER}")
        chat.expect("ONE TWO")
        chat.expect("load duration:        1.50s")
        chat.expect("eval count:           2 token(s)")
        chat.press(f"three{ENTER}")
        chat.expect("load duration:        0.0ms")
