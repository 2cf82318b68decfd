"""A worker process with a scripted model behind it: everything is real but the text.

The last user text (or the prompt) is the script. "forever" never ends by itself; "die" ends the process; "engine dies",
"full", "too long", "crash" fail as they say; "hang" never comes back from its step, and "die in
step" ends the process in it; "hold" says one word and waits for the next "release" (or SIGUSR1);
"wait" does the same, but says where it waits. What is held past its deadline fails.
The adapter "slow" loads until somebody says "adapters have loaded".
Anything else is echoed word by word, in capitals, once per answer. An embedding is [words, characters] of its input;
inputs that begin with "forever", "die" or "too long" do as they say.
"""

from __future__ import annotations

import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from corral.config import EngineConfig
from corral.engine.watch import NoWatch, StepWatch
from corral.errors import (
    ContextLengthExceeded,
    CorralError,
    DeadlineExceeded,
    EngineDead,
    InsufficientMemory,
    QueueFull,
)
from corral.request import (
    Delta,
    Detokenized,
    DetokenizeRequest,
    EmbedRequest,
    EmbedResult,
    FinishReason,
    QueuePlace,
    RenderedPrompt,
    Request,
    RequestOutput,
    RequestSize,
    Usage,
)
from corral.worker.info import ModelInfo, WorkerStats
from corral.worker.main import run

COMMAND = (sys.executable, __file__)
MAX_MODEL_LEN = 4096
BLOCKS = 1000
KV_BYTES = 16 << 20  # that each request touches, until they are released

OnOutput = Callable[[RequestOutput | CorralError], None]


def script_of(request: Request) -> str:
    if request.messages is not None:
        return str(request.messages[-1]["content"])
    return request.prompt if isinstance(request.prompt, str) else " ".join(map(str, request.prompt or []))


class Live:
    """One request under way; holds one block."""

    def __init__(self, request: Request, on_output: OnOutput) -> None:
        self.request_id = request.request_id
        self.on_output = on_output
        self.num_answers = request.sampling.n
        self.script = script_of(request)
        self.words = self.script.upper().split()
        self.num_prompt_tokens = len(self.words)
        limit = request.sampling.max_tokens
        self.finish_reason = FinishReason.STOP if limit is None or limit >= len(self.words) else FinishReason.LENGTH
        self.words = self.words[:limit]
        self.num_said = max((len(answer.token_ids) for answer in request.resumed), default=0)

    def say(self, word: str, reason: FinishReason | None) -> None:
        self.num_said += 1
        deltas = tuple(Delta(i, word, (self.num_said,), reason) for i in range(self.num_answers))
        usage = Usage(self.num_prompt_tokens, self.num_said * self.num_answers)
        self.on_output(RequestOutput(self.request_id, deltas, usage, is_finished=reason is not None))

    def end(self) -> None:
        """It was given up."""
        usage = Usage(self.num_prompt_tokens, self.num_said * self.num_answers)
        deltas = tuple(Delta(i, "", (), FinishReason.ABORT) for i in range(self.num_answers))
        self.on_output(RequestOutput(self.request_id, deltas, usage, is_finished=True))

    def step(self) -> bool:
        """Says one more word; whether that was the last."""
        if self.script == "forever":
            self.say("on ", None)
            return False
        is_last = self.num_said + 1 >= len(self.words)
        word = "" if not self.words else self.words[self.num_said] + ("" if is_last else " ")
        self.say(word, self.finish_reason if is_last else None)
        return is_last


