"""Every limit on what clients may ask for, with its value on this server: `GET /limits`, and docs/reference/limits.md.

The figures are those that the code uses: constants of `corral/limits.py`, and the settings that the server runs with.
"""

from __future__ import annotations

from dataclasses import dataclass

from corral import limits
from corral.config import EngineConfig, ServerConfig
from corral.server.connections import HttpLimits
from corral.server.response_store import Limits as StoredResponses

CLOSED = "the connection is closed"
WAITS = "waits"
_SECONDS = "seconds"


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit.

    Args:
        value: None is whatever the model and the memory allow.
        what: is limited.
        status, code: of the refusal; where there is none, `status` is 0 and `beyond` says what happens instead.
        flag: of `corral serve` that sets it.
    """

    name: str
    value: float | None
    unit: str
    what: str
    status: int = 400
    code: str = "limit_exceeded"
    beyond: str = ""
    flag: str = ""

    def payload(self) -> dict[str, object]:
        """As `GET /limits` tells it."""
        refusal = {"status": self.status, "code": self.code} if self.status else None
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "description": self.what,
            "refusal": refusal,
            "beyond": self.beyond or None,
            "flag": self.flag or None,
        }


def limits_table(engine: EngineConfig, server: ServerConfig) -> dict[str, tuple[Limit, ...]]:
    """The limits of a server with these settings, by subject."""
    return {
        "Connections": _connections(server),
        "Bodies": _bodies(server),
        "Calls": _CALLS,
        "Sampling": _sampling(engine),
        "Grammars": _GRAMMARS,
        "Templates": _TEMPLATES,
        "Queues": _queues(engine, server),
        "Storage": _storage(),
    }


def _instead(name: str, value: float | None, unit: str, what: str, beyond: str, flag: str = "") -> Limit:
    return Limit(name, value, unit, what, status=0, code="", beyond=beyond, flag=flag)


def _connections(server: ServerConfig) -> tuple[Limit, ...]:
    http = HttpLimits.of(server)
    crowded = "too_many_connections"
    return (
        Limit("connections", http.max_connections, "connections", "open at once; fewer where the system lets us open "
              "fewer files", 503, crowded, flag="--max-connections"),
        Limit("connections_per_address", http.max_connections_per_address, "connections", "open at once of one address",
              429, crowded, flag="--max-connections-per-address"),
        Limit("head_bytes", limits.MAX_HEAD_BYTES, "bytes", "a request's line and headers", 431, "headers_too_large"),
        _instead("head_time", server.head_timeout_s, _SECONDS, "until a request's head is here", CLOSED,
                 "--head-timeout"),
        _instead("idle_time", limits.KEEP_ALIVE_TIMEOUT_S, _SECONDS, "between two requests of a connection", CLOSED),
        _instead("pipelined", limits.MAX_PIPELINED, "requests", "that wait on a connection for the answer before "
                 "theirs", CLOSED),
        _instead("write_time", server.write_timeout_s, _SECONDS, "in which a client takes nothing of its answer",
                 CLOSED, "--write-timeout"),
        _instead("linger_time", limits.LINGER_S, _SECONDS, "after an answer, for a body that nobody reads any more",
                 CLOSED),
    )  # fmt: skip


def _bodies(server: ServerConfig) -> tuple[Limit, ...]:
    late, wrong = "request_timeout", "invalid_json"
    return (
        Limit("body_bytes", server.max_body_bytes, "bytes", "a body", 413, "body_too_large", flag="--max-body-size"),
        Limit("body_time", server.body_timeout_s, _SECONDS, "until a body is here, besides what its bytes take at the "
              "least rate", 408, late, flag="--body-timeout"),
        Limit("body_rate", server.min_body_rate, "bytes a second", "the least rate of a body", 408, late,
              flag="--min-body-rate"),
        Limit("file_bytes", limits.MAX_FILE_BYTES, "bytes", "an uploaded file", 413, "body_too_large"),
        Limit("json_depth", limits.MAX_DEPTH, "levels", "objects and lists inside one another", 400, wrong),
        Limit("json_containers", limits.MAX_CONTAINERS, "objects and lists", "in one body", 400, wrong),
        Limit("json_values", limits.MAX_VALUES, "values", "in one body", 400, wrong),
    )  # fmt: skip


_CALLS = (
    Limit("messages", limits.MAX_MESSAGES, "messages", "of a chat, or items of a response's input"),
    Limit("content_parts", limits.MAX_PARTS, "parts", "of one message's content"),
    Limit("tool_calls", limits.MAX_TOOL_CALLS, "calls", "in one message"),
    Limit("images", limits.MAX_IMAGES, "images", "no model here sees", 400, "unsupported_content_type"),
    Limit("openai_tools", limits.MAX_OPENAI_TOOLS, "tools", "of /v1/chat/completions, OpenAI's own limit"),
    Limit("tools", limits.MAX_TOOLS, "tools", "of the other routes"),
    Limit("prompts", limits.MAX_PROMPTS, "prompts", "of one completion"),
    Limit("answers", limits.MAX_CHOICES, "answers", "prompts times n of one completion"),
    Limit("embedding_inputs", limits.MAX_INPUTS, "texts", "of one embedding request"),
    Limit("scored_texts", limits.MAX_TEXTS, "texts", "of one request to score or rank"),
    Limit("documents", limits.MAX_DOCUMENTS, "documents", "for the chat template"),
    Limit("chat_template_kwargs", limits.MAX_TEMPLATE_KWARGS, "entries", "for the chat template"),
    Limit("metadata", limits.MAX_METADATA, "entries", "of a response"),
)


def _sampling(engine: EngineConfig) -> tuple[Limit, ...]:
    refused = "invalid_value"
    return (
        Limit("context", engine.max_model_len, "tokens", "prompt and answer together; by default the model's own limit",
              400, "context_length_exceeded", flag="--max-model-len"),
        Limit("n", limits.MAX_N, "answers", "to one prompt", 400, refused),
        Limit("logprobs", limits.MAX_LOGPROBS, "tokens", "the likeliest, told for each token", 400, refused),
        Limit("stop", limits.MAX_STOP_STRINGS, "strings", "that end the answer"),
        Limit("stop_length", limits.MAX_STOP_LENGTH, "characters", "of each"),
        Limit("stop_token_ids", limits.MAX_STOP_TOKEN_IDS, "tokens", "that end the answer"),
        Limit("logit_bias", limits.MAX_LOGIT_BIAS, "tokens", "with a bias"),
        Limit("bad_words", limits.MAX_BAD_WORDS, "texts", "that the answer does not contain"),
        Limit("bad_word_length", limits.MAX_BAD_WORD_LENGTH, "characters", "of each"),
        Limit("allowed_token_ids", limits.MAX_ALLOWED_TOKEN_IDS, "tokens", "of which the answer is made"),
        Limit("cache_salt", limits.MAX_SALT_LENGTH, "characters", "of cache_salt"),
        Limit("request_id", limits.MAX_REQUEST_ID_LENGTH, "characters", "of request_id"),
    )  # fmt: skip


_GRAMMARS = (
    Limit("grammar_choices", limits.MAX_GRAMMAR_CHOICES, "texts", "one of which the answer is"),
    Limit("grammar_length", limits.MAX_SOURCE_LENGTH, "characters", "of a schema, a pattern or a grammar"),
    Limit("schema_depth", limits.MAX_SCHEMA_DEPTH, "levels", "of a JSON Schema"),
    Limit("schema_values", limits.MAX_SCHEMA_VALUES, "values", "in a JSON Schema"),
    Limit("compile_time", limits.MAX_COMPILE_S, _SECONDS, "to compile a grammar"),
    _instead("compiling", limits.MAX_COMPILING, "grammars", "compiled at once, of a model", WAITS),
    _instead("grammar_cache", limits.GRAMMAR_CACHE_BYTES, "bytes", "of compiled grammars, of a model",
             "the longest unused are forgotten"),
)  # fmt: skip

_TEMPLATES = (
    _instead("template_length", limits.MAX_TEMPLATE_CHARS, "characters", "of a chat template's source",
             "the model, or the request that brings it, is refused"),
    Limit("template_time", limits.MAX_TEMPLATE_CPU_S, _SECONDS, "of CPU for one rendering"),
    Limit("rendered_length", limits.MAX_RENDERED_CHARS, "characters", "of a text that a template makes"),
    Limit("rendered_total", limits.MAX_RENDERED_TOTAL_CHARS, "characters", "of all texts that it makes on the way"),
    Limit("rendered_items", limits.MAX_RENDERED_ITEMS, "values", "of a list that it makes"),
)  # fmt: skip


def _queues(engine: EngineConfig, server: ServerConfig) -> tuple[Limit, ...]:
    full = "queue_full"
    return (
        _instead("running", engine.max_num_seqs, "sequences", "computed at once, of a model", WAITS, "--max-num-seqs"),
        Limit("waiting", engine.max_queue, "sequences", "that wait for their turn, of a model", 503, full,
              flag="--max-queue"),
        Limit("loading", server.max_pending, "requests", "that wait for a model to be loaded", 503, full,
              flag="--max-queue"),
        Limit("looking", limits.MAX_LOOKUPS, "requests", "that only look at a prompt or at tokens, of a model", 503,
              full),
        Limit("store_jobs", limits.MAX_STORE_JOBS, "jobs", "of pull, push, create and upload at once", 503, full),
    )  # fmt: skip


def _storage() -> tuple[Limit, ...]:
    stored, oldest = StoredResponses(), "the oldest are forgotten"
    return (
        Limit("stored_file_bytes", limits.MAX_STORED_FILE_BYTES, "bytes", "of all files of a key"),
        _instead("batch_lines", limits.MAX_BATCH_LINES, "lines", "of a batch", "the batch fails: too_many_tasks"),
        _instead("batch_line_bytes", limits.MAX_BATCH_LINE_BYTES, "bytes", "of each", "the batch fails: line_too_long"),
        _instead("stored_responses", stored.max_responses, "responses", "of all keys", oldest),
        _instead("stored_response_bytes", stored.max_bytes, "bytes", "of all of them", oldest),
    )
