"""How much work a token is: operations and bytes of the matrices in a GGUF file. Attention is not counted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.cells import Cell, Regime

from corral.model.gguf import open_gguf

ASSUMED_GOPS_PER_THREAD, ASSUMED_READ_GBS = 200, 20.0  # of an engine, for a first guess of a run's duration
EMBEDDING, HEAD = "token_embd.weight", "output.weight"


@dataclass(frozen=True)
class MatmulWork:
    """Of one model.

    Args:
        body: parameters of the matrices that every token passes.
        head: parameters of the output matrix, which only tokens that are sampled from pass.
        num_bytes: of both, at the width of the file.
    """

    body: int
    head: int
    num_bytes: int

    @classmethod
    def of(cls, path: Path) -> MatmulWork:
        """Counts the two-dimensional tensors; the embedding counts only where it is the head as well."""
        with open_gguf(path) as gguf:
            matrices = {name: info for name, info in gguf.tensors.items() if len(info.shape) == 2}
        head = matrices.pop(HEAD, None)
        embedding = matrices.pop(EMBEDDING)
        if head is None:
            head = embedding
        body = sum(info.shape[0] * info.shape[1] for info in matrices.values())
        num_bytes = sum(info.num_bytes for info in matrices.values()) + head.num_bytes
        return cls(body, head.shape[0] * head.shape[1], num_bytes)

    def operations_per_token(self, cell: Cell) -> float:
        """Multiplications and additions. In a prefill cell one token of each prompt is sampled from."""
        share_of_head = 1 / cell.prompt if cell.regime is Regime.PREFILL else 1.0
        return 2 * (self.body + self.head * share_of_head)

    def expected_seconds(self, cell: Cell, num_threads: int) -> float:
        """A rough time for a turn's cell, for planning only."""
        compute = ASSUMED_GOPS_PER_THREAD * num_threads * 1e9
        step = max(self.num_bytes / ASSUMED_READ_GBS / 1e9, 2 * (self.body + self.head) * cell.streams / compute)
        return 2 * self.body * cell.streams * cell.prompt / compute + cell.answer * step
