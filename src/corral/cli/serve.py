"""`corral serve`: models for many users, over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from corral.cli.options import engine_config
from corral.cli.progress import show_status
from corral.cli.serve_log import logged, teller, warn
from corral.cli.serve_options import Address, serve_options
from corral.config import DEFAULT_PORT, KvCacheDtype, LogFormat, LogLevel, ServerConfig, unused_ollama_settings

if TYPE_CHECKING:
    from corral.server.run import Serving
    from corral.store.local_model import LocalModel


@click.command("serve")
@serve_options
@click.pass_context
@logged
def serve(
    context: click.Context,
    /,
    models: tuple[str, ...],
    *,
    host: Address,
    port: int | None,
    api_key: tuple[str, ...],
    database_url: str | None,
    usage_retention: int,
    no_auth: bool,
    origins: str | None,
    served_model_name: str | None,
    preload: tuple[str, ...],
    pin: tuple[str, ...],
    keep_alive: float,
    max_memory: int | None,
    max_loaded_models: int | None,
    load_timeout: float,
    fair_wait: float,
    log_level: LogLevel,
    log_format: LogFormat,
    no_access_log: bool,
    log_requests: bool,
    max_log_len: int | None,
    otlp_traces_endpoint: str | None,
    step_timeout: float,
    max_queue: int,
    max_queue_per_key: int | None,
    request_timeout: float,
    max_body_size: int,
    max_connections: int,
    max_connections_per_address: int,
    head_timeout: float,
    body_timeout: float,
    min_body_rate: int,
    write_timeout: float,
    drain_timeout: float,
    lenient: bool,
    max_model_len: int | None,
    no_prefix_caching: bool,
    kv_cache_dtype: KvCacheDtype,
    kv_idle_release: float,
    **others: Any,
) -> None:
    """Serve models over OpenAI's protocol and Ollama's until SIGTERM or Ctrl-C.

    With MODEL, those models are loaded and kept, and no others are served; what is not here is downloaded first.
    Without, every model in the store is served, loaded when somebody asks for it, and unloaded when nobody does for a
    while.

    MODEL is a name (smollm2) or the path of a .gguf file. Every flag can be set by its environment variable too.
    """
    if served_model_name is not None and len(models) != 1:
        raise click.UsageError("--served-model-name names one model; give exactly one MODEL with it")
    if models and (preload or pin):
        raise click.UsageError("--preload and --pin are for a server without MODEL; with MODEL, those are kept loaded")
    engine = engine_config(
        max_model_len=max_model_len or None,
        kv_cache_dtype=kv_cache_dtype,
        max_queue=max_queue,
        max_queue_per_key=max_queue_per_key,
        kv_idle_release_s=kv_idle_release,
        enable_prefix_caching=not no_prefix_caching,
        **others,
    )
    server = ServerConfig(
        host=host.host,
        port=_port(context, host, port),
        api_keys=split_keys(api_key),
        database_url=database_url or None,
        usage_retention_days=usage_retention,
        no_auth=no_auth,
        origins=split_keys([origins or ""]),
        max_body_bytes=max_body_size,
        max_connections=max_connections,
        max_connections_per_address=max_connections_per_address,
        head_timeout_s=head_timeout,
        body_timeout_s=body_timeout,
        min_body_rate=min_body_rate,
        write_timeout_s=write_timeout,
        drain_timeout_s=drain_timeout,
        keep_alive_s=keep_alive,
        max_memory_bytes=max_memory,
        max_loaded_models=max_loaded_models or None,
        max_pending=max_queue,
        max_pending_per_key=max_queue_per_key,
        request_timeout_s=request_timeout,
        load_timeout_s=load_timeout,
        fair_wait_s=fair_wait,
        log_level=log_level,
        log_format=log_format,
        access_log=not no_access_log,
        log_requests=log_requests,
        max_log_len=max_log_len,
        otlp_traces_endpoint=otlp_traces_endpoint or None,
        step_timeout_s=step_timeout,
        lenient=lenient,
    )
    from corral.server.listen import check_exposure, resolve_host

    check_exposure(server, resolve_host(server.host))  # before a download, not after it
    for line in unused_ollama_settings():
        warn(line)
    serving = _named(models, served_model_name) if models else _on_demand(preload, pin)
    from corral.server.run import serve as run_server

    raise click.exceptions.Exit(run_server(serving, engine, server))


def _named(models: Sequence[str], served_model_name: str | None) -> Serving:
    """These models and no others."""
    from corral.server.model_names import NamedModels
    from corral.server.run import Serving

    found = _resolve(models)
    aliases = dict(zip(models, found, strict=True))
    if served_model_name is not None:
        found, aliases = [replace(found[0], name=served_model_name)], {}
    return Serving(NamedModels(found, aliases), tuple(found))


def _on_demand(preload: Sequence[str], pin: Sequence[str]) -> Serving:
    """Everything in the store, and files that were named."""
    from corral.server.model_names import StoredModels
    from corral.server.run import Serving
    from corral.store.library import Library

    pinned, preloaded = _resolve(pin), _resolve(preload)
    files = [local for local in (*pinned, *preloaded) if not local.digest]
    return Serving(StoredModels(Library.open(), files), tuple(pinned), tuple(preloaded))


def _resolve(names: Sequence[str]) -> list[LocalModel]:
    """The models, downloaded if need be."""
    from corral.store import resolve

    with show_status(teller()) as on_status:
        return [resolve(name, on_status) for name in names]


def _port(context: click.Context, host: Address, port: int | None) -> int:
    """--port, else what --host says, else the environment's, which is CORRAL_PORT before CORRAL_HOST or OLLAMA_HOST."""
    is_flag = {name: context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in ("host", "port")}
    if host.port is not None and is_flag["host"] and not is_flag["port"]:
        return host.port
    if port is not None:
        return port
    return DEFAULT_PORT if host.port is None else host.port


def split_keys(values: Iterable[str]) -> tuple[str, ...]:
    """The keys out of repeated flags or the environment, in order, each once; empty ones are no keys."""
    keys = (key.strip() for value in values for key in value.split(","))
    return tuple(dict.fromkeys(key for key in keys if key))
