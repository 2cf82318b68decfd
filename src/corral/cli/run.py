"""`corral run`: one answer, or a chat, from a model loaded into this process."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from corral.cli import options
from corral.cli.options import POSITIVE, engine_config, option
from corral.cli.terminal import AnswerPrinter, download_progress, is_terminal, load_progress, warn
from corral.config import EngineConfig, KvCacheDtype
from corral.errors import CorralError
from corral.sampling_params import SamplingParams

if TYPE_CHECKING:
    from corral.cli.answer import Answer, AnsweringModel
    from corral.worker.pipeline import Pipeline

MAX_NUM_SEQS = 1  # one person types


@dataclass(frozen=True, slots=True)
class Conversation:
    """What stays the same from answer to answer."""

    model_name: str
    sampling: SamplingParams
    system: str | None
    is_verbose: bool

    def opening(self) -> list[dict[str, Any]]:
        return [{"role": "system", "content": self.system}] if self.system else []


@click.command("run")
@options.model
@click.argument("prompt", metavar="[PROMPT]...", nargs=-1)
@option("--system", metavar="TEXT", help="The system message.")
@option("--temperature", type=float, default=0.8, help="Spread of the choice; 0 always takes the likeliest.")
@option("--top-k", type=int, default=40, help="Choose among the k likeliest tokens; 0 takes all.")
@option("--top-p", type=float, default=0.9, help="Choose among the likeliest tokens that make up this share.")
@option("--min-p", type=float, default=0.0, help="Leave out tokens less likely than this share of the likeliest.")
@option("--seed", type=int, help="Makes the answer repeatable.")
@option("--max-tokens", "--num-predict", type=POSITIVE, help="Longest answer, in tokens.")
@options.max_model_len
@options.kv_cache_dtype
@options.threads
@options.no_cache
@options.cache_max
@option("--verbose", is_flag=True, help="Print timings after the answer, to stderr.")
def run(
    model: str,
    prompt: tuple[str, ...],
    *,
    system: str | None,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    seed: int | None,
    max_tokens: int | None,
    max_model_len: int | None,
    kv_cache_dtype: KvCacheDtype,
    threads: int | None,
    no_cache: bool,
    cache_max: int | None,
    verbose: bool,
) -> None:
    """Answer a prompt, or chat, with a model; it is downloaded first if need be.

    MODEL is a name of the catalog (smollm2) or the path of a .gguf file, PROMPT what to answer.

    What comes on standard input goes in front of the prompt. With neither, a chat begins: Ctrl-C stops an answer,
    Ctrl-D or /bye leaves. An empty prompt ("") only downloads the model and tries to load it.
    """
    sampling = SamplingParams(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed, max_tokens=max_tokens
    )
    conversation = Conversation(model, sampling, system, verbose)
    question = _question(list(prompt) or None)
    config = engine_config(
        max_model_len=max_model_len,
        kv_cache_dtype=kv_cache_dtype,
        threads=threads,
        no_cache=no_cache,
        cache_max=cache_max,
        max_num_seqs=MAX_NUM_SEQS,
    )
    started = time.perf_counter()
    pipeline = load(model, config)
    try:
        load_s = time.perf_counter() - started
        if question is None:
            from corral.cli.chat import chat

            chat(pipeline, conversation, load_s)
        elif question:
            messages = [*conversation.opening(), {"role": "user", "content": question}]
            print_answer(pipeline, conversation, messages, load_s)
    finally:
        pipeline.close()


def _question(prompt: list[str] | None) -> str | None:
    """Standard input and the prompt in one; "" asks for nothing but a load, None for a chat.

    Raises:
        CorralError: there is neither, and no terminal to chat at.
    """
    words = " ".join(prompt) if prompt is not None else ""
    if is_terminal(sys.stdin):
        if prompt:
            return words
        if is_terminal(sys.stdout):
            return None
        raise CorralError('no prompt: give one after the model, as in: corral run smollm2 "Hello"')
    text = _read_stdin()
    question = " ".join(part for part in (text, words) if part)
    if question.strip() or prompt:
        return question if question.strip() else ""
    raise CorralError(
        'no prompt: standard input is empty; give one after the model, as in: corral run smollm2 "Hello", '
        "or start a chat from a terminal"
    )


def _read_stdin() -> str:
    if sys.stdin is None or sys.stdin.closed:
        return ""
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorralError(
            f"standard input is no UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}"
        ) from error


def load(model: str, config: EngineConfig) -> Pipeline:
    """The model in this process, with progress on stderr for a person."""
    from corral.store import resolve

    with download_progress() as on_status:
        path = resolve(model, on_status).path
    from corral.worker.loading import load_pipeline

    with load_progress() as on_load:
        return load_pipeline(path, config, on_load, on_load.show_plan)


def print_answer(
    model: AnsweringModel, conversation: Conversation, messages: list[dict[str, Any]], load_s: float
) -> Answer:
    """Stream the answer to `messages` to stdout; Ctrl-C ends it early."""
    from corral.cli.answer import Answer, stream, timings
    from corral.request import FinishReason, Request, new_request_id

    request = Request(new_request_id("run"), conversation.model_name, messages=messages, sampling=conversation.sampling)
    answer = Answer()
    printer = AnswerPrinter()
    try:
        for piece in stream(model, request, answer):
            printer.write(piece)
    except KeyboardInterrupt:  # stops the answer, not the program
        model.abort(request.request_id)
        answer.finish_reason = FinishReason.ABORT
    finally:
        printer.end_line()
    if conversation.is_verbose:
        warn(timings(answer, load_s))
    return answer
