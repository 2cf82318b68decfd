"""The workloads of `corral compare`, by profile."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from corral.compare.prompts import sized, text_of, user, with_nonce
from corral.compare.workload import Call, CountTokens, Message, Plan, Workload
from corral.errors import InvalidConfig

NAMES = ("article", "quick", "full")
STORY = "Tell me a story of 1000 words."  # the article's prompt, which all of its clients send
STORY_CLIENTS = (1, 2, 4, 8, 16, 32, 50)
STORY_CONTEXT = 8192
STORY_TOKENS = 1500  # a story of 1000 words fits; one that does not end is cut there
_REPAIRED_TOKENS = 256

Conversations = Sequence[Sequence[Call]]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "colours": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 2, "maxItems": 3},
    },
    "required": ["name", "age", "colours"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Make:
    """What all workloads of a comparison have in common.

    Args:
        seed: another one gives other texts; the same one the same texts, for every engine.
        template_tokens: those that the model's chat template puts around a message; texts are that much shorter.
        max_tokens: answers are no longer, whatever the profile says; None leaves them.
    """

    count_tokens: CountTokens
    seed: int = 0
    template_tokens: int = 0
    max_tokens: int | None = None

    def answer(self, num_tokens: int) -> int:
        return min(num_tokens, self.max_tokens or num_tokens)

    def text(self, num_tokens: int, *names: object) -> str:
        return text_of(sized(num_tokens, self.template_tokens), self.seeded(*names), self.count_tokens)

    def seeded(self, *names: object) -> str:
        return " ".join(map(str, (self.seed, *names)))


def profile(name: str, make: Make) -> list[Workload]:
    """The workloads of a profile.

    Raises:
        InvalidConfig: there is no such profile.
    """
    if name == "article":
        return [*story(make), *repaired_story(make)]
    if name == "quick":
        return [
            unique(make, clients=1, num_calls=4, prompt=64, answer=32),
            unique(make, clients=8, num_calls=16, prompt=64, answer=32),
            shared_system(make, clients=8, system=256, prompt=24, answer=16),
            *repaired_story(make, clients=(1, 8), answer=48),
            multi_turn(make, clients=2, turns=3, prompt=32, answer=24),
            structured(make, clients=2, num_calls=4),
        ]
    if name == "full":
        return [
            *(unique(make, clients=n, num_calls=max(4, 2 * n), prompt=256, answer=64) for n in (1, 2, 4, 8, 16, 32)),
            burst(make, num_calls=32, prompt=80, answer=32),
            open_loop(make, rate=1.0, num_calls=60, prompt=128, answer=32),
            shared_system(make, clients=16, system=350, prompt=30, answer=32),
            long_beside_short(make, clients=4, num_calls=16, long=2048, prompt=32, answer=48),
            multi_turn(make, clients=4, turns=4, prompt=48, answer=48),
            structured(make, clients=4, num_calls=8),
            *repaired_story(make, clients=(1, 8, 50), answer=128),
        ]
    raise InvalidConfig(f"unknown profile {name!r}; there are {', '.join(NAMES)}")


def story(make: Make, clients: Sequence[int] = STORY_CLIENTS) -> list[Workload]:
    """The article's own: all clients at once ask the same, whole answers, of whatever length."""
    call = Call(user(STORY), make.answer(STORY_TOKENS), is_exact=False)
    notes = (
        "As the article has it: one prompt for all, which a cache of prefixes answers, and answers of different "
        f"lengths (at most {call.max_tokens} tokens). Compare tokens per second, not times.",
    )
    return [
        Workload(
            f"story-{count}",
            f"The article's test: {_clients(count)} at once, not streamed",
            Plan("burst"),
            functools.partial(_repeated, call, count),
            is_streamed=False,
            notes=notes,
        )
        for count in clients
    ]


def _repeated(call: Call, count: int, repeat: int) -> Conversations:
    return [[call]] * count


