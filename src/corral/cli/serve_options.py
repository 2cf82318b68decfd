"""The flags of `corral serve` and their twins in the environment: a flag wins over CORRAL_*, that over OLLAMA_*."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, get_args

import click

from corral.cli import options
from corral.cli.config_file import use_file
from corral.cli.keys import database_url
from corral.cli.options import ENGINE_DEFAULTS, POSITIVE, Decorator, option, parse_size
from corral.config import DEFAULT_PORT, CertReqs, KvCacheDtype, LogFormat, LogLevel, ServerConfig

SERVER_DEFAULTS = ServerConfig()
NOT_NEGATIVE = click.FloatRange(min=0)
COUNT = click.IntRange(min=0)
FILE = click.Path(dir_okay=False)
SECONDS = click.FloatRange(min=0, min_open=True)
KV_TYPES = {"f16": "f16", "fp16": "f16", "q8_0": "int8"}  # Ollama's words for what we have
WARNINGS = "corral.warnings"  # of click's Context.meta: what the log is told, once there is one
NOTHING_SMALLER = "int8"  # what q4_0 and the like become: the smallest we have

_PORTS = {"http": 80, "https": 443}  # of a URL without a port, as Ollama reads it
_ADDRESS = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?"
    r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^\s:/\[\]]*))(?::(?P<port>\d{1,5}))?/?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; `port` is None where none was said."""

    host: str
    port: int | None = None
    is_https: bool = False
    uds: str | None = None


def parse_address(text: str) -> Address:
    """`host`, `host:port`, `:port`, `[v6]:port`, a bare IPv6 address, or a URL (http, https, or unix and a path).

    Raises:
        click.BadParameter: anything else.
    """
    text = text.strip().strip("\"'")
    if text.startswith("unix:///"):
        return Address(SERVER_DEFAULTS.host, uds=text.removeprefix("unix://"))
    if text.count(":") > 1 and "[" not in text and "/" not in text:
        return Address(text)
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"] or 0) > 65535:
        raise click.BadParameter(f"{text!r} is no address; write host, host:port, :port or [v6]:port")
    scheme = (match["scheme"] or "").lower()
    if scheme and scheme not in _PORTS:
        raise click.BadParameter(f"{text!r}: Corral speaks http and https; let a proxy do {scheme}, and give host:port")
    port = int(match["port"]) if match["port"] else _PORTS.get(scheme)
    return Address(match["v6"] or match["host"] or SERVER_DEFAULTS.host, port, scheme == "https")


def parse_mode(text: str | int) -> int:
    """The bits of "600", "0660" or "0o666".

    Raises:
        click.BadParameter: anything else, and what keeps the owner out.
    """
    match = re.fullmatch(r"(?:0o?)?([0-7]{3})", str(text).strip())
    if match is None or int(match[1], 8) & 0o600 != 0o600:
        raise click.BadParameter(f"{text!r} is no mode; write three octal digits such as 600, 660 or 666")
    return int(match[1], 8)


def parse_keep_alive(text: str | float) -> float:
    """Seconds of "5m", "1h30m" or a number of seconds; below 0 is for ever.

    Raises:
        click.BadParameter: anything else.
    """
    seconds = _seconds(text)
    return math.inf if seconds < 0 else seconds


def parse_timeout(text: str | float) -> float:
    """As parse_keep_alive; 0 is for ever too, as in Ollama.

    Raises:
        click.BadParameter: anything else.
    """
    seconds = _seconds(text)
    return seconds if seconds > 0 else math.inf


def _seconds(text: str | float) -> float:
    from corral.errors import InvalidRequest
    from corral.server.durations import parse_seconds

    try:
        return parse_seconds(str(text).strip())
    except InvalidRequest:
        raise click.BadParameter(
            f"{text!r} is no length of time; write seconds, or for instance 5m or 1h30m; -1 is for ever"
        ) from None


class _KvType(click.Choice):  # type: ignore[type-arg,unused-ignore]
    """Our types, and Ollama's names."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        lowered = str(value).lower()
        if re.fullmatch(r"q[45]_[01]|iq4_nl", lowered):
            if ctx is not None:
                told = f"keys and values as {lowered} are not known here; {NOTHING_SMALLER} is taken"
                ctx.meta.setdefault(WARNINGS, []).append(told)
            return NOTHING_SMALLER
        return super().convert(KV_TYPES.get(lowered, value), param, ctx)


class _CertReqs(click.Choice):  # type: ignore[type-arg,unused-ignore]
    """Our words, and the numbers of Python's ssl module, which others take."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        by_number = {str(number): word for number, word in enumerate(self.choices)}
        return super().convert(by_number.get(str(value), value), param, ctx)


