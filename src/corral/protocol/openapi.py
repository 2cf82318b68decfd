"""The OpenAPI document of the server, made at run time from the very models that read the bodies. Pure.

The routes it tells of are listed in openapi_routes.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

OPENAPI_VERSION = "3.1.0"
JSON = "application/json"
NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"

Schema = dict[str, Any]
Body = type[BaseModel] | Schema

TEXT: Schema = {"type": "string"}
TOKEN_IDS: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}}
INPUTS: Schema = {
    "oneOf": [TEXT, {"type": "array", "items": TEXT}, TOKEN_IDS, {"type": "array", "items": TOKEN_IDS}],
}
MESSAGES: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
            "content": {
                "oneOf": [
                    TEXT,
                    {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"type": {"const": "text"}, "text": TEXT},
                            "required": ["type", "text"],
                        },
                    },
                ]
            },
        },
        "required": ["role", "content"],
    },
}
_NULL: Schema = {"type": "null"}
_JSON_SCHEMA: Schema = {"type": ["object", "boolean"]}
_FUNCTION: Schema = {"type": "object", "properties": {"name": TEXT}, "required": ["name"]}
_NAMED_TOOL: Schema = {
    "type": "object",
    "properties": {"type": {"const": "function"}, "function": _FUNCTION},
    "required": ["type", "function"],
}
_TOOL_CHOICE: Schema = {"oneOf": [{"enum": ["none", "auto", "required"]}, _NAMED_TOOL, _NULL]}
_FLAT_CHOICE: Schema = {
    "oneOf": [
        {"enum": ["none", "auto", "required"]},
        {
            "type": "object",
            "properties": {"type": {"const": "function"}, "name": TEXT},
            "required": ["type", "name"],
        },
        _NULL,
    ]
}
_ANTHROPIC_CHOICE: Schema = {
    "type": ["object", "null"],
    "properties": {"type": {"enum": ["auto", "any", "tool", "none"]}, "name": TEXT},
    "required": ["type"],
}
_RESPONSE_FORMAT: Schema = {
    "oneOf": [
        {"type": "object", "properties": {"type": {"enum": ["text", "json_object"]}}, "required": ["type"]},
        {
            "type": "object",
            "properties": {
                "type": {"const": "json_schema"},
                "json_schema": {
                    "type": "object",
                    "properties": {"name": TEXT, "schema": _JSON_SCHEMA},
                    "required": ["name"],
                },
            },
            "required": ["type", "json_schema"],
        },
        _NULL,
    ]
}
TEXTS_OR_OBJECTS: Schema = {
    "oneOf": [TEXT, {"type": "object", "properties": {"text": TEXT}, "required": ["text"]}],
}
# What a body's model leaves to its reader's own checks, by the name of the field.
_SHAPES: dict[str, Schema] = {
    "messages": MESSAGES,
    "response_format": _RESPONSE_FORMAT,
    "stop": {"oneOf": [TEXT, {"type": "array", "items": TEXT}, {"type": "null"}]},
    "stop_token_ids": {"oneOf": [TOKEN_IDS, {"type": "null"}]},
    "tokens": TOKEN_IDS,
    "tool_choice": _TOOL_CHOICE,
}
# Anthropic's: text alone, as blocks of other types have fields of their own.
_TURN: Schema = MESSAGES["items"]
_TURNS: Schema = {
    **MESSAGES,
    "items": {**_TURN, "properties": {**_TURN["properties"], "role": {"enum": ["user", "assistant"]}}},
}
_SHAPES_OF: dict[str, dict[str, Schema]] = {
    "CountTokensFields": {"messages": _TURNS, "tool_choice": _ANTHROPIC_CHOICE},
    "MessagesFields": {"messages": _TURNS, "tool_choice": _ANTHROPIC_CHOICE},
    "CompletionFields": {"prompt": INPUTS},
    "EmbeddingFields": {"input": INPUTS},
    "ResponsesFields": {
        "input": {"oneOf": [TEXT, {"type": "array", "minItems": 1, "items": {"type": "object"}}]},
        "tool_choice": _FLAT_CHOICE,
    },
    "RerankFields": {"query": TEXTS_OR_OBJECTS, "documents": {"type": "array", "items": TEXTS_OR_OBJECTS}},
}

_ERROR: Schema = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": TEXT,
                "type": TEXT,
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
_ANTHROPIC_ERROR: Schema = {
    "type": "object",
    "properties": {
        "type": {"const": "error"},
        "error": {"type": "object", "properties": {"type": TEXT, "message": TEXT}, "required": ["type", "message"]},
        "request_id": TEXT,
    },
    "required": ["type", "error", "request_id"],
}
_NATIVE_ERROR: Schema = {"type": "object", "properties": {"error": TEXT}, "required": ["error"]}


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a path.

    Args:
        path: as the route has it; what stands in braces is a text.
        body: what reads it, or a schema written by hand; None for none.
        answers: its media types; the first is that of a call that asks for nothing special.
        answer: the schema of a JSON answer.
        is_public: it wants no key.
        takes_bytes: the body is a file, not JSON.
        form: the fields of a form, of which `file` is one; the body is that, not JSON.
    """

    method: str
    path: str
    summary: str
    body: Body | None = None
    answers: tuple[str, ...] = (JSON,)
    answer: Schema | None = None
    is_public: bool = False
    takes_bytes: bool = False
    form: Schema | None = None

    @property
    def public_path(self) -> str:
        """The path as OpenAPI writes it: without Starlette's converters."""
        return re.sub(r"\{(\w+)(?::\w+)?\}", r"{\1}", self.path)

    @property
    def error(self) -> str:
        """The name of its errors' schema."""
        if self.path.startswith("/v1/messages"):
            return "AnthropicError"
        return "NativeError" if self.path.startswith("/api/") else "Error"


