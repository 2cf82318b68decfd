"""Every route of the server, as its OpenAPI document tells it: whoever adds a route adds its line here. Pure.

tests/server/test_openapi.py fails, and names the route, where one is missing.
"""

from __future__ import annotations

from corral.protocol.admin import KeyFields, RotateFields
from corral.protocol.anthropic.messages import CountTokensFields, MessagesFields
from corral.protocol.openai.batches import PURPOSES, BatchFields
from corral.protocol.openai.chat import ChatFields
from corral.protocol.openai.completions import CompletionFields
from corral.protocol.openai.embeddings import EmbeddingFields
from corral.protocol.openapi import EVENTS, JSON, NDJSON, TEXT, TOKEN_IDS, Operation, Schema, native_body
from corral.protocol.responses.call import ResponsesFields
from corral.protocol.scores import RerankFields, ScoreFields
from corral.protocol.tokenizing import DetokenizeFields, TokenizeFields

_STREAMED = (JSON, EVENTS)
_LINES = (NDJSON, JSON)
_USAGE: Schema = {
    "type": "object",
    "properties": {"prompt_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"}},
}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


_NUMBER: Schema = {"type": "number"}
_INTEGER: Schema = {"type": "integer"}
_EMBEDDING = _object(object=TEXT, index=_INTEGER, embedding={"oneOf": [_list_of(_NUMBER), TEXT]})
_EMBEDDINGS = _object(object=TEXT, data=_list_of(_EMBEDDING), model=TEXT, usage=_USAGE)
_SCORE = _object(index=_INTEGER, object=TEXT, score=_NUMBER)
_SCORES = _object(id=TEXT, object=TEXT, created=_INTEGER, model=TEXT, data=_list_of(_SCORE), usage=_USAGE)
_RANKING = _object(
    id=TEXT, model=TEXT, results=_list_of(_object(index=_INTEGER, relevance_score=_NUMBER)), usage=_USAGE
)
_TOKENS = _object(
    count=_INTEGER,
    max_model_len=_INTEGER,
    tokens=TOKEN_IDS,
    token_strs={"oneOf": [_list_of(TEXT), {"type": "null"}]},
)
_RENDERED = _object(request_id=TEXT, model=TEXT, token_ids=TOKEN_IDS, prompt=TEXT, sampling_params={"type": "object"})

_LIMIT = _object(subject=TEXT, name=TEXT, value={"type": ["number", "null"]}, unit=TEXT, description=TEXT)
_UPLOAD = _object(file={"type": "string", "format": "binary"}, purpose={"type": "string", "enum": list(PURPOSES)})
_INPUT_TOKENS = _object(input_tokens=_INTEGER)

