"""From a GGUF file to the native model: tensors in file order, packed one by one, their pages given back behind."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from corral import _native
from corral.errors import InsufficientMemory, UnsupportedModel
from corral.model.config import ModelConfig
from corral.model.gguf import GGUFFile

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)


def load_model(
    gguf: GGUFFile, config: ModelConfig, num_threads: int, progress: Progress | None = None
) -> _native.Model:
    """Packs the tensors that `config` names into a new native model.

    Beside the packed weights, memory holds one tensor of the file at a time. `gguf` may be closed afterwards.

    Raises:
        UnsupportedModel: the native decoder does not compute a model of these sizes.
        InsufficientMemory: the system gives no more memory.
    """
    infos = sorted((gguf.tensors[name] for name in config.tensor_roles), key=lambda info: (info.part, info.offset))
    num_bytes = sum(info.num_bytes for info in infos)
    done_bytes = 0
    with _named_refusals(gguf):
        model = _native.Model(_native.DecoderConfig(**config.decoder_fields()), num_threads)
    for info, following in itertools.zip_longest(infos, infos[1:]):
        if following is not None:
            gguf.will_need(following)
        role = config.tensor_roles[info.name]
        with _named_refusals(gguf):
            model.add_tensor(role.role, role.layer, int(info.type), role.rows, role.cols, gguf.data(info))
        gguf.release(info)
        done_bytes += info.num_bytes
        if progress is not None:
            progress(done_bytes, num_bytes)
    with _named_refusals(gguf):
        model.finish()
    return model


@contextmanager
def _named_refusals(gguf: GGUFFile) -> Iterator[None]:
    """What the native core refuses, as errors that name the file."""
    try:
        yield
    except ValueError as error:
        raise UnsupportedModel(f"{gguf.path}: the native core refuses this model: {error}") from error
    except MemoryError as error:
        raise InsufficientMemory(f"{gguf.path}: the system gives no more memory for its weights") from error
