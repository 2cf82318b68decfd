"""schemathesis over our own OpenAPI document: whatever is sent, no 5xx but the documented 503, and nothing hangs.

`pip install corral[clients]`. The seed is fixed, and so is the number of examples of each route.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import hypothesis.errors
import pytest

from corral.config import EngineConfig
from corral.store.local_model import LocalModel
from corral.worker.process import WORKER_COMMAND
from tests.support.live_server import SCRIPTED, LiveServer, live_server
from tests.support.models import model_path

schemathesis: Any = pytest.importorskip("schemathesis", reason="pip install corral[clients]")

pytestmark = pytest.mark.slow

EXAMPLES_SCRIPTED = 60  # of each route, and of each kind: as the schema says, and otherwise
EXAMPLES_REAL = 25
TIMEOUT_S = 30.0
KEY = {"Authorization": "Bearer admin"}  # what is sent makes keys as well, and then nothing is open any more
MAX_TOKENS = 4  # of an answer: what is fuzzed is the way there
AWAY = ("/api/pull", "/api/push")  # they call other machines
# Routes with a worker behind them; the rest are told nothing new by a real one.
COMPUTED = ("/v1/", "/v2/", "/score", "/rerank", "/tokenize", "/detokenize")


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty store: routes that delete and create find no user's models."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CORRAL_HOME", str(folder))
        patch.setenv("OLLAMA_MODELS", str(folder / "none"))
        yield folder


def narrowed(document: Any, model: str) -> Any:
    """The document where every model is `model`, and every answer is short."""
    for schema in document["components"]["schemas"].values():
        fields = schema.get("properties", {})
        if "model" in fields:
            fields["model"] = {"const": model}
            schema["required"] = sorted({*schema.get("required", ()), "model"})
        for name in {"max_tokens", "max_completion_tokens", "max_output_tokens"} & set(fields):
            fields[name] = {"type": "integer", "minimum": 1, "maximum": MAX_TOKENS}
        if "max_tokens" in fields:
            fields.pop("max_completion_tokens", None)
            schema["required"] = sorted({*schema["required"], "max_tokens"})
        if "n" in fields:
            fields["n"] = {"type": "integer", "minimum": 1, "maximum": 2}
    for methods in document["paths"].values():
        for operation in methods.values():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            if "model" in body.get("properties", {}):
                body["properties"]["model"] = {"const": model}
                body["properties"]["options"] = {"const": {"num_predict": MAX_TOKENS}}
                body["required"] = sorted({*body["required"], "model", "options"} & set(body["properties"]))
    return document


def fuzz(server: LiveServer, model: str, num_examples: int, prefixes: tuple[str, ...] = ("/",)) -> int:
    """Sends the examples; returns how many of them were answered with 200."""
    document = narrowed(httpx.get(f"{server.url}/openapi.json", headers=KEY).json(), model)
    document["paths"] = {
        path: methods
        for path, methods in document["paths"].items()
        if path.startswith(prefixes) and not path.startswith(AWAY)
    }
    num_good = 0
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = result.ok()
        for mode in modes:
            is_json = any(body.media_type == "application/json" for body in operation.body)
            if mode is schemathesis.GenerationMode.NEGATIVE and not is_json:
                continue  # nothing of it can be wrong

            @hypothesis.settings(
                max_examples=num_examples,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[hypothesis.Phase.generate],
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def send(case: Any) -> None:
                nonlocal num_good
                response = case.call(base_url=server.url, headers=KEY, timeout=TIMEOUT_S)
                assert response.status_code < 500 or response.status_code == 503, case.as_curl_command()
                num_good += response.status_code == 200

            try:
                send()
            except hypothesis.errors.Unsatisfiable:
                raise AssertionError(f"no {mode.value} example of {operation.label}") from None
    return num_good


def test_a_scripted_server_stands() -> None:
    with live_server(max_body_bytes=1 << 20, api_keys=("admin",)) as server:
        assert fuzz(server, SCRIPTED.name, EXAMPLES_SCRIPTED) > 100
        server.wait_until(lambda stats: stats.num_requests == 0)


@pytest.mark.e2e
def test_a_real_server_stands() -> None:
    local = LocalModel("smollm2", model_path("smollm2-135m"))
    engine = EngineConfig(max_model_len=256)
    limits: Any = {"max_body_bytes": 1 << 20, "api_keys": ("admin",)}
    with live_server(local, engine=engine, command=WORKER_COMMAND, **limits) as server:
        assert fuzz(server, local.name, EXAMPLES_REAL, COMPUTED) > 20
        server.wait_until(lambda stats: stats.num_requests == 0 and stats.num_used_blocks == 0)
