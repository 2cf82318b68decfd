"""From a GGUF file to the native model: mapped from the cache of packed weights, or packed tensor by tensor."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from corral import _native
from corral.errors import InsufficientMemory, UnsupportedModel
from corral.model.config import ModelConfig
from corral.model.gguf import GGUFFile, TensorInfo
from corral.model.packed_cache import CacheWriter, PackedCache
from corral.model.packed_file import PackedFile, Source
from corral.model.plan import packed_weight_bytes

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)

logger = logging.getLogger("corral.cache")


def load_model(
    gguf: GGUFFile,
    config: ModelConfig,
    num_threads: int,
    progress: Progress | None = None,
    cache: PackedCache | None = None,
) -> _native.Model:
    """A new native model of the tensors that `config` names.

    Matrices that `cache` has are mapped; others are packed, and given to `cache`, which writes them on: see its wait().
    Beside the packed weights, memory holds one tensor of the file at a time. `gguf` may be closed afterwards.

    Raises:
        UnsupportedModel: the native decoder does not compute a model of these sizes.
        InsufficientMemory: the system gives no more memory.
    """
    if cache is None:
        return _pack(gguf, config, num_threads, progress, None)
    source = Source(gguf.content_digest(), gguf.mtimes_ns)
    layout = _native.packed_layout()
    if (file := cache.find(source, layout)) is not None:
        mapped = _map(gguf, config, num_threads, file)
        if mapped is not None:
            if progress is not None:
                num_bytes = sum(info.num_bytes for info in _in_file_order(gguf, config))
                progress(num_bytes, num_bytes)
            return mapped
    writer = cache.writer(source, layout, config.name, packed_weight_bytes(gguf, config))
    is_whole = False
    try:
        model = _pack(gguf, config, num_threads, progress, writer)
        is_whole = True
    finally:
        if writer is not None:
            writer.finish(is_whole=is_whole)
    return model


def _in_file_order(gguf: GGUFFile, config: ModelConfig) -> list[TensorInfo]:
    return sorted((gguf.tensors[name] for name in config.tensor_roles), key=lambda info: (info.part, info.offset))


def _pack(
    gguf: GGUFFile, config: ModelConfig, num_threads: int, progress: Progress | None, writer: CacheWriter | None
) -> _native.Model:
    """Packs tensor by tensor in file order; the file's pages are given back behind."""
    infos = _in_file_order(gguf, config)
    num_bytes = sum(info.num_bytes for info in infos)
    done_bytes = 0
    model = _new_model(gguf, config, num_threads)
    for info, following in itertools.zip_longest(infos, infos[1:]):
        if following is not None:
            gguf.will_need(following)
        _add(model, gguf, config, info)
        gguf.release(info)
        for role in config.tensor_roles[info.name].pieces:
            if writer is not None and role.is_matrix:
                packed = model.packed_tensor(role.role, role.layer)
                writer.add(role.role, role.layer, int(info.type), (role.rows, role.cols), packed)
        done_bytes += info.num_bytes
        if progress is not None:
            progress(done_bytes, num_bytes)
    _finish(model, gguf)
    return model


def _map(gguf: GGUFFile, config: ModelConfig, num_threads: int, file: PackedFile) -> _native.Model | None:
    """Maps the matrices of `file` and reads the vectors; None if it has not what the model asks for."""
    file.advise()
    model = _new_model(gguf, config, num_threads)
    for info in _in_file_order(gguf, config):
        role = config.tensor_roles[info.name]
        if not role.is_matrix:
            _add(model, gguf, config, info)
            continue
        for piece in role.pieces:
            packed = file.tensors.get((piece.role, piece.layer))
            if packed is None or packed.type != info.type:
                logger.warning("%s has no %s of type %s; it is made again", file.path, info.name, info.type.name)
                return None
            try:  # the shape is the model file's own, and the core compares the size with it: it never reads beyond
                model.map_tensor(piece.role, piece.layer, int(info.type), piece.rows, piece.cols, file.data(packed))
            except ValueError as error:
                logger.warning("%s cannot be used, and is made again: %s", file.path, error)
                return None
    _finish(model, gguf)
    return model


def _new_model(gguf: GGUFFile, config: ModelConfig, num_threads: int) -> _native.Model:
    with _named_refusals(gguf):
        return _native.Model(_native.DecoderConfig(**config.decoder_fields()), num_threads)


def _add(model: _native.Model, gguf: GGUFFile, config: ModelConfig, info: TensorInfo) -> None:
    data = gguf.data(info)
    begin = 0
    with _named_refusals(gguf):
        for role in config.tensor_roles[info.name].pieces:
            end = begin + role.rows * role.cols // info.type.block_size * info.type.block_bytes
            model.add_tensor(role.role, role.layer, int(info.type), role.rows, role.cols, data[begin:end])
            begin = end


def _finish(model: _native.Model, gguf: GGUFFile) -> None:
    with _named_refusals(gguf):
        model.finish()


@contextmanager
def _named_refusals(gguf: GGUFFile) -> Iterator[None]:
    """What the native core refuses, as errors that name the file."""
    try:
        yield
    except ValueError as error:
        raise UnsupportedModel(f"{gguf.path}: the native core refuses this model: {error}") from error
    except MemoryError as error:
        raise InsufficientMemory(f"{gguf.path}: the system gives no more memory for its weights") from error
