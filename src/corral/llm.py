"""LLM: a model in this process, for notebooks and evaluation. Blocking and batched."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from corral.config import EngineConfig
from corral.errors import CorralError, EngineDead, InvalidConfig, InvalidRequest, QueueFull
from corral.grammar import Grammar
from corral.request import (
    EmbedRequest,
    EmbedResult,
    FinishReason,
    Request,
    RequestOutput,
    TokenLogprob,
    Usage,
    new_request_id,
)
from corral.sampling_params import SamplingParams
from corral.store import resolve
from corral.worker.pipeline import Pipeline

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

RETRY_S = 0.01

Prompt = str | list[int]
Message = dict[str, Any]
AdapterPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class CompletionOutput:
    """One of the n answers to a prompt.

    `stop_reason` is the stop string or token that ended it, if one did; `logprobs` has one entry for each token, where
    SamplingParams.logprobs asks for them.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    stop_reason: str | int | None
    logprobs: tuple[TokenLogprob, ...] = ()
    thinking: str = ""  # what the model wrote before its answer, for itself


@dataclass(frozen=True, slots=True)
class Completion:
    """A prompt and its answers. `text` is the first answer's."""

    prompt: Prompt | list[Message]
    outputs: list[CompletionOutput]
    usage: Usage

    @property
    def text(self) -> str:
        return self.outputs[0].text


class LLM:
    """A model loaded into this process.

        with LLM("smollm2") as llm:
            [answer] = llm.chat([{"role": "user", "content": "Hello"}], SamplingParams(max_tokens=50))
            print(answer.text)

    Args:
        model: a name from the catalog (downloaded if it is not here), or the path of a GGUF file.
        engine_options: fields of EngineConfig, such as max_model_len or num_threads.

    Raises:
        InvalidConfig: an option that does not exist, or a value out of range.
        CorralError: the model cannot be found, downloaded or loaded.
    """

    def __init__(self, model: str | os.PathLike[str], **engine_options: Any) -> None:
        known = [field.name for field in dataclasses.fields(EngineConfig)]
        if unknown := sorted(set(engine_options) - set(known)):
            raise InvalidConfig(f"LLM has no option {unknown[0]!r}; there are {', '.join(known)}")
        self.config = EngineConfig(**engine_options)
        self._max_in_flight = self.config.max_num_seqs + self.config.max_queue
        self._pipeline: Pipeline | None = Pipeline.load(resolve(model).path, self.config)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        adapter: AdapterPath | Sequence[AdapterPath | None] | None = None,
        grammar: Grammar | Sequence[Grammar | None] | None = None,
        progress: bool = False,
    ) -> list[Completion]:
        """Continues each prompt: a text, or token ids; one result per prompt, in order.

        Args:
            sampling: one for all prompts, or one for each.
            adapter: the GGUF file of a LoRA adapter for all prompts, or one (or None) for each.
            grammar: what the answers must look like: one for all prompts, or one (or None) for each.
            progress: show a bar on stderr.

        Raises:
            InvalidRequest: a prompt that can never be answered, or a grammar that cannot be used; nothing is left
                running.
            ModelNotFound, InvalidModelFile, UnsupportedModel: an adapter that is not there, damaged, or not for this
                model.
            EngineDead: the model has been closed, or has died.
        """
        batch: list[Prompt] = [prompts] if _is_one_prompt(prompts) else list(prompts)  # type: ignore[arg-type, list-item]
        samplings = _one_each(sampling, len(batch))
        adapters = _adapters_each(adapter, len(batch))
        grammars = _grammars_each(grammar, len(batch))
        requests = [
            Request(new_request_id("llm"), prompt=prompt, sampling=each, adapter=its_adapter, grammar=its_grammar)
            for prompt, each, its_adapter, its_grammar in zip(batch, samplings, adapters, grammars, strict=True)
        ]
        return self._run(requests, progress)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        adapter: AdapterPath | Sequence[AdapterPath | None] | None = None,
        grammar: Grammar | Sequence[Grammar | None] | None = None,
        progress: bool = False,
    ) -> list[Completion]:
        """Answers one conversation, or each of several; otherwise as `generate`."""
        is_one = bool(messages) and isinstance(messages[0], dict)
        batch: list[list[Message]] = [list(messages)] if is_one else [list(each) for each in messages]  # type: ignore[arg-type]
        samplings = _one_each(sampling, len(batch))
        adapters = _adapters_each(adapter, len(batch))
        grammars = _grammars_each(grammar, len(batch))
        requests = [
            Request(
                new_request_id("llm"), messages=conversation, sampling=each, adapter=its_adapter, grammar=its_grammar
            )
            for conversation, each, its_adapter, its_grammar in zip(batch, samplings, adapters, grammars, strict=True)
        ]
        return self._run(requests, progress)

    def embed(
        self, texts: str | Sequence[str | list[int]], *, truncate: bool = True, dimensions: int | None = None
    ) -> list[npt.NDArray[np.float32]]:
        """The vector of each text, or of token ids as they stand; float32 of length 1, in order.

        Any model can, and those made for embeddings do it well; see docs/guides/embeddings.md.

        Args:
            truncate: cut a text that is longer than the context; otherwise it is refused.
            dimensions: keep only so many values of each vector, and make it of length 1 again.

        Raises:
            InvalidRequest: a text that is too long, an unknown token id, or dimensions out of range.
            EngineDead: the model has been closed, or has died.
        """
        import numpy as np

        inputs: list[str | list[int]] = [texts] if isinstance(texts, str) else list(texts)
        if not inputs:
            return []
        result = self._embed(EmbedRequest(new_request_id("embd"), "", inputs, truncate, dimensions))
        return [np.frombuffer(vector, dtype="<f4").astype(np.float32) for vector in result.embeddings]

    def close(self) -> None:
        """Gives the model's memory back. Idempotent."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _embed(self, request: EmbedRequest) -> EmbedResult:
        if self._pipeline is None:
            raise EngineDead("this LLM has been closed")
        results: SimpleQueue[EmbedResult | CorralError] = SimpleQueue()
        self._pipeline.embed(request, results.put)
        try:
            result = results.get()
        except BaseException:
            self._pipeline.abort(request.request_id)
            raise
        if isinstance(result, CorralError):
            raise result
        return result

    def _run(self, requests: list[Request], progress: bool) -> list[Completion]:
        if self._pipeline is None:
            raise EngineDead("this LLM has been closed")
        with _progress_bar(len(requests), progress) as advance:
            return _Batch(self._pipeline, requests, self._max_in_flight).run(advance)


class _Batch:
    """Feeds requests to the engine as fast as its queue takes them, and collects their answers."""

    def __init__(self, pipeline: Pipeline, requests: list[Request], max_in_flight: int) -> None:
        self._pipeline = pipeline
        self._requests = requests
        self._max_in_flight = max_in_flight  # sequences
        self._collectors = [_Collector(request) for request in requests]
        self._events: SimpleQueue[tuple[int, RequestOutput | CorralError]] = SimpleQueue()
        self._num_in_flight = 0
        self._next = 0

    def run(self, on_finished: Callable[[], None]) -> list[Completion]:
        num_finished = 0
        try:
            while num_finished < len(self._requests):
                self._fill()
                index, output = self._events.get()
                if isinstance(output, CorralError):
                    raise output
                self._collectors[index].add(output)
                if output.is_finished:
                    num_finished += 1
                    self._num_in_flight -= self._requests[index].sampling.n
                    on_finished()
        except BaseException:
            for request in self._requests[: self._next]:
                self._pipeline.abort(request.request_id)
            raise
        return [collector.completion() for collector in self._collectors]

    def _fill(self) -> None:
        """Submits while the engine's queue has room; an engine that is empty takes any request."""
        while self._next < len(self._requests):
            num_sequences = self._requests[self._next].sampling.n
            if self._num_in_flight and self._num_in_flight + num_sequences > self._max_in_flight:
                return
            try:
                self._submit(self._next)
            except QueueFull:
                # Answers that a stop string has ended leave the engine a step after they have left us.
                if self._num_in_flight:
                    return
                time.sleep(RETRY_S)
                continue
            self._num_in_flight += num_sequences
            self._next += 1

    def _submit(self, index: int) -> None:
        self._pipeline.submit(self._requests[index], lambda output: self._events.put((index, output)))