def _twins(*names: str) -> list[str]:
    return [f"{prefix}_{name}" for name in names for prefix in ("CORRAL", "OLLAMA")]


def _models_of_file(context: click.Context, _: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the configuration file where none is given: not every version of click looks there for arguments."""
    return given or tuple(context.lookup_default("models") or ())


_FLAGS: list[Decorator] = [
    click.argument("models", metavar="[MODEL]...", nargs=-1, callback=_models_of_file),
    option(
        "--config", envvar="CORRAL_CONFIG", metavar="FILE", is_eager=True, expose_value=False, callback=use_file,
        help="File of settings, TOML: each is named as its flag here, and counts where neither flag nor environment "
        "says anything. By default config.toml in CORRAL_HOME or ~/.config/corral, if it is there.",
    ),
    option(
        "--host", type=parse_address, envvar=_twins("HOST"), default=SERVER_DEFAULTS.host, metavar="ADDRESS",
        help="Address to bind, with or without a port; beyond loopback a key is required.",
    ),
    option(
        "--port", type=click.IntRange(0, 65535), envvar="CORRAL_PORT", show_default=str(DEFAULT_PORT),
        help="0 takes a free one.",
    ),
    option(
        "--uds", type=FILE, envvar="CORRAL_UDS", metavar="PATH",
        help="Unix socket to listen on, in place of host and port. It counts as loopback.",
    ),
    option(
        "--uds-mode", type=parse_mode, default="600", envvar="CORRAL_UDS_MODE", metavar="MODE",
        help="Who may connect to the Unix socket, as of chmod: 600 is this user alone, 660 his group too.",
    ),
    option(
        "--ssl-certfile", type=FILE, envvar="CORRAL_SSL_CERTFILE", metavar="FILE",
        help="Certificate in PEM form, with those that vouch for it: the server speaks HTTPS then. It is read again "
        "when the file changes.",
    ),
    option(
        "--ssl-keyfile", type=FILE, envvar="CORRAL_SSL_KEYFILE", metavar="FILE",
        help="The certificate's key; by default it is in the same file.",
    ),
    option(
        "--ssl-ca-certs", type=FILE, envvar="CORRAL_SSL_CA_CERTS", metavar="FILE",
        help="Authorities that vouch for clients: who shows no certificate of theirs is refused.",
    ),
    option(
        "--ssl-cert-reqs", type=_CertReqs(get_args(CertReqs)), envvar="CORRAL_SSL_CERT_REQS",
        help="Whether clients have to show a certificate; 0, 1 and 2 mean the same. By default required with "
        "--ssl-ca-certs, else none.",
    ),
    option(
        "--api-key", multiple=True, envvar="CORRAL_API_KEY", metavar="KEY",
        help="Key that clients must send as a Bearer token; may be given again. Commas separate several in one.",
    ),
    database_url,
    option(
        "--usage-retention", type=COUNT, default=SERVER_DEFAULTS.usage_retention_days, envvar="CORRAL_USAGE_RETENTION",
        metavar="DAYS",
        help="How many UTC days of usage are kept; 0 keeps all.",
    ),
    option(
        "--no-auth", is_flag=True, envvar="CORRAL_NO_AUTH",
        help="Bind beyond loopback without a key; stored keys are not asked for.",
    ),
    option(
        "--origins", envvar=["CORRAL_ORIGINS", "OLLAMA_ORIGINS"], metavar="ORIGINS",
        help="Web pages that may call besides those of this machine: scheme://host[:port], * is any text.",
    ),
    option(
        "--served-model-name", envvar="CORRAL_SERVED_MODEL_NAME", metavar="NAME",
        help="Name for clients, where one MODEL is served; by default its own.",
    ),
    option(
        "--preload", multiple=True, envvar="CORRAL_PRELOAD", metavar="NAME",
        help="Load this model at the start, of a server without MODEL; may be given again.",
    ),
    option(
        "--pin", multiple=True, envvar="CORRAL_PIN", metavar="NAME",
        help="Load this model at the start and keep it, of a server without MODEL; may be given again.",
    ),
    option(
        "--keep-alive", type=parse_keep_alive, envvar=_twins("KEEP_ALIVE"), default="5m", metavar="TIME",
        help="How long a model that nobody uses stays loaded: 5m, 1h30m, seconds; 0 is not at all, -1 for ever.",
    ),
    option(
        "--max-memory", type=parse_size, envvar="CORRAL_MAX_MEMORY", metavar="SIZE",
        help="Most memory that all models together take; by default what the machine has free, less a reserve.",
    ),
    option(
        "--max-loaded-models", type=COUNT, envvar=_twins("MAX_LOADED_MODELS"), metavar="N",
        help="Most models that are loaded at once; by default, and with 0, as many as fit.",
    ),
    option(
        "--load-timeout", type=parse_timeout, envvar=_twins("LOAD_TIMEOUT"), default="5m", metavar="TIME",
        help="How long a request waits for its model to be loaded; then it gets 503.",
    ),
    option(
        "--fair-wait", type=NOT_NEGATIVE, envvar="CORRAL_FAIR_WAIT", default=SERVER_DEFAULTS.fair_wait_s,
        metavar="SECONDS",
        help="How long a load waits for busy models; then one of them takes nothing new until the load has its memory.",
    ),
    option(
        "--step-timeout", type=parse_timeout, envvar="CORRAL_STEP_TIMEOUT", default="2m", metavar="TIME",
        help="A worker that is at one step for so long is ended as hung, and its requests go on in the next one; a "
        "model whose steps may take longer has more; 0 is never.",
    ),
    option(
        "--max-model-len", "--ctx-size", type=COUNT, envvar=["CORRAL_MAX_MODEL_LEN", "OLLAMA_CONTEXT_LENGTH"],
        metavar="TOKENS",
        help="Longest context; by default, and with 0, the model's own limit, or what fits into memory.",
    ),
    options.max_num_seqs,
    option(
        "--max-num-batched-tokens", type=POSITIVE, default=ENGINE_DEFAULTS.max_num_batched_tokens,
        envvar="CORRAL_MAX_NUM_BATCHED_TOKENS", metavar="N",
        help="Most tokens that one step computes.",
    ),
    option(
        "--max-step-ms", type=float, default=ENGINE_DEFAULTS.max_step_ms, envvar="CORRAL_MAX_STEP_MS", metavar="MS",
        help="While somebody streams, steps aim below this, so that tokens keep coming; three times it if many wait.",
    ),
    option(
        "--max-queue", type=POSITIVE, default=ENGINE_DEFAULTS.max_queue, envvar=_twins("MAX_QUEUE"), metavar="N",
        help="Waiting requests, of each model and of all that wait for one to be loaded; beyond it clients get 503.",
    ),
    option(
        "--max-queue-per-key", type=POSITIVE, envvar="CORRAL_MAX_QUEUE_PER_KEY", metavar="N",
        help="The same for the requests of one API key, which then get 429; by default half of that.",
    ),
    option(
        "--request-timeout", type=parse_timeout, envvar="CORRAL_REQUEST_TIMEOUT", default="0", metavar="TIME",
        help="How long a request may take, waiting included: 90, 5m; then it gets 504. 0 is without end. The header "
        "X-Request-Timeout of a request can only shorten it.",
    ),
    options.kv_cache_memory,
    option(
        "--kv-cache-dtype", type=_KvType(get_args(KvCacheDtype)), default=ENGINE_DEFAULTS.kv_cache_dtype,
        envvar=["CORRAL_KV_CACHE_DTYPE", "OLLAMA_KV_CACHE_TYPE"],
        help="What keys and values are kept as: f16 (auto), or int8 (q8_0), which holds about twice the tokens "
        "and reads long contexts faster, at some loss.",
    ),
    option(
        "--kv-idle-release", type=NOT_NEGATIVE, default=ENGINE_DEFAULTS.kv_idle_release_s,
        envvar="CORRAL_KV_IDLE_RELEASE", metavar="SECONDS",
        help="Idle time after which the memory of the KV cache is given back.",
    ),
    options.threads,
    options.no_cache,
    options.cache_max,
    option(
        "--no-prefix-caching", is_flag=True, envvar="CORRAL_NO_PREFIX_CACHING", help="Share no KV cache among requests."
    ),
    option(
        "--max-body-size", type=parse_size, default=SERVER_DEFAULTS.max_body_bytes, show_default="32M",
        envvar="CORRAL_MAX_BODY_SIZE", metavar="SIZE",
        help="Largest request body.",
    ),
    option(
        "--max-connections", type=POSITIVE, default=SERVER_DEFAULTS.max_connections, envvar="CORRAL_MAX_CONNECTIONS",
        metavar="N",
        help="Open connections, beyond which new ones get 503.",
    ),
    option(
        "--max-connections-per-address", type=POSITIVE, default=SERVER_DEFAULTS.max_connections_per_address,
        envvar="CORRAL_MAX_CONNECTIONS_PER_ADDRESS", metavar="N",
        help="Open connections of one client's address, beyond which it gets 429; behind a proxy all have the proxy's.",
    ),
    option(
        "--head-timeout", type=SECONDS, default=SERVER_DEFAULTS.head_timeout_s, envvar="CORRAL_HEAD_TIMEOUT",
        metavar="SECONDS",
        help="How long the line and headers of a request may take.",
    ),
    option(
        "--body-timeout", type=SECONDS, default=SERVER_DEFAULTS.body_timeout_s, envvar="CORRAL_BODY_TIMEOUT",
        metavar="SECONDS",
        help="How long a body may take, besides the time that its bytes take at the least rate.",
    ),
    option(
        "--min-body-rate", type=parse_size, default=SERVER_DEFAULTS.min_body_rate, show_default="32K",
        envvar="CORRAL_MIN_BODY_RATE", metavar="SIZE",
        help="Bytes a second at which a body has to come.",
    ),
    option(
        "--write-timeout", type=SECONDS, default=SERVER_DEFAULTS.write_timeout_s, envvar="CORRAL_WRITE_TIMEOUT",
        metavar="SECONDS",
        help="How long a client may take nothing of its answer before it is cut off.",
    ),
    option(
        "--log-level", type=click.Choice(get_args(LogLevel), case_sensitive=False), default=SERVER_DEFAULTS.log_level,
        envvar="CORRAL_LOG_LEVEL",
        help="What is less than this is not logged.",
    ),
    option(
        "--log-format", type=click.Choice(get_args(LogFormat), case_sensitive=False),
        default=SERVER_DEFAULTS.log_format, envvar="CORRAL_LOG_FORMAT",
        help="Lines of text on stderr, or one JSON object a line.",
    ),
    option(
        "--no-access-log", "--disable-uvicorn-access-log", is_flag=True, envvar="CORRAL_NO_ACCESS_LOG",
        help="No line for every request. Probes and /metrics have none in any case, unless they fail.",
    ),
    option(
        "--log-requests", "--enable-log-requests", is_flag=True, envvar="CORRAL_LOG_REQUESTS",
        help="Log prompts and parameters of requests; without it, no prompt is ever in the log.",
    ),
    option(
        "--max-log-len", type=COUNT, envvar="CORRAL_MAX_LOG_LEN", metavar="N",
        help="Most characters of a prompt, or token ids, that --log-requests logs; by default all.",
    ),
    option(
        "--otlp-traces-endpoint", envvar="CORRAL_OTLP_TRACES_ENDPOINT", metavar="URL",
        help="OpenTelemetry collector that gets a trace of every request, by OTLP over HTTP: http://host:4318. Needs "
        "pip install 'corral[otel]'. The variables OTEL_* count too.",
    ),
    option(
        "--lenient", is_flag=True, envvar="CORRAL_LENIENT",
        help="Leave out fields of a request that are unknown, and name them in the header X-Corral-Ignored; "
        "without, they are refused.",
    ),
    option(
        "--drain-delay", type=NOT_NEGATIVE, envvar="CORRAL_DRAIN_DELAY", metavar="SECONDS",
        help="After SIGTERM, how long requests are still taken while /health and /ready say 503 already; by default 2 "
        "beyond loopback, and 0 on it and after Ctrl-C.",
    ),
    option(
        "--drain-timeout", type=NOT_NEGATIVE, default=SERVER_DEFAULTS.drain_timeout_s, envvar="CORRAL_DRAIN_TIMEOUT",
        metavar="SECONDS",
        help="After that, how long answers in flight may take to finish.",
    ),
]  # fmt: skip


def serve_options(function: Any) -> Any:
    """All flags, in the order in which help shows them."""
    for flag in reversed(_FLAGS):
        function = flag(function)
    return function
