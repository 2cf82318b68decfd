"""A server's figures, made up, such that every family has a sample."""

from __future__ import annotations

from pathlib import Path

from corral.histogram import REQUEST_S, Histogram
from corral.server.metrics.books import Books
from corral.server.metrics.state import ServerState
from corral.server.served_model import RunningModel
from corral.store.local_model import LocalModel
from corral.worker.info import ModelInfo, WorkerStats


def full_books() -> Books:
    books = Books()
    books.loaded("m", 0.5)
    books.died("m", "fault")
    books.of_key("ada").requests += 1
    books.answered("/v1/models", "GET", 200, 0.01)
    books.durations["/v1/models", "GET"] = Histogram(REQUEST_S)
    books.refusals["queue_full", "openai"] += 1
    return books


def full_state() -> ServerState:
    model = RunningModel(
        LocalModel("m", Path("m.gguf")),
        ModelInfo("m", "llama", 4096, 4096, 100, "scalar", 2, 1 << 20, 0.5),
        WorkerStats(
            num_blocks=10, num_adapters=2, adapter_bytes=1 << 18, num_decode_steps=5, decode_s=0.1, read_bandwidth=1e9
        ),
        None,
        "ready",
        1 << 21,
        1 << 20,
        1 << 10,
        1 << 22,
    )
    return ServerState([model], 0, 1, 1, 1 << 20, False, False)
