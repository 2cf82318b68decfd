"""What is built on OpenAI's API: instructor, LangChain, llm, and llm-comply (`pip install corral[clients]`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import model_path
from tests.support.serve_process import create_model, serving

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

NAME = "coder"
QUESTION = "What is the capital of France? Answer in one word."


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("home")
    create_model(NAME, f"FROM {model_path('qwen2.5-coder-0.5b')}\nPARAMETER temperature 0\n", folder)
    with serving(folder=folder) as server:
        yield server.url() + "/v1"


def test_instructor(url: str) -> None:
    script = """
import json, os
import instructor, openai, pydantic
class City(pydantic.BaseModel):
    name: str
    country: str
client = openai.OpenAI(base_url=os.environ['BASE_URL'], api_key='none')
found = {}
for mode in (instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS):
    city = instructor.from_openai(client, mode=mode).chat.completions.create(
        model=os.environ['MODEL'], response_model=City, max_tokens=80, max_retries=1,
        messages=[{'role': 'user', 'content': 'Paris is a city in France. Tell me of it.'}])
    found[mode.value] = city.model_dump()
print(json.dumps(found))
"""
    for city in run_python(script, url).values():
        assert "Paris" in city["name"]


def test_langchain(url: str) -> None:
    script = """
import json, os
from langchain_openai import ChatOpenAI, OpenAI
settings = dict(model=os.environ['MODEL'], base_url=os.environ['BASE_URL'], api_key='none', max_tokens=32)
chat = ChatOpenAI(**settings)
def get_weather(city: str) -> str:
    'The weather in a city.'
whole = chat.invoke(os.environ['QUESTION'])
called = chat.bind_tools([get_weather], tool_choice='required').invoke('What is the weather in Rome?')
print(json.dumps({
    'whole': whole.content, 'streamed': ''.join(part.content for part in chat.stream(os.environ['QUESTION'])),
    'usage': whole.usage_metadata, 'calls': called.tool_calls, 'text': OpenAI(**settings).invoke('2 + 2 ='),
}))
"""
    said = run_python(script, url)
    assert "Paris" in said["whole"] == said["streamed"]
    assert said["usage"]["output_tokens"] > 0
    assert said["calls"][0]["name"] == "get_weather"
    assert said["text"]


def test_llm(url: str, tmp_path: Path) -> None:
    entry = {"model_id": NAME, "model_name": NAME, "api_base": url, "api_key_name": "corral"}
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([entry]))  # JSON is YAML
    command = [sys.executable, "-m", "llm", "-m", NAME, "-o", "max_tokens", "16", QUESTION]
    env = {**os.environ, "LLM_USER_PATH": str(tmp_path), "LLM_CORRAL_KEY": "none"}
    done = subprocess.run(
        [*command, "--key", "none"], env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout


@pytest.mark.parametrize("form", ["openai-chat", "open-responses", "anthropic"])
def test_llm_comply_is_clean(url: str, form: str) -> None:
    command = [str(Path(sys.executable).with_name("llm-comply")), "run", "-u", url, "-k", "none", "-m", NAME]
    options = ["--format", form, "--json", "--timeout", "120"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=600, check=False)
    results = json.loads(done.stdout)["results"]
    assert sum(result["status"] == "passed" for result in results) > 3
    # An image is refused, as the model sees none.
    failed = {result["id"]: result["errors"] for result in results if result["status"] == "failed"}
    assert {name: errors for name, errors in failed.items() if "image" not in name} == {}


def run_python(script: str, url: str) -> dict[str, Any]:
    """What a script prints last, as JSON; in a process of its own: our filter of warnings is too strict for it."""
    env = {**os.environ, "BASE_URL": url, "MODEL": NAME, "QUESTION": QUESTION}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said
