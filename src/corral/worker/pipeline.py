"""A whole model in one process: text in, text out. The worker serves it; LLM calls it directly."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Self

from corral.config import EngineConfig, forced_isa
from corral.engine.core import EngineCore
from corral.engine.loop import EngineLoop, StepResult
from corral.engine.model_runner import ModelRunner
from corral.engine.sequence import SequenceGroupSpec
from corral.errors import ContextLengthExceeded, CorralError, InvalidRequest
from corral.model.architectures import read_config
from corral.model.cpu import active_isa, select_isa, usable_cpus
from corral.model.packed_cache import PackedCache
from corral.model.plan import Plan, make_plan
from corral.model.weights import load_model
from corral.request import Overflow, Request, RequestOutput
from corral.text.chat_template import ChatTemplate
from corral.text.tokenizer import Tokenizer
from corral.worker.adapters import AdapterCache, AdapterLease
from corral.worker.answering import Answering, OnOutput
from corral.worker.info import ModelInfo, WorkerStats
from corral.worker.opening import OnPlan, OnProgress, OpenModel, open_model

logger = logging.getLogger("corral.worker")


class Pipeline:
    """A loaded model. Make it with `load`; every method may be called from any thread."""

    def __init__(
        self,
        info: ModelInfo,
        plan: Plan,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        runner: ModelRunner,
        core: EngineCore,
        adapters: AdapterCache,
        config: EngineConfig,
    ) -> None:
        self.info = info
        self.plan = plan
        self.tokenizer = tokenizer
        self._template = template
        self._runner = runner
        self._adapters = adapters
        self._engine = EngineLoop(core, config)
        self._open: dict[str, Answering] = {}  # requests without their last output

    @classmethod
    def load(
        cls, path: Path, config: EngineConfig, progress: OnProgress | None = None, plan_out: OnPlan | None = None
    ) -> Self:
        """Opens a GGUF file and makes it ready to answer.

        Args:
            progress: called with (done_bytes, total_bytes) of the weights.
            plan_out: called with the memory plan's table before any weight is read.

        Raises:
            CorralError: the file, the family, the memory or a setting forbids it; says which.
        """
        with open_model(path) as model:
            return cls.of(model, config, progress, plan_out)

    @classmethod
    def of(
        cls, opened: OpenModel, config: EngineConfig, progress: OnProgress | None = None, plan_out: OnPlan | None = None
    ) -> Self:
        """As `load`, of a file that is open already; it may be closed afterwards."""
        if (isa := config.isa or forced_isa()) is not None:
            select_isa(isa)
        model_config = read_config(opened.gguf)
        plan = make_plan(opened.gguf, model_config, config)
        if plan_out is not None:
            plan_out(plan.describe())

        def on_progress(done_bytes: int, total_bytes: int) -> None:
            if opened.text.done():
                opened.text.result()  # a faulty vocabulary ends the load at once
            if progress is not None:
                progress(done_bytes, total_bytes)

        num_threads = config.num_threads or usable_cpus()
        model = load_model(opened.gguf, model_config, num_threads, on_progress, PackedCache.of(config))
        tokenizer, template = opened.text.result()
        runner = ModelRunner(model, plan.num_blocks, config)
        core = EngineCore(runner, config, max_model_len=plan.max_model_len, vocab_size=model_config.vocab_size)
        info = ModelInfo(
            name=plan.name,
            architecture=plan.architecture,
            context_length=plan.context_length,
            max_model_len=plan.max_model_len,
            vocab_size=model_config.vocab_size,
            isa=active_isa(),
            num_threads=num_threads,
            weights_bytes=model.packed_bytes,
            load_s=time.monotonic() - opened.opened_at,
            kv_limit_bytes=plan.pool_bytes,
        )
        adapters = AdapterCache(model_config, config.adapter_max_bytes)
        return cls(info, plan, tokenizer, template, runner, core, adapters, config)

    @property
    def plan_text(self) -> str:
        return self.plan.describe()

    def submit(self, request: Request, on_output: OnOutput) -> int:
        """Renders, tokenises and queues a request; returns the prompt's length in tokens. Loads its adapter first, if
        that is not here yet.

        `on_output` is called on the engine's thread, with outputs up to the one that is finished, or with an error that
        ends them. It must not block.

        Raises:
            InvalidRequest: the request can never be answered; then `on_output` is not called.
            QueueFull, ServerDraining, EngineDead: it cannot be answered now; as above.
            ModelNotFound, InvalidModelFile, UnsupportedModel, InsufficientMemory: of its adapter; as above.
        """
        request_id = request.request_id
        prompt_ids = self._go_on_from(request.context, self._encode(request))
        self._check_length(request, len(prompt_ids))
        lease = None if request.adapter is None else self._adapters.acquire(request.adapter)
        answering = Answering(
            request,
            len(prompt_ids),
            self.tokenizer,
            on_output if lease is None else _releasing(lease, on_output),
            lambda index: self._engine.finish(request_id, index),
            self._template.stop_texts if request.messages is not None else (),
            prompt_ids,
        )

        def on_step(result: StepResult) -> None:
            try:
                answering.on_step(result)
            finally:
                if answering.is_finished:
                    self._open.pop(request_id, None)

        spec = SequenceGroupSpec(
            request_id=request_id,
            prompt_ids=prompt_ids,
            sampling=request.sampling,
            eog_ids=self.tokenizer.eog_ids,
            cache_salt=request.cache_salt,
            adapter=lease.adapter if lease else None,
        )
        try:
            self._engine.submit(spec, on_step)
        except BaseException:
            if lease is not None:
                lease.release()
            raise
        self._open[request_id] = answering
        if answering.is_finished:  # the engine was faster than the line above
            self._open.pop(request_id, None)
        return len(prompt_ids)

    def abort(self, request_id: str) -> None:
        """Ends a request before the next step; unknown and finished ids are ignored."""
        self._engine.abort(request_id)

    def stats(self) -> WorkerStats:
        """Figures of this moment."""
        stats = self._engine.stats()
        return WorkerStats(
            num_requests=len(self._open),
            num_running=stats.num_running,
            num_waiting=stats.num_waiting,
            num_blocks=stats.num_blocks,
            num_used_blocks=stats.num_used_blocks,
            num_cached_blocks=stats.num_cached_blocks,
            kv_resident_bytes=self._runner.resident_kv_bytes(),
            num_steps=stats.num_steps,
            num_preemptions=stats.preemptions,
            prompt_tokens=stats.prompt_tokens,
            cached_tokens=stats.prefix_hit_tokens,
            generated_tokens=stats.generated_tokens,
            num_adapters=self._adapters.num_adapters,
            adapter_bytes=self._adapters.num_bytes,
        )

    def release_kv(self) -> None:
        """Gives the memory of all KV blocks that no request holds back; cached prefixes are forgotten."""
        self._engine.release_free_blocks()

    def drain(self, timeout_s: float | None = None) -> bool:
        """Takes nothing new and waits for what runs; False when time ran out first. Raises EngineDead."""
        return self._engine.drain(timeout_s)

    def close(self) -> None:
        """Aborts what runs and stops the engine. Idempotent."""
        self._engine.close()

    def _encode(self, request: Request) -> list[int]:
        if request.messages is not None:
            contents = (message.get("content") for message in request.messages if isinstance(message, dict))
            self._check_text("messages", "".join(content for content in contents if isinstance(content, str)))
            rendered = self._template.render(request.messages)
            self._check_text("messages", rendered.text.replace(rendered.guard, ""))
            return self.tokenizer.encode_chat(rendered.text, rendered.guard)
        if not request.prompt:
            raise InvalidRequest("the prompt is empty; it needs at least one character or token", param="prompt")
        if isinstance(request.prompt, str):
            self._check_text("prompt", request.prompt)
            return self.tokenizer.encode(request.prompt, add_special=True, parse_special=False)
        return request.prompt

    def _go_on_from(self, context: tuple[int, ...], prompt_ids: list[int]) -> list[int]:
        """The ids of an earlier exchange and then the prompt's, with one token for the beginning of text."""
        if not context:
            return prompt_ids
        begins_anew = prompt_ids[:1] == [self.tokenizer.bos_id] and context[0] == self.tokenizer.bos_id
        return [*context, *prompt_ids[1 if begins_anew else 0 :]]

    def _check_text(self, param: str, text: str) -> None:
        """Refuses a hopelessly long text before it costs seconds in template and tokenizer."""
        limit = self.info.max_model_len
        if (least := self.tokenizer.min_num_tokens(text)) >= limit:
            raise ContextLengthExceeded(
                f"the context holds {limit} tokens; the {param} of {len(text)} characters would be {least} at least",
                param=param,
            )

    def _check_length(self, request: Request, num_prompt_tokens: int) -> None:
        limit = self.info.max_model_len
        param = "messages" if request.messages is not None else "prompt"
        if num_prompt_tokens == 0:
            raise InvalidRequest(f"the {param} came to no token at all; at least one is needed", param=param)
        if num_prompt_tokens >= limit:
            raise ContextLengthExceeded(
                f"the context holds {limit} tokens; the {param} came to {num_prompt_tokens}, and an answer needs "
                "at least one more",
                param=param,
            )
        max_tokens = request.sampling.max_tokens
        if request.overflow is Overflow.DROP_OLDEST:
            return  # such protocols mean max_tokens as a bound: the end of the context is one as well
        if max_tokens is not None and num_prompt_tokens + max_tokens > limit:
            raise ContextLengthExceeded(
                f"the context holds {limit} tokens; {num_prompt_tokens + max_tokens} were asked for: "
                f"{num_prompt_tokens} in the {param} and {max_tokens} by max_tokens",
                param="max_tokens",
            )


def _releasing(lease: AdapterLease, on_output: OnOutput) -> OnOutput:
    """`on_output`, before whose last call the adapter is given up: whoever hears the end may want its place."""

    def deliver(output: RequestOutput | CorralError) -> None:
        if isinstance(output, CorralError) or output.is_finished:
            lease.release()
        on_output(output)

    return deliver
