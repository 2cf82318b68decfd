"""From the engine's ids back to text: what one request has said, and when its words end it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from corral.engine.output import SequenceOutput
from corral.errors import CorralError
from corral.request import Delta, FinishReason, QueuePlace, Request, RequestOutput, Timings, TokenLogprob, Usage
from corral.text.detokenizer import Detokenizer
from corral.text.harmony import HarmonySplitter
from corral.text.reasoning import ReasoningSplitter, ids_of, make_splitter
from corral.text.stop import StopMatcher
from corral.text.tokenizer import Tokenizer
from corral.text.tools.offered import OfferedTools
from corral.text.tools.parser import ToolCallParser
from corral.tool_call import ToolCallDelta
from corral.worker.logprobs import describe
from corral.worker.prompting import Prompt

OnOutput = Callable[[RequestOutput | CorralError], None]
Finish = Callable[[int], None]  # ends the answer of that index, because of its text


class Answering:
    """One request under way. All calls come from the engine's thread, and are short."""

    def __init__(
        self,
        request: Request,
        prompt: Prompt,
        tokenizer: Tokenizer,
        on_output: OnOutput,
        finish: Finish,
    ) -> None:
        sampling = request.sampling
        stops = sampling.stop + prompt.stop_texts
        self._request_id = request.request_id
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._prompt_ids = tuple(prompt.ids) if request.with_prompt_ids else ()  # until they have been told
        self._scores_prompt = sampling.prompt_logprobs is not None  # likewise
        self._num_cached_tokens = 0
        self._num_completion_tokens = 0
        self._on_output = on_output
        self._finish = finish
        is_continuation = request.messages is None  # an answer to a raw prompt goes on in its text
        markers = prompt.markers
        style = prompt.tool_style
        shown = markers.ids if markers is not None else frozenset()
        tools = OfferedTools(request.tools or (), request.tool_choice)
        if style is not None:
            shown |= ids_of(style.markers, tokenizer)
        self._answers = [
            _Answer(
                Detokenizer(
                    tokenizer,
                    is_continuation=is_continuation,
                    shown=shown,
                    shows_special=not sampling.skip_special_tokens,
                ),
                StopMatcher(stops, is_shown=sampling.include_stop_str) if stops else None,
                make_splitter(markers, prompt.text, is_open=prompt.is_thinking) if markers is not None else None,
                ToolCallParser(style, tools) if style is not None else None,
            )
            for _ in range(sampling.n)
        ]
        self._num_unfinished = sampling.n
        self._asked_at: float | None = time.monotonic()  # until its times have been told
        if request.resumed:
            self._resume(request)

    @property
    def is_finished(self) -> bool:
        return self._num_unfinished == 0

    def _resume(self, request: Request) -> None:
        """Brings everything to where another worker left it: what that has told is not told again."""
        self._prompt_ids, self._scores_prompt = (), False
        for index, so_far in enumerate(request.resumed):
            answer = self._answers[index]
            self._num_completion_tokens += len(so_far.token_ids)
            # One at a time, as they came: how much text is held back may depend on it.
            for token_id in so_far.token_ids:
                answer.advance(SequenceOutput(request.request_id, index, (token_id,)))
            if so_far.is_finished:
                answer.is_finished = True
                self._num_unfinished -= 1

    def on_place(self, place: QueuePlace) -> None:
        """Tells where the request waits, which says as well that it was taken."""
        self._on_output(RequestOutput(self._request_id, usage=Usage(len(self._prompt.ids)), place=place))

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
            usage = Usage(
                len(self._prompt.ids),
                self._num_completion_tokens,
                self._num_cached_tokens,
                self._prompt.dropped_messages,
                self._prompt.dropped_tokens,
            )
            prompt_ids, self._prompt_ids = self._prompt_ids, ()
            scores = self._prompt_logprobs(result)
            timings = self._timings(result)
            self._on_output(
                RequestOutput(
                    self._request_id, tuple(deltas), usage, self.is_finished, prompt_ids, scores, timings=timings
                )
            )

    def _timings(self, outputs: tuple[SequenceOutput, ...]) -> Timings | None:
        """With the first tokens, once: now is when they came."""
        asked_at, self._asked_at = self._asked_at, None
        begun_at = outputs[0].begun_at
        if asked_at is None or begun_at is None:
            return None
        return Timings(max(0.0, begun_at - asked_at), max(0.0, time.monotonic() - begun_at))

    def _prompt_logprobs(self, outputs: tuple[SequenceOutput, ...]) -> tuple[TokenLogprob, ...]:
        """One for each token of the prompt, with the first token of an answer; nothing stands before the first."""
        if not self._scores_prompt:
            return ()
        self._scores_prompt = False
        first_id = self._prompt.ids[0]
        first = TokenLogprob(first_id, self._tokenizer.token_bytes(first_id), math.nan)
        return (first, *(lp for output in outputs for lp in describe(output.prompt_logprobs, self._tokenizer)))

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
    """The text of one of the n answers. Stop strings are looked for in the answer only, not in the thinking."""

    __slots__ = ("_calls", "_detokenizer", "_splitter", "_stop", "is_finished")

    def __init__(
        self,
        detokenizer: Detokenizer,
        stop: StopMatcher | None,
        splitter: HarmonySplitter | ReasoningSplitter | None,
        calls: ToolCallParser | None,
    ) -> None:
        self._detokenizer = detokenizer
        self._stop = stop
        self._splitter = splitter
        self._calls = calls
        self.is_finished = False

    def advance(self, output: SequenceOutput) -> Delta:
        reason = output.finish_reason
        stop_reason: str | int | None = output.stop_token
        text = self._detokenizer.push(output.new_token_ids)
        if reason is not None:
            text += self._detokenizer.finish()
        thinking = ""
        if self._splitter is not None:
            thinking, text = self._splitter.push(text)
            if reason is not None:
                rest = self._splitter.finish()
                thinking, text = thinking + rest[0], text + rest[1]
        is_cut = reason is not FinishReason.STOP
        if self._stop is not None:
            found = self._stop.push(text)
            text = found.text
            if found.matched is not None:
                reason, stop_reason, is_cut = FinishReason.STOP, found.matched, True
            elif reason is not None:
                text += self._stop.finish()
        calls: tuple[ToolCallDelta, ...] = ()
        if self._calls is not None:
            self._calls.push(text)
            if self._calls.is_finished and reason is None:
                reason = FinishReason.STOP
            if reason is not None:
                self._calls.finish(is_cut=is_cut)
            text, calls = self._calls.taken()
            if reason is FinishReason.STOP and self._calls.has_called:
                reason = FinishReason.TOOL_CALLS
        self.is_finished = reason is not None
        return Delta(output.index, text, output.new_token_ids, reason, stop_reason, thinking, tool_calls=calls)
