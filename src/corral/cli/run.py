"""`corral run`: one answer, or a chat, from a model in a server or in this process."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from corral.cli import options
from corral.cli.options import POSITIVE, engine_config, option
from corral.cli.terminal import is_terminal
from corral.config import KvCacheDtype
from corral.errors import CorralError

if TYPE_CHECKING:
    from corral.cli.answer import AnsweringModel
    from corral.cli.conversation import Conversation
    from corral.cli.place import Place

DEFAULT_MODEL = "smollm2"  # of the catalog: small, and to be had where only a package index is
MAX_NUM_SEQS = 1  # one person types
_LOADING_FLAGS = ("kv_cache_dtype", "threads", "no_cache", "cache_max")  # a server has set its own
_THINK: dict[str, bool | str] = {
    "true": True,
    "false": False,
    "high": "high",
    "medium": "medium",
    "low": "low",
    "max": "max",
}


class _Run(click.Command):
    """`--think` alone means true: its value needs the `=`, as what follows may be the prompt."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        flags = ["--think=true" if arg == "--think" else arg for arg in args[:end]]
        return super().parse_args(ctx, flags + args[end:])


@click.command("run", short_help="Answer a prompt, or chat.", cls=_Run)
@options.model_name("model", required=False, default=DEFAULT_MODEL, metavar="[MODEL]")
@click.argument("prompt", metavar="[PROMPT]...", nargs=-1)
@option("--system", metavar="TEXT", help="The system message.")
@option("--temperature", type=float, help="Spread of the choice; 0 always takes the likeliest. By default 0.8.")
@option("--top-k", type=int, help="Choose among the k likeliest tokens; 0 takes all. By default 40.")
@option("--top-p", type=float, help="Choose among the likeliest tokens that make up this share. By default 0.9.")
@option("--min-p", type=float, help="Leave out tokens less likely than this share of the likeliest. By default 0.")
@option("--seed", type=int, help="Makes the answer repeatable.")
@option("--max-tokens", "--num-predict", type=POSITIVE, help="Longest answer, in tokens.")
@option("--format", "answer_format", metavar="json|SCHEMA", help="Have the answer in JSON, or as a JSON schema says.")
@option(
    "--think", type=click.Choice(list(_THINK)), metavar="[=true|false|low|medium|high|max]",
    help="Whether, and how hard, the model thinks before it answers; by default as the model does.",
)  # fmt: skip
@option("--hidethinking", is_flag=True, help="Leave out what the model thinks before it answers.")
@option("--nowordwrap", "--raw", is_flag=True, help="Show the answer as it comes: no word wrap, no formatting.")
@option("--verbose", is_flag=True, help="Print timings after the answer, to stderr.")
@option("--keepalive", metavar="DURATION", help="How long a server keeps the model afterwards, for instance 5m or -1.")
@option("--truncate/--no-truncate", default=None, help="Cut a text that is too long for an embedding model.")
@option("--dimensions", type=POSITIVE, help="Length of the embedding, if the model's is to be cut.")
@option("--insecure", is_flag=True, help="Accept a registry without TLS, or with a wrong certificate.")
@option("--local", is_flag=True, help="Load the model in this process, even if a server answers.")
@options.max_model_len
@options.kv_cache_dtype
@options.threads
@options.no_cache
@options.cache_max
@click.pass_context
def run(
    context: click.Context,
    /,
    model: str,
    prompt: tuple[str, ...],
    *,
    max_model_len: int | None,
    kv_cache_dtype: KvCacheDtype,
    threads: int | None,
    no_cache: bool,
    cache_max: int | None,
    **flags: Any,
) -> None:
    """Answer a prompt, or chat, with a model; it is downloaded first if need be.

    MODEL is a name of the catalog, any other that `corral pull` takes, or the path of a .gguf file, and smollm2 by
    default, a tiny model for trying things out; PROMPT what to answer.

    What comes on standard input goes in front of the prompt. With neither, a chat begins: /? tells what it knows,
    Ctrl-C stops an answer, Ctrl-D or /bye leaves. An empty prompt ("") only loads the model. From a model that makes
    embeddings comes one JSON array.

    A Corral server that answers at CORRAL_HOST (OLLAMA_HOST, 127.0.0.1:11434) runs the model; without one, with
    --local or a flag of loading such as --threads, this process does.
    """
    conversation = _conversation(flags, max_model_len)
    question = _question(list(prompt) or None)
    config = engine_config(
        max_model_len=max_model_len,
        kv_cache_dtype=kv_cache_dtype,
        threads=threads,
        no_cache=no_cache,
        cache_max=cache_max,
        max_num_seqs=MAX_NUM_SEQS,
    )
    is_local = flags["local"] or any(
        context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in _LOADING_FLAGS
    )
    from corral.cli.place import open_somewhere

    place, answering = open_somewhere(model, config, is_local=is_local, insecure=flags["insecure"])
    if answering.is_embedding:
        _print_embedding(answering, question, flags)
    elif question is None:
        _chat(place, answering, conversation)
    else:
        _answer(answering, conversation, question)


def _conversation(flags: dict[str, Any], max_model_len: int | None) -> Conversation:
    """The settings of the flags, checked before a model is loaded for them."""
    from corral.cli.conversation import Conversation
    from corral.cli.parameters import check_range

    names = ("temperature", "top_k", "top_p", "min_p", "seed")
    chosen = {name: flags[name] for name in names} | {"num_predict": flags["max_tokens"], "num_ctx": max_model_len}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    for name, value in chosen.items():
        check_range(name, value)
    return Conversation(
        system=flags["system"],
        options=chosen,
        format=_format(flags["answer_format"]),
        think=None if flags["think"] is None else _THINK[flags["think"]],
        keep_alive=_keep_alive(flags["keepalive"]),
        is_verbose=flags["verbose"],
        is_formatted=not flags["nowordwrap"],
        hides_thinking=flags["hidethinking"],
    )


def _format(text: str | None) -> str | dict[str, Any] | None:
    if text is None or text == "json":
        return text
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise CorralError(f'--format is {text!r}; it must be json, or a JSON schema such as {{"type": "object"}}')
    return schema


def _keep_alive(text: str | None) -> str | float | None:
    """A number is seconds."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


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


def _answer(answering: AnsweringModel, conversation: Conversation, question: str) -> None:
    try:
        if question:
            conversation.ask(answering, question)
        else:
            answering.load(conversation.keep_alive, conversation.options)
    finally:
        answering.close()


def _chat(place: Place, answering: AnsweringModel, conversation: Conversation) -> None:
    from corral.cli.chat.session import Chat

    chat = Chat(answering, conversation, place.backend, place.open_model)
    try:
        answering.load(conversation.keep_alive, conversation.options)
        chat.run()
    finally:
        chat.close()


def _print_embedding(answering: AnsweringModel, question: str | None, flags: dict[str, Any]) -> None:
    try:
        if question is None:
            raise CorralError(
                f'{answering.name} makes embeddings and cannot chat; give it a text, as in: corral run '
                f'{answering.name} "Hello"'
            )  # fmt: skip
        if question:
            vector = answering.embed(question, truncate=flags["truncate"], dimensions=flags["dimensions"])
            click.echo("[" + ",".join(f"{value:.9g}" for value in vector) + "]")
    finally:
        answering.close()
