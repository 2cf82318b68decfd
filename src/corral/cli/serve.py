"""`corral serve`: one model for many users, over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from corral.cli.options import (
    ENGINE_DEFAULTS,
    CacheMax,
    KvCacheDtype,
    KvCacheMemory,
    MaxModelLen,
    MaxNumSeqs,
    Model,
    NoCache,
    Threads,
    engine_config,
    parse_size,
)
from corral.cli.terminal import download_progress
from corral.config import ServerConfig

_SERVER_DEFAULTS = ServerConfig()


def serve(
    model: Model,
    host: Annotated[
        str, typer.Option(envvar="CORRAL_HOST", help="Address to bind; beyond loopback a key is required.")
    ] = _SERVER_DEFAULTS.host,
    port: Annotated[int, typer.Option(envvar="CORRAL_PORT", min=0, max=65535, help="0 takes a free one.")] = (
        _SERVER_DEFAULTS.port
    ),
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="CORRAL_API_KEY", metavar="KEY",
            help="Key that clients must send as a Bearer token; may be given again. Commas separate several in one.",
        ),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", envvar="CORRAL_NO_AUTH", help="Bind beyond loopback without a key.")
    ] = False,
    served_model_name: Annotated[
        str | None,
        typer.Option(envvar="CORRAL_SERVED_MODEL_NAME", metavar="NAME", help="Name for clients; by default MODEL."),
    ] = None,
    max_model_len: MaxModelLen = None,
    max_num_seqs: MaxNumSeqs = ENGINE_DEFAULTS.max_num_seqs,
    max_num_batched_tokens: Annotated[
        int,
        typer.Option(
            envvar="CORRAL_MAX_NUM_BATCHED_TOKENS", min=1, metavar="N", help="Most tokens that one step computes."
        ),
    ] = ENGINE_DEFAULTS.max_num_batched_tokens,
    max_step_ms: Annotated[
        float,
        typer.Option(
            envvar="CORRAL_MAX_STEP_MS", metavar="MS",
            help="While somebody streams, steps aim below this, so that tokens keep coming.",
        ),
    ] = ENGINE_DEFAULTS.max_step_ms,
    max_queue: Annotated[
        int,
        typer.Option(
            envvar="CORRAL_MAX_QUEUE", min=1, metavar="N", help="Waiting requests; beyond it clients get 503."
        ),
    ] = ENGINE_DEFAULTS.max_queue,
    kv_cache_memory: KvCacheMemory = None,
    kv_cache_dtype: KvCacheDtype = ENGINE_DEFAULTS.kv_cache_dtype,
    kv_idle_release: Annotated[
        float,
        typer.Option(
            envvar="CORRAL_KV_IDLE_RELEASE", min=0, metavar="SECONDS",
            help="Idle time after which the memory of the KV cache is given back.",
        ),
    ] = ENGINE_DEFAULTS.kv_idle_release_s,
    threads: Threads = None,
    no_cache: NoCache = False,
    cache_max: CacheMax = None,
    no_prefix_caching: Annotated[
        bool,
        typer.Option(
            "--no-prefix-caching", envvar="CORRAL_NO_PREFIX_CACHING", help="Share no KV cache among requests."
        ),
    ] = False,
    max_body_size: Annotated[
        int,
        typer.Option(
            parser=parse_size, envvar="CORRAL_MAX_BODY_SIZE", metavar="SIZE", show_default="32M",
            help="Largest request body."
        ),
    ] = _SERVER_DEFAULTS.max_body_bytes,
    drain_timeout: Annotated[
        float,
        typer.Option(
            envvar="CORRAL_DRAIN_TIMEOUT", min=0, metavar="SECONDS",
            help="After SIGTERM, how long streams in flight may take to finish.",
        ),
    ] = _SERVER_DEFAULTS.drain_timeout_s,
) -> None:  # fmt: skip
    """Serve a model over OpenAI's protocol until SIGTERM or Ctrl-C; it is downloaded first if need be.

    Every flag can be set by its environment variable too.
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
        api_keys=split_keys(api_key or []),
        no_auth=no_auth,
        max_body_bytes=max_body_size,
        drain_timeout_s=drain_timeout,
    )
    from corral.server.listen import check_exposure, resolve_host
    from corral.store import resolve

    check_exposure(server, resolve_host(host))  # before a download, not after it
    with download_progress() as on_progress:
        path = resolve(model, on_progress)
    from corral.server.run import serve as run_server

    raise typer.Exit(run_server(path, served_model_name or default_name(model), engine, server))


def split_keys(values: list[str]) -> tuple[str, ...]:
    """The keys out of repeated flags or the environment, in order, each once; empty ones are no keys."""
    keys = (key.strip() for value in values for key in value.split(","))
    return tuple(dict.fromkeys(key for key in keys if key))


def default_name(model: str) -> str:
    """What clients call the model: the name as given, or the file's name without folder and suffix."""
    from corral.store.names import as_path

    path = as_path(model)
    return model if path is None else path.name.removesuffix(".gguf")
