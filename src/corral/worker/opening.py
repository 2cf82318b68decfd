"""Opening a model: its file's header at once, its tokenizer on a thread while the rest of the program is imported."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corral.model.gguf import GGUFFile, open_gguf
from corral.text.templates import PromptTemplate, template_for
from corral.text.tokenizer import Tokenizer

OnProgress = Callable[[int, int], None]
OnPlan = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model file that is open.

    Args:
        opened_at: by time.monotonic().
        text: what turns text into ids and messages into text; raises UnsupportedModel or InvalidVocabulary.
    """

    gguf: GGUFFile
    opened_at: float
    text: Future[tuple[Tokenizer, PromptTemplate]]


@contextmanager
def open_model(path: Path) -> Iterator[OpenModel]:
    """The model file at `path`, open within the block.

    Raises:
        CorralError: as open_gguf does.
    """
    opened_at = time.monotonic()
    pool = ThreadPoolExecutor(1, thread_name_prefix="corral-text")
    with _paused_collector(), open_gguf(path) as gguf, pool:
        yield OpenModel(gguf, opened_at, pool.submit(_read_text, gguf.metadata))


def _read_text(metadata: Mapping[str, Any]) -> tuple[Tokenizer, PromptTemplate]:
    tokenizer = Tokenizer.from_metadata(metadata)
    source = metadata.get("tokenizer.chat_template")
    if source is None and any(key.endswith(".pooling_type") for key in metadata):
        source = ""  # a model for embeddings never chats: nothing to warn of
    return tokenizer, template_for(tokenizer, source if isinstance(source, str) else None)


@contextmanager
def _paused_collector() -> Iterator[None]:
    """A load makes 10^5 objects, and they stay: to look among them for garbage takes time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
