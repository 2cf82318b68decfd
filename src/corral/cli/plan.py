"""`corral plan`: what a model will take, from its file's header, without loading it."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from corral.cli import options
from corral.cli.options import engine_config, option
from corral.cli.progress import show_status
from corral.config import KvCacheDtype
from corral.errors import InsufficientMemory


@click.command("plan", short_help="Say what memory a model will take.")
@options.model
@options.max_model_len
@options.max_num_seqs
@options.kv_cache_memory
@options.kv_cache_dtype
@option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
def plan(
    model: str,
    *,
    max_model_len: int | None,
    max_num_seqs: int,
    kv_cache_memory: int | None,
    kv_cache_dtype: KvCacheDtype,
    as_json: bool,
) -> None:
    """Say what weights and KV cache will take, and which context and how many users fit.

    MODEL is any name that `corral run` takes, or the path of a .gguf file. Exits with 1 if the model does not fit into
    the memory that is free.
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
    with show_status() as on_status:
        path = resolve(model, on_status).path
    gguf = open_gguf(path)
    try:
        found = estimate(gguf, read_config(gguf), config)
    finally:
        gguf.close()
    click.echo(json.dumps(asdict(found), indent=2) if as_json else found.describe())
    if not found.fits:
        raise InsufficientMemory(f"{found.name} does not fit into the memory that is free")
