"""Figures of a running engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from corral.histogram import STEP_S, STEP_TOKENS, Histogram

_SMOOTHING = 0.05  # weight of the newest step in the running mean


@dataclass(slots=True)
class StepTimes:
    """How long steps take."""

    num_steps: int = 0
    total_ms: float = 0.0
    last_ms: float = 0.0
    mean_ms: float = 0.0  # of about the last twenty
    num_decode_steps: int = 0  # those without a prompt's tokens, which read all weights for a few rows
    decode_ms: float = 0.0
    seconds: Histogram = field(default_factory=lambda: Histogram(STEP_S))
    tokens: Histogram = field(default_factory=lambda: Histogram(STEP_TOKENS))

    def add(self, elapsed_ms: float, num_prefill_tokens: int = 0, num_decode_rows: int = 0) -> None:
        weight = max(_SMOOTHING, 1 / (self.num_steps + 1))
        self.mean_ms += weight * (elapsed_ms - self.mean_ms)
        self.num_steps += 1
        self.total_ms += elapsed_ms
        self.last_ms = elapsed_ms
        if not num_prefill_tokens:
            self.num_decode_steps += 1
            self.decode_ms += elapsed_ms
        self.seconds.add(elapsed_ms / 1000)
        self.tokens.add(num_prefill_tokens + num_decode_rows)


@dataclass(slots=True)
class SchedulerCounts:
    """What has been scheduled since the start."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    prefix_hit_tokens: int = 0
    preemptions: int = 0
    starts: int = 0  # requests that have begun


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot. Totals count from the start; `num_cached_blocks` can be free or held."""

    num_running: int
    num_waiting: int
    num_blocks: int
    num_free_blocks: int
    num_cached_blocks: int
    prompt_tokens: int
    generated_tokens: int
    prefix_hit_tokens: int
    preemptions: int
    evictions: int
    num_steps: int
    total_step_ms: float
    last_step_ms: float
    mean_step_ms: float
    num_decode_steps: int
    decode_ms: float
    step_seconds: Histogram
    step_tokens: Histogram

    @property
    def num_used_blocks(self) -> int:
        return self.num_blocks - self.num_free_blocks
