"""The server beside its models, as a scrape finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral.server.served_model import RunningModel


@dataclass(frozen=True, slots=True)
class ServerState:
    """The server beside its models, at one moment.

    Args:
        num_pending: requests that wait for a model to be loaded.
        num_connections: open ones.
        adapter_max_bytes: that the LoRA adapters of one model may take.
    """

    models: Sequence[RunningModel]
    num_pending: int
    num_in_flight: int
    num_connections: int
    adapter_max_bytes: int
    is_draining: bool
    is_loading: bool
