"""`corral ps`: the models that a server has loaded."""

from __future__ import annotations

import json
from typing import Any

import click

from corral.cli import human
from corral.cli.options import option


@click.command("ps", short_help="List the models that are loaded.")
@click.argument("prefix", required=False)
@option("-v", "--verbose", is_flag=True, help="Tell memory of weights and KV cache, and the requests, too.")
@option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes.")
def ps(prefix: str | None, *, verbose: bool, as_json: bool) -> None:
    """List the models that the server has loaded; with PREFIX, those whose names begin so."""
    from corral.cli.backend import running_server
    from corral.cli.remote_backend import RemoteBackend

    models = RemoteBackend(running_server()).running()
    models = [model for model in models if _name(model).lower().startswith((prefix or "").lower())]
    if as_json:
        click.echo(json.dumps(models, indent=2, ensure_ascii=False))
        return
    rows = [("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL")]
    rows += [_row(model) for model in models]
    if verbose:
        extra = [("WEIGHTS", "KV CACHE", "KV LIMIT", "RUNNING", "WAITING"), *(_load(model) for model in models)]
        rows = [(*row[:-1], *more, row[-1]) for row, more in zip(rows, extra, strict=True)]  # type: ignore[misc]
    click.echo(human.table(rows))


def _name(model: dict[str, Any]) -> str:
    return str(model.get("name") or model.get("model") or "")


def _number(model: dict[str, Any], *fields: str) -> int:
    return next((value for field in fields if isinstance(value := model.get(field), int)), 0)


def _row(model: dict[str, Any]) -> tuple[str, str, str, str, str, str]:
    size = _number(model, "size")
    digest = str(model.get("digest") or "").removeprefix("sha256:")[:12]
    processor = _processor(size, _number(model, "size_vram"))
    return _name(model), digest, human.size(size), processor, str(_number(model, "context_length")), _until(model)


def _processor(size: int, size_vram: int) -> str:
    """What share of the memory is whose, as Ollama words it."""
    if size_vram <= 0 or not size:
        return "100% CPU"
    if size_vram >= size:
        return "100% GPU"
    share = round((size - size_vram) / size * 100)
    return f"{share}%/{100 - share}% CPU/GPU"


def _until(model: dict[str, Any]) -> str:
    from datetime import UTC, datetime

    from corral.cli.remote_backend import parse_time

    if model.get("state") == "stopping":
        return "Stopping..."
    when = parse_time(model.get("expires_at"))
    if when is None:
        return "Forever"
    return "Stopping..." if when <= datetime.now(UTC) else human.moment(when)


def _load(model: dict[str, Any]) -> tuple[str, ...]:
    sizes = (("weights_bytes",), ("kv_used_bytes",), ("kv_limit_bytes",))
    counts = (("num_running", "running"), ("num_waiting", "waiting"))
    return (*(human.size(_number(model, *f)) for f in sizes), *(str(_number(model, *f)) for f in counts))
