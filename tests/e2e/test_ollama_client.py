"""The official `ollama` client against `corral serve` over a store of real models: what its users call."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import ollama
import pytest

from corral.store.manifest import MODEL, SYSTEM
from tests.support.fake_registry import fake_registry
from tests.support.gguf_writer import TinyModel, write_tiny_gguf
from tests.support.minilm import minilm_path
from tests.support.models import model_path
from tests.support.serve_process import ServeProcess, create_model, serving

pytestmark = pytest.mark.e2e

NAME, EMBEDDER = "smollm2", "all-minilm"
MAX_LOADED = 3
PARIS: list[Any] = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
COUNT: list[Any] = [{"role": "user", "content": "Count from 1 to 40."}]
# The first values of "why is the sky blue?" that Ollama's own tests expect of all-minilm.
SKY = (0.010071031, -0.0017594866, 0.050072223, 0.046929732, 0.05491682)
GREEDY: dict[str, Any] = {"temperature": 0, "num_predict": 12}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of two models, made as users make them."""
    folder = tmp_path_factory.mktemp("home")
    create_model(NAME, f"FROM {model_path('smollm2-135m')}\nPARAMETER temperature 0\n", folder)
    create_model(EMBEDDER, f"FROM {minilm_path()}\n", folder)
    return folder


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[ServeProcess]:
    """With three models more: one with a Modelfile of its own, two of a few random weights."""
    with serving("--max-loaded-models", str(MAX_LOADED), folder=store) as server:
        made = ollama.Client(server.url(), timeout=300)
        made.create("pirate", from_=NAME, system="You are a pirate.", parameters={"num_predict": 3})
        for seed, name in enumerate(("tiny", "tiny2")):
            digest = made.create_blob(write_tiny_gguf(store / f"{name}.gguf", TinyModel(seed=seed)))
            made.create(name, files={f"{name}.gguf": digest})
        made._client.close()
        yield server


@pytest.fixture
def client(server: ServeProcess) -> Iterator[ollama.Client]:
    made = ollama.Client(server.url(), timeout=300)
    yield made
    made._client.close()


def test_chat(client: ollama.Client) -> None:
    reply = client.chat(NAME, PARIS, options=GREEDY)
    assert "Paris" in (reply.message.content or "")
    assert (reply.message.role, reply.done, reply.done_reason) == ("assistant", True, "stop")
    for figure in (reply.total_duration, reply.load_duration, reply.prompt_eval_duration, reply.eval_duration):
        assert figure is not None
        assert figure > 0
    assert (reply.prompt_eval_count or 0) > 20
    assert (reply.eval_count or 0) > 1


def test_chat_stream_says_the_same(client: ollama.Client) -> None:
    whole = client.chat(NAME, PARIS, options=GREEDY)
    parts = list(client.chat(NAME, PARIS, options=GREEDY, stream=True))
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert (parts[-1].eval_count, parts[-1].prompt_eval_count) == (whole.eval_count, whole.prompt_eval_count)


def test_generate_and_its_context(client: ollama.Client) -> None:
    first = client.generate(NAME, "My name is Bartholomew. Say hello.", options=GREEDY)
    assert first.context is not None
    assert len(first.context) == (first.prompt_eval_count or 0) + (first.eval_count or 0)
    second = client.generate(NAME, "What is my name?", context=list(first.context), options=GREEDY)
    assert second.prompt_eval_count is not None
    assert second.prompt_eval_count > len(first.context)
    assert "Bartholomew" in (second.response or "")
    parts = list(client.generate(NAME, "Count: 1, 2, 3,", raw=True, stream=True, options=GREEDY))
    assert "4" in "".join(part.response or "" for part in parts)
    assert parts[-1].context is None


def test_num_predict_is_a_bound_and_no_demand(client: ollama.Client) -> None:
    assert client.chat(NAME, PARIS, options={"num_predict": 2}).done_reason == "length"
    reply = client.chat(NAME, PARIS, options={"num_predict": 1_000_000, "temperature": 0})
    assert reply.done_reason == "stop"


