"""From the engine's ids back to text: what one request has said, and when its words end it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from corral.engine.output import SequenceOutput
from corral.errors import CorralError
from corral.request import Delta, FinishReason, Request, RequestOutput, Usage
from corral.text.detokenizer import Detokenizer
from corral.text.stop import StopMatcher
from corral.text.tokenizer import Tokenizer
from corral.worker.logprobs import describe

OnOutput = Callable[[RequestOutput | CorralError], None]
Finish = Callable[[int], None]  # ends the answer of that index, because of its text


class Answering:
    """One request under way. All calls come from the engine's thread, and are short.

    `stop_texts` end an answer besides the request's own stop strings. `prompt_ids` are told once, if it wants them.
    """

    def __init__(
        self,
        request: Request,
        num_prompt_tokens: int,
        tokenizer: Tokenizer,
        on_output: OnOutput,
        finish: Finish,
        stop_texts: tuple[str, ...] = (),
        prompt_ids: Sequence[int] = (),
    ) -> None:
        sampling = request.sampling
        stops = sampling.stop + stop_texts
        self._request_id = request.request_id
        self._tokenizer = tokenizer
        self._num_prompt_tokens = num_prompt_tokens
        self._prompt_ids = tuple(prompt_ids) if request.with_prompt_ids else ()  # until they have been told
        self._num_cached_tokens = 0
        self._num_completion_tokens = 0
        self._on_output = on_output
        self._finish = finish
        is_continuation = request.messages is None  # an answer to a raw prompt goes on in its text
        self._answers = [
            _Answer(Detokenizer(tokenizer, is_continuation=is_continuation), stops) for _ in range(sampling.n)
        ]
        self._num_unfinished = sampling.n

    @property
    def is_finished(self) -> bool:
        return self._num_unfinished == 0

    def on_step(self, result: tuple[SequenceOutput, ...] | CorralError) -> None:
        """Takes one step's outputs of the request, or the error that ends it."""
        if self.is_finished:
            return  # a stop string has ended it; the engine's own end follows a step later
        if isinstance(result, CorralError):
            self._num_unfinished = 0
            self._on_output(result)
            return
        deltas = []
        for output in result:
            self._num_cached_tokens = output.num_cached_tokens
            delta = self._advance(output)
            if delta is not None:
                deltas.append(delta)
        if deltas:
            usage = Usage(self._num_prompt_tokens, self._num_completion_tokens, self._num_cached_tokens)
            prompt_ids, self._prompt_ids = self._prompt_ids, ()
            self._on_output(RequestOutput(self._request_id, tuple(deltas), usage, self.is_finished, prompt_ids))

    def _advance(self, output: SequenceOutput) -> Delta | None:
        answer = self._answers[output.index]
        if answer.is_finished:
            return None
        self._num_completion_tokens += len(output.new_token_ids)
        delta = answer.advance(output)
        if output.logprobs:
            delta = replace(delta, logprobs=describe(output.logprobs, self._tokenizer))
        if delta.finish_reason is not None:
            self._num_unfinished -= 1
            if output.finish_reason is None:
                self._finish(output.index)
        return delta


class _Answer:
    """The text of one of the n answers."""

    __slots__ = ("_detokenizer", "_stop", "is_finished")

    def __init__(self, detokenizer: Detokenizer, stops: tuple[str, ...]) -> None:
        self._detokenizer = detokenizer
        self._stop = StopMatcher(stops) if stops else None
        self.is_finished = False

    def advance(self, output: SequenceOutput) -> Delta:
        reason = output.finish_reason
        stop_reason: str | int | None = output.stop_token
        text = self._detokenizer.push(output.new_token_ids)
        if reason is not None:
            text += self._detokenizer.finish()
        if self._stop is not None:
            found = self._stop.push(text)
            text = found.text
            if found.matched is not None:
                reason, stop_reason = FinishReason.STOP, found.matched
            elif reason is not None:
                text += self._stop.finish()
        self.is_finished = reason is not None
        return Delta(output.index, text, output.new_token_ids, reason, stop_reason)
