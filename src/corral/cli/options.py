"""Flags that several verbs share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

import click

from corral.config import EngineConfig, KvCacheDtype, forced_isa
from corral.errors import CorralError

ENGINE_DEFAULTS = EngineConfig()
POSITIVE = click.IntRange(min=1)

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def parse_size(text: str | int) -> int:
    """Bytes of "512M", "4G", "1.5GiB" or a plain number; the units are powers of 1024.

    Raises:
        click.BadParameter: anything else.
    """
    match = _SIZE.fullmatch(str(text).strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is no size; write bytes, or a number with K, M, G or T, for instance 512M")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def option(*names: str, **settings: Any) -> Decorator:
    """click.option, whose help tells default and environment variable."""
    return click.option(*names, **{"show_default": True, "show_envvar": True} | settings)


def complete_model(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of models that are here and begin so; none if the store cannot be read: a completion says no errors."""
    from corral.cli.backend import open_backend

    try:
        names = [model.name for model in open_backend().models()]
    except CorralError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def model_name(name: str, **settings: Any) -> Decorator:
    """An argument that names a model, and that a shell can complete."""
    defaults: dict[str, Any] = {"metavar": "MODEL", "shell_complete": complete_model}
    return click.argument(name, **defaults | settings)


model = model_name("model")
max_model_len = option(
    "--max-model-len", "--ctx-size", type=POSITIVE, envvar="CORRAL_MAX_MODEL_LEN", metavar="TOKENS",
    help="Longest context; by default the model's own limit, or what fits into memory.",
)  # fmt: skip
max_num_seqs = option(
    "--max-num-seqs", type=POSITIVE, default=ENGINE_DEFAULTS.max_num_seqs, envvar="CORRAL_MAX_NUM_SEQS", metavar="N",
    help="Sequences that run at once; more of them wait.",
)  # fmt: skip
kv_cache_memory = option(
    "--kv-cache-memory", type=parse_size, envvar="CORRAL_KV_CACHE_MEMORY", metavar="SIZE",
    help="Size of the KV cache, for instance 512M or 4G; by default most of the memory that is free. "
    "It is touched only when used.",
)  # fmt: skip
kv_cache_dtype = option(
    "--kv-cache-dtype", type=click.Choice(get_args(KvCacheDtype)), default=ENGINE_DEFAULTS.kv_cache_dtype,
    envvar="CORRAL_KV_CACHE_DTYPE",
    help="What keys and values are kept as: f16 (auto), or int8, which holds about twice the tokens "
    "and reads long contexts faster, at some loss.",
)  # fmt: skip
threads = option(
    "--threads", type=POSITIVE, envvar="CORRAL_THREADS", metavar="N",
    help="Worker threads; by default every usable CPU.",
)  # fmt: skip
no_cache = option(
    "--no-cache", is_flag=True, envvar="CORRAL_NO_CACHE",
    help="Neither map packed weights from the cache on disk nor write them there.",
)  # fmt: skip
cache_max = option(
    "--cache-max", type=parse_size, envvar="CORRAL_CACHE_MAX", metavar="SIZE",
    help="Most that packed weights take on disk; by default 32G, or half of what is free if that is less.",
)  # fmt: skip


def engine_config(
    *,
    max_model_len: int | None = None,
    kv_cache_memory: int | None = None,
    threads: int | None = None,
    no_cache: bool = False,
    cache_max: int | None = None,
    **others: object,
) -> EngineConfig:
    """The engine's settings out of flags; `others` bear EngineConfig's own names."""
    return EngineConfig(
        max_model_len=max_model_len,
        kv_cache_bytes=kv_cache_memory,
        num_threads=threads,
        cache_weights=not no_cache,
        cache_max_bytes=cache_max,
        isa=forced_isa(),
        **others,  # type: ignore[arg-type]
    )