def test_logprobs(client: ollama.Client) -> None:
    body = {"model": NAME, "messages": PARIS, "options": GREEDY, "stream": False, "logprobs": True, "top_logprobs": 3}
    url = str(client._client.base_url)
    reply = httpx.post(f"{url}/api/chat", json=body, timeout=300).json()
    assert len(reply["logprobs"]) == reply["eval_count"]
    for entry in reply["logprobs"]:
        assert entry["logprob"] <= 0
        assert bytes(entry["bytes"]).decode("utf-8", "replace") == entry["token"]
        tops = [top["logprob"] for top in entry["top_logprobs"]]
        assert tops == sorted(tops, reverse=True)
        assert len(tops) == 3
        assert entry["logprob"] == pytest.approx(tops[0])  # greedy


def test_a_modelfiles_system_message_and_parameters(client: ollama.Client) -> None:
    plain = client.chat(NAME, PARIS, options=GREEDY)
    pirate = client.chat("pirate", PARIS)
    assert pirate.eval_count == 3
    assert pirate.prompt_eval_count != plain.prompt_eval_count
    assert client.chat("pirate", PARIS, options={"num_predict": 5, "temperature": 0}).eval_count == 5


def test_embed(client: ollama.Client) -> None:
    texts = ["why is the sky blue?", "Why does the sky look blue?", "My cat sleeps all day."]
    reply = client.embed(EMBEDDER, texts)
    sky, same, other = np.array(reply.embeddings)
    np.testing.assert_allclose(sky[: len(SKY)], SKY, rtol=0.02)
    np.testing.assert_allclose([np.linalg.norm(row) for row in (sky, same, other)], 1, rtol=1e-5)
    assert sky @ same > 0.8 > 0.3 > sky @ other
    assert (reply.prompt_eval_count or 0) > 15
    assert len(client.embed(EMBEDDER, texts[0], dimensions=64).embeddings[0]) == 64
    old = np.array(client.embeddings(EMBEDDER, texts[0]).embedding)
    assert old @ sky / np.linalg.norm(old) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ollama.ResponseError, match='"all-minilm" does not support chat'):
        client.chat(EMBEDDER, PARIS)
    with pytest.raises(ollama.ResponseError, match='"all-minilm" does not support generate'):
        client.generate(EMBEDDER, "a")


def test_list_show_and_ps(client: ollama.Client) -> None:
    client.generate(NAME, keep_alive="10m")
    assert {model.model for model in client.list().models} >= {f"{NAME}:latest", "pirate:latest", "tiny:latest"}
    shown = client.show(NAME)
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.details is not None
    assert (shown.details.parameter_size, shown.details.quantization_level) == ("134.52M", "Q4_1")
    assert shown.capabilities == ["completion"]
    assert "im_start" in (shown.template or "")
    [running] = [model for model in client.ps().models if model.model == f"{NAME}:latest"]
    assert running.details is not None
    assert running.details.family == "llama"
    assert (running.size or 0) > 50_000_000
    assert running.expires_at is not None
    assert (running.context_length or 0) >= 2048


def test_unload(client: ollama.Client) -> None:
    assert client.generate("tiny").done_reason == "load"
    assert "tiny:latest" in {model.model for model in client.ps().models}
    assert client.generate("tiny", keep_alive=0).done_reason == "unload"
    for model in client.ps().models:
        assert model.model != "tiny:latest" or getattr(model, "state", "stopping") == "stopping"
    assert client.generate("tiny", "a", raw=True, options={"num_predict": 1}).eval_count == 1


def test_the_least_recently_used_model_makes_room(client: ollama.Client, server: ServeProcess) -> None:
    names = [NAME, EMBEDDER, "tiny", "tiny2"]
    assert len(names) == MAX_LOADED + 1
    for name in names:
        ask_anything(client, name)
    assert loaded(client) == {f"{name}:latest" for name in names[1:]}
    assert server.count(f"evicted {NAME}:latest") >= 1
    assert client.chat(NAME, PARIS, options=GREEDY).done
    assert loaded(client) == {f"{name}:latest" for name in (NAME, *names[2:])}