def build_document(operations: Sequence[Operation], version: str) -> dict[str, Any]:
    """The document of the server's operations; `version` is Corral's."""
    schemas: dict[str, Schema] = {
        "Error": _ERROR,
        "NativeError": _NATIVE_ERROR,
        "AnthropicError": _ANTHROPIC_ERROR,
    }
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = _describe(operation, schemas)
        paths.setdefault(operation.public_path, {})[operation.method.lower()] = described
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "Corral",
            "version": version,
            "description": "Unknown fields are refused by name, or on Ollama's paths passed over as Ollama does.",
        },
        "security": [{"key": []}, {"x-api-key": []}, {}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Where the server was given keys."},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "Anthropic's way."},
            },
        },
    }


def _describe(operation: Operation, schemas: dict[str, Schema]) -> dict[str, Any]:
    error = {"$ref": f"#/components/schemas/{operation.error}"}
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": re.sub(r"\W+", "_", f"{operation.method.lower()}{operation.public_path}").strip("_"),
        "responses": {
            "200": {"description": "OK", "content": {kind: _content(kind, operation) for kind in operation.answers}},
            "503": {
                "description": "Not now: the queue or the memory is full, or the server stops. Retry-After says when.",
                "content": {JSON: {"schema": error}},
            },
            "504": {
                "description": "The time is over that X-Request-Timeout, or the server, gives the request.",
                "content": {JSON: {"schema": error}},
            },
            "default": {"description": "Refused.", "content": {JSON: {"schema": error}}},
        },
    }
    if operation.is_public:
        described["security"] = []
    if names := re.findall(r"\{(\w+)\}", operation.public_path):
        described["parameters"] = [{"name": n, "in": "path", "required": True, "schema": TEXT} for n in names]
    if operation.takes_bytes:
        described["requestBody"] = {"content": {"application/octet-stream": {}}}
    elif operation.form is not None:
        described["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": operation.form}}}
    elif operation.body is not None:
        schema = body_schema(operation.body, schemas)
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    return described


def _content(kind: str, operation: Operation) -> Schema:
    if kind != JSON:
        return {"schema": TEXT}
    return {"schema": operation.answer or {"type": ["object", "array"]}}


def body_schema(body: Body, schemas: dict[str, Schema]) -> Schema:
    """The schema of a body; those of models go to `schemas` and are referred to."""
    if isinstance(body, dict):
        return body
    name = body.__name__
    if name not in schemas:
        made = body.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(made.pop("$defs", {}))
        # Every reader knows more names than its model: of fields that change nothing, or that it refuses by name.
        made.pop("additionalProperties", None)
        properties: dict[str, Schema] = made["properties"]
        for shapes in (_SHAPES, _SHAPES_OF.get(name, {})):
            properties |= {field: shape for field, shape in shapes.items() if field in properties}
        schemas[name] = made
    return {"$ref": f"#/components/schemas/{name}"}


def native_body(*required: str, **fields: str | Schema) -> Schema:
    """A body of Ollama's API: a field's type, or its schema. Null stands for a field that is not there."""
    properties = {name: {"type": [kind, "null"]} if isinstance(kind, str) else kind for name, kind in fields.items()}
    return {"type": "object", "properties": properties, "required": list(required)}


def field_names(operation: Operation) -> list[str]:
    """The names of a JSON body's fields, as the document tells them."""
    if operation.body is None:
        return []
    schemas: dict[str, Schema] = {}
    schema = body_schema(operation.body, schemas)
    if isinstance(operation.body, type):
        schema = schemas[operation.body.__name__]
    properties: Mapping[str, Any] = schema.get("properties", {})
    return list(properties)
