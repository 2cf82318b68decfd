"""A batch and a stored response survive their server: killed at once, and started again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.models import model_path
from tests.support.serve_process import ServeProcess

pytestmark = pytest.mark.e2e

NUM_LINES = 24
ENDPOINT: Any = "/v1/chat/completions"


def line(number: int) -> bytes:
    body = {"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": f"Count from {number}."}]}
    return json.dumps({"custom_id": str(number), "method": "POST", "url": ENDPOINT, "body": body}).encode() + b"\n"


def client_of(server: ServeProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url()}/v1", api_key="none", max_retries=5, timeout=60)


def test_a_killed_server_goes_on_where_it_stood(tmp_path: Path) -> None:
    model = str(model_path("smollm2-135m"))
    first = ServeProcess(model, "--served-model-name", "tiny", folder=tmp_path)
    try:
        client = client_of(first)
        story = client.responses.create(model="tiny", input="My name is Ada.", max_output_tokens=8)
        content = b"".join(line(number) for number in range(NUM_LINES))
        file = client.files.create(file=("in.jsonl", content), purpose="batch")
        batch: Any = client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
        [folder] = (path for path in tmp_path.rglob(batch.id) if path.is_dir())
        output = folder / "output.jsonl"
        while not output.exists() or output.read_bytes().count(b"\n") < 3:
            assert first.process.poll() is None
        client.files.delete(file.id)  # the batch has its own
    finally:
        first.close()  # kill -9
    num_before = output.read_bytes().count(b"\n")
    assert num_before < NUM_LINES
    with output.open("ab") as torn:
        torn.write(b'{"id": "batch_req_1", "custom_id": "1')
    second = ServeProcess(model, "--served-model-name", "tiny", folder=tmp_path)
    try:
        client = client_of(second)
        assert client.responses.retrieve(story.id).output_text == story.output_text
        going_on = client.responses.create(
            model="tiny", input="Who am I?", previous_response_id=story.id, max_output_tokens=8
        )
        assert going_on.previous_response_id == story.id
        while batch.status not in ("completed", "failed", "expired"):
            assert second.process.poll() is None
            batch = client.batches.retrieve(batch.id)
        assert batch.status == "completed"
        assert batch.request_counts.completed == NUM_LINES
        answers = [json.loads(text) for text in client.files.content(batch.output_file_id).text.splitlines()]
        assert sorted(int(answer["custom_id"]) for answer in answers) == list(range(NUM_LINES))
        assert all(answer["response"]["body"]["choices"][0]["message"]["content"] for answer in answers)
        assert second.stop() == 0
    finally:
        second.close()