def ask_anything(client: ollama.Client, name: str) -> None:
    if name == EMBEDDER:
        client.embed(name, "a")
    else:
        client.generate(name, "a", options={"num_predict": 1})


def loaded(client: ollama.Client) -> set[str | None]:
    return {model.model for model in client.ps().models if getattr(model, "state", "") != "stopping"}


def test_copy_and_delete(client: ollama.Client) -> None:
    assert client.copy("tiny", "me/copy:v2").status == "success"
    assert client.generate("me/copy:v2", "a", raw=True, options={"num_predict": 1}).done
    assert client.delete("me/copy:v2").status == "success"
    with pytest.raises(ollama.ResponseError, match="model 'me/copy:v2' not found") as caught:
        client.show("me/copy:v2")
    assert caught.value.status_code == 404


def test_blobs_and_create(client: ollama.Client, tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "other.gguf")
    digest = client.create_blob(path)
    assert digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    statuses = [
        part.status
        for part in client.create("made", files={"other.gguf": digest}, parameters={"num_predict": 2}, stream=True)
    ]
    assert statuses[-1] == "success"
    assert client.generate("made", "a", raw=True).eval_count == 2
    assert client.create("made2", from_=NAME, system="You are terse.").status == "success"
    assert "You are terse." in (client.show("made2").modelfile or "")


def test_pull(client: ollama.Client, tmp_path: Path) -> None:
    data = write_tiny_gguf(tmp_path / "far.gguf").read_bytes()
    with fake_registry() as registry:
        registry.add("library/far:latest", [(MODEL, data), (SYSTEM, b"From afar.")])
        name = registry.name("library/far:latest")
        parts = list(client.pull(name, insecure=True, stream=True))
        assert (parts[0].status, parts[-1].status) == ("pulling manifest", "success")
        assert any(part.total == part.completed == len(data) for part in parts)
        assert client.generate(name, "a", raw=True, options={"num_predict": 1}).done
        with pytest.raises(ollama.ResponseError):
            client.pull(registry.name("library/nope:latest"), insecure=True)


def test_errors(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as caught:
        client.chat("nope", PARIS)
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="does not support tools"):
        client.chat(NAME, PARIS, tools=[{"type": "function", "function": {"name": "f"}}])
    with pytest.raises(ollama.ResponseError, match="the prompt is longer than the context"):
        client._request(
            ollama.ChatResponse,
            *("POST", "/api/chat"),
            json={"model": NAME, "messages": [{"role": "user", "content": "word " * 200_000}], "truncate": False},
        )


def test_many_clients_over_two_models(client: ollama.Client) -> None:
    def ask(number: int) -> str:
        if number % 2:
            reply = client.generate("tiny", f"{number}", raw=True, options={"num_predict": 4, "seed": number})
            return reply.response or ""
        text = f"Write one sentence about the number {number}."
        return client.chat(NAME, [{"role": "user", "content": text}], options=GREEDY).message.content or ""

    alone = [ask(number) for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(16))) == alone


def test_a_stream_in_flight_is_finished_before_the_end(store: Path) -> None:
    request: dict[str, Any] = {"model": NAME, "messages": COUNT, "options": {"temperature": 0, "num_predict": 120}}
    with serving(folder=store) as server, httpx.Client(base_url=server.url(), timeout=300) as http:
        client = ollama.Client(server.url(), timeout=300)
        whole = client.chat(**request).message.content
        stream = client.chat(**request, stream=True)
        parts = [next(stream), next(stream)]
        server.process.terminate()
        refused = None
        for part in stream:
            parts.append(part)
            if refused is None and http.get("/health").json()["status"] == "draining":
                refused = http.post("/api/chat", json={"model": NAME, "messages": COUNT})
        assert "".join(part.message.content or "" for part in parts) == whole
        assert parts[-1].done_reason in ("stop", "length")
        assert refused is not None
        assert (refused.status_code, list(refused.json())) == (503, ["error"])
        assert server.wait() == 0
        assert server.count("Corral finishes 1 answer") == 1
        client._client.close()
