"""Do engines say the same? Greedy answers to the same prompts, token by token by the model's own tokenizer.

Equal answers are not promised between kernels: sums in another order tip a token that is in doubt, and from there on
the texts part. Answers that part at once are another template, other weights or another tokenizer, and then speeds
compare different work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import httpx

from corral.compare.engines.engine import Engine, EngineFailed, Setup
from corral.compare.results import Agreement

Encode = Callable[[str], Sequence[int]]  # a text's tokens, no special ones added

PROMPTS = (
    "What is the capital of France?",
    "Count from one to twenty in words.",
    "Write a function in Python that reverses a string.",
    "Explain in two sentences why the sky is blue.",
    "List five animals that live in the sea.",
    "Translate into German: the house is big and old.",
    "What is 17 times 3? Show the steps.",
    "Write a short poem about rain.",
)
MAX_TOKENS = 48
SAME_START = 4  # tokens; an answer that parts before is other work


async def greedy_answers(client: httpx.AsyncClient, engine: Engine, setup: Setup) -> list[str]:
    """One after the other, so that no batch tips a token.

    Raises:
        EngineFailed: it did not answer, or not as OpenAI's protocol says.
    """
    return [await _answer(client, engine, setup, prompt) for prompt in PROMPTS]


async def _answer(client: httpx.AsyncClient, engine: Engine, setup: Setup, prompt: str) -> str:
    fields: dict[str, Any] = {
        "model": setup.name,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0.0,
        "seed": 0,
    }
    try:
        response = await client.post("/v1/chat/completions", json=engine.body(fields, min_tokens=None))
        response.raise_for_status()
        message = response.json()["choices"][0]["message"]
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        raise EngineFailed(f"{engine.name} gave no answer to {prompt!r}: {type(error).__name__}: {error}") from error
    return f"{message.get('reasoning_content') or ''}{message.get('content') or ''}"


def agree(engine: str, answers: Sequence[str], reference: str, expected: Sequence[str], encode: Encode) -> Agreement:
    """The answers of `engine` beside those that `reference` gave to the same prompts."""
    first: list[int | None] = []
    shorter: list[int] = []
    for told, wanted in zip(answers, expected, strict=True):
        ours, theirs = encode(told.strip()), encode(wanted.strip())
        shorter.append(min(len(ours), len(theirs)))
        first.append(first_difference(ours, theirs))
    return Agreement(engine, reference, list(PROMPTS), list(answers), first, shorter)


def first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """Where two answers part; None if they are equal. One that ends while the other goes on parts at its end."""
    for place, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            return place
    return None if len(ours) == len(theirs) else min(len(ours), len(theirs))


def is_other_work(agreement: Agreement) -> bool:
    """Most answers part within their first tokens: what follows compares different work."""
    at_once = [place for place in agreement.first_difference if place is not None and place < SAME_START]
    return len(at_once) * 2 > len(agreement.first_difference)
