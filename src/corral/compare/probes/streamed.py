"""What a client relies on in a streamed chat of OpenAI's protocol. One stream is recorded for all of these checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from corral.compare.engines.replies import at, objects, text, whole
from corral.compare.probes.probe import CannotTry, Finding, Probe, failed, judged, partly, passed
from corral.compare.probes.stream import Stream, read_stream
from corral.compare.probes.target import Target
from corral.compare.probes.wire import Reply

_TOKENS = 12
_REASONS = {"stop", "length"}


@dataclass(slots=True)
class _Recording:
    """One stream with its usage and one without, asked for when they are wanted first."""

    streams: dict[bool, tuple[Reply, Stream]] = field(default_factory=dict)

    async def get(self, target: Target, *, has_usage: bool = True) -> tuple[Reply, Stream]:
        if has_usage not in self.streams:
            body = target.chat("Count from one to nine.", max_tokens=_TOKENS, stream=True)
            if has_usage:
                body["stream_options"] = {"include_usage": True}
            reply = await target.answer(body)
            self.streams[has_usage] = reply, read_stream(reply.body)
        reply, stream = self.streams[has_usage]
        if not reply.is_ok or not stream.chunks:
            raise CannotTry(f"no stream came: {reply.told()}")
        return reply, stream


def stream_probes() -> list[Probe]:
    recording = _Recording()

    def probe(name: str, wanted: str, judge: Callable[[Reply, Stream], Finding]) -> Probe:
        async def run(target: Target) -> Finding:
            return judge(*await recording.get(target))

        return Probe(name, wanted, run, 150.0)

    async def unasked(target: Target) -> Finding:
        _, stream = await recording.get(target, has_usage=False)
        num_usage = sum(chunk.get("usage") is not None for chunk in stream.chunks)
        told = f"without stream_options: {num_usage} of {len(stream.chunks)} chunks have a usage"
        return partly(told) if num_usage else passed(told)

    return [
        probe("stream: form", "text/event-stream of JSON objects, each a chat.completion.chunk.", _form),
        probe("stream: role first", "The first chunk has the role; later ones do not change it.", _role),
        probe("stream: ids", "One id, creation time and model in all chunks, so that they can be put together.", _ids),
        probe(
            "stream: finish_reason",
            "One for the choice, in its last chunk: stop or length; after it no text comes.",
            _finish,
        ),
        probe(
            "stream: usage",
            "Asked for by include_usage: one last chunk with empty choices and counts that add up.",
            _usage,
        ),
        probe("stream: [DONE]", "Clients read until it, and nothing comes behind it.", _done),
        Probe("stream: usage unasked", "Without include_usage no chunk has a usage.", unasked, 150.0),
    ]


def _form(reply: Reply, stream: Stream) -> Finding:
    kind = reply.headers.get("content-type", "none")
    objects_seen = sorted({str(chunk.get("object")) for chunk in stream.chunks})
    faults = []
    if not kind.startswith("text/event-stream"):
        faults.append(f"Content-Type is {kind}")
    if stream.odd:
        faults.append(f"{len(stream.odd)} events are no JSON objects")
    if objects_seen != ["chat.completion.chunk"]:
        faults.append(f"object is {', '.join(objects_seen)}")
    if not stream.text:
        faults.append("there is no text in it")
    return judged(faults, f"{len(stream.chunks)} chunks, Content-Type {kind}")


def _role(reply: Reply, stream: Stream) -> Finding:
    deltas = [at(choice, "delta") for choice in stream.choices]
    roles = [role for delta in deltas if (role := text(at(delta, "role")))]
    first = text(at(deltas[0], "role")) if deltas else None
    told = f"the first delta is {_short(deltas[0] if deltas else None)}; {len(roles)} of {len(deltas)} have a role"
    if first != "assistant":
        return failed(told)
    if set(roles) != {"assistant"}:
        return failed(f"roles are {', '.join(sorted(set(roles)))}; {told}")
    return passed(told) if len(roles) == 1 else partly(told)


def _ids(reply: Reply, stream: Stream) -> Finding:
    values = {name: {str(chunk.get(name)) for chunk in stream.chunks} for name in ("id", "created", "model")}
    faults = [f"{name} has {len(seen)} values" for name, seen in values.items() if len(seen) != 1]
    if not all(text(chunk.get("id")) for chunk in stream.chunks):
        faults.append("a chunk has no id")
    if not all(whole(chunk.get("created")) for chunk in stream.chunks):
        faults.append("created is no whole number")
    first = stream.chunks[0]
    is_one = len(values["id"]) == 1 and bool(text(first.get("id")))  # it is by the id that chunks are put together
    return judged(
        faults, f"id {first.get('id')}, created {first.get('created')}, model {first.get('model')}", is_partly=is_one
    )


def _finish(reply: Reply, stream: Stream) -> Finding:
    reasons = stream.finish_reasons
    told = f"finish_reason: {', '.join(reasons) or 'none'}; with max_tokens {_TOKENS}"
    if len(reasons) != 1 or reasons[0] not in _REASONS:
        return failed(told)
    place = next(i for i, choice in enumerate(stream.choices) if choice.get("finish_reason"))
    late = [choice for choice in stream.choices[place + 1 :] if at(choice, "delta", "content")]
    return judged(["text comes after it"] if late else [], told)


def _usage(reply: Reply, stream: Stream) -> Finding:
    with_usage = [(i, chunk) for i, chunk in enumerate(stream.chunks) if chunk.get("usage") is not None]
    if not with_usage:
        return failed(f"none in {len(stream.chunks)} chunks, although stream_options asked for it")
    place, chunk = with_usage[-1]
    faults = []
    if len(with_usage) > 1:
        faults.append(f"{len(with_usage)} chunks have one")
    if objects(chunk.get("choices")) or place != len(stream.chunks) - 1:
        faults.append("it is not in a last chunk without choices")
    return judged([*usage_faults(chunk.get("usage")), *faults], f"usage {_short(chunk.get('usage'))}", is_partly=True)


def usage_faults(usage: Any) -> list[str]:
    """Why it cannot be counted with."""
    counts = [whole(at(usage, name)) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    if any(count is None for count in counts):
        return ["prompt_tokens, completion_tokens or total_tokens is missing"]
    prompt, completion, total = (count or 0 for count in counts)
    faults = [] if prompt + completion == total else ["the total is not their sum"]
    return faults if prompt > 0 and completion > 0 else [*faults, "a count is 0"]


def _done(reply: Reply, stream: Stream) -> Finding:
    told = f"{'[DONE]' if stream.is_done else 'no [DONE]'} after {len(stream.chunks)} chunks"
    if not stream.is_done:
        return failed(told)
    return judged([f"{stream.after_done} events come behind it"] if stream.after_done else [], told)


def _short(value: Any) -> str:
    return str(value)[:160]
