"""A whole model in one process: text in, text out. The worker serves it; LLM calls it directly."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from corral.config import EngineConfig, forced_isa
from corral.engine.core import EngineCore
from corral.engine.embedder import Embedder
from corral.engine.embedding_runner import EmbeddingRunner
from corral.engine.loop import EngineLoop, StepResult
from corral.engine.model_runner import ModelRunner
from corral.engine.sequence import SequenceGroupSpec
from corral.engine.watch import StepWatch
from corral.errors import CorralError, InvalidRequest
from corral.model.architectures import read_config
from corral.model.bandwidth import read_bandwidth
from corral.model.config import ModelConfig
from corral.model.cpu import active_isa, select_isa, usable_cpus
from corral.model.packed_cache import PackedCache
from corral.model.plan import EmbeddingShape, Plan, make_plan
from corral.model.tensors import TensorRole
from corral.model.weights import load_model
from corral.request import (
    Detokenized,
    DetokenizeRequest,
    EmbedRequest,
    RenderedPrompt,
    Request,
    RequestOutput,
    RequestSize,
)
from corral.text.templates import PromptTemplate
from corral.text.tokenizer import Tokenizer
from corral.worker.adapters import AdapterCache, AdapterLease
from corral.worker.answering import Answering, OnOutput
from corral.worker.bad_words import bad_ids_of
from corral.worker.constraining import Constraining
from corral.worker.embedding import OnResult, measure_embed, submit_embed
from corral.worker.info import ModelInfo, WorkerStats
from corral.worker.opening import OnPlan, OnProgress, OpenModel, open_model
from corral.worker.prompting import Prompting

# Of a model that was made to generate: the state of the last token has seen all others. Ollama took it, too.
DEFAULT_POOLING = "last"
MAX_TEXT_BYTES = 64 << 20  # of one Detokenized, which holds its text twice: half of what a worker's frame may hold

logger = logging.getLogger("corral.worker")


class Pipeline:
    """A loaded model. Make it with `load`; every method may be called from any thread."""

    def __init__(
        self,
        info: ModelInfo,
        plan: Plan,
        tokenizer: Tokenizer,
        template: PromptTemplate,
        runner: ModelRunner,
        core: EngineCore,
        embedder: Embedder,
        adapters: AdapterCache,
        config: EngineConfig,
        weights: Sequence[memoryview] = (),
    ) -> None:
        self.info = info
        self.plan = plan
        self.tokenizer = tokenizer
        self._prompting = Prompting(tokenizer, template, info.max_model_len, info.name)
        self._constraining = Constraining(tokenizer, info.vocab_size)
        self._runner = runner
        self._core = core
        self._embedder = embedder
        self._adapters = adapters
        self._weights = weights
        self._bandwidth = 0.0
        self._engine = EngineLoop(core, config, embedder=embedder, on_idle=self._measure_bandwidth)
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
        runner = ModelRunner(model, plan.num_blocks, config, model_config.vocab_size)
        core = EngineCore(runner, config, max_model_len=plan.max_model_len, vocab_size=model_config.vocab_size)
        weights = [model.packed_tensor(role.role, role.layer) for role in _read_whole(model_config)]
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
            is_embedding=model_config.is_embedding,
            embedding_length=model_config.hidden_size,
            step_bytes=sum(map(len, weights)),
        )
        embedder = Embedder(
            lambda shape: EmbeddingRunner(model, shape, has_dense=model_config.dense_size > 0),
            pooling=model_config.pooling or DEFAULT_POOLING,
            is_causal=model_config.is_causal,
            vocab_size=model_config.vocab_size,
            shape=EmbeddingShape.of(model_config, config, plan.max_model_len),
            config=config,
        )
        adapters = AdapterCache(model_config, config.adapter_max_bytes)
        return cls(info, plan, tokenizer, template, runner, core, embedder, adapters, config, weights)

    @property
    def plan_text(self) -> str:
        return self.plan.describe()

    def submit(self, request: Request, on_output: OnOutput) -> int:
        """Renders, tokenises and queues a request; returns the prompt's length in tokens. Loads its adapter first, if
        that is not here yet.

        `on_output` is called on the engine's thread, with outputs up to the one that is finished, or with an error that
        ends them; on this one before the method returns, if the request will wait. It must not block.

        Raises:
            InvalidRequest: the request can never be answered; then `on_output` is not called.
            QueueFull, DeadlineExceeded, ServerDraining, EngineDead: it cannot be answered now; as above.
            ModelNotFound, InvalidModelFile, UnsupportedModel, InsufficientMemory: of its adapter; as above.
        """
        request_id = request.request_id
        self._check_can_answer(request)
        prompt = self._prompting.prepare(request)
        constraint = self._constraining.constraint_for(request, prompt)
        lease = None if request.adapter is None else self._adapters.acquire(request.adapter)
        answering = Answering(
            request,
            prompt,
            self.tokenizer,
            on_output if lease is None else _releasing(lease, on_output),
            lambda index: self._engine.finish(request_id, index),
        )

        def on_step(result: StepResult) -> None:
            try:
                answering.on_step(result)
            finally:
                if answering.is_finished:
                    self._open.pop(request_id, None)

        spec = SequenceGroupSpec(
            request_id=request_id,
            prompt_ids=prompt.ids,
            sampling=prompt.sampling,
            eog_ids=self.tokenizer.eog_ids,
            cache_salt=request.cache_salt,
            adapter=lease.adapter if lease else None,
            constraint=constraint,
            bad_ids=bad_ids_of(prompt.sampling.bad_words, self.tokenizer),
            resumed=request.resumed,
            tenant=request.tenant,
            weight=request.weight,
            priority=request.priority,
            deadline=request.deadline,
        )
        try:
            self._engine.submit(spec, on_step, answering.on_place)
        except BaseException:
            if lease is not None:
                lease.release()
            raise
        self._open[request_id] = answering
        if answering.is_finished:  # the engine was faster than the line above
            self._open.pop(request_id, None)
        return len(prompt.ids)

    def _check_can_answer(self, request: Request) -> None:
        if self.info.is_embedding:
            is_chat = request.messages is not None and not request.with_prompt_ids  # /api/generate makes messages too
            wanted = "chat" if is_chat else "generate"
            raise InvalidRequest(f'"{request.model or self.info.name}" does not support {wanted}', param="model")

    def embed(self, request: EmbedRequest, on_result: OnResult) -> int:
        """Tokenises and queues texts to be embedded; returns their length in tokens, as far as they are computed.

        Any model can: one that was made to generate gives the state of each text's last token. `on_result` is called
        once, on the engine's thread, with the vectors or with an error. It must not block.

        Raises:
            InvalidRequest: the request can never be answered; then `on_result` is not called.
            QueueFull, DeadlineExceeded, ServerDraining, EngineDead: it cannot be answered now; as above.
        """
        return submit_embed(request, on_result, self._engine, self.tokenizer, self.info)

    def measure(self, request: Request | EmbedRequest) -> RequestSize:
        """What a request would come to. Raises InvalidRequest as `submit` and `embed` do."""
        if isinstance(request, EmbedRequest):
            return measure_embed(request, self.tokenizer, self.info)
        self._check_can_answer(request)
        prompt = self._prompting.prepare(request)
        room = self.info.max_model_len - len(prompt.ids)
        most = room if prompt.sampling.max_tokens is None else min(room, prompt.sampling.max_tokens)
        return RequestSize(request.request_id, len(prompt.ids), most)

    def render(self, request: Request) -> RenderedPrompt:
        """What the request's prompt would be, however long. Raises InvalidRequest as `submit` does."""
        prompt = self._prompting.prepare(request, must_fit=False)
        return RenderedPrompt(request.request_id, prompt.text, prompt.ids)

    def detokenize(self, request: DetokenizeRequest) -> Detokenized:
        """The texts of token ids.

        Raises:
            InvalidRequest: an id outside of the vocabulary, or too much text.
        """
        vocab_size = self.tokenizer.vocab_size
        for token_id in request.token_ids:
            if not 0 <= token_id < vocab_size:
                raise InvalidRequest(
                    f"tokens has token id {token_id}; ids go from 0 to {vocab_size - 1}", param="tokens"
                )
        texts = [self.tokenizer.token_bytes(token_id) for token_id in request.token_ids]
        if (num_bytes := sum(map(len, texts))) > MAX_TEXT_BYTES:
            raise InvalidRequest(
                f"the tokens stand for {num_bytes} bytes of text; {MAX_TEXT_BYTES} are allowed", param="tokens"
            )
        return Detokenized(request.request_id, self.tokenizer.decode(request.token_ids), texts)

    def abort(self, request_id: str) -> None:
        """Ends a request before the next step; unknown and finished ids are ignored."""
        self._engine.abort(request_id)

    def stats(self) -> WorkerStats:
        """Figures of this moment."""
        stats = self._engine.stats()
        return WorkerStats(
            num_requests=len(self._open) + self._embedder.num_requests,
            num_running=stats.num_running,
            num_waiting=stats.num_waiting,
            num_blocks=stats.num_blocks,
            num_used_blocks=stats.num_used_blocks,
            num_cached_blocks=stats.num_cached_blocks,
            kv_resident_bytes=self._runner.resident_kv_bytes() + self._embedder.resident_kv_bytes(),
            num_steps=stats.num_steps,
            num_preemptions=stats.preemptions,
            num_evictions=stats.evictions,
            prompt_tokens=stats.prompt_tokens + self._embedder.num_tokens,
            cached_tokens=stats.prefix_hit_tokens,
            generated_tokens=stats.generated_tokens,
            num_adapters=self._adapters.num_adapters,
            adapter_bytes=self._adapters.num_bytes,
            num_decode_steps=stats.num_decode_steps,
            decode_s=stats.decode_ms / 1000,
            step_seconds=stats.step_seconds,
            step_tokens=stats.step_tokens,
            read_bandwidth=self._bandwidth,
        )

    def _measure_bandwidth(self) -> None:
        """Once, in an idle moment after work: then all weights are in memory, and nobody waits."""
        if not self._bandwidth and self._engine.stats().num_decode_steps:
            self._bandwidth = read_bandwidth(self._weights, self.info.num_threads)

    def watch(self, watch: StepWatch) -> None:
        """Tells it of every step from now on; nothing has been submitted yet."""
        self._core.watch = self._embedder.watch = watch

    def release_kv(self) -> None:
        """Gives the memory of all KV blocks that no request holds back; cached prefixes are forgotten."""
        self._engine.release_free_blocks()

    def drain(self, timeout_s: float | None = None) -> bool:
        """Takes nothing new and waits for what runs; False when time ran out first. Raises EngineDead."""
        return self._engine.drain(timeout_s)

    def close(self) -> None:
        """Aborts what runs and stops the engine. Idempotent."""
        self._engine.close()


def _releasing(lease: AdapterLease, on_output: OnOutput) -> OnOutput:
    """`on_output`, before whose last call the adapter is given up: whoever hears the end may want its place."""

    def deliver(output: RequestOutput | CorralError) -> None:
        if isinstance(output, CorralError) or output.is_finished:
            lease.release()
        on_output(output)

    return deliver


def _read_whole(config: ModelConfig) -> list[TensorRole]:
    """The matrices that a step multiplies by; of tables it takes a row for each token."""
    tables = {"position_embd", "token_types"}
    if config.is_embedding or not config.is_tied:
        tables.add("token_embd")
    roles = [role for whole in config.tensor_roles.values() for role in whole.pieces]
    return [role for role in roles if role.is_matrix and role.role not in tables]
