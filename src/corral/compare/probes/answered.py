"""What a client relies on in whole answers of OpenAI's protocol."""

from __future__ import annotations

import json
from typing import Any

from corral.compare.engines.replies import at, number, objects, text, whole
from corral.compare.probes.operating import error_text
from corral.compare.probes.probe import CannotTry, Finding, Probe, failed, judged, partly, passed
from corral.compare.probes.stream import read_stream, text_of
from corral.compare.probes.streamed import usage_faults
from corral.compare.probes.target import Target
from corral.compare.probes.wire import Reply, line_of

_CHAT = "/v1/chat/completions"
_NOBODY = "corral-probe-none"
_COUNT = "Count from one to nine in words."
_SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "green", "blue"]}, "is_big": {"type": "boolean"}},
    "required": ["colour", "is_big"],
    "additionalProperties": False,
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "paint",
        "description": "Paints the house.",
        "parameters": _SCHEMA,
    },
}
_STOP_LENGTH = 4  # characters
_LIMIT_S = 150.0


def answer_probes() -> list[Probe]:
    return [
        Probe(
            "chat: form",
            "id, object, created, model, one choice with a message, and a usage that adds up.",
            _form,
            _LIMIT_S,
        ),
        Probe(
            "max_tokens",
            "Kept, by its old name and as max_completion_tokens, and told as length.",
            _max_tokens,
            _LIMIT_S,
        ),
        Probe("n", "As many choices as asked for, or a clear refusal; never fewer without a word.", _n, _LIMIT_S),
        Probe("stop", "The answer ends before the stop text, which is not in it, and says stop.", _stop, 2 * _LIMIT_S),
        Probe(
            "logprobs",
            "For each token its text, bytes, log probability, and as many others as asked for.",
            _logprobs,
            _LIMIT_S,
        ),
        Probe(
            "JSON schema",
            "With response_format the content is JSON of that schema, whatever the model.",
            _schema,
            _LIMIT_S,
        ),
        Probe(
            "tool call",
            "With tool_choice a call of that function, whose arguments are JSON of its schema. A clear refusal, as "
            "of a model without a template for tools, counts as a part.",
            _tool,
            2 * _LIMIT_S,
        ),
        Probe(
            "tool call, streamed",
            "Name and id come once, the arguments in parts that add up to JSON.",
            _tool_stream,
            2 * _LIMIT_S,
        ),
        Probe(
            "error object", "error with message, type, param and code, which clients' libraries read.", _error, _LIMIT_S
        ),
        Probe("unknown model", "404 or 400: no answer of another model under this name.", _unknown_model, _LIMIT_S),
        Probe(
            "unknown field", "OpenAI refuses it; a server that leaves it out should say so.", _unknown_field, _LIMIT_S
        ),
        Probe(
            "/v1/models",
            "The list has the model with its id, object, created and owned_by; each has a page.",
            _models,
            _LIMIT_S,
        ),
    ]


async def _ask(target: Target, body: dict[str, Any]) -> Reply:
    reply = await target.answer(body)
    if not reply.status:
        raise CannotTry(f"a chat: {reply.told()}")
    return reply


def _choice(reply: Reply, place: int = 0) -> Any:
    return at(reply.json(), "choices", place)


def _content(reply: Reply) -> str:
    return text_of(at(_choice(reply), "message"))


async def _form(target: Target) -> Finding:
    reply = await _ask(target, target.chat())
    told = reply.json()
    if not reply.is_ok:
        return failed(f"a chat: {reply.told()}")
    faults = []
    if not text(at(told, "id")):
        faults.append("no id")
    if at(told, "object") != "chat.completion":
        faults.append(f"object is {at(told, 'object')}")
    if not whole(at(told, "created")):
        faults.append("no created")
    if not text(at(told, "model")):
        faults.append("no model")
    if len(objects(at(told, "choices"))) != 1 or at(told, "choices", 0, "index") != 0:
        faults.append("not one choice with index 0")
    if at(told, "choices", 0, "message", "role") != "assistant" or not _content(reply):
        faults.append("no message of the assistant with text")
    return judged([*faults, *usage_faults(at(told, "usage"))], f"a chat: {reply.told()}")


