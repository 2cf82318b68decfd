"""`corral serve`: models for many users, over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from corral.cli.config_file import file_of
from corral.cli.options import engine_config
from corral.cli.progress import show_status
from corral.cli.serve_log import logged, teller, warn
from corral.cli.serve_options import Address, serve_options
from corral.config import (
    DEFAULT_PORT,
    CertReqs,
    EngineConfig,
    KvCacheDtype,
    LogFormat,
    LogLevel,
    ServerConfig,
    unused_ollama_settings,
)
from corral.errors import InvalidConfig

_ARGUMENTS = "corral.arguments"  # of click's Context.meta
_OF_MODELS = frozenset({"models", "served_model_name", "preload", "pin"})  # parameters that say what is served
_EXPLICIT = (
    ParameterSource.COMMANDLINE,
    ParameterSource.ENVIRONMENT,
    ParameterSource.DEFAULT_MAP,
    ParameterSource.DEFAULT,
)

if TYPE_CHECKING:
    from corral.server.live_settings import SettingsSource
    from corral.server.run import Serving
    from corral.store.local_model import LocalModel


class _Serve(click.Command):
    """Keeps its arguments, to be read again."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


def _configs(
    context: click.Context,
    /,
    *,
    host: Address,
    port: int | None,
    uds: str | None,
    uds_mode: int,
    ssl_certfile: str | None,
    ssl_keyfile: str | None,
    ssl_ca_certs: str | None,
    ssl_cert_reqs: CertReqs | None,
    api_key: tuple[str, ...],
    database_url: str | None,
    usage_retention: int,
    no_auth: bool,
    origins: str | None,
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
    drain_delay: float | None,
    drain_timeout: float,
    lenient: bool,
    max_model_len: int | None,
    no_prefix_caching: bool,
    kv_cache_dtype: KvCacheDtype,
    kv_idle_release: float,
    **others: Any,
) -> tuple[EngineConfig, ServerConfig]:
    """What flags, environment and file come to. Raises InvalidConfig and click.UsageError."""
    if host.is_https and not ssl_certfile:
        raise click.UsageError("the host is https://...; that needs --ssl-certfile, or a proxy in front of Corral")
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
        port=effective_port(context, host, port),
        uds=uds or host.uds,
        uds_mode=uds_mode,
        ssl_certfile=ssl_certfile or None,
        ssl_keyfile=ssl_keyfile or None,
        ssl_ca_certs=ssl_ca_certs or None,
        ssl_cert_reqs=ssl_cert_reqs,
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
        drain_delay_s=drain_delay,
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
    return engine, server


def configs_of(context: click.Context) -> tuple[EngineConfig, ServerConfig]:
    """The settings of a context of `serve`. Raises InvalidConfig and click.UsageError."""
    return _configs(context, **{name: value for name, value in context.params.items() if name not in _OF_MODELS})


@click.command("serve", cls=_Serve)
@serve_options
@click.pass_context
@logged
def serve(
    context: click.Context,
    /,
    models: tuple[str, ...],
    *,
    served_model_name: str | None,
    preload: tuple[str, ...],
    pin: tuple[str, ...],
    **_: Any,
) -> None:
    """Serve models over OpenAI's protocol and Ollama's until SIGTERM or Ctrl-C.

    With MODEL, those models are loaded and kept, and no others are served; what is not here is downloaded first.
    Without, every model in the store is served, loaded when somebody asks for it, and unloaded when nobody does for a
    while.

    MODEL is a name (smollm2) or the path of a .gguf file. Every flag can be set by its environment variable too, or in
    a file of settings: see --config, and `corral config show`. SIGHUP reads file, certificates and keys again.
    """
    if served_model_name is not None and len(models) != 1:
        raise click.UsageError("--served-model-name names one model; give exactly one MODEL with it")
    if models and (preload or pin):
        raise click.UsageError("--preload and --pin are for a server without MODEL; with MODEL, those are kept loaded")
    engine, server = configs_of(context)
    from corral.server.listen import check_exposure, resolve_host
    from corral.server.tracing.setup import check_tracing

    if server.uds is None:
        check_exposure(server, resolve_host(server.host))  # before a download, not after it
    check_tracing(server)
    for line in unused_ollama_settings():
        warn(line)
    if (file := file_of(context)).has_open_secrets:
        warn(f"{file.path} holds keys or a password, and others can read it: chmod 600 {file.path}")
    serving = _named(models, served_model_name) if models else _on_demand(preload, pin)
    from corral.server.run import serve as run_server

    raise click.exceptions.Exit(run_server(serving, engine, server, _source(context, server)))


def _source(context: click.Context, server: ServerConfig) -> SettingsSource:
    """The same arguments, read again: with another file they come to other settings."""
    from corral.server.live_settings import Given, SettingsSource

    def flags(of: click.Context) -> dict[str, object]:
        return {p.opts[0].lstrip("-"): of.params[p.name] for p in of.command.params if p.name in of.params}

    def read() -> Given:
        try:
            again = serve.make_context("serve", list(context.meta[_ARGUMENTS]))
            return Given(configs_of(again)[1], flags(again))
        except click.ClickException as error:
            raise InvalidConfig(error.format_message()) from None

    return SettingsSource(Given(server, flags(context)), read)


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


def effective_port(context: click.Context, host: Address, port: int | None) -> int:
    """What --port says, or --host, whichever was said more explicitly: flag before environment before file."""
    of_host, of_port = (_EXPLICIT.index(context.get_parameter_source(name)) for name in ("host", "port"))
    if host.port is not None and (port is None or of_host < of_port):
        return host.port
    return DEFAULT_PORT if port is None else port


def split_keys(values: Iterable[str]) -> tuple[str, ...]:
    """The keys out of repeated flags or the environment, in order, each once; empty ones are no keys."""
    keys = (key.strip() for value in values for key in value.split(","))
    return tuple(dict.fromkeys(key for key in keys if key))
