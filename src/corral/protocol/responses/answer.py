"""OpenAI's response object and its stream of events. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from corral.errors import InvalidRequest
from corral.protocol.openai.errors import reply_to
from corral.protocol.responses.call import ResponsesCall
from corral.protocol.responses.writer import Event, ItemWriter
from corral.protocol.sse import encode_named_event
from corral.request import FinishReason, RequestOutput, Usage


class ResponseWriter:
    """Makes one response out of a request's outputs: whole, or event by event.

    Args:
        model: its name, as the answer tells it.
        created: Unix seconds.
    """

    def __init__(self, call: ResponsesCall, model: str, created: int) -> None:
        self._items = ItemWriter(with_logprobs=call.request.sampling.logprobs is not None)
        self._usage = Usage()
        self._num_reasoning_tokens = 0
        self._reason: FinishReason | None = None
        self._num_events = 0
        self._response: Event = {
            "id": call.request.request_id,
            "object": "response",
            "created_at": created,
            "completed_at": None,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": model,
            "output": [],
            "usage": None,
            **call.settings,
        }

    def open(self) -> bytes:
        """The first events."""
        return self._encode(
            {"type": f"response.{name}", "response": self._response} for name in ("created", "in_progress")
        )

    def encode(self, output: RequestOutput) -> bytes:
        """The events of one output."""
        return self._encode(self._push(output))

    def add(self, output: RequestOutput) -> None:
        """One output of an answer that is not streamed."""
        for _ in self._push(output):
            pass

    def end(self, now: int) -> tuple[dict[str, Any], bytes, bytes]:
        """The response, and the events before and at its end.

        Args:
            now: Unix seconds.
        """
        is_cut = self._reason is FinishReason.LENGTH
        status = "incomplete" if is_cut else "completed"
        before = self._encode(self._items.finish(status))
        details = {"reason": "max_output_tokens"} if is_cut else None
        response = self._whole(status, completed_at=None if is_cut else now, incomplete_details=details)
        return response, before, self._encode([{"type": f"response.{status}", "response": response}])

    def cancel(self) -> dict[str, Any]:
        """The response of which nobody waited for the end: what it had come to."""
        return self._whole("cancelled")

    def fail(self, error: Exception, request_id: str) -> tuple[dict[str, Any], bytes]:
        """The response that broke off, and its last event."""
        reply = reply_to(error).naming(request_id)
        code = "invalid_prompt" if isinstance(error, InvalidRequest) else "server_error"
        response = self._whole("failed", error={"code": code, "message": reply.message})
        return response, self._encode([{"type": "response.failed", "response": response}])

    def error_event(self, error: Exception, request_id: str) -> bytes:
        """The last event of a stream whose response could not be kept."""
        reply = reply_to(error).naming(request_id)
        return self._encode([{"type": "error", "code": reply.code, "message": reply.message, "param": reply.param}])

    def _push(self, output: RequestOutput) -> Iterable[Event]:
        self._usage = output.usage
        for delta in output.deltas:
            if delta.thinking and not delta.text:
                self._num_reasoning_tokens += len(delta.token_ids)
            if delta.finish_reason is not None:
                self._reason = delta.finish_reason
            yield from self._items.push(delta)

    def _whole(self, status: str, **fields: Any) -> dict[str, Any]:
        output = self._items.snapshot()
        usage = _encode_usage(self._usage, self._num_reasoning_tokens)
        return {**self._response, "status": status, "output": output, "usage": usage, **fields}

    def _encode(self, events: Iterable[Event]) -> bytes:
        encoded = []
        for event in events:
            encoded.append(encode_named_event(event["type"], {**event, "sequence_number": self._num_events}))
            self._num_events += 1
        return b"".join(encoded)


def _encode_usage(usage: Usage, num_reasoning_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": num_reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def encode_item_list(items: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """A page of input items."""
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }
