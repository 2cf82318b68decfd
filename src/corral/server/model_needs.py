"""What a model will take, read from its file's header in the front process: by it loads are admitted or refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from corral.config import BLOCK_SIZE, EngineConfig
from corral.errors import ModelNotFound

if TYPE_CHECKING:
    from corral.model.config import ModelConfig
    from corral.model.memory import MemoryStatus
    from corral.model.plan import Plan, WeightSizes

USEFUL_CONTEXT = 4096  # tokens: others give way until a new model gets this much, a longer one only takes what is free


class Needs(Protocol):
    @property
    def fixed_bytes(self) -> int:
        """Weights and work memory."""

    def kv_bytes(self, context: int) -> int:
        """Keys and values of one sequence of `context` tokens, or of the model's own context if that is shorter."""

    def least_bytes(self, context: int) -> int:
        """The free memory with which the model loads with `context` tokens at least, as far as it has them."""

    def plan(self, memory: MemoryStatus) -> Plan:
        """The plan of a load into `memory`; it may not fit."""


ReadNeeds = Callable[[Path, EngineConfig], Needs]


class FileNeeds:
    """The needs of a GGUF file."""

    def __init__(self, sizes: WeightSizes, config: ModelConfig, engine: EngineConfig) -> None:
        from corral.model.memory import MemoryStatus

        self._sizes = sizes
        self._config = config
        self._engine = engine
        self._base = self.plan(MemoryStatus(1 << 60, 1 << 60))

    @property
    def fixed_bytes(self) -> int:
        return self._base.weights_bytes + self._base.work_bytes

    def kv_bytes(self, context: int) -> int:
        if self._engine.kv_cache_bytes is not None:
            return self._engine.kv_cache_bytes
        tokens = self._engine.max_model_len or min(context, self._base.context_length)
        return -(-tokens // BLOCK_SIZE) * BLOCK_SIZE * self._base.kv_bytes_per_token

    def least_bytes(self, context: int) -> int:
        from corral.model.plan import POOL_SHARE

        share = 1.0 if self._engine.kv_cache_bytes is not None else POOL_SHARE
        # One byte more: the plan rounds the pool down.
        return self.fixed_bytes + int(self.kv_bytes(context) / share) + 1

    def plan(self, memory: MemoryStatus) -> Plan:
        from corral.model.plan import plan_sizes

        return plan_sizes(self._sizes, self._config, self._engine, memory)


def read_needs(path: Path, engine: EngineConfig) -> Needs:
    """Reads the header, unless it did before; takes some 0.1 s, so call it on a thread.

    Raises:
        CorralError: the file, its family or a setting forbids the load.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise ModelNotFound(f"the model file {path} cannot be read: {error.strerror}") from None
    return _read_needs(path, engine, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=128)
def _read_needs(path: Path, engine: EngineConfig, _size: int, _mtime_ns: int) -> Needs:
    from corral.model.architectures import read_config
    from corral.model.gguf import open_gguf
    from corral.model.plan import read_sizes

    with open_gguf(path) as gguf:
        config = read_config(gguf)
        return FileNeeds(read_sizes(gguf, config), config, engine)
