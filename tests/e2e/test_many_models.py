"""Twenty clients over three models where two fit, as users would run it: the whole server, real models."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from corral.config import EngineConfig
from corral.server.model_needs import USEFUL_CONTEXT, read_needs
from corral.store.library import Library
from corral.store.manifest import CONFIG, MODEL, Manifest
from corral.store.names import parse_name
from tests.support.models import model_path
from tests.support.random_models import write_zoo_model
from tests.support.serve_process import serving

pytestmark = pytest.mark.e2e

NUM_CLIENTS = 20
QUESTIONS_EACH = 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three files of one model: three workers all the same."""
    folder = tmp_path_factory.mktemp("models")
    source = model_path("smollm2-135m")
    return [Path(shutil.copyfile(source, folder / f"{name}.gguf")) for name in ("one", "two", "three")]


def room_for(num_models: int, path: Path) -> int:
    """Bytes that hold so many workers with a useful context, and not one more."""
    needs = read_needs(path, EngineConfig())
    return num_models * needs.least_bytes(USEFUL_CONTEXT) + needs.fixed_bytes // 2


def test_twenty_clients_over_three_models_where_two_fit(models: list[Path], tmp_path: Path) -> None:
    arguments = [part for path in models for part in ("--preload", str(path))]
    limit = str(room_for(2, models[0]))
    with serving(*arguments, "--max-memory", limit, "--fair-wait", "1", folder=tmp_path) as server:
        url = server.url()
        with httpx.Client(base_url=url, timeout=280) as client:
            names = [model["id"] for model in client.get("/v1/models").json()["data"]]
            assert names == ["one", "two", "three"]

            def talk(number: int) -> list[int]:
                codes = []
                for turn in range(QUESTIONS_EACH):
                    body = {
                        "model": names[(number + turn) % len(names)],
                        "messages": [{"role": "user", "content": f"Say the number {number}."}],
                        "max_tokens": 8,
                    }
                    reply = client.post("/v1/chat/completions", json=body)
                    codes.append(reply.status_code)
                    assert reply.json().get("usage", {}).get("completion_tokens"), reply.text
                return codes

            with ThreadPoolExecutor(NUM_CLIENTS) as pool:
                answers = list(pool.map(talk, range(NUM_CLIENTS)))
        assert answers == [[200] * QUESTIONS_EACH] * NUM_CLIENTS
        assert server.stop() == 0
        # Every load but those of the two that are left at the end was followed by an eviction.
        assert server.count("loaded ") >= len(models)
        assert server.count("loaded ") - server.count("evicted ") == 2


def test_a_model_that_can_never_fit_is_refused_with_numbers(models: list[Path], tmp_path: Path) -> None:
    small, large = write_zoo_model("llama", tmp_path), models[0]
    limit = str(read_needs(large, EngineConfig()).fixed_bytes - (1 << 20))
    words = r"does not fit: it needs [\d.]+ MiB for weights.* MiB are free"
    with serving("--max-memory", limit, str(large), folder=tmp_path) as server:
        assert server.wait() == 1
        assert re.search(f"Error: .*{words}", "".join(server.log))
    library = Library(tmp_path / "models")
    layer = library.link_file(large, MODEL, lambda _status: None)
    library.write(parse_name("large"), Manifest(library.add_bytes(b"{}", CONFIG), (layer,)))
    with serving("--pin", str(small), "--max-memory", limit, folder=tmp_path) as server:
        body = {"model": "large", "prompt": "hello", "max_tokens": 1}
        refused = httpx.post(f"{server.url()}/v1/completions", json=body, timeout=120)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "insufficient_memory")
        assert re.search(words, refused.json()["error"]["message"])
        ids = [model["id"] for model in httpx.get(f"{server.url()}/v1/models").json()["data"]]
        assert ids == ["llama", "large:latest"]
