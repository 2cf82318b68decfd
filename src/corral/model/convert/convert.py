"""The conversion itself: names, permutations and types; weights stay as precise as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from corral.errors import InvalidModelFile, UnsupportedModel
from corral.model import gguf_writer as write
from corral.model.convert.checkpoint import Checkpoint, SourceTensor
from corral.model.convert.families import Family, common_values, family_of, llama3_factors, permute_heads
from corral.model.convert.settings import Settings
from corral.model.convert.vocabulary import vocabulary_values
from corral.model.gguf_writer import NewTensor
from corral.model.tensor_type import TensorType

Progress = Callable[[int, int], None]  # (bytes of weights done, bytes in all)

_FILE_TYPES = {TensorType.F32: 0, TensorType.F16: 1, TensorType.BF16: 32}  # general.file_type
_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class _Planned:
    tensor: NewTensor
    source: SourceTensor | None  # None: made here


def convert_safetensors(folder: Path, target: Path, on_progress: Progress | None = None) -> None:
    """Writes the model in `folder` to `target` as a GGUF file.

    Matrices keep their type (F32, F16, BF16); vectors become F32. What `folder` must hold: config.json, one or more
    .safetensors files, and tokenizer.json or tokenizer.model.

    Raises:
        ModelNotFound: `folder` is no such folder, or lacks a file.
        UnsupportedModel: a family, tensor, tokenizer or setting that has no place in GGUF, or none that Corral knows.
        InvalidModelFile: a damaged or hostile file.
        OSError: `target` cannot be written.
    """
    with Checkpoint(folder) as checkpoint:
        settings = Settings(folder / "config.json", checkpoint.config or {})
        family = family_of(settings)
        planned = _plan(checkpoint, settings, family)
        matrices = [each.tensor.type for each in planned if len(each.tensor.shape) > 1]
        values = {
            "general.architecture": write.string(family.architecture),
            "general.type": write.string("model"),
            "general.name": write.string(_name(settings, folder)),
            "general.file_type": write.uint32(_FILE_TYPES[max(set(matrices), key=matrices.count)]),
            "general.quantization_version": write.uint32(2),
            **common_values(settings, family),
            **vocabulary_values(checkpoint, settings, _vocab_size(planned, settings)),
        }
        _write(target, values, planned, _Shaper(settings, family), on_progress)


def _name(settings: Settings, folder: Path) -> str:
    name = settings.values.get("_name_or_path")
    return name if isinstance(name, str) and name else folder.resolve().name


def _plan(checkpoint: Checkpoint, settings: Settings, family: Family) -> list[_Planned]:
    planned = []
    for source in checkpoint.tensors.values():
        name = family.gguf_name(source.name)
        if name is None:
            raise UnsupportedModel(
                f"{checkpoint.folder}: tensor {source.name!r:.100} is not known in the family {family.architecture!r}"
            )
        if name == "output.weight" and settings.values.get("tie_word_embeddings") is True:
            continue  # the embedding again
        if name:
            kind = source.type if len(source.shape) > 1 else TensorType.F32
            planned.append(_Planned(NewTensor(name, kind, source.shape[::-1]), source))
    if llama3_factors(settings) is not None:
        head_dim = settings.integer(
            "head_dim", settings.integer("hidden_size") // settings.integer("num_attention_heads")
        )
        planned.append(_Planned(NewTensor(_FACTORS, TensorType.F32, (head_dim // 2,)), None))
    return sorted(planned, key=lambda each: _order(each.tensor.name))


def _order(name: str) -> tuple[int, str]:
    """The order in which a decoder needs them."""
    parts = name.split(".")
    if parts[0] == "blk":
        return int(parts[1]), name
    return (-1, name) if parts[0] in ("token_embd", "rope_freqs") else (1 << 30, name)


def _vocab_size(planned: list[_Planned], settings: Settings) -> int:
    """Rows of the embedding, which the vocabulary must fill."""
    for each in planned:
        if each.tensor.name == "token_embd.weight" and len(each.tensor.shape) == 2:
            return each.tensor.shape[1]
    raise InvalidModelFile(settings.path.parent, 0, "there is no matrix model.embed_tokens.weight")


class _Shaper:
    """The weights of a tensor as GGUF wants them."""

    def __init__(self, settings: Settings, family: Family) -> None:
        heads = settings.integer("num_attention_heads")
        self._family = family
        self._settings = settings
        self._heads_of = {"attn_q": heads, "attn_k": settings.integer("num_key_value_heads", heads)}

    def data(self, planned: _Planned) -> bytes | memoryview:
        if planned.source is None:
            factors = llama3_factors(self._settings)
            return b"" if factors is None else factors.tobytes()
        name, source = planned.tensor.name, planned.source
        array: npt.NDArray[np.generic] = np.frombuffer(
            source.data, np.float32 if source.type == TensorType.F32 else np.uint16
        ).reshape(source.shape)
        part = name.split(".")[2] if name.startswith("blk.") else ""
        if self._family.permutes_heads and part in self._heads_of:
            num_heads = self._heads_of[part]
            if source.shape[0] % (2 * num_heads):
                raise InvalidModelFile(
                    self._settings.path, 0, f"{source.name} has {source.shape[0]} rows for {num_heads} heads"
                )
            array = permute_heads(array, num_heads)
        if planned.tensor.type == source.type and not self._offset(name):
            return np.ascontiguousarray(array).tobytes()
        return (_to_float32(array, source.type) + np.float32(self._offset(name))).tobytes()

    def _offset(self, name: str) -> float:
        return self._family.norm_offset if name.endswith("norm.weight") else 0.0


def _to_float32(array: npt.NDArray[np.generic], kind: TensorType) -> npt.NDArray[np.float32]:
    if kind == TensorType.F32:
        return np.asarray(array, np.float32)
    if kind == TensorType.F16:
        return np.ascontiguousarray(array).view(np.float16).astype(np.float32)
    return (np.ascontiguousarray(array).astype(np.uint32) << 16).view(np.float32)


def _write(
    target: Path, values: dict[str, bytes], planned: list[_Planned], shaper: _Shaper, on_progress: Progress | None
) -> None:
    by_name = {each.tensor.name: each for each in planned}
    if len(by_name) != len(planned):
        raise InvalidModelFile(target, 0, "two tensors of the checkpoint mean the same tensor")
    total = sum(each.tensor.num_bytes for each in planned)
    done = 0

    def pieces_of(tensor: NewTensor) -> Iterable[bytes | memoryview]:
        nonlocal done
        yield shaper.data(by_name[tensor.name])
        done += tensor.num_bytes
        if on_progress is not None:
            on_progress(done, total)

    write.write_gguf(target, values, [each.tensor for each in planned], pieces_of)