def repaired_story(
    make: Make, clients: Sequence[int] = STORY_CLIENTS, answer: int = _REPAIRED_TOKENS
) -> list[Workload]:
    """The article's question so that it can be compared: streamed, each with a beginning of its own, equal lengths."""
    num_tokens = make.answer(answer)

    def calls(count: int, name: str) -> Callable[[int], Conversations]:
        return lambda repeat: [
            [Call(user(with_nonce(STORY, make.seeded(name, repeat, client))), num_tokens)] for client in range(count)
        ]

    return [
        Workload(
            name := f"story-repaired-{count}",
            f"The article's test repaired: {_clients(count)} at once, streamed, {num_tokens} tokens each",
            Plan("burst"),
            calls(count, name),
        )
        for count in clients
    ]


def unique(make: Make, *, clients: int, num_calls: int, prompt: int, answer: int) -> Workload:
    """Chats that have nothing in common, each client asking again when it is answered."""
    name = f"unique-{clients}"
    title = f"{_clients(clients)}, each prompt of {prompt} tokens its own, {make.answer(answer)} tokens each"
    return Workload(name, title, Plan("closed", clients), _unique(make, name, num_calls, prompt, answer))


def burst(make: Make, *, num_calls: int, prompt: int, answer: int) -> Workload:
    name = f"burst-{num_calls}"
    title = f"{num_calls} requests at one moment, each prompt its own"
    return Workload(name, title, Plan("burst"), _unique(make, name, num_calls, prompt, answer))


def open_loop(make: Make, *, rate: float, num_calls: int, prompt: int, answer: int, name: str = "") -> Workload:
    """Also the load of the search for the greatest rate."""
    name = name or f"poisson-{rate:g}"
    title = f"{rate:g} requests per second as they come (Poisson), whatever becomes of those before"
    return Workload(name, title, Plan("open", rate=rate), _unique(make, name, num_calls, prompt, answer))


def _unique(make: Make, name: str, num_calls: int, prompt: int, answer: int) -> Callable[[int], Conversations]:
    return lambda repeat: [
        [Call(user(make.text(prompt, name, repeat, index)), make.answer(answer))] for index in range(num_calls)
    ]


def shared_system(make: Make, *, clients: int, system: int, prompt: int, answer: int) -> Workload:
    """A cache of prefixes helps all but the first, within one repeat."""
    name = f"shared-system-{clients}"

    def calls(repeat: int) -> Conversations:
        shared: Message = {"role": "system", "content": make.text(system, name, repeat, "system")}
        return [
            [Call((shared, *user(make.text(prompt, name, repeat, client))), make.answer(answer))]
            for client in range(clients)
        ]

    title = f"{_clients(clients)} at once that share a system prompt of {system} tokens"
    return Workload(name, title, Plan("burst"), calls)


def long_beside_short(make: Make, *, clients: int, num_calls: int, long: int, prompt: int, answer: int) -> Workload:
    """What the short chats feel of long prompts; these are not measured."""
    name = f"long-beside-short-{clients}"

    def background(repeat: int) -> Conversations:
        return [[Call(user(make.text(long, name, repeat, "long", index)), 1)] for index in range(num_calls)]

    return Workload(
        name,
        f"{_clients(clients)} chatting while prompts of {long} tokens come one after the other",
        Plan("closed", clients),
        _unique(make, name, num_calls, prompt, answer),
        background=background,
        notes=("The long prompts are not measured.",),
    )


def multi_turn(make: Make, *, clients: int, turns: int, prompt: int, answer: int) -> Workload:
    """Conversations: every turn sends again all that was said."""
    name = f"multi-turn-{clients}"

    def calls(repeat: int) -> Conversations:
        return [
            [Call(user(make.text(prompt, name, repeat, client, turn)), make.answer(answer)) for turn in range(turns)]
            for client in range(clients)
        ]

    return Workload(name, f"{_clients(clients)}, conversations of {turns} turns", Plan("closed", clients), calls)


def structured(make: Make, *, clients: int, num_calls: int) -> Workload:
    """Answers that have to be an object of a JSON schema; they end when it does."""
    name = f"structured-{clients}"
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    question = "Invent a person. Answer with an object of JSON: name, age, colours."

    def calls(repeat: int) -> Conversations:
        return [
            [
                Call(
                    user(with_nonce(question, make.seeded(name, repeat, index))),
                    make.answer(96),
                    is_exact=False,
                    response_format=form,
                )
            ]
            for index in range(num_calls)
        ]

    return Workload(name, f"{_clients(clients)}, answers of a JSON schema", Plan("closed", clients), calls)


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"
