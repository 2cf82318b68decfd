"""What clients ask in a comparison of servers: who asks at once, with how many tokens, sharing what."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

CountTokens = Callable[[str], int]

# Common words, so that a text of them is about as many tokens; the exact number is counted.
_TEXT = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend "
    "father power hour game line end member law car city community name president team minute idea body information "
    "back parent face others level office door health person art war history party result change morning reason "
    "research girl guy moment air teacher force education"
)
WORDS = _TEXT.split()


class Message(TypedDict):
    """Of a chat, as OpenAI's protocol has it."""

    role: str
    content: str


@dataclass(frozen=True)
class Workload:
    """Clients that all start at the same moment, each with one request.

    Args:
        prompt: tokens of each client's own text, what the chat template adds not counted; ignored if `text` is given.
        answer: tokens of each answer: no fewer, no more.
        system: tokens of a system prompt that all clients of one repeat share; 0 is none.
        text: what every client says, in every repeat.
    """

    name: str
    clients: int
    prompt: int
    answer: int
    system: int = 0
    text: str | None = None

    def chats(self, repeat: int, count_tokens: CountTokens) -> list[list[Message]]:
        """One chat for each client; but for a fixed `text` no two repeats or workloads share a beginning."""
        seed = f"{self.name} {repeat}"
        shared: list[Message] = []
        if self.system:
            shared = [{"role": "system", "content": text_of(self.system, f"{seed} system", count_tokens)}]
        texts = (self.text or text_of(self.prompt, f"{seed} {client}", count_tokens) for client in range(self.clients))
        return [[*shared, {"role": "user", "content": text}] for text in texts]


WORKLOADS = (
    Workload("1 client", 1, 80, 32),
    Workload("8 clients", 8, 80, 32),
    Workload("32 clients", 32, 80, 32),
    Workload("32 clients, shared system prompt", 32, 30, 16, system=350),
    Workload("50 clients, one story", 50, 9, 32, text="Tell me a story of 1000 words."),
)


def text_of(num_tokens: int, seed: str, count_tokens: CountTokens) -> str:
    """Random words that make exactly so many tokens; the same for the same seed.

    Raises:
        ValueError: no text of these words has that many tokens in this vocabulary.
    """
    rng = random.Random(seed)
    words: list[str] = []
    while (missing := num_tokens - count_tokens(" ".join(words))) > 0:
        words += rng.choices(WORDS, k=max(1, missing // 2))
    while words and count_tokens(" ".join(words)) > num_tokens:
        words.pop()
    for word in WORDS:  # a word of several tokens may have gone too far
        if count_tokens(" ".join(words)) == num_tokens:
            return " ".join(words)
        if count_tokens(" ".join([*words, word])) <= num_tokens:
            words.append(word)
    if count_tokens(" ".join(words)) == num_tokens:
        return " ".join(words)
    raise ValueError(f"no text of {num_tokens} tokens found from seed {seed!r}")
