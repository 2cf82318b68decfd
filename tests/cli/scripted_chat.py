"""The chat with a scripted model in place of a real one; started by test_chat in a terminal.

"markdown", "think" and "settings" are answered as Markdown, after some thinking, and with what the request holds;
anything else as tests.support.scripted_worker does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from corral.cli.chat.session import Chat
from corral.cli.conversation import Conversation
from corral.cli.in_process import InProcessModel
from corral.config import EngineConfig
from corral.request import Delta, FinishReason, Request, RequestOutput, Usage
from corral.store.local_model import LocalModel
from tests.cli.fake_backend import FakeBackend
from tests.support.scripted_worker import OnOutput, ScriptedModel, script_of

MARKDOWN = "# Heading\n\nSome **bold** and `code`.\n\n- one\n- two\n\n```python\nprint('`<b>`')\n```\n\nThe end."


class TalkingModel(ScriptedModel):
    def submit(self, request: Request, on_output: OnOutput) -> int:
        match script_of(request):
            case "markdown":
                pieces = [Delta(0, MARKDOWN[start : start + 3]) for start in range(0, len(MARKDOWN), 3)]
            case "think":
                pieces = [Delta(0, "", thinking=f"step {number}\n") for number in range(3)]
                pieces.append(Delta(0, "the answer"))
            case "settings":
                system = [m["content"] for m in request.messages or () if m["role"] == "system"]
                sampling = request.sampling
                kind = f" {request.grammar.kind}" if request.grammar is not None else ""
                pieces = [Delta(0, f"{sampling.temperature} {sampling.stop} {request.think} {system}{kind}")]
            case "how many":
                pieces = [Delta(0, f"{len(request.messages or ())} messages")]
            case _:
                return super().submit(request, on_output)
        for delta in pieces:
            on_output(RequestOutput(request.request_id, (delta,), Usage(3, 1)))
        end = Delta(0, "", finish_reason=FinishReason.STOP)
        on_output(RequestOutput(request.request_id, (end,), Usage(3, len(pieces)), is_finished=True))
        return 3


def open_model(name: str) -> InProcessModel:
    local = LocalModel(name, Path(name), system="You are terse.", parameters={"temperature": 0.3})
    return InProcessModel(name, local, TalkingModel(Path(name), EngineConfig()), load_s=1.5)


if __name__ == "__main__":
    conversation = Conversation(is_verbose="--verbose" in sys.argv, hides_thinking="--hidethinking" in sys.argv)
    backend = FakeBackend("scripted", "other")
    chat = Chat(open_model("scripted"), conversation, backend, open_model)
    try:
        chat.run()
    finally:
        chat.close()
    print("saved:", *backend.calls)
    print("the chat has ended")
