"""One request of a load, as its client saw it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field


@dataclass(slots=True)
class Answer:
    """Times are seconds since the load began, by a monotonic clock.

    Args:
        scheduled: when the request was due; every latency counts from here, whether or not the client was late.
        sent: when its first byte went out.
        head: when the status line had come; None if it never did.
        content_times: when each chunk with text came, reasoning and arguments of tools too; a first chunk that has a
            role alone is none.
        ended: when the last byte came, or the fault.
        text: all of it, reasoning first.
        prompt_tokens, completion_tokens, cached_tokens: of the server's own usage; None where it tells none.
        finish_reason: the server's; "" where none came.
        status: of the answer; 0 where none came.
        error: why the answer does not count; "" if it does.
        conversation: which one it belongs to, and its turn there.
    """

    scheduled: float
    sent: float = 0.0
    head: float | None = None
    content_times: list[float] = field(default_factory=list)
    ended: float = 0.0
    text: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    finish_reason: str = ""
    status: int = 0
    error: str = ""
    conversation: tuple[int, int] = (0, 0)

    @property
    def is_good(self) -> bool:
        return not self.error

    @property
    def first_token_s(self) -> float | None:
        """From when it was due to its first text."""
        return self.content_times[0] - self.scheduled if self.content_times else None

    @property
    def latency_s(self) -> float:
        """From when it was due to its end."""
        return self.ended - self.scheduled

    @property
    def client_delay_s(self) -> float:
        """How late the client was: above a few milliseconds, it is the client that is measured."""
        return self.sent - self.scheduled

    @property
    def gaps_s(self) -> list[float]:
        """Between chunks with text; they are pooled over answers, never averaged per answer first."""
        return [later - earlier for earlier, later in itertools.pairwise(self.content_times)]

    def token_time_s(self, num_tokens: int) -> float | None:
        """Mean time of each token but the first, however many a chunk has; None for fewer than two."""
        if num_tokens < 2 or not self.content_times:
            return None
        return (self.content_times[-1] - self.content_times[0]) / (num_tokens - 1)
