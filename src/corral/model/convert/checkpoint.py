"""Folders as the Hugging Face hub keeps models: config.json, tokenizer files and weights in safetensors, mapped.

A safetensors file is a u64 length, that many bytes of JSON (name -> dtype, shape, data_offsets) and the tensors.
Source: the safetensors format description. The library of that name reads no bfloat16 into numpy, so this does.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, TypeGuard

from corral.errors import InvalidModelFile, ModelNotFound, UnsupportedModel
from corral.model.tensor_type import TensorType

DTYPES = {"F32": TensorType.F32, "F16": TensorType.F16, "BF16": TensorType.BF16}
MAX_HEADER_BYTES = 100 << 20
MAX_JSON_BYTES = 256 << 20  # of config.json and tokenizer.json
MAX_DIMENSIONS = 4


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """A tensor of the checkpoint; `shape` as safetensors has it, rows first."""

    name: str
    type: TensorType
    shape: tuple[int, ...]
    data: memoryview


class Checkpoint:
    """An open folder. Use it as a context manager.

    Attributes:
        folder: where it lies.
        config: config.json.
        tensors: by name, of all shards.

    Raises:
        ModelNotFound: no folder, or one without config.json or safetensors.
        InvalidModelFile: a file of it is damaged or hostile.
        UnsupportedModel: weights in a type that Corral does not read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._maps: list[mmap.mmap] = []
        self.tensors: dict[str, SourceTensor] = {}
        self.config = self.read_json("config.json")
        if self.config is None:
            raise ModelNotFound(f"{folder} has no config.json: it is no folder of a Hugging Face model")
        paths = sorted(folder.glob("*.safetensors"))
        if not paths:
            raise ModelNotFound(f"{folder} has no .safetensors file; PyTorch .bin files are not read")
        self._check_shards(paths)
        try:
            for path in paths:
                for tensor in self._read_shard(path):
                    if tensor.name in self.tensors:
                        raise InvalidModelFile(path, 0, f"tensor {tensor.name!r} is in another shard too")
                    self.tensors[tensor.name] = tensor
        except BaseException:
            self.close()
            raise

    def read_json(self, name: str) -> dict[str, Any] | None:
        """An object in a file of the folder; None if there is no such file."""
        path = self.folder / name
        try:
            if path.stat().st_size > MAX_JSON_BYTES:
                raise InvalidModelFile(path, MAX_JSON_BYTES, f"it is longer than {MAX_JSON_BYTES} bytes")
            value = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise InvalidModelFile(path, 0, f"it is no JSON: {error}") from None
        if not isinstance(value, dict):
            raise InvalidModelFile(path, 0, "it holds no JSON object")
        return value

    def _check_shards(self, paths: list[Path]) -> None:
        index = self.read_json("model.safetensors.index.json")
        weight_map = index.get("weight_map") if index else None
        needed = {name for name in weight_map.values() if isinstance(name, str)} if isinstance(weight_map, dict) else ()
        missing = sorted(set(needed) - {path.name for path in paths})
        if missing:
            raise ModelNotFound(f"{self.folder} lacks {missing[0]}, which its index names: download the whole model")

    def _read_shard(self, path: Path) -> Iterator[SourceTensor]:
        try:
            with path.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise InvalidModelFile(path, 0, f"it cannot be read: {error}") from error
        self._maps.append(data)
        if len(data) < 8:
            raise InvalidModelFile(path, 0, f"it has {len(data)} bytes: no safetensors file")
        (header_bytes,) = struct.unpack_from("<Q", data)
        if header_bytes > min(MAX_HEADER_BYTES, len(data) - 8):
            raise InvalidModelFile(path, 0, f"its header claims {header_bytes} bytes; {len(data) - 8} follow")
        try:
            header = json.loads(data[8 : 8 + header_bytes])
        except (ValueError, RecursionError) as error:
            raise InvalidModelFile(path, 8, f"its header is no JSON: {error}") from None
        if not isinstance(header, dict):
            raise InvalidModelFile(path, 8, "its header is no JSON object")
        body = memoryview(data)[8 + header_bytes :]
        for name, entry in header.items():
            if name != "__metadata__":
                yield _tensor(path, name, entry, body)

    def close(self) -> None:
        """Ends the maps; may be called twice."""
        self.tensors.clear()
        maps, self._maps = self._maps, []
        for data in maps:
            try:
                data.close()
            except BufferError:
                continue  # somebody still holds a slice; the map goes with it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _tensor(path: Path, name: str, entry: object, body: memoryview) -> SourceTensor:
    def fail(fault: str) -> NoReturn:
        raise InvalidModelFile(path, 8, f"tensor {name!r:.100} {fault}")

    if not isinstance(entry, dict):
        fail("has no description")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        fail("has no dtype, shape and data_offsets")
    if dtype not in DTYPES:
        raise UnsupportedModel(
            f"{path.name}: tensor {name!r:.100} is of type {dtype:.20}; {', '.join(DTYPES)} are converted. "
            "Take the original, unquantised model"
        )
    if not 1 <= len(shape) <= MAX_DIMENSIONS:
        fail(f"has {len(shape)} dimensions")
    begin, end = offsets
    num_bytes = math.prod(shape) * DTYPES[dtype].block_bytes
    if not 0 <= begin <= end <= len(body) or end - begin != num_bytes:
        fail(f"claims bytes [{begin}, {end}) of {len(body)}, and needs {num_bytes}")
    return SourceTensor(name, DTYPES[dtype], tuple(shape), body[begin:end])


def _are_counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 62 for item in value)
