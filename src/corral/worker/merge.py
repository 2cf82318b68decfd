"""Joining outputs that follow one another."""

from __future__ import annotations

from dataclasses import replace

from corral.request import Delta, RequestOutput


def merge(first: RequestOutput, second: RequestOutput) -> RequestOutput:
    """One output that says what both say, in that order; each answer has at most one delta in it."""
    deltas: dict[int, Delta] = {delta.index: delta for delta in first.deltas}
    for delta in second.deltas:
        before = deltas.get(delta.index)
        if before is not None:
            text, calls = before.text + delta.text, list(before.tool_calls)
            broken = next((place for place in reversed(range(len(calls))) if calls[place].broken), None)
            if broken is not None:  # a broken call's text comes after that of `before`; what follows goes on with it
                text = before.text
                calls[broken] = replace(calls[broken], broken=calls[broken].broken + delta.text)
            delta = replace(
                delta,
                text=text,
                thinking=before.thinking + delta.thinking,
                token_ids=before.token_ids + delta.token_ids,
                logprobs=before.logprobs + delta.logprobs,
                tool_calls=(*calls, *delta.tool_calls),
            )
        deltas[delta.index] = delta
    # Only the note that a request was taken has no deltas; it may come after the first words, and then knows less.
    usage = second.usage if second.deltas or not first.deltas else first.usage
    is_finished = first.is_finished or second.is_finished
    prompt_ids = first.prompt_ids or second.prompt_ids
    prompt_logprobs = first.prompt_logprobs or second.prompt_logprobs
    return RequestOutput(
        first.request_id,
        tuple(deltas.values()),
        usage,
        is_finished,
        prompt_ids,
        prompt_logprobs,
        None if deltas else second.place or first.place,
        first.timings or second.timings,
    )
