"""Anthropic's stream of a message: named server-sent events. Pure."""

from __future__ import annotations

from corral.protocol.anthropic.answer import UNENDED, BlockWriter, Ending, Event, encode_message, encode_usage
from corral.protocol.anthropic.errors import anthropic_error
from corral.protocol.anthropic.messages import MessagesCall
from corral.protocol.sse import encode_named_event
from corral.request import RequestOutput


class MessageStream:
    """Encodes one streamed answer: open, then encode for every output, then close."""

    def __init__(self, call: MessagesCall, model: str) -> None:
        self._call = call
        self._model = model
        self._writer = BlockWriter(call)
        self._ending = Ending(call)
        self._is_open = False

    def open(self) -> bytes:
        """Nothing yet: the first event tells the prompt's length, which comes with the first output."""
        return b""

    def encode(self, _: int, output: RequestOutput) -> bytes:
        """The events of one output."""
        self._ending.add(output)
        events = []
        if not self._is_open:
            self._is_open = True
            message = encode_message(self._call, self._model, [], UNENDED, output.usage)
            events += [_event({"type": "message_start", "message": message}), _event({"type": "ping"})]
        for delta in output.deltas:
            events += map(_event, self._writer.push(delta))
        return b"".join(events)

    def close(self) -> bytes:
        """The end of the last block, why the answer ended, and the usage."""
        events = [_event(event) for event in self._writer.finish()]
        delta = self._ending.payload(self._writer.num_tool_uses)
        usage = encode_usage(self._ending.usage)
        events.append(_event({"type": "message_delta", "delta": delta, "usage": usage}))
        events.append(_event({"type": "message_stop"}))
        return b"".join(events)

    def fail(self, error: Exception, request_id: str) -> bytes:
        """The error as the last event; no message_stop follows it."""
        return anthropic_error(error, request_id).event(request_id)


def _event(payload: Event) -> bytes:
    return encode_named_event(payload["type"], payload)
