"""`corral serve`: one model for many users, over HTTP."""

from __future__ import annotations

from collections.abc import Iterable

import click

from corral.cli import options
from corral.cli.options import ENGINE_DEFAULTS, POSITIVE, engine_config, option, parse_size
from corral.cli.progress import show_status
from corral.config import KvCacheDtype, ServerConfig

_SERVER_DEFAULTS = ServerConfig()
_NOT_NEGATIVE = click.FloatRange(min=0)


@click.command("serve")
@options.model
@option(
    "--host",
    envvar="CORRAL_HOST",
    default=_SERVER_DEFAULTS.host,
    help="Address to bind; beyond loopback a key is required.",
)
@option(
    "--port",
    type=click.IntRange(0, 65535),
    envvar="CORRAL_PORT",
    default=_SERVER_DEFAULTS.port,
    help="0 takes a free one.",
)
@option(
    "--api-key",
    multiple=True,
    envvar="CORRAL_API_KEY",
    metavar="KEY",
    help="Key that clients must send as a Bearer token; may be given again. Commas separate several in one.",
)
@option("--no-auth", is_flag=True, envvar="CORRAL_NO_AUTH", help="Bind beyond loopback without a key.")
@option(
    "--origins",
    envvar=["CORRAL_ORIGINS", "OLLAMA_ORIGINS"],
    metavar="ORIGINS",
    help="Web pages that may call, besides those of this machine: scheme://host[:port], * for any text, with commas.",
)
@option(
    "--served-model-name",
    envvar="CORRAL_SERVED_MODEL_NAME",
    metavar="NAME",
    help="Name for clients; by default MODEL.",
)
@options.max_model_len
@options.max_num_seqs
@option(
    "--max-num-batched-tokens",
    type=POSITIVE,
    default=ENGINE_DEFAULTS.max_num_batched_tokens,
    envvar="CORRAL_MAX_NUM_BATCHED_TOKENS",
    metavar="N",
    help="Most tokens that one step computes.",
)
@option(
    "--max-step-ms",
    type=float,
    default=ENGINE_DEFAULTS.max_step_ms,
    envvar="CORRAL_MAX_STEP_MS",
    metavar="MS",
    help="While somebody streams, steps aim below this, so that tokens keep coming; three times it if many wait.",
)
@option(
    "--max-queue",
    type=POSITIVE,
    default=ENGINE_DEFAULTS.max_queue,
    envvar="CORRAL_MAX_QUEUE",
    metavar="N",
    help="Waiting requests; beyond it clients get 503.",
)
@options.kv_cache_memory
@options.kv_cache_dtype
@option(
    "--kv-idle-release",
    type=_NOT_NEGATIVE,
    default=ENGINE_DEFAULTS.kv_idle_release_s,
    envvar="CORRAL_KV_IDLE_RELEASE",
    metavar="SECONDS",
    help="Idle time after which the memory of the KV cache is given back.",
)
@options.threads
@options.no_cache
@options.cache_max
@option(
    "--no-prefix-caching", is_flag=True, envvar="CORRAL_NO_PREFIX_CACHING", help="Share no KV cache among requests."
)
@option(
    "--max-body-size",
    type=parse_size,
    default=_SERVER_DEFAULTS.max_body_bytes,
    show_default="32M",
    envvar="CORRAL_MAX_BODY_SIZE",
    metavar="SIZE",
    help="Largest request body.",
)
@option(
    "--drain-timeout", type=_NOT_NEGATIVE, default=_SERVER_DEFAULTS.drain_timeout_s, envvar="CORRAL_DRAIN_TIMEOUT",
    metavar="SECONDS", help="After SIGTERM, how long streams in flight may take to finish.",
)  # fmt: skip
def serve(
    model: str,
    *,
    host: str,
    port: int,
    api_key: tuple[str, ...],
    no_auth: bool,
    origins: str | None,
    served_model_name: str | None,
    max_model_len: int | None,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    max_step_ms: float,
    max_queue: int,
    kv_cache_memory: int | None,
    kv_cache_dtype: KvCacheDtype,
    kv_idle_release: float,
    threads: int | None,
    no_cache: bool,
    cache_max: int | None,
    no_prefix_caching: bool,
    max_body_size: int,
    drain_timeout: float,
) -> None:
    """Serve a model over OpenAI's protocol until SIGTERM or Ctrl-C; it is downloaded first if need be.

    MODEL is a name of the catalog (smollm2) or the path of a .gguf file. Every flag can be set by its environment
    variable too.
    """
    engine = engine_config(
        max_model_len=max_model_len,
        kv_cache_memory=kv_cache_memory,
        kv_cache_dtype=kv_cache_dtype,
        threads=threads,
        no_cache=no_cache,
        cache_max=cache_max,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        max_step_ms=max_step_ms,
        max_queue=max_queue,
        kv_idle_release_s=kv_idle_release,
        enable_prefix_caching=not no_prefix_caching,
    )
    server = ServerConfig(
        host=host,
        port=port,
        api_keys=split_keys(api_key),
        no_auth=no_auth,
        origins=split_keys([origins or ""]),
        max_body_bytes=max_body_size,
        drain_timeout_s=drain_timeout,
    )
    from corral.server.listen import check_exposure, resolve_host
    from corral.store import resolve

    check_exposure(server, resolve_host(host))  # before a download, not after it
    with show_status() as on_status:
        path = resolve(model, on_status).path
    from corral.server.model_names import NamedModels
    from corral.server.run import Serving
    from corral.server.run import serve as run_server
    from corral.store.local_model import LocalModel

    local = LocalModel(served_model_name or default_name(model), path)
    raise click.exceptions.Exit(run_server(Serving(NamedModels([local]), (local,)), engine, server))


def split_keys(values: Iterable[str]) -> tuple[str, ...]:
    """The keys out of repeated flags or the environment, in order, each once; empty ones are no keys."""
    keys = (key.strip() for value in values for key in value.split(","))
    return tuple(dict.fromkeys(key for key in keys if key))


def default_name(model: str) -> str:
    """What clients call the model: the name as given, or the file's name without folder and suffix."""
    from corral.store.names import as_path

    path = as_path(model)
    return model if path is None else path.name.removesuffix(".gguf")
