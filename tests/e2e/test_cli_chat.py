"""A person at a terminal: `corral run MODEL` with a real model."""

from __future__ import annotations

import re
import sys

import pytest

from tests.cli.conftest import environment
from tests.cli.terminal_session import CTRL_C, CTRL_D, ENTER, terminal_session
from tests.support.models import model_path

pytestmark = pytest.mark.e2e


def test_a_chat_with_smollm2() -> None:
    path = str(model_path("smollm2-135m"))
    command = [sys.executable, "-m", "corral", "run", path, "--temperature", "0", "--max-tokens", "300", "--verbose"]
    with terminal_session(command, environment()) as chat:
        chat.expect("users at once")  # the plan, before the load
        chat.expect(">>>")
        chat.press(f"Count from 1 to 100.{ENTER}")
        chat.expect("2. 2")
        chat.press(CTRL_C)
        chat.expect("eval rate")
        chat.expect(">>>")
        chat.press(f"What is 2 + 2?{ENTER}")
        chat.expect("prompt eval count")
        chat.expect("eval rate")
        chat.expect(">>>")
        chat.press(CTRL_D)
        assert chat.wait() == 0
    # The second prompt began with the first one, whose blocks were still there.
    first, second = re.findall(r"prompt eval count:\s+(\d+) token\(s\), (\d+) of them cached", chat.screen)
    assert int(first[1]) == 0
    assert int(second[1]) >= int(first[0]) // 16 * 16 > 0
