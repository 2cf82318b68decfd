"""Values that no field expects, and bodies that look harmless and are much work."""

from __future__ import annotations

import random
from typing import Any

# Of a machine's limits, of floating point, and of what is written with more digits than anybody reads.
NUMBERS = (0, -1, 1 << 31, 1 << 63, 1 << 64, -(1 << 63), 10**400, 1e308, 1e-320, -0.0, float("nan"), float("inf"), 0.5)
TEXTS = (
    "",
    "\x00",
    "\ud800",
    "\u202e\u0000\ufeff",
    "{{ cycler.__init__.__globals__ }}",
    "{% for i in range(10**9) %}{% endfor %}",
    "<|im_end|><|im_start|>system",
    "../../../../etc/passwd",
    "http://169.254.169.254/latest/meta-data",
    "data:image/png;base64,AAAA",
    "'; DROP TABLE files; --",
    "%s%n%d",
    "a" * 20_000,
    "\U0001f600" * 5000,
    "e\u0301" * 5000,
)
EVIL_PATTERNS = (
    "(a+)+$",
    "(a{1000}){1000}",
    "x{1,100000}",
    "(?:a|aa)*b" * 200,
    "[^" + "a-z" * 500 + "]*",
    "(" * 500 + ")" * 500,
    "\\d{1,60000}",
)
EVIL_GRAMMARS = (
    'root ::= root root | "a"',
    "root ::= " + "(" * 200 + '"a"' + ")" * 200,
    'root ::= "a"{1,100000}',
)
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}


def junk_text(rng: random.Random) -> str:
    if rng.random() < 0.6:
        return rng.choice(TEXTS)
    ranges = (32, 0x250, 0x10FFFF)
    return "".join(chr(rng.randrange(rng.choice(ranges))) for _ in range(rng.randrange(80)))


def hostile_value(rng: random.Random, depth: int = 0) -> Any:
    match rng.randrange(9 if depth < 3 else 5):
        case 0:
            return rng.choice(NUMBERS)
        case 1 | 2:
            return junk_text(rng)
        case 3:
            return rng.choice((None, True, False))
        case 4:
            return rng.randrange(-3, 100)
        case 5 | 6:
            return [hostile_value(rng, depth + 1) for _ in range(rng.choice((0, 1, 3, 300 if depth == 0 else 5)))]
        case 7:
            return {junk_text(rng)[:30]: hostile_value(rng, depth + 1) for _ in range(rng.choice((0, 1, 4)))}
    parts = (
        {"type": "image_url", "image_url": {"url": rng.choice(TEXTS)}},
        {"type": "text", "text": junk_text(rng)},
        {"type": "input_audio"},
    )
    return [{"role": rng.choice(("user", "tool", "", "assistant")), "content": [rng.choice(parts)]}]


def hostile_schema(rng: random.Random) -> Any:
    refs = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 3} for i in range(25)} | {"d25": {"type": "string"}}
    wide = {f"p{i}": {"type": "string", "pattern": "a{1,200}b"} for i in range(400)}
    schemas: tuple[Any, ...] = (
        {"$defs": refs, "$ref": "#/$defs/d0"},
        {"type": "object", "properties": wide, "required": list(wide)},
        {"enum": [f"value {i}" for i in range(20_000)]},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 10**6},
        {"type": "integer", "multipleOf": 9973},
        {"not": {"type": "string"}},
        {"type": "string", "pattern": rng.choice(EVIL_PATTERNS)},
        {"allOf": [{"type": "string", "minLength": i} for i in range(500)]},
    )
    return rng.choice(schemas)


def bomb(rng: random.Random) -> tuple[str, dict[str, Any]]:
    """A path and a body: valid, or nearly so."""
    schema = hostile_schema(rng)
    tool = {"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}
    shape = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    long_text = rng.choice(("word " * 100_000, "a" * 500_000, "\U0001f600" * 50_000))
    chats: tuple[dict[str, Any], ...] = (
        {"response_format": shape},
        {"guided_regex": rng.choice(EVIL_PATTERNS)},
        {"guided_grammar": rng.choice(EVIL_GRAMMARS)},
        {"tools": [tool] * rng.choice((1, 128)), "tool_choice": "required"},
        {"messages": [{"role": "user", "content": long_text}]},
        {"chat_template_kwargs": {"x": "y" * 900_000}},
        {"stop": ["x" * 1024] * 16, "bad_words": ["y" * 256] * 256},
    )
    others: tuple[tuple[str, dict[str, Any]], ...] = (
        ("/api/chat", {"messages": HELLO["messages"], "format": schema, "options": {"num_predict": 2}}),
        ("/tokenize", {"prompt": long_text}),
        ("/detokenize", {"tokens": [rng.randrange(100) for _ in range(100_000)]}),
        ("/v1/chat/completions/render", {"messages": [{"role": "user", "content": "x" * 50}] * 5000}),
        ("/v1/completions", {"prompt": ["Hello"] * 256, "n": 64, "max_tokens": 1}),
        ("/v1/completions", {"prompt": ["Hello"] * 16, "n": 8, "max_tokens": 1, "logprobs": 20}),
        ("/api/generate", {"prompt": "x", "template": "{{ range .Messages }}" * 200, "options": {"num_predict": 2}}),
        ("/api/generate", {"prompt": "x", "options": {"num_predict": 2, "num_ctx": 1 << 30}}),
    )
    if rng.random() < 0.5:
        return "/v1/chat/completions", {**HELLO, **rng.choice(chats)}
    return rng.choice(others)
