"""Ollama: a server that has to be given the model before it can be asked."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from corral.compare.engines.engine import HOST, EngineFailed, EngineMissing, Found, Launch, Settings, Setup
from corral.compare.engines.installed import disk_bytes, folder_bytes
from corral.compare.engines.programs import ask, find_program
from corral.compare.engines.replies import answers_ok, at, get_json, number, objects, text, whole
from corral.compare.engines.typed import question, typed

_READY_S = 60.0
_PREPARE_S = 1800.0  # a file of tens of GB is copied and hashed
_PART = 4 << 20
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty")


class Ollama:
    """Its store is a folder of the comparison's: the models of the user are neither seen nor touched."""

    def __init__(self, name: str = "ollama", path: Path | None = None) -> None:
        self.name = name
        self._path = path
        self._port = 0

    def find(self) -> Found:
        program = find_program(self.name, "ollama", self._path)
        if program is None:
            raise EngineMissing(
                f"no ollama on PATH or in CORRAL_COMPARE_OLLAMA; https://ollama.com/download has it, "
                f"--engine-path {self.name}=PATH names one elsewhere, and --attach {self.name}=URL one that runs"
            )
        program = program.resolve()
        told = re.search(r"\d+\.\d+\.\d+\S*", ask([str(program), "--version"]))
        libraries = program.parent.parent / "lib" / "ollama"
        size = disk_bytes([program]) + (folder_bytes(libraries) if libraries.is_dir() else 0)
        return Found(program, told.group() if told else "unknown", size)

    def launch(self, found: Found, setup: Setup, port: int, folder: Path) -> Launch:
        if setup.flags:
            raise EngineMissing(f"`ollama serve` has no flags, but was given {' '.join(setup.flags)}")
        self._port = port
        store = folder / "ollama-models"
        environment = {
            "OLLAMA_HOST": f"{HOST}:{port}",
            "OLLAMA_MODELS": str(store),
            "OLLAMA_NUM_PARALLEL": str(setup.slots),
            "OLLAMA_CONTEXT_LENGTH": str(setup.context),
            "OLLAMA_KEEP_ALIVE": "-1",
        }
        argv = (str(found.program), "serve")
        shown = {name: value for name, value in environment.items() if name not in ("OLLAMA_HOST", "OLLAMA_MODELS")}
        return Launch(
            argv=argv,
            environment=environment,
            weights=setup.model.name,
            digest=setup.digest,
            steps=("curl -fsSL https://ollama.com/install.sh | sh", typed(argv, shown)),
            ready_s=_READY_S,
            files=(setup.model, store),
            notes=(
                "it is ready before it has loaded a model: the load is in the time to the first token",
                "its /v1 knows no ignore_eos and no min_tokens: answers may end early",
                "threads are set in the model (num_thread), as the server has no setting for them",
            ),
        )

    async def is_ready(self, client: httpx.AsyncClient) -> bool:
        return await answers_ok(client, "/api/version")

    async def prepare(self, client: httpx.AsyncClient, setup: Setup) -> Sequence[str]:
        """Copies the file into its store and makes a model of it, as `ollama create` does.

        Raises:
            EngineFailed: it refused.
        """
        digest = f"sha256:{setup.digest}"
        try:
            if (await client.head(f"/api/blobs/{digest}")).status_code != httpx.codes.OK:
                sent = await client.post(f"/api/blobs/{digest}", content=_parts(setup.model), timeout=_PREPARE_S)
                self._check(sent, "take the file")
            body = {
                "model": setup.name,
                "files": {setup.model.name: digest},
                "parameters": {"num_thread": setup.threads, "num_ctx": setup.context},
                "stream": False,
            }
            self._check(await client.post("/api/create", json=body, timeout=_PREPARE_S), "make a model of the file")
        except httpx.HTTPError as error:
            raise EngineFailed(f"{self.name} could not be given the model: {type(error).__name__}: {error}") from error
        modelfile = f"FROM ./{setup.model.name}\\nPARAMETER num_thread {setup.threads}\\n"
        return (
            f"printf '{modelfile}' > Modelfile",
            f"ollama create {setup.name} -f Modelfile",
            question(setup.name, self._port),
        )

    async def settings(self, client: httpx.AsyncClient, setup: Setup) -> Settings:
        """Ask after the first request: before it nothing is loaded."""
        try:
            shown = (await client.post("/api/show", json={"model": setup.name}, timeout=30.0)).json()
        except (httpx.HTTPError, ValueError):
            shown = None
        return read_settings(await get_json(client, "/api/ps"), shown, await get_json(client, "/v1/models"))

    def body(self, fields: dict[str, Any], *, min_tokens: int | None) -> dict[str, Any]:
        return fields

    def _check(self, response: httpx.Response, what: str) -> None:
        said = text(at(_json(response), "error"))
        if not response.is_success or said:
            raise EngineFailed(f"{self.name} would not {what}: {response.status_code} {said or response.text[:300]}")


def read_settings(loaded: Any, shown: Any, models: Any) -> Settings:
    """Of the replies to /api/ps, /api/show and /v1/models. How many requests run at once it does not tell."""
    model = next(iter(objects(at(loaded, "models"))), {})
    parameters = _parameters(text(at(shown, "parameters")) or "")
    sampling = {name: value for name in _SAMPLING if (value := parameters.get(name)) is not None}
    blob = re.search(r"^FROM .*sha256[-:]([0-9a-f]{64})", text(at(shown, "modelfile")) or "", re.MULTILINE)
    threads = parameters.get("num_thread")
    more = {
        "quantisation": text(at(shown, "details", "quantization_level")),
        "weights": blob.group(1) if blob else None,
        "template": "its own" if at(shown, "template") else None,
    }
    return Settings(
        model=text(model.get("name")) or text(at(models, "data", 0, "id")),
        context=whole(model.get("context_length")),
        threads=None if threads is None else int(threads),
        sampling=sampling,
        more={key: value for key, value in more.items() if value},
    )


def _parameters(lines: str) -> dict[str, float]:
    """Name -> value of those that are numbers; the server pads names to a column."""
    found = {}
    for line in lines.splitlines():
        name, _, value = line.strip().partition(" ")
        if re.fullmatch(r"-?\d{1,9}(\.\d{1,9})?", value.strip()) and (known := number(float(value))) is not None:
            found[name] = known
    return found


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


async def _parts(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(_PART):
            yield part
