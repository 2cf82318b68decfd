"""The chat with a scripted model in place of a real one; started by test_chat in a terminal."""

from __future__ import annotations

import sys
from pathlib import Path

from corral.cli.chat import chat
from corral.cli.run import Conversation
from corral.config import EngineConfig
from corral.sampling_params import SamplingParams
from tests.support.scripted_worker import ScriptedModel

if __name__ == "__main__":
    model = ScriptedModel(Path("scripted"), EngineConfig())
    conversation = Conversation("scripted", SamplingParams(), system=None, is_verbose="--verbose" in sys.argv)
    chat(model, conversation, load_s=1.5)
    print("the chat has ended")
