"""What is built on Ollama's API: LangChain and llm (`pip install corral[clients]`), and the JavaScript client (npm)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import model_path
from tests.support.serve_process import create_model, serving

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

NAME = "smollm2"
QUESTION = "What is the capital of France? Answer in one word."

JAVASCRIPT = """
import { Ollama } from 'ollama'
const client = new Ollama({ host: process.env.OLLAMA_HOST })
const model = process.env.MODEL
const messages = [{ role: 'user', content: process.env.QUESTION }]
const options = { temperature: 0, num_predict: 12 }
const whole = await client.chat({ model, messages, options })
let streamed = ''
let last
for await (const part of await client.chat({ model, messages, options, stream: true })) {
  streamed += part.message.content
  last = part
}
let generated = ''
for await (const part of await client.generate({ model, prompt: 'Say hi.', options, stream: true })) {
  generated += part.response
}
const { models } = await client.list()
const running = await client.ps()
let error = ''
try { await client.show({ model: 'nope' }) } catch (caught) { error = caught.message }
const endless = { temperature: 1, num_predict: 1500 }
const aborted = await client.generate({ model, prompt: 'Once', raw: true, options: endless, stream: true })
let abortName = ''
try { for await (const part of aborted) { aborted.abort() } } catch (caught) { abortName = caught.name }
await client.copy({ source: model, destination: 'js-copy' })
await client.delete({ model: 'js-copy' })
console.log(JSON.stringify({
  whole: whole.message.content, streamed, generated, evalCount: last.eval_count, done: last.done_reason,
  names: models.map((m) => m.name), running: running.models.map((m) => m.name), error, abortName,
}))
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("home")
    create_model(NAME, f"FROM {model_path('smollm2-135m')}\nPARAMETER temperature 0\n", folder)
    with serving(folder=folder) as server:
        yield server.url()


def test_langchain(url: str) -> None:
    """In a process of its own: our filter of warnings is too strict for so many libraries."""
    script = """
import json, os
from langchain_ollama import ChatOllama, OllamaLLM
settings = dict(model=os.environ['MODEL'], base_url=os.environ['OLLAMA_HOST'], temperature=0, num_predict=12)
chat = ChatOllama(**settings, validate_model_on_init=True)
whole = chat.invoke(os.environ['QUESTION'])
streamed = ''.join(part.content for part in chat.stream(os.environ['QUESTION']))
print(json.dumps({
    'whole': whole.content, 'streamed': streamed, 'usage': whole.usage_metadata,
    'meta': whole.response_metadata, 'generated': OllamaLLM(**settings).invoke('Say hi.'),
}))
"""
    said = run_python(script, url)
    assert "Paris" in said["whole"]
    assert said["streamed"] == said["whole"]
    assert said["usage"]["output_tokens"] > 1
    assert said["usage"]["total_tokens"] == said["usage"]["input_tokens"] + said["usage"]["output_tokens"]
    assert said["meta"]["done_reason"] == "stop"
    assert said["meta"]["total_duration"] > 0
    assert said["generated"]


def test_llm(url: str, tmp_path: Path) -> None:
    script = """
import json, os, llm
models = [model.model_id for model in llm.get_models() if model.model_id.endswith(os.environ['MODEL'] + ':latest')]
model = llm.get_model(models[0])
whole = model.prompt(os.environ['QUESTION'], temperature=0, num_predict=12, stream=False).text()
streamed = ''.join(model.prompt(os.environ['QUESTION'], temperature=0, num_predict=12))
print(json.dumps({'models': models, 'whole': whole, 'streamed': streamed}))
"""
    said = run_python(script, url, LLM_USER_PATH=str(tmp_path))
    assert len(said["models"]) == 1
    assert "Paris" in said["whole"]
    assert said["streamed"] == said["whole"]


def test_javascript(url: str, tmp_path: Path) -> None:
    assert shutil.which("npm"), "this test needs node and npm; Debian has them as nodejs and npm"
    (tmp_path / "package.json").write_text('{"type": "module", "private": true}')
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--silent", "ollama"], cwd=tmp_path, check=True, timeout=240
    )
    (tmp_path / "client.mjs").write_text(JAVASCRIPT)
    said = run(["node", "client.mjs"], url, {}, tmp_path)
    assert "Paris" in said["whole"]
    assert said["streamed"] == said["whole"]
    assert said["generated"]
    assert said["evalCount"] > 1
    assert said["done"] == "stop"
    assert said["names"] == [f"{NAME}:latest"]
    assert said["running"] == [f"{NAME}:latest"]
    assert said["error"] == "model 'nope' not found"
    assert said["abortName"] == "AbortError"


def run_python(script: str, url: str, **environment: str) -> dict[str, Any]:
    return run([sys.executable, "-c", script], url, environment)


def run(command: list[str], url: str, environment: dict[str, str], cwd: Path | None = None) -> dict[str, Any]:
    """What the program prints last, as JSON."""
    env = {**os.environ, "OLLAMA_HOST": url, "MODEL": NAME, "QUESTION": QUESTION, **environment}
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said
