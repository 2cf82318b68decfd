"""What a model is, for lists and for `show`: read from the header of its GGUF file, never taken on trust."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.errors import CorralError, ModelNotFound
from corral.store.local_model import LocalModel
from corral.store.manifest import MODEL
from corral.store.stored_model import StoredModel

if TYPE_CHECKING:
    from corral.model.gguf import GGUFFile

# general.file_type is an index of this list, llama.cpp's enumeration llama_ftype; "-" is used no more.
_FILE_TYPES = (
    "F32", "F16", "Q4_0", "Q4_1", "Q4_1_F16", "-", "-", "Q8_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L",
    "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ2_XXS", "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ1_S",
    "IQ4_NL", "IQ3_S", "IQ3_M", "IQ2_S", "IQ2_M", "IQ4_XS", "IQ1_M", "BF16", "-", "-", "-", "TQ1_0", "TQ2_0",
    "MXFP4", "NVFP4", "Q1_0",
)  # fmt: skip
_GUESSED = 1024  # added to a file type that its writer has guessed
_MAX_SHORT_ARRAY = 5
_MAX_CACHED = 512

_EMBEDDING_FAMILY = re.compile(r"(^|-)bert(-|$)|^(t5encoder|gemma-embedding)$")
_CONTROL_TYPES = (3, 4)  # control and user-defined tokens
_FIM_TEXTS = (  # of the token before the prefix, and of the one before the suffix
    frozenset(
        ("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>")
    ),
    frozenset(
        ("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>")
    ),
)
_FIM_KEYS = (("fim_pre_token_id", "prefix_token_id"), ("fim_suf_token_id", "suffix_token_id"))

_TEMPLATE_TAGS = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_TOOLS = re.compile(r"\btools\b|\.Tools\b")
_THINKS = re.compile(
    r"</?think>|<thinking>|\[THINK\]|<\|channel|\b(?:enable_thinking|reasoning_content|reasoning_effort)\b"
    r"|\.Think\b|\.ThinkLevel\b|\.Thinking\b"
)

logger = logging.getLogger("corral.store")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What lists and `show` tell.

    Args:
        family: general.architecture of the file; empty if the file cannot be read.
        parameter_size: as people say it: "134.52M", "1.5B".
        quantization_level: "Q4_K_M", or "unknown".
        context_length, embedding_length: 0 where the file does not say.
        capabilities: of completion, embedding, insert, tools, thinking.
        parent_model: the model that it was made from, if its manifest says so.
    """

    format: str = "gguf"
    family: str = ""
    families: tuple[str, ...] = ()
    parameter_size: str = ""
    quantization_level: str = "unknown"
    context_length: int = 0
    embedding_length: int = 0
    capabilities: tuple[str, ...] = ()
    parent_model: str = ""


@dataclass(frozen=True, slots=True)
class _Header:
    """What the header of a file says, whatever a Modelfile adds."""

    family: str
    num_parameters: int
    quantization_level: str
    context_length: int
    embedding_length: int
    is_embedding: bool
    can_insert: bool
    template: str


_cache: dict[tuple[str, int, int], _Header | None] = {}
_cache_lock = threading.Lock()


def facts_of(model: StoredModel | LocalModel) -> ModelFacts:
    """The facts of a model; of one whose file is missing, broken or unknown to Corral, what is left of them.

    The latter is a warning in the log: a list must show the others, and this one too.
    """
    parent = ""
    if isinstance(model, StoredModel):
        parent = next((layer.from_ for layer in model.manifest.of_type(MODEL) if layer.from_), "")
        try:
            local = model.to_local()
        except CorralError as error:
            logger.warning("%s", error)
            return ModelFacts(parent_model=parent)
    else:
        local = model
    header = _header(local.path)
    if header is None:
        return ModelFacts(parent_model=parent)
    families = (header.family, "clip") if local.projector else (header.family,)
    return ModelFacts(
        family=header.family,
        families=families if header.family else (),
        parameter_size=parameter_size(header.num_parameters),
        quantization_level=header.quantization_level,
        context_length=header.context_length,
        embedding_length=header.embedding_length,
        capabilities=_capabilities(header, local.template),
        parent_model=parent,
    )


def model_info(path: Path, *, verbose: bool) -> dict[str, Any]:
    """The file's metadata as /api/show has it: no name and no template, which are told elsewhere; a parameter count.

    Arrays of more than 5 elements are empty unless `verbose`. Text that is no UTF-8 has U+FFFD in its place; numbers
    that JSON cannot say are None.

    Raises:
        InvalidModelFile, UnsupportedModel, ModelNotFound: as open_gguf.
    """
    from corral.model.gguf import open_gguf

    with open_gguf(path) as gguf:
        info = {
            key: _shown(gguf, key, value, verbose=verbose)
            for key, value in gguf.metadata.items()
            if key not in ("general.name", "tokenizer.chat_template")
        }
        return info | {"general.parameter_count": _num_parameters(gguf)}


