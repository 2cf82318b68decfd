"""The OpenAPI document and the routes are the same set, and the document is one."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.routing import Route

from corral.config import ServerConfig
from corral.protocol.openapi import build_document, field_names
from corral.protocol.openapi_routes import OPERATIONS
from corral.server.app import build_app
from corral.server.auth import PUBLIC_PATHS
from corral.server.model_manager import ModelManager
from corral.server.model_names import NamedModels
from tests.support.live_server import LiveServer

jsonschema: Any = pytest.importorskip("jsonschema")


def routes() -> set[tuple[str, str]]:
    """(method, path); the HEAD that Starlette gives to every GET goes without saying."""
    found = set()
    for route in build_app(ModelManager(NamedModels([])), ServerConfig()).routes:
        assert isinstance(route, Route)
        methods = route.methods or set()
        found |= {(method, route.path) for method in methods if method != "HEAD" or "GET" not in methods}
    return found


@pytest.fixture(scope="module")
def document(server: LiveServer) -> Any:
    response = httpx.get(f"{server.url}/openapi.json")
    assert response.headers["content-type"] == "application/json"
    return response.json()


def test_every_route_is_described_and_nothing_else() -> None:
    described = {(operation.method, operation.path) for operation in OPERATIONS}
    missing, gone = sorted(routes() - described), sorted(described - routes())
    assert not missing, f"add an Operation to OPERATIONS in corral/protocol/openapi_routes.py for {missing}"
    assert not gone, f"OPERATIONS in corral/protocol/openapi_routes.py has routes that the server has not: {gone}"
    assert len(described) == len(OPERATIONS)


def test_public_routes_are_those_that_want_no_key() -> None:
    assert {operation.path for operation in OPERATIONS if operation.is_public} == PUBLIC_PATHS


def test_it_says_what_the_code_says(document: Any) -> None:
    paths = document["paths"]
    assert sum(map(len, paths.values())) == len(OPERATIONS)
    assert "/v1/models/{name}" in paths
    ids = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert len(set(ids)) == len(ids)
    schemas = document["components"]["schemas"]
    assert {"model", "input", "dimensions"} <= set(schemas["EmbeddingFields"]["properties"])
    assert schemas["EmbeddingFields"]["required"] == ["model", "input"]
    assert paths["/health"]["get"]["security"] == []
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert {"x-api-key": []} in document["security"]
    assert document["components"]["securitySchemes"]["x-api-key"]["in"] == "header"


def test_every_schema_is_one_and_every_reference_leads_somewhere(document: Any) -> None:
    names = set(document["components"]["schemas"])
    for name, schema in document["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert references(schema) <= names, name
    assert references(document["paths"]) <= names


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"].rpartition("/")[2]} if "$ref" in node else set()
        return own.union(*map(references, node.values()))
    return set().union(*map(references, node)) if isinstance(node, list) else set()


def test_the_fields_of_a_body() -> None:
    by_path = {operation.path: operation for operation in OPERATIONS}
    assert field_names(by_path["/detokenize"]) == ["model", "tokens"]
    assert "messages" in field_names(by_path["/api/chat"])
    assert field_names(by_path["/health"]) == []


def test_building_it_twice_gives_the_same() -> None:
    assert build_document(OPERATIONS, "1") == build_document(OPERATIONS, "1")
