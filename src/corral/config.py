"""Settings, and the only place that reads the environment."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from corral.errors import InvalidConfig

BLOCK_SIZE = 16  # tokens in a KV block
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 11434
KvCacheDtype = Literal["auto", "f16", "int8"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]
CertReqs = Literal["none", "optional", "required"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of one loaded model.

    Args:
        max_model_len: longest context in tokens; None is the model's own limit, capped by memory.
        max_num_seqs: sequences that run at once; more wait.
        max_num_batched_tokens: most tokens one step computes.
        max_step_ms: while somebody streams, a step's token budget aims below this, or up to three times it while a
            crowd of prompts waits.
        max_queue: waiting requests beyond which new ones are refused.
        max_queue_per_key: the same for those of one key; None is half of max_queue.
        kv_cache_bytes: size of the KV pool (virtual; touched when used); None derives it from free memory.
        kv_cache_dtype: "f16", or "int8" for about twice the tokens in the same memory at some loss; "auto" is f16.
        kv_idle_release_s: seconds without work after which the pool's memory, cached prefixes too, is given back.
        enable_prefix_caching: share full blocks among live and past requests.
        num_threads: worker threads of the core; None is the number of usable CPUs.
        cache_weights: keep the packed weights on disk, and map them at the next load.
        cache_max_bytes: most that all packed weights take there; None is 32 GiB, or half of the free disk if less.
        adapter_max_bytes: most memory that LoRA adapters take; those that no request uses make room for others.
        isa: forces "scalar", "neon", "avx2", "avx2_vnni", "avx512" or "amx"; None takes the best the CPU has.
    """

    max_model_len: int | None = None
    max_num_seqs: int = 128
    max_num_batched_tokens: int = 512
    max_step_ms: float = 150.0
    max_queue: int = 512
    max_queue_per_key: int | None = None
    kv_cache_bytes: int | None = None
    kv_cache_dtype: KvCacheDtype = "auto"
    kv_idle_release_s: float = 60.0
    enable_prefix_caching: bool = True
    num_threads: int | None = None
    cache_weights: bool = True
    cache_max_bytes: int | None = None
    adapter_max_bytes: int = 2 << 30
    isa: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "max_num_batched_tokens", "max_queue", "adapter_max_bytes"):
            _check_positive(name, getattr(self, name))
        for name in ("max_model_len", "kv_cache_bytes", "num_threads", "max_queue_per_key"):
            if getattr(self, name) is not None:
                _check_positive(name, getattr(self, name))
        _check_positive("max_step_ms", self.max_step_ms)
        if self.cache_max_bytes is not None and self.cache_max_bytes < 0:
            raise InvalidConfig(f"cache_max_bytes is {self.cache_max_bytes!r}; it must not be below 0")
        if self.kv_cache_dtype not in get_args(KvCacheDtype):
            raise InvalidConfig(
                f"kv_cache_dtype is {self.kv_cache_dtype!r}; it must be one of {', '.join(get_args(KvCacheDtype))}"
            )

    @property
    def max_queue_of_key(self) -> int:
        """max_queue_per_key, decided."""
        return max(1, self.max_queue // 2) if self.max_queue_per_key is None else self.max_queue_per_key

    @property
    def kv_dtype(self) -> str:
        """What keys and values are kept as: kv_cache_dtype with "auto" decided."""
        return "f16" if self.kv_cache_dtype == "auto" else self.kv_cache_dtype


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Settings of the front process.

    Args:
        host: address to listen on; beyond loopback a key or no_auth is demanded.
        port: 0 takes a free one.
        api_keys: any of them opens every route.
        no_auth: listen beyond loopback without a key.
        ssl_certfile: certificate of the server in PEM form, with those that vouch for it; None is plain HTTP.
        ssl_keyfile: its key; None has it in the same file.
        ssl_ca_certs: authorities that vouch for clients.
        ssl_cert_reqs: whether clients show a certificate: "none", "optional" or "required"; None is "required" with
            ssl_ca_certs, else "none".
        origins: web pages that may call, besides those of this machine: scheme://host[:port], where * is any text.
        max_body_bytes: largest request body.
        body_timeout_s: how long a body may take, besides the time that its bytes take at min_body_rate.
        min_body_rate: bytes a second; a body that comes slower is refused when body_timeout_s is used up.
        head_timeout_s: how long a request's line and headers may take, also the first ones of a connection.
        write_timeout_s: how long a client may take nothing of its answer before its connection is cut.
        max_connections: open connections, beyond which new ones are refused.
        max_connections_per_address: of one client's address, likewise; behind a proxy all have the proxy's.
        drain_delay_s: after SIGTERM, how long requests are still taken while probes already say 503, so that routers
            move away; None is 2 s beyond loopback, and not at all on it.
        drain_timeout_s: how long streams in flight may take to finish after that.
        keep_alive_s: seconds that a model stays loaded when nobody uses it; 0 is not at all, inf for ever.
        max_memory_bytes: most that all models together take; None is what the machine has free, less a reserve.
        max_loaded_models: most models that are loaded at once; None is as many as fit.
        max_pending: requests that wait for a model to be loaded, beyond which new ones are refused.
        max_pending_per_key: the same for those of one key; None is half of max_pending.
        load_timeout_s: how long a request waits for its model, and a load for its next bit of progress.
        fair_wait_s: how long a load waits for busy models; from then on the one that was asked longest ago takes
            nothing new until the load has its memory.
        step_timeout_s: a worker that is at one step for so long is ended as hung, and its requests go on in the next; a
            model so large that a step may take longer has more.
        request_timeout_s: how long a request may take, where its client does not ask for less; inf is without end.
        log_level: what is less than this is not logged.
        log_format: a line of the log is "text", or an object of "json".
        access_log: a line for every request that has ended; for probes only if they fail.
        log_requests: log prompts and parameters too.
        max_log_len: most characters of a prompt, or token ids, that are logged; None is all.
        otlp_traces_endpoint: where spans go, by OTLP over HTTP; None is where OTEL_* variables say, if they do.
        lenient: unknown fields of a body are left out and named in a header; otherwise they are refused.
        usage_retention_days: how many UTC days of usage are kept; 0 keeps all.
        uds: path of a Unix socket to listen on, in place of host and port.
        uds_mode: who may connect to it, as of chmod.
        database_url: where keys, usage, responses, files and batches are kept; None is a file in Corral's data folder.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    api_keys: tuple[str, ...] = ()
    no_auth: bool = False
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_ca_certs: str | None = None
    ssl_cert_reqs: CertReqs | None = None
    origins: tuple[str, ...] = ()
    max_body_bytes: int = 32 << 20
    body_timeout_s: float = 60.0
    min_body_rate: int = 32 << 10
    head_timeout_s: float = 30.0
    write_timeout_s: float = 60.0
    max_connections: int = 4096
    max_connections_per_address: int = 1024
    drain_delay_s: float | None = None
    drain_timeout_s: float = 300.0
    keep_alive_s: float = 300.0
    max_memory_bytes: int | None = None
    max_loaded_models: int | None = None
    max_pending: int = 512
    max_pending_per_key: int | None = None
    load_timeout_s: float = 300.0
    fair_wait_s: float = 5.0
    step_timeout_s: float = 120.0
    request_timeout_s: float = math.inf
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"
    access_log: bool = True
    log_requests: bool = False
    max_log_len: int | None = None
    otlp_traces_endpoint: str | None = None
    lenient: bool = False
    usage_retention_days: int = 400
    uds: str | None = None
    uds_mode: int = 0o600
    database_url: str | None = field(default=None, repr=False)  # it may hold a password

    def __post_init__(self) -> None:
        for name in ("max_connections", "max_connections_per_address", "head_timeout_s", "write_timeout_s"):
            _check_positive(name, getattr(self, name))
        for name in ("max_body_bytes", "body_timeout_s", "min_body_rate"):
            _check_positive(name, getattr(self, name))
        for name in ("max_pending", "request_timeout_s", "load_timeout_s", "step_timeout_s"):
            _check_positive(name, getattr(self, name))
        for name in ("max_memory_bytes", "max_loaded_models", "max_pending_per_key"):
            if getattr(self, name) is not None:
                _check_positive(name, getattr(self, name))
        for name in ("keep_alive_s", "fair_wait_s", "usage_retention_days", "drain_delay_s", "drain_timeout_s"):
            if getattr(self, name) is not None and not getattr(self, name) >= 0:
                raise InvalidConfig(f"{name} is {getattr(self, name)!r}; it must not be below 0")


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise InvalidConfig(f"{name} is {value!r}; it must be above 0")


def data_home() -> Path:
    """Folder of Corral's own models: CORRAL_HOME, else the platform's data folder."""
    if home := os.environ.get("CORRAL_HOME"):
        return Path(home).expanduser()
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "corral"


def config_path() -> Path:
    """CORRAL_CONFIG: the file of settings of `corral serve`; else config.toml, in the folder below if that is set.

    Else it is in ~/.config/corral.
    """
    if path := os.environ.get("CORRAL_CONFIG"):
        return Path(path).expanduser()
    if home := os.environ.get("CORRAL_HOME"):
        return Path(home).expanduser() / "config.toml"
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "corral" / "config.toml"


def is_config_given() -> bool:
    """The environment names the file of settings, so it has to be there."""
    return bool(os.environ.get("CORRAL_CONFIG"))


def said_in_environment(names: str | Sequence[str] | None) -> tuple[str, str] | None:
    """The first of the variables that is set, and not to nothing, and its value: the one that click takes."""
    candidates = [names] if isinstance(names, str) else names or ()
    return next(((name, value) for name in candidates if (value := os.environ.get(name))), None)


def models_home() -> Path:
    """Folder of the model store: CORRAL_MODELS, else models in the folder above."""
    if home := os.environ.get("CORRAL_MODELS"):
        return Path(home).expanduser()
    return data_home() / "models"


def ollama_models() -> list[Path]:
    """Ollama's model folders, which are read in place and never written: OLLAMA_MODELS, else those it uses by default.

    Those that exist; never the one that is ours to write.
    """
    if home := os.environ.get("OLLAMA_MODELS"):
        folders = [Path(home).expanduser()]
    else:
        folders = [Path("~/.ollama/models").expanduser(), Path("/usr/share/ollama/.ollama/models")]
    ours = models_home().resolve()
    return [folder for folder in folders if _is_folder(folder) and folder.resolve() != ours]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # not ours to look at
        return False


def cache_home() -> Path:
    """Folder of what can be made again: CORRAL_CACHE, else the platform's cache folder."""
    if home := os.environ.get("CORRAL_CACHE"):
        return Path(home).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "corral"


# Settings of Ollama's that this program reads, in `corral serve` or elsewhere.
_OLLAMA_SETTINGS = frozenset(
    f"OLLAMA_{name}"
    for name in (
        *("HOST", "MODELS", "KEEP_ALIVE", "MAX_LOADED_MODELS", "MAX_QUEUE", "LOAD_TIMEOUT", "CONTEXT_LENGTH"),
        *("KV_CACHE_TYPE", "ORIGINS", "API_KEY", "NOHISTORY", "EDITOR"),
    )
)


def unused_ollama_settings() -> list[str]:
    """A line on OLLAMA_NUM_PARALLEL, and one on all other settings of Ollama's that are set and mean nothing here."""
    given = sorted(name for name, value in os.environ.items() if name.startswith("OLLAMA_") and value)
    unused = [name for name in given if name not in _OLLAMA_SETTINGS and name != "OLLAMA_NUM_PARALLEL"]
    lines = []
    if "OLLAMA_NUM_PARALLEL" in given:
        lines.append(
            "OLLAMA_NUM_PARALLEL is not needed: requests run side by side as memory allows; --max-num-seqs bounds it"
        )
    if unused:
        lines.append(f"settings of Ollama's that mean nothing here: {', '.join(unused)}")
    return lines


def num_passed_sockets() -> int:
    """LISTEN_FDS, if LISTEN_PID is this process: sockets that a service manager passes; forgotten by asking."""
    told = [os.environ.pop(name, "") for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")]
    is_ours = told[0].isdecimal() and told[1] == str(os.getpid())
    return int(told[0]) if is_ours else 0


def notify_socket() -> str | None:
    """NOTIFY_SOCKET: where a service manager wants to be told how the service is."""
    return os.environ.get("NOTIFY_SOCKET") or None


def watchdog_s() -> float | None:
    """WATCHDOG_USEC, if it is meant for this process: how long the service may be silent."""
    micros, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
    is_ours = pid is None or pid == str(os.getpid())
    return int(micros) / 1e6 if is_ours and micros.isdecimal() and int(micros) > 0 else None


def forced_isa() -> str | None:
    """CORRAL_ISA: scalar, neon, avx2, avx2_vnni, avx512 or amx, for tests and comparisons."""
    return os.environ.get("CORRAL_ISA") or None


def traces_in_environment() -> bool:
    """OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT: where spans go, unless the command line says
    it, or OTEL_SDK_DISABLED is true, or OTEL_TRACES_EXPORTER is none."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(os.environ.get(f"OTEL_EXPORTER_OTLP_{name}") for name in ("TRACES_ENDPOINT", "ENDPOINT"))


def client_host() -> str | None:
    """CORRAL_HOST, else the Unix socket CORRAL_UDS, else OLLAMA_HOST: the server that the command line talks to."""
    of_socket = f"unix://{path}" if (path := os.environ.get("CORRAL_UDS")) else None
    return os.environ.get("CORRAL_HOST") or of_socket or os.environ.get("OLLAMA_HOST") or None


def client_port() -> str | None:
    """CORRAL_PORT: the server's port, where its address names none."""
    return os.environ.get("CORRAL_PORT") or None


def client_api_key() -> str | None:
    """CORRAL_API_KEY, else OLLAMA_API_KEY: sent to the server; the first one, of several between commas."""
    keys = os.environ.get("CORRAL_API_KEY") or os.environ.get("OLLAMA_API_KEY") or ""
    return next((key.strip() for key in keys.split(",") if key.strip()), None)


def is_history_off() -> bool:
    """CORRAL_NOHISTORY, else OLLAMA_NOHISTORY: keep no history of what is typed into a chat."""
    value = os.environ.get("CORRAL_NOHISTORY") or os.environ.get("OLLAMA_NOHISTORY") or ""
    return value.lower() not in ("", "0", "false")


def text_editor() -> str | None:
    """CORRAL_EDITOR, else OLLAMA_EDITOR, VISUAL or EDITOR: the command that Ctrl-G opens."""
    names = ("CORRAL_EDITOR", "OLLAMA_EDITOR", "VISUAL", "EDITOR")
    return next((value for name in names if (value := os.environ.get(name))), None)


def tool_folder(variable: str, default: str) -> Path:
    """Where another program keeps its settings: the folder that its variable names, else `default`."""
    return Path(os.environ.get(variable) or default).expanduser()


def terminal_type() -> str:
    """TERM: what the terminal is."""
    return os.environ.get("TERM", "")


def wants_no_colour() -> bool:
    """NO_COLOR: if it is set to anything, no colours."""
    return bool(os.environ.get("NO_COLOR"))


def without_blas_threads() -> None:
    """Lets numpy's BLAS, which Corral does not use, start no threads when it is imported: they cost 40 ms of every CPU.

    For our own processes only, before they import numpy; what the user has set stays.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def transfer_streams() -> int:
    """CORRAL_MAX_TRANSFER_STREAMS, else OLLAMA_MAX_TRANSFER_STREAMS: requests at once for one large file, 1 to 64."""
    for name in ("CORRAL_MAX_TRANSFER_STREAMS", "OLLAMA_MAX_TRANSFER_STREAMS"):
        if text := os.environ.get(name):
            if not (text.isdecimal() and text.isascii() and 1 <= int(text) <= 64):
                raise InvalidConfig(f"{name} is {text!r}; it must be a whole number from 1 to 64")
            return int(text)
    return 6


def registry_mirror() -> str | None:
    """CORRAL_REGISTRY: address to use in place of Ollama's own registry."""
    return os.environ.get("CORRAL_REGISTRY") or None


def has_https_proxy() -> bool:
    """HTTPS_PROXY or ALL_PROXY, in either case: connections to HTTPS addresses go through a proxy."""
    return any(os.environ.get(name) for base in ("HTTPS_PROXY", "ALL_PROXY") for name in (base, base.lower()))


def ca_bundle() -> str | None:
    """REQUESTS_CA_BUNDLE, else CURL_CA_BUNDLE: file of certificate authorities to trust, as requests and curl do."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or None


def environment_without(prefixes: tuple[str, ...]) -> dict[str, str]:
    """For a child that no setting of the user's may reach: all variables but those that begin so."""
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
