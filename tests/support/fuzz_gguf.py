"""Fuzzer of the GGUF reader and the model description: mutated files may be refused by name, and nothing else.

Alone: `python -m tests.support.fuzz_gguf --seconds 30 [--seed 1] [--keep FOLDER]`. Exit status 1 and the file kept if a
mutation raises anything but InvalidModelFile or UnsupportedModel, or takes longer than MAX_CASE_S.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corral.config import EngineConfig
from corral.errors import InvalidModelFile, UnsupportedModel
from corral.model.architectures import read_config
from corral.model.gguf import open_gguf
from corral.model.memory import MemoryStatus
from corral.model.plan import estimate
from corral.model.tensor_type import TensorType
from tests.support.gguf_writer import FAMILIES, TinyModel, write_tiny_gguf

MAX_CASE_S = 5.0
MAX_MEMORY_BYTES = 4 << 30
INTERESTING = (0, 1, 2, 3, 7, 8, 9, 12, 13, 31, 32, 33, 63, 64, 255, 256, 65535, 65536, (1 << 31) - 1, 1 << 31,
               (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 32, (1 << 64) - 1)  # fmt: skip
WIDTHS = (1, 2, 4, 8)
_MEMORY = MemoryStatus(total=16 << 30, free=8 << 30)


@dataclass(frozen=True)
class Seed:
    """A sound file, and the places in it that are worth lying about."""

    data: bytes
    fields: tuple[int, ...]


@dataclass(frozen=True)
class Mutation:
    """`kind` at `position`: "write" `value` in `width` bytes, "cut" the rest, "drop" or "repeat" `width` bytes."""

    kind: str
    position: int
    value: int = 0
    width: int = 8


def make_seeds(folder: Path) -> list[Seed]:
    """One tiny file for each family, small enough for thousands of cases a second."""
    seeds = []
    for index, family in enumerate(FAMILIES):
        model = TinyModel(
            family=family,
            tensor_type=TensorType.Q8_0 if index % 2 else TensorType.F16,
            num_layers=1,
            hidden=32,
            intermediate=32,
            num_heads=2,
            num_kv_heads=1,
            head_dim=16,
            rope_freqs=family == "llama",
            extra={"general.alignment": 32} if index % 2 else {},
        )
        path = write_tiny_gguf(folder / f"{family}.gguf", model)
        with open_gguf(path) as file:
            table_end = min(info.offset for info in file.tensors.values())
            value_fields = [offset + step for offset in file.key_offsets.values() for step in (0, 4, 8, 16)]
            table_start = max(file.key_offsets.values())
        fields = [4, 8, 16, *value_fields, *range(max(table_start, table_end - 4096), table_end, 4)]
        seeds.append(Seed(path.read_bytes(), tuple(fields)))
    return seeds


def apply(data: bytes, mutations: list[Mutation]) -> bytes:
    """The mutated file; positions beyond its end wrap round."""
    for mutation in mutations:
        position = mutation.position % max(1, len(data))
        head, tail = data[:position], data[position:]
        if mutation.kind == "write":
            written = (mutation.value % (1 << (8 * mutation.width))).to_bytes(mutation.width, "little")
            data = head + written + tail[mutation.width :]
        elif mutation.kind == "cut":
            data = head
        elif mutation.kind == "drop":
            data = head + tail[mutation.width :]
        else:
            data = head + tail[: mutation.width] + tail
    return data


def random_mutations(seed: Seed, rng: random.Random) -> list[Mutation]:
    mutations = []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        kind = rng.choices(("write", "cut", "drop", "repeat"), (20, 1, 1, 1))[0]
        position = rng.choice(seed.fields) if rng.random() < 0.7 else rng.randrange(len(seed.data))
        value = rng.choice(INTERESTING) if rng.random() < 0.7 else rng.getrandbits(64)
        mutations.append(Mutation(kind, position, value, rng.choice(WIDTHS)))
    return mutations


def check_file(path: Path) -> str:
    """Opens, describes and plans the model and touches its tensors; returns how it ended.

    Raises:
        Exception: anything but InvalidModelFile and UnsupportedModel is a fault of the reader.
    """
    try:
        with open_gguf(path) as file:
            for info in file.tensors.values():
                view = file.data(info)
                if len(view) != info.num_bytes or not view.readonly:
                    raise AssertionError(f"{info} has a view of {len(view)} bytes")
                view[0], view[-1]
                view.release()
            config = read_config(file)
            estimate(file, config, EngineConfig(), _MEMORY).describe()
    except InvalidModelFile as error:
        if not 0 <= error.offset <= path.stat().st_size:
            raise AssertionError(f"the offset is outside the file: {error}") from error
        return "invalid"
    except UnsupportedModel:
        return "unsupported"
    return "sound"


def cases(seeds: list[Seed], seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    while True:
        chosen = rng.choice(seeds)
        yield apply(chosen.data, random_mutations(chosen, rng))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path(), help="folder for the file that failed")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    outcomes: Counter[str] = Counter()
    in_memory = Path("/dev/shm")  # noqa: S108 - a fresh folder in it; a case costs a write of 40 KB
    with tempfile.TemporaryDirectory(dir=in_memory if in_memory.is_dir() else None) as folder:
        seeds = make_seeds(Path(folder))
        path = Path(folder) / "case.gguf"
        end = time.monotonic() + arguments.seconds
        for data in cases(seeds, arguments.seed):
            path.write_bytes(data)
            begin = time.monotonic()
            try:
                outcomes[check_file(path)] += 1
                fault = ""
            except Exception:  # noqa: BLE001 - whatever it is, it is what the fuzzer looks for
                fault = traceback.format_exc()
            took = time.monotonic() - begin
            if took > MAX_CASE_S:
                fault += f"the case took {took:.1f} s"
            if fault:
                kept = arguments.keep / f"fuzz-gguf-{arguments.seed}-{sum(outcomes.values())}.gguf"
                kept.write_bytes(data)
                print(f"{fault}\nkept as {kept}", file=sys.stderr)
                return 1
            if begin > end:
                break
    print(f"{sum(outcomes.values())} cases: " + ", ".join(f"{count} {name}" for name, count in outcomes.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
