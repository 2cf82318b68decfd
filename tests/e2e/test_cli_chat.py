"""A person at a terminal: `corral run MODEL` with a real model."""

from __future__ import annotations

import sys

import pytest

from tests.cli.conftest import environment
from tests.cli.terminal_session import CTRL_C, CTRL_D, ENTER, terminal_session
from tests.support.models import model_path

pytestmark = pytest.mark.e2e


def test_a_chat_with_smollm2() -> None:
    command = [sys.executable, "-m", "corral", "run", str(model_path("smollm2-135m")), "--temperature", "0"]
    with terminal_session(command, environment()) as chat:
        chat.expect("users at once")  # the plan, before the load
        chat.expect(">>>")
        chat.press(f"What is the capital of France?{ENTER}")
        chat.expect("Paris")
        chat.expect(">>>")
        chat.press(f"Count from 1 to 1000, one number a line.{ENTER}")
        chat.expect("\n2")
        chat.press(CTRL_C)
        chat.expect(">>>")
        chat.press(f"What is the capital of Italy?{ENTER}")
        chat.expect("Rome")
        chat.expect(">>>")
        chat.press(CTRL_D)
        assert chat.wait() == 0
