"""Routes of all engines, and what each of them does without its key. None of the requests has an effect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from corral.compare.probes.target import Target
from corral.compare.probes.wire import Reply

Kind = Literal["work", "control", "talks", "tells"]

NOBODY = "127.0.0.1:9/probe/none:none"  # a model at an address where nobody listens
NONE = "corral-probe-none"  # a model that nobody has
GUARDED = {401, 403, 407}


@dataclass(frozen=True, slots=True)
class Route:
    """One of them.

    Args:
        kind: "work" computes, "control" changes what runs or lies there, "talks" shows what others asked, "tells" shows
            figures, versions or names.
        body: None for none; harmless: what it names does not exist.
    """

    method: str
    path: str
    kind: Kind
    body: Any = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def routes_of(target: Target) -> list[Route]:
    """Those that are asked without a key; routes that would stop or change the engine by any call are not among them,
    but for their GET, which tells whether they are there."""
    model, text = target.model, "Hi"
    messages = [{"role": "user", "content": text}]
    short = {"max_tokens": 1, "temperature": 0}
    work: list[tuple[str, Any]] = [
        ("/v1/chat/completions", {"model": model, "messages": messages, **short}),
        ("/v1/completions", {"model": model, "prompt": text, **short}),
        ("/v1/responses", {"model": model, "input": text, "max_output_tokens": 16}),
        ("/v1/messages", {"model": model, "messages": messages, "max_tokens": 1}),
        ("/v1/embeddings", {"model": model, "input": text}),
        ("/v1/score", {"model": model, "text_1": text, "text_2": text}),
        ("/v1/rerank", {"model": model, "query": text, "documents": [text]}),
        ("/v1/audio/transcriptions", {"model": model}),
        ("/v2/rerank", {"model": model, "query": text, "documents": [text]}),
        ("/chat/completions", {"model": model, "messages": messages, **short}),
        ("/completions", {"model": model, "prompt": text, **short}),
        ("/completion", {"prompt": text, "n_predict": 1}),
        ("/infill", {"input_prefix": text, "input_suffix": text, "n_predict": 1}),
        ("/embedding", {"content": text}),
        ("/embeddings", {"model": model, "input": text}),
        ("/rerank", {"model": model, "query": text, "documents": [text]}),
        ("/score", {"model": model, "text_1": text, "text_2": text}),
        ("/classify", {"model": model, "input": text}),
        ("/pooling", {"model": model, "input": text}),
        ("/invocations", {"model": model, "messages": messages, **short}),
        ("/inference/v1/generate", {"model": model, "token_ids": [1], "sampling_params": {"max_tokens": 1}}),
        ("/generate", {"prompt": text, "max_tokens": 1}),
        ("/tokenize", {"model": model, "prompt": text, "content": text}),
        ("/detokenize", {"model": model, "tokens": [1]}),
        ("/apply-template", {"messages": messages}),
        ("/api/generate", {"model": model, "prompt": text, "stream": False, "options": {"num_predict": 1}}),
        ("/api/chat", {"model": model, "messages": messages, "stream": False, "options": {"num_predict": 1}}),
        ("/api/embed", {"model": model, "input": text}),
    ]
    control: list[tuple[str, str, Any]] = [
        ("GET", "/pause", None),
        ("GET", "/resume", None),
        ("GET", "/sleep", None),
        ("GET", "/wake_up", None),
        ("GET", "/update_weights", None),
        ("GET", "/reset_prefix_cache", None),
        ("GET", "/collective_rpc", None),
        ("GET", "/scale_elastic_ep", None),
        ("GET", "/start_profile", None),
        ("GET", "/admin", None),
        ("GET", "/admin/keys", None),
        ("GET", "/lora-adapters", None),
        ("POST", "/v1/load_lora_adapter", {"lora_name": NONE, "lora_path": f"/nonexistent/{NONE}"}),
        ("POST", "/v1/unload_lora_adapter", {"lora_name": NONE}),
        ("POST", "/models/unload", {"model": NONE}),
        *management_routes(),
    ]
    talks = ["/slots", "/v1/responses/resp_none", "/v1/files", "/v1/batches", "/admin/audit"]
    tells = [
        *("/v1/models", "/models", "/api/tags", "/api/ps", "/api/version", "/version", "/props", "/limits", "/load"),
        *("/metrics", "/server_info", "/usage", "/openapi.json", "/docs", "/debug/pprof/"),
    ]
    return [
        *(Route("POST", path, "work", body) for path, body in work),
        *(Route(method, path, "control", body) for method, path, body in control),
        *(Route("GET", path, "talks") for path in talks),
        *(Route("GET", path, "tells") for path in tells),
    ]


def management_routes() -> list[tuple[str, str, Any]]:
    """Of Ollama's kind; names are such that nothing comes of it: no such model, and nobody at its address."""
    return [
        ("DELETE", "/api/delete", {"model": NONE, "name": NONE}),
        ("POST", "/api/copy", {"source": NONE, "destination": f"{NONE}-2"}),
        ("POST", "/api/create", {"model": NONE, "from": NOBODY, "stream": False}),
        ("POST", "/api/pull", {"model": NOBODY, "insecure": True, "stream": False}),
        ("POST", "/api/push", {"model": NOBODY, "insecure": True, "stream": False}),
    ]


def family_nowhere(route: Route) -> str:
    """A path beside this one that no server has: routers answer it, handlers do not."""
    parts = route.path.split("/")
    return "/".join([*parts[:2], f"{NONE}-route"]) if len(parts) > 2 else f"/{NONE}-route"


def is_there(route: Route, reply: Reply, nowhere: Reply) -> bool:
    """Whether a handler answered, and not a router or a guard in front of it.

    Args:
        nowhere: the reply to `family_nowhere` by the same method.
    """
    if reply.status in (0, 501) or reply.status in GUARDED:
        return False
    if reply.status == 405:  # it is there for another method, which would have an effect
        return route.kind == "control" and route.method == "GET" and nowhere.status != 405
    if reply.status == nowhere.status:
        return reply.status != 405 and _without_path(reply, route.path) != _without_path(nowhere, family_nowhere(route))
    return True


def _without_path(reply: Reply, path: str) -> bytes:
    """A router may name the path in its text."""
    return reply.body.replace(path.encode(), b"")
