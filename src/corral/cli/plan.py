"""`corral plan`: what a model will take, from its file's header, without loading it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from corral.cli.options import (
    ENGINE_DEFAULTS,
    KvCacheDtype,
    KvCacheMemory,
    MaxModelLen,
    MaxNumSeqs,
    Model,
    engine_config,
)
from corral.cli.terminal import download_progress
from corral.errors import InsufficientMemory


def plan(
    model: Model,
    max_model_len: MaxModelLen = None,
    max_num_seqs: MaxNumSeqs = ENGINE_DEFAULTS.max_num_seqs,
    kv_cache_memory: KvCacheMemory = None,
    kv_cache_dtype: KvCacheDtype = ENGINE_DEFAULTS.kv_cache_dtype,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, sizes in bytes.")] = False,
) -> None:
    """Say what weights and KV cache will take, and which context and how many users fit.

    Exits with 1 if the model does not fit into the memory that is free.
    """
    from corral.model.architectures import read_config
    from corral.model.gguf import open_gguf
    from corral.model.plan import estimate
    from corral.store import resolve

    config = engine_config(
        max_model_len=max_model_len,
        kv_cache_memory=kv_cache_memory,
        kv_cache_dtype=kv_cache_dtype,
        max_num_seqs=max_num_seqs,
    )
    with download_progress() as on_progress:
        path = resolve(model, on_progress)
    gguf = open_gguf(path)
    try:
        found = estimate(gguf, read_config(gguf), config)
    finally:
        gguf.close()
    typer.echo(json.dumps(asdict(found), indent=2) if as_json else found.describe())
    if not found.fits:
        raise InsufficientMemory(f"{found.name} does not fit into the memory that is free")