_FORMAT: Schema = {"description": '"json", or a JSON Schema'}
_KEEP_ALIVE: Schema = {"type": ["string", "number", "null"], "description": "seconds, or a text like 5m; -1: for ever"}
_THINK: Schema = {"type": ["boolean", "string", "null"]}
_ASKED: dict[str, str | Schema] = {
    "model": "string",
    "stream": "boolean",
    "options": "object",
    "keep_alive": _KEEP_ALIVE,
    "format": _FORMAT,
    "think": _THINK,
    "truncate": "boolean",
    "logprobs": "boolean",
    "top_logprobs": "integer",
}
_GENERATE = native_body(
    "model",
    **_ASKED,
    prompt="string",
    suffix="string",
    system="string",
    template="string",
    raw="boolean",
    context={"oneOf": [TOKEN_IDS, {"type": "null"}]},
    images="array",
)
_CHAT = native_body(
    "model",
    **_ASKED,
    messages=_list_of(
        native_body(
            "role", role=TEXT, content="string", thinking="string", images="array", tool_calls="array",
            tool_name="string", tool_call_id="string",
        )
    ),
    tools="array",
)  # fmt: skip
_EMBED = native_body(
    "model",
    model="string",
    input={"oneOf": [TEXT, _list_of(TEXT), {"type": "null"}]},
    truncate="boolean",
    dimensions="integer",
    keep_alive=_KEEP_ALIVE,
    options="object",
)
_EMBED_ONE = native_body("model", model="string", prompt="string", keep_alive=_KEEP_ALIVE, options="object")
_NAMED = {"model": "string", "name": "string"}  # `name` is the old one
_TRANSFER = native_body(**_NAMED, insecure="boolean", stream="boolean")
_SHOW = native_body(**_NAMED, verbose="boolean", system="string")
_TEXTS: Schema = {"type": ["object", "null"], "additionalProperties": TEXT}
_CREATE = native_body(
    **_NAMED,
    **{"from": "string"},
    files=_TEXTS,
    adapters=_TEXTS,
    template="string",
    system="string",
    parameters="object",
    messages={"type": ["array", "null"], "items": native_body("role", role=TEXT, content="string")},
    license={"oneOf": [TEXT, _list_of(TEXT), {"type": "null"}]},
    quantize="string",
    renderer="string",
    parser="string",
    requires="string",
    stream="boolean",
)
_STATUS = _object(status=TEXT)
_HEALTH = "Whether requests should be sent here: 503 while the first models load, and from SIGTERM on."
_READY = "The same, and 503 while an engine is stuck or a model that is to be there is lost."

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/", "Says that a server is here.", answers=("text/plain",), is_public=True),
    Operation("GET", "/health", _HEALTH, answer=_STATUS, is_public=True),
    Operation("GET", "/healthz", _HEALTH, answer=_STATUS, is_public=True),
    Operation("GET", "/ping", _HEALTH, answer=_STATUS, is_public=True),
    Operation("POST", "/ping", _HEALTH, answer=_STATUS, is_public=True),
    Operation("GET", "/ready", _READY, answer=_STATUS, is_public=True),
    Operation("GET", "/readyz", _READY, answer=_STATUS, is_public=True),
    Operation("GET", "/livez", "Whether the process lives.", answer=_STATUS, is_public=True),
    Operation("GET", "/version", "Corral's version.", answer=_object(version=TEXT)),
    Operation("GET", "/openapi.json", "This document."),
    Operation("GET", "/limits", "How much of everything is taken.", answer=_object(object=TEXT, data=_list_of(_LIMIT))),
    # OpenAI's
    Operation("GET", "/v1/models", "The models that are served."),
    Operation("GET", "/v1/models/{name:path}", "One of them."),
    Operation("POST", "/v1/chat/completions", "Answers a chat.", ChatFields, _STREAMED),
    Operation("POST", "/v1/completions", "Goes on with a text.", CompletionFields, _STREAMED),
    Operation("POST", "/v1/embeddings", "A vector for each input.", EmbeddingFields, answer=_EMBEDDINGS),
    Operation("POST", "/v1/responses", "Answers items, and keeps the answer.", ResponsesFields, _STREAMED),
    Operation("POST", "/v1/responses/compact", "There is no compaction: 404."),
    Operation("GET", "/v1/responses/{response_id}", "A stored response."),
    Operation("DELETE", "/v1/responses/{response_id}", "Forgets one."),
    Operation("POST", "/v1/responses/{response_id}/cancel", "Only responses in the background could be: refused."),
    Operation("GET", "/v1/responses/{response_id}/input_items", "What a response answered."),
    Operation("POST", "/v1/files", "Takes a file.", form=_UPLOAD),
    Operation("GET", "/v1/files", "The files."),
    Operation("GET", "/v1/files/{id}", "A file."),
    Operation("DELETE", "/v1/files/{id}", "Deletes one."),
    Operation("GET", "/v1/files/{id}/content", "What it holds."),
    Operation("POST", "/v1/batches", "Runs the requests of a file.", BatchFields),
    Operation("GET", "/v1/batches", "The batches."),
    Operation("GET", "/v1/batches/{id}", "How far one has come."),
    Operation("POST", "/v1/batches/{id}/cancel", "Runs no more of its requests."),
    # Anthropic's; to clients that send anthropic-version, /v1/models answers in Anthropic's form
    Operation("POST", "/v1/messages", "Answers a chat.", MessagesFields, _STREAMED),
    Operation("POST", "/v1/messages/count_tokens", "The length of a prompt.", CountTokensFields, answer=_INPUT_TOKENS),
    # vLLM's
    *(
        Operation("POST", path, "How near two texts are: the cosine of their vectors.", ScoreFields, answer=_SCORES)
        for path in ("/v1/score", "/score")
    ),
    *(
        Operation("POST", path, "Documents, the nearest to the query first.", RerankFields, answer=_RANKING)
        for path in ("/v1/rerank", "/v2/rerank", "/rerank")
    ),
    Operation("POST", "/tokenize", "The tokens of a text or a chat.", TokenizeFields, answer=_TOKENS),
    Operation("POST", "/detokenize", "The text of tokens.", DetokenizeFields, answer=_object(prompt=TEXT)),
    Operation("POST", "/v1/chat/completions/render", "What a chat comes to.", ChatFields, answer=_RENDERED),
    Operation(
        "POST",
        "/v1/completions/render",
        "The prompts that the model is given.",
        CompletionFields,
        answer=_list_of(_RENDERED),
    ),
    # Keys, and what was done with them and with the models
    Operation("GET", "/admin/keys", "The API keys, without their secrets."),
    Operation("POST", "/admin/keys", "Makes a key; its secret is in this answer alone.", KeyFields),
    Operation("DELETE", "/admin/keys/{id}", "Revokes one for good."),
    Operation("POST", "/admin/keys/{id}/rotate", "Gives one a new secret.", RotateFields),
    Operation("GET", "/admin/audit", "What was managed, the newest first."),
    Operation("GET", "/admin/usage", "What the API keys have used, by key, model or day; as JSON or CSV."),
    Operation("GET", "/usage", "The same of the key that asks."),
    Operation("GET", "/metrics", "Figures for Prometheus.", answers=("text/plain",)),
    Operation("GET", "/load", "How many requests use a model, or wait for one.", answer=_object(server_load=_INTEGER)),
    # Ollama's
    Operation("GET", "/api/version", "The version of Ollama whose API this is.", answer=_object(version=TEXT)),
    Operation("GET", "/api/tags", "The models that are here."),
    Operation("GET", "/api/ps", "Those that are in memory."),
    Operation("POST", "/api/generate", "Answers a prompt.", _GENERATE, _LINES),
    Operation("POST", "/api/chat", "Answers a chat.", _CHAT, _LINES),
    Operation("POST", "/api/embed", "A vector for each input.", _EMBED),
    Operation("POST", "/api/embeddings", "The vector of a prompt.", _EMBED_ONE),
    Operation(
        "POST", "/api/show", "All that is known of a model.", native_body(**_NAMED, verbose="boolean", system="string")
    ),
    Operation("POST", "/api/pull", "Fetches a model.", _TRANSFER, _LINES),
    Operation("POST", "/api/push", "Sends one to a registry.", _TRANSFER, _LINES),
    Operation("POST", "/api/create", "Makes one from another, or from files.", _CREATE, _LINES),
    Operation("POST", "/api/copy", "Gives one a second name.", native_body(source="string", destination="string")),
    Operation("DELETE", "/api/delete", "Deletes one.", native_body(**_NAMED)),
    Operation("HEAD", "/api/blobs/{digest}", "Whether a file is here."),
    Operation("POST", "/api/blobs/{digest}", "Takes a file for create.", takes_bytes=True),
)