class _Collector:
    """The answers to one request so far."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._texts: list[list[str]] = [[] for _ in range(request.sampling.n)]
        self._thinking: list[list[str]] = [[] for _ in range(request.sampling.n)]
        self._token_ids: list[list[int]] = [[] for _ in range(request.sampling.n)]
        self._logprobs: list[list[TokenLogprob]] = [[] for _ in range(request.sampling.n)]
        self._ends: list[tuple[FinishReason, str | int | None]] = [(FinishReason.ABORT, None)] * request.sampling.n
        self._usage = Usage()

    def add(self, output: RequestOutput) -> None:
        for delta in output.deltas:
            self._texts[delta.index].append(delta.text)
            self._thinking[delta.index].append(delta.thinking)
            self._token_ids[delta.index].extend(delta.token_ids)
            self._logprobs[delta.index].extend(delta.logprobs)
            if delta.finish_reason is not None:
                self._ends[delta.index] = (delta.finish_reason, delta.stop_reason)
        self._usage = output.usage

    def completion(self) -> Completion:
        request = self._request
        outputs = [
            CompletionOutput(
                index, "".join(texts), tuple(token_ids), *end, tuple(logprobs), "".join(self._thinking[index])
            )
            for index, (texts, token_ids, end, logprobs) in enumerate(
                zip(self._texts, self._token_ids, self._ends, self._logprobs, strict=True)
            )
        ]
        prompt = request.messages if request.prompt is None else request.prompt
        return Completion(prompt or [], outputs, self._usage)


def _is_one_prompt(prompts: Prompt | Sequence[Prompt]) -> bool:
    return isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], int))


def _one_each(sampling: SamplingParams | Sequence[SamplingParams] | None, count: int) -> Sequence[SamplingParams]:
    if sampling is None or isinstance(sampling, SamplingParams):
        return [sampling or SamplingParams()] * count
    if len(sampling) != count:
        raise InvalidRequest(
            f"there are {count} prompts and {len(sampling)} sampling params; give one, or one for each"
        )
    return sampling


def _adapters_each(adapter: AdapterPath | Sequence[AdapterPath | None] | None, count: int) -> Sequence[str | None]:
    if adapter is None or isinstance(adapter, str | os.PathLike):
        return [None if adapter is None else os.fspath(adapter)] * count
    if len(adapter) != count:
        raise InvalidRequest(f"there are {count} prompts and {len(adapter)} adapters; give one, or one for each")
    return [None if each is None else os.fspath(each) for each in adapter]


def _grammars_each(grammar: Grammar | Sequence[Grammar | None] | None, count: int) -> Sequence[Grammar | None]:
    if grammar is None or isinstance(grammar, Grammar):
        return [grammar] * count
    if len(grammar) != count:
        raise InvalidRequest(f"there are {count} prompts and {len(grammar)} grammars; give one, or one for each")
    return grammar


@contextmanager
def _progress_bar(total: int, is_shown: bool) -> Iterator[Callable[[], None]]:
    """Yields what is to be called for each answer."""
    if not is_shown:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("answers", total=total)
        yield lambda: progress.advance(task)