class ScriptedModel:
    def __init__(self, path: Path, config: EngineConfig) -> None:
        length = config.max_model_len or MAX_MODEL_LEN
        self.info = ModelInfo(
            path.stem, "scripted", MAX_MODEL_LEN, length, 1000, "none", 1, 123, 0.0, config.kv_cache_bytes or 1 << 30
        )
        self.plan_text = "scripted plan"
        self._changed = threading.Condition()
        self._adapter_has_loaded = threading.Event()
        self._live: dict[str, Live] = {}
        self._held: dict[str, Live] = {}
        self._is_closing = False
        self._num_steps = 0
        self._kv_bytes = 0
        self._watch: StepWatch = NoWatch()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, request: Request, on_output: OnOutput) -> int:
        live = Live(request, on_output)
        if request.deadline is not None:
            late = DeadlineExceeded("the scripted time is over")
            timer = threading.Timer(max(0.0, request.deadline - time.monotonic()), self._expire, (live, late))
            timer.daemon = True
            timer.start()
        if request.adapter == "slow":
            self._adapter_has_loaded.wait()
        match live.script:
            case "die":
                print("scripted last words", file=sys.stderr, flush=True)
                signal.raise_signal(signal.SIGSEGV)
            case "full":
                raise QueueFull("the queue is full", retry_after_s=7)
            case "too long":
                raise ContextLengthExceeded("too long by far", param="messages")
            case "crash":
                raise ZeroDivisionError("not raised on purpose")
            case "engine dies":
                on_output(EngineDead("the scripted engine has died"))
            case "hold":
                if not request.resumed:
                    live.say("held ", None)
                with self._changed:
                    self._held[live.request_id] = live
            case "wait":
                for place in (QueuePlace(3, 4.25), QueuePlace(2)):
                    on_output(RequestOutput(live.request_id, usage=Usage(live.num_prompt_tokens), place=place))
                with self._changed:
                    self._held[live.request_id] = live
            case _:
                with self._changed:
                    self._live[live.request_id] = live
                    self._kv_bytes += KV_BYTES
                    self._changed.notify_all()
                if live.script == "adapters have loaded":
                    self._adapter_has_loaded.set()
                if live.script == "release":
                    self.release()
        return live.num_prompt_tokens

    def _expire(self, live: Live, late: DeadlineExceeded) -> None:
        with self._changed:
            if self._held.pop(live.request_id, None) is None:
                return
        live.on_output(late)

    def embed(self, request: EmbedRequest, on_result: Callable[[EmbedResult | CorralError], None]) -> int:
        match request.inputs[0]:
            case "die":
                signal.raise_signal(signal.SIGSEGV)
            case "too long":
                raise ContextLengthExceeded("the input length exceeds the context length", param="input")
            case "forever":
                with self._changed:
                    self._held[request.request_id] = Live(Request(request.request_id, prompt="hold"), lambda _: None)
                return 0
        texts = [text if isinstance(text, str) else " ".join(map(str, text)) for text in request.inputs]
        num_words = sum(len(text.split()) for text in texts)
        vectors = [struct.pack("<2f", len(text.split()), len(text)) for text in texts]
        on_result(EmbedResult(request.request_id, vectors, num_words))
        return num_words

    def release(self) -> None:
        with self._changed:
            self._live |= self._held
            for held in self._held.values():
                held.words = ["HELD", "RELEASED"]
            self._held = {}
            self._changed.notify_all()

    def measure(self, request: Request | EmbedRequest) -> RequestSize:
        if isinstance(request, EmbedRequest):
            texts = [text if isinstance(text, str) else " ".join(map(str, text)) for text in request.inputs]
            return RequestSize(request.request_id, sum(len(text.split()) for text in texts))
        num_words = len(script_of(request).split())
        room = MAX_MODEL_LEN - num_words
        most = request.sampling.max_tokens
        return RequestSize(request.request_id, num_words, room if most is None else min(room, most))

    def render(self, request: Request) -> RenderedPrompt:
        if request.adapter == "slow":
            self._adapter_has_loaded.wait()
        script = script_of(request)
        if script == "too long":
            raise ContextLengthExceeded("the prompt is too long", param="prompt")
        return RenderedPrompt(request.request_id, script, [len(word) for word in script.split()])

    def detokenize(self, request: DetokenizeRequest) -> Detokenized:
        texts = [b"x" * token_id for token_id in request.token_ids]
        return Detokenized(request.request_id, b" ".join(texts).decode(), texts)

    def abort(self, request_id: str) -> None:
        with self._changed:
            live = self._live.pop(request_id, None) or self._held.pop(request_id, None)
        if live is not None:
            live.end()

    def stats(self) -> WorkerStats:
        with self._changed:
            used = len(self._live) + len(self._held)
            return WorkerStats(
                num_requests=used,
                num_blocks=BLOCKS,
                num_used_blocks=used,
                num_steps=self._num_steps,
                kv_resident_bytes=self._kv_bytes,
            )

    def watch(self, watch: StepWatch) -> None:
        self._watch = watch

    def release_kv(self) -> None:
        with self._changed:
            self._kv_bytes = 0

    def close(self) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._live or self._is_closing)
                if self._is_closing:
                    return
                self._num_steps += 1
                live = list(self._live.values())
                # A forward pass takes a while; without it "forever" would flood the machine.
                self._changed.wait(0.001)
            self._watch.begin(one.request_id for one in live)
            if any(one.script == "hang" for one in live):
                threading.Event().wait()
            if any(one.script == "die in step" for one in live):
                signal.raise_signal(signal.SIGSEGV)
            for one in live:
                if one.request_id in self._live and one.step():
                    with self._changed:
                        self._live.pop(one.request_id, None)
            self._watch.end()


on_release: list[Callable[[], None]] = []


def load(
    path: Path, config: EngineConfig, on_progress: Callable[[int, int], None], on_plan: Callable[[str], None]
) -> ScriptedModel:
    on_plan("scripted plan")
    if path.name == "huge.gguf":
        raise InsufficientMemory("huge does not fit")
    if path.name == "broken.gguf":
        raise ZeroDivisionError("not raised on purpose")
    if path.name == "deadly.gguf":
        signal.raise_signal(signal.SIGSEGV)
    if path.name == "endless.gguf":
        threading.Event().wait()
    on_progress(1, 2)
    on_progress(2, 2)
    model = ScriptedModel(path, config)
    on_release.append(model.release)
    return model


def release_from_outside(*_: object) -> None:
    for release in on_release:
        threading.Thread(target=release).start()  # the signal may have interrupted code that holds the model's lock


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, release_from_outside)
    run(load)