def tensors_of(path: Path) -> list[dict[str, Any]]:
    """Name, type ("Q4_K") and shape (row length first) of every tensor, in the order of the file.

    Raises:
        InvalidModelFile, UnsupportedModel, ModelNotFound: as open_gguf.
    """
    from corral.model.gguf import open_gguf

    with open_gguf(path) as gguf:
        return [
            {"name": _utf8(info.name), "type": info.type.name, "shape": list(info.shape)}
            for info in gguf.tensors.values()
        ]


def parameter_size(count: int) -> str:
    """A number of parameters as Ollama writes it: 134515008 is "134.52M", 1543714304 "1.5B"."""
    for unit, divisor, places in (("B", 10**9, 1), ("M", 10**6, 2), ("K", 10**3, 0)):
        if count >= divisor:
            return f"{count / divisor:.{0 if count % divisor == 0 else places}f}{unit}"
    return str(count)


def _capabilities(header: _Header, template: str | None) -> tuple[str, ...]:
    if header.is_embedding:
        return ("embedding",)
    text = template if template is not None else header.template
    is_go = template is not None and re.search(r"\{\{-?\s*(if|range|end|\.|\$)", template) is not None
    tags = " ".join(_TEMPLATE_TAGS.findall(text))
    found = ["completion"]
    if _TOOLS.search(tags):
        found.append("tools")
    if header.can_insert or (is_go and re.search(r"\.Suffix\b", tags)):
        found.append("insert")
    if _THINKS.search(text):
        found.append("thinking")
    return tuple(found)


def _header(path: Path) -> _Header | None:
    """From memory, as long as the file is as it was."""
    try:
        status = path.stat()
    except OSError as error:
        logger.warning("%s cannot be read: %s", path, error.strerror or error)
        return None
    key = (str(path), status.st_size, status.st_mtime_ns)
    with _cache_lock:
        if key in _cache:
            return _cache[key]
    try:
        header = _read_header(path)
    except ModelNotFound:  # deleted since
        return None
    except CorralError as error:
        logger.warning("%s", error)
        header = None
    with _cache_lock:
        if len(_cache) >= _MAX_CACHED:
            _cache.clear()
        _cache[key] = header
    return header


def _read_header(path: Path) -> _Header:
    from corral.model.gguf import open_gguf

    with open_gguf(path) as gguf:
        metadata = gguf.metadata
        family = _text(metadata, "general.architecture")
        return _Header(
            family=family,
            num_parameters=_num_parameters(gguf),
            quantization_level=_quantization_level(gguf),
            context_length=_number(metadata, f"{family}.context_length"),
            embedding_length=_number(metadata, f"{family}.embedding_length"),
            is_embedding=_number(metadata, f"{family}.pooling_type") > 0 or bool(_EMBEDDING_FAMILY.search(family)),
            can_insert=_can_insert(gguf),
            template=_text(metadata, "tokenizer.chat_template"),
        )


def _num_parameters(gguf: GGUFFile) -> int:
    return sum(math.prod(info.shape) for info in gguf.tensors.values())


def _quantization_level(gguf: GGUFFile) -> str:
    """What the file says, else the type that most weights have."""
    file_type = gguf.metadata.get("general.file_type")
    if isinstance(file_type, int) and not isinstance(file_type, bool) and 0 <= file_type < 2 * _GUESSED:
        name = dict(enumerate(_FILE_TYPES)).get(file_type % _GUESSED, "-")
        if name != "-":
            return name
    weights: Counter[str] = Counter()
    for info in gguf.tensors.values():
        weights[info.type.name] += math.prod(info.shape)
    return weights.most_common(1)[0][0] if weights else "unknown"


def _can_insert(gguf: GGUFFile) -> bool:
    """Whether the vocabulary has tokens for a prefix and a suffix; they are among the few control tokens."""
    metadata = gguf.metadata
    if all(any(f"tokenizer.ggml.{key}" in metadata for key in keys) for keys in _FIM_KEYS):
        return True
    types, tokens = metadata.get("tokenizer.ggml.token_type"), metadata.get("tokenizer.ggml.tokens")
    num_tokens = gguf.array_length("tokenizer.ggml.tokens")
    if not isinstance(types, list) or tokens is None or num_tokens is None:
        return False
    pairs = zip(range(num_tokens), types, strict=False)
    special = {tokens[index] for index, kind in pairs if kind in _CONTROL_TYPES}
    return all(texts & special for texts in _FIM_TEXTS)


def _shown(gguf: GGUFFile, key: str, value: Any, *, verbose: bool) -> Any:
    """A value of the metadata as JSON can say it; only `verbose` takes long arrays out of the core."""
    length = gguf.array_length(key)
    if length is None:
        return _plain(value)
    if length > _MAX_SHORT_ARRAY and not verbose:
        return []
    return [_plain(item) for item in (value if isinstance(value, list) else value.to_list())]


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return _utf8(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _utf8(text: str) -> str:
    """Bytes that are no UTF-8, which the reader keeps as surrogates, become U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _text(metadata: Mapping[str, Any], key: str) -> str:
    value = metadata.get(key)
    return _utf8(value) if isinstance(value, str) else ""


def _number(metadata: Mapping[str, Any], key: str) -> int:
    value = metadata.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