async def _max_tokens(target: Target) -> Finding:
    faults, told = [], []
    for name in ("max_tokens", "max_completion_tokens"):
        body = target.chat("Tell me a long story about the sea.")
        body.pop("max_tokens")
        reply = await _ask(target, {**body, name: 5})
        counted = whole(at(reply.json(), "usage", "completion_tokens"))
        reason = at(_choice(reply), "finish_reason")
        told.append(f"{name} 5: {reply.status}, {counted} tokens, {reason}")
        if not reply.is_ok:
            faults.append(f"{name} got {reply.told(80)}")
        elif counted is None or counted > 5:
            faults.append(f"{name} is not kept")
        elif counted == 5 and reason != "length":
            faults.append(f"{name} is reached, and finish_reason is {reason}")
    return judged(faults, "; ".join(told), is_partly=len(faults) == 1)


async def _n(target: Target) -> Finding:
    reply = await _ask(target, {**target.chat(max_tokens=4), "n": 2, "temperature": 1.0})
    if 400 <= reply.status < 500:
        return partly(f"n 2: {reply.told()}")
    places = sorted(str(choice.get("index")) for choice in objects(at(reply.json(), "choices")))
    told = f"n 2: {reply.status}, choices with index {', '.join(places) or 'none'}"
    return passed(told) if reply.is_ok and places == ["0", "1"] else failed(told)


