from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.errors import InvalidRequest, UnsupportedModel
from corral.protocol.openai.chat import parse_chat
from corral.request import Request
from corral.server.model_defaults import apply, with_sampling_defaults
from corral.store.local_model import LocalModel

USER: dict[str, Any] = {"role": "user", "content": "hi"}
PARAMETERS = {"temperature": 0.25, "num_ctx": 512, "num_predict": 9, "stop": ["END"], "seed": -1, "repeat_last_n": 8}


def local(**fields: Any) -> LocalModel:
    return LocalModel("m:latest", Path("m.gguf"), **fields)


def test_a_bare_file_changes_nothing() -> None:
    request = Request("r", messages=[USER])
    assert apply(local(), request) == request


def test_system_and_messages_stand_before_the_conversation() -> None:
    shot = {"role": "assistant", "content": "x"}
    model = local(system="S", messages=(shot,))
    own = {"role": "system", "content": "mine"}
    assert apply(model, Request("r", messages=[USER])).messages == [{"role": "system", "content": "S"}, shot, USER]
    assert apply(model, Request("r", messages=[own, USER])).messages == [shot, own, USER]
    assert apply(model, Request("r", messages=[USER], context=(1,))).messages == [
        {"role": "system", "content": "S"},
        USER,
    ]


def test_template_adapter_and_context() -> None:
    model = local(template="T", adapters=(Path("a.gguf"),), parameters={"num_ctx": 512})
    request = apply(model, Request("r", messages=[USER]))
    assert (request.template, request.adapter, request.max_context) == ("T", "a.gguf", 512)
    request = apply(model, Request("r", messages=[USER], template="mine", max_context=64))
    assert (request.template, request.max_context) == ("mine", 64)
    assert apply(model, Request("r", prompt="raw")).template is None


def test_two_adapters_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="only one adapter"):
        apply(local(adapters=(Path("a"), Path("b"))), Request("r", prompt="a"))


def test_parameters_lie_under_openais_own_fields() -> None:
    body = {"model": "m", "messages": [USER], "temperature": 1.5, "stop": None}
    call = parse_chat(with_sampling_defaults(local(parameters=PARAMETERS), body))
    sampling = call.request.sampling
    assert (sampling.temperature, sampling.max_tokens, sampling.stop, sampling.seed) == (1.5, 9, ("END",), None)
    assert sampling.top_k == 0  # nobody set it: OpenAI's default, not Ollama's


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_clients_own_length_counts(name: str) -> None:
    body = {"model": "m", "messages": [USER], name: 3}
    assert parse_chat(with_sampling_defaults(local(parameters=PARAMETERS), body)).request.sampling.max_tokens == 3


def test_a_parameter_of_the_wrong_type_is_told() -> None:
    with pytest.raises(InvalidRequest, match='option "temperature" must be of type float32'):
        apply(local(parameters={"temperature": "hot"}), Request("r", prompt="a"))