async def _stop(target: Target) -> Finding:
    """The stop text is taken of the model's own greedy answer, so that it would come."""
    first = await _ask(target, target.chat(_COUNT, max_tokens=40))
    said = _content(first)
    pieces = (said[start : start + _STOP_LENGTH] for start in range(len(said) // 2, len(said) - 2 * _STOP_LENGTH))
    piece = next((p for p in pieces if not p[0].isspace() and said.find(p) > len(said) // 4), None)
    if not first.is_ok or piece is None:
        raise CannotTry(f"its answer has no text to stop at: {line_of(said) or first.told()}")
    reply = await _ask(target, {**target.chat(_COUNT, max_tokens=40), "stop": [piece]})
    stopped, reason = _content(reply), at(_choice(reply), "finish_reason")
    told = f"stop {piece!r}: {reply.status}, {len(stopped)} of {len(said)} characters, finish_reason {reason}"
    if not reply.is_ok:
        return failed(f"{told}; {reply.told(80)}")
    if piece in stopped:
        return failed(f"it is in the answer; {told}")
    if not said.startswith(stopped.rstrip()):
        return partly(f"the answer is another one than without stop, so it need not have come there; {told}")
    return passed(told) if reason == "stop" else partly(told)


async def _logprobs(target: Target) -> Finding:
    reply = await _ask(target, {**target.chat(max_tokens=4), "logprobs": True, "top_logprobs": 2})
    if not reply.is_ok:
        return failed(f"logprobs with top_logprobs 2: {reply.told()}")
    tokens = objects(at(_choice(reply), "logprobs", "content"))
    if not tokens:
        return failed(f"logprobs with top_logprobs 2: 200, and none in the choice: {_choice(reply)}")
    faults = []
    if not all(isinstance(token.get("token"), str) for token in tokens):
        faults.append("a token has no text")
    if not all((value := number(token.get("logprob"))) is not None and value <= 0 for token in tokens):
        faults.append("a log probability is missing or above 0")
    if not all(isinstance(token.get("bytes"), list) for token in tokens):
        faults.append("bytes are missing")
    if not all(len(objects(token.get("top_logprobs"))) == 2 for token in tokens):
        faults.append("not two alternatives each")
    return judged(faults, f"{len(tokens)} tokens; the first is {line_of(str(tokens[0]))}", is_partly=True)


async def _schema(target: Target) -> Finding:
    form = {"type": "json_schema", "json_schema": {"name": "house", "schema": _SCHEMA, "strict": True}}
    reply = await _ask(target, {**target.chat("Describe a house in JSON.", max_tokens=120), "response_format": form})
    told = f"json_schema: {reply.status}, {line_of(_content(reply)) or reply.told()}"
    return passed(told) if reply.is_ok and is_of_schema(_content(reply)) else failed(told)


def is_of_schema(content: str) -> bool:
    """Of the schema of these checks."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return False
    if not isinstance(value, dict) or value.keys() != {"colour", "is_big"}:
        return False
    return value["colour"] in ("red", "green", "blue") and isinstance(value["is_big"], bool)


def _tool_body(target: Target, choice: Any) -> dict[str, Any]:
    return {**target.chat("Paint the house red.", max_tokens=160), "tools": [_TOOL], "tool_choice": choice}


_CHOICES: tuple[Any, ...] = ({"type": "function", "function": {"name": "paint"}}, "required")


async def _tool(target: Target) -> Finding:
    told, good, refused = [], 0, 0
    for choice in _CHOICES:
        reply = await _ask(target, _tool_body(target, choice))
        call = at(_choice(reply), "message", "tool_calls", 0)
        said = f"{line_of(str(call))}, {at(_choice(reply), 'finish_reason')}" if call else reply.told()
        told.append(f"tool_choice {'required' if isinstance(choice, str) else 'by name'}: {said}")
        has_id = text(at(call, "id")) and at(call, "type") == "function"
        arguments = text(at(call, "function", "arguments")) or ""
        good += bool(reply.is_ok and has_id and at(call, "function", "name") == "paint" and is_of_schema(arguments))
        refused += _is_refused(reply)
    found = "; ".join(told)
    if good == len(_CHOICES):
        return passed(found)
    return partly(found) if good or refused == len(_CHOICES) else failed(found)


def _is_refused(reply: Reply) -> bool:
    """Clearly, with a word of tools: not every model has a template for them."""
    return 400 <= reply.status < 500 and "tool" in error_text(reply)


async def _tool_stream(target: Target) -> Finding:
    reply = Reply()
    for choice in _CHOICES:
        reply = await _ask(target, {**_tool_body(target, choice), "stream": True})
        stream = read_stream(reply.body)
        deltas = [call for one in stream.choices for call in objects(at(one, "delta", "tool_calls"))]
        if deltas:
            break
    else:
        told = f"no call was streamed: {reply.told()}"
        return partly(told) if _is_refused(reply) else failed(told)
    names = [name for call in deltas if (name := text(at(call, "function", "name")))]
    ids = {identity for call in deltas if (identity := text(call.get("id")))}
    arguments = "".join(text(at(call, "function", "arguments")) or "" for call in deltas)
    told = f"{len(deltas)} parts, name {', '.join(names)}, arguments {line_of(arguments)}, {stream.end()}"
    faults = []
    if names != ["paint"]:
        faults.append("the name does not come just once")
    if len(ids) != 1:
        faults.append(f"{len(ids)} ids")
    if not all(call.get("index") == 0 for call in deltas):
        faults.append("a part has no index")
    if not is_of_schema(arguments):
        faults.append("the arguments are not of the schema")
    return judged(faults, told)


async def _error(target: Target) -> Finding:
    reply = await _ask(target, {"model": target.model, "messages": 7})
    error = at(reply.json(), "error")
    told = f"messages 7: {reply.told(220)}"
    if reply.status < 400 or not text(at(error, "message")):
        return failed(told)
    missing = [name for name in ("type", "param", "code") if not isinstance(error, dict) or name not in error]
    faults = [f"without {', '.join(missing)}"] if missing else []
    code = at(error, "code")
    if code is not None and not isinstance(code, str):
        faults.append("its code is no text")
    return judged(faults, told, is_partly=True)


async def _unknown_model(target: Target) -> Finding:
    reply = await _ask(target, {**target.chat(max_tokens=1), "model": _NOBODY})
    told = f"model {_NOBODY}: {reply.told()}"
    if reply.is_ok or reply.status >= 500:
        return failed(told)
    return passed(told) if reply.status in (400, 404) and error_text(reply) else partly(told)


async def _unknown_field(target: Target) -> Finding:
    name = "corral_probe_field"
    reply = await _ask(target, {**target.chat(max_tokens=1), name: 1})
    headers = " ".join(f"{key}: {value}" for key, value in reply.headers.items())
    told = f"a field {name}: {reply.told(120)}"
    if not reply.is_ok:
        return passed(told) if 400 <= reply.status < 500 and name in error_text(reply) else failed(told)
    if name in headers or name.encode() in reply.body:
        header = next((f"{key}: {value}" for key, value in reply.headers.items() if name in value), "in its body")
        return passed(f"left out, and told ({header})")
    return partly(f"left out without a word; {told}")


async def _models(target: Target) -> Finding:
    reply = await target.ask("GET", "/v1/models")
    models = {text(model.get("id")): model for model in objects(at(reply.json(), "data"))}
    told = f"GET /v1/models: {reply.status}, {', '.join(str(name) for name in models) or reply.told()}"
    mine = models.get(target.model)
    if not reply.is_ok or mine is None:
        return failed(told)
    faults = [f"without {name}" for name in ("object", "created", "owned_by") if not mine.get(name)]
    if at(reply.json(), "object") != "list":
        faults.append("object is not list")
    page = await target.ask("GET", f"/v1/models/{target.model}")
    if not page.is_ok or text(at(page.json(), "id")) != target.model:
        faults.append(f"GET /v1/models/{target.model} got {page.told(60)}")
    return judged(faults, told, is_partly=True)
