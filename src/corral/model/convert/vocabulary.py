"""Tokenizer files as GGUF keys: byte-level BPE from tokenizer.json, SentencePiece from tokenizer.model."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, NoReturn

from corral.errors import InvalidModelFile, ModelNotFound, UnsupportedModel
from corral.model import gguf_writer as write
from corral.model.convert.checkpoint import Checkpoint
from corral.model.convert.sentencepiece_model import read_pieces
from corral.model.convert.settings import Settings


class TokenType(enum.IntEnum):
    """GGUF's, which are SentencePiece's."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


MAX_TOKENS = 1 << 21
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How words are split, as _signature writes it -> GGUF's name for it.
_PRE_SPLITS = {
    (f"Split {_CASED}|{_WORDS}|\\p{{N}}|{_REST}", "ByteLevel"): "qwen2",
    (f"Split {_CASED}|{_WORDS}|\\p{{N}}{{1,3}}|{_REST}", "ByteLevel"): "llama-bpe",
    (f"Split {_TEKKEN}", "ByteLevel"): "tekken",
    ("Digits", "ByteLevel words"): "smollm",
    ("ByteLevel words",): "gpt-2",
}
# Roles of special tokens: GGUF's key -> tokenizer_config.json's.
_ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


@dataclass(slots=True)
class _Vocabulary:
    """By id: text, type and score of each token."""

    tokens: list[str]
    types: list[int]
    scores: list[float]

    def resize(self, size: int) -> None:
        """Fills up to the rows of the embedding."""
        for index in range(len(self.tokens), size):
            self.put(index, f"[PAD{index}]", TokenType.UNUSED)

    def put(self, index: int, text: str, kind: TokenType) -> None:
        while len(self.tokens) <= index:
            self.tokens.append(f"[PAD{len(self.tokens)}]")
            self.types.append(TokenType.UNUSED)
            self.scores.append(-1000.0)
        self.tokens[index], self.types[index] = text, kind


def vocabulary_values(checkpoint: Checkpoint, settings: Settings, vocab_size: int) -> dict[str, bytes]:
    """All `tokenizer.*` keys of the model in `checkpoint`; its embedding has `vocab_size` rows.

    Raises:
        ModelNotFound: the folder has no tokenizer.
        UnsupportedModel: a tokenizer of a kind, or with a way of splitting words, that Corral does not know.
        InvalidModelFile: a damaged tokenizer.
    """
    if vocab_size > MAX_TOKENS:
        raise InvalidModelFile(settings.path, 0, f"the embedding has {vocab_size} rows; {MAX_TOKENS} are allowed")
    config = checkpoint.read_json("tokenizer_config.json") or {}
    described = checkpoint.read_json("tokenizer.json")
    if (checkpoint.folder / "tokenizer.model").exists():
        vocabulary, values = _sentencepiece(checkpoint)
    elif described is not None:
        vocabulary, values = _byte_level(checkpoint, described)
    else:
        raise ModelNotFound(f"{checkpoint.folder} has neither tokenizer.json nor tokenizer.model")
    for index, text, is_special in _added_tokens(described, config, vocab_size):
        vocabulary.put(index, text, TokenType.CONTROL if is_special else TokenType.USER_DEFINED)
    if len(vocabulary.tokens) > vocab_size:
        raise InvalidModelFile(
            checkpoint.folder, 0, f"its tokenizer has {len(vocabulary.tokens)} tokens, its embedding {vocab_size} rows"
        )
    vocabulary.resize(vocab_size)
    return {
        **values,
        "tokenizer.ggml.tokens": write.string_array(vocabulary.tokens),
        "tokenizer.ggml.token_type": write.int32_array(vocabulary.types),
        **(
            {"tokenizer.ggml.scores": write.float32_array(vocabulary.scores)}
            if (checkpoint.folder / "tokenizer.model").exists()
            else {}
        ),
        **_special_values(vocabulary, config, settings),
        **_template_values(checkpoint, config),
    }


def _sentencepiece(checkpoint: Checkpoint) -> tuple[_Vocabulary, dict[str, bytes]]:
    model = read_pieces(checkpoint.folder / "tokenizer.model")
    vocabulary = _Vocabulary(
        [piece.text for piece in model.pieces],
        [piece.kind for piece in model.pieces],
        [piece.score for piece in model.pieces],
    )
    return vocabulary, {
        "tokenizer.ggml.model": write.string("llama"),
        "tokenizer.ggml.pre": write.string("default"),
        "tokenizer.ggml.add_space_prefix": write.boolean(model.adds_space),
    }


def _byte_level(checkpoint: Checkpoint, described: dict[str, Any]) -> tuple[_Vocabulary, dict[str, bytes]]:
    path = checkpoint.folder / "tokenizer.json"

    def fail(fault: str) -> NoReturn:
        raise InvalidModelFile(path, 0, fault)

    model = described.get("model")
    if not isinstance(model, dict) or model.get("type") not in ("BPE", None) or model.get("byte_fallback"):
        kind = model.get("type") if isinstance(model, dict) else None
        raise UnsupportedModel(
            f"{path}: a tokenizer of the kind {kind!r:.40} is not converted; byte-level BPE is, and SentencePiece from "
            "tokenizer.model: put that file beside it"
        )
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict) or not isinstance(merges, list) or not vocab:
        fail("it has no vocabulary and merges")
    by_id = {index: text for text, index in vocab.items() if type(index) is int and 0 <= index < MAX_TOKENS}
    if len(by_id) != len(vocab):
        fail("two tokens share an id, or an id is no number")
    vocabulary = _Vocabulary([], [], [])
    for index in sorted(by_id):
        vocabulary.put(index, by_id[index], TokenType.NORMAL)
    pairs = [" ".join(pair) if isinstance(pair, list) and len(pair) == 2 else pair for pair in merges]
    if not all(isinstance(pair, str) for pair in pairs):
        fail("a merge is no pair")
    signature = _signature(described.get("pre_tokenizer"))
    if signature not in _PRE_SPLITS:
        known = ", ".join(_PRE_SPLITS.values())
        raise UnsupportedModel(f"{path}: it splits words by {signature}, which is none of {known}")
    return vocabulary, {
        "tokenizer.ggml.model": write.string("gpt2"),
        "tokenizer.ggml.pre": write.string(_PRE_SPLITS[signature]),
        "tokenizer.ggml.merges": write.string_array(pairs),
    }


def _signature(pre_tokenizer: object) -> tuple[str, ...]:
    """The steps of a pre-tokenizer, each in a few words."""
    if not isinstance(pre_tokenizer, dict):
        return ()
    if pre_tokenizer.get("type") == "Sequence":
        steps = pre_tokenizer.get("pretokenizers")
        return tuple(word for step in steps for word in _signature(step)) if isinstance(steps, list) else ()
    match pre_tokenizer:
        case {"type": "Split", "pattern": {"Regex": str(regex)}}:
            return (f"Split {regex}",)
        case {"type": "ByteLevel", "use_regex": False}:
            return ("ByteLevel",)
        case {"type": "ByteLevel"}:
            return ("ByteLevel words",)
        case {"type": "Digits", "individual_digits": True}:
            return ("Digits",)
    return (str(pre_tokenizer.get("type"))[:60],)


def _added_tokens(
    described: dict[str, Any] | None, config: dict[str, Any], vocab_size: int
) -> list[tuple[int, str, bool]]:
    """(id, text, is special) of the tokens that were added to the model's own."""
    listed = described.get("added_tokens") if described else None
    decoder = config.get("added_tokens_decoder")
    entries: list[tuple[object, object]] = []
    if isinstance(listed, list):
        entries = [(entry.get("id"), entry) for entry in listed if isinstance(entry, dict)]
    elif isinstance(decoder, dict):
        entries = [(int(key), entry) for key, entry in decoder.items() if key.isdecimal()]
    found = []
    for index, entry in entries:
        if isinstance(entry, dict) and type(index) is int and 0 <= index < vocab_size:
            text = entry.get("content")
            if isinstance(text, str) and text:
                found.append((index, text, entry.get("special") is True))
    return found


def _special_values(vocabulary: _Vocabulary, config: dict[str, Any], settings: Settings) -> dict[str, bytes]:
    ids = {text: index for index, text in enumerate(vocabulary.tokens)}
    found: dict[str, bytes] = {}
    for role, name in _ROLES.items():
        text = config.get(name)
        text = text.get("content") if isinstance(text, dict) else text
        index = ids.get(text) if isinstance(text, str) else settings.values.get(f"{name}_id")
        index = index[0] if isinstance(index, list) and index else index
        if type(index) is int and 0 <= index < len(vocabulary.tokens):
            found[f"tokenizer.ggml.{role}_token_id"] = write.uint32(index)
    for name in ("add_bos_token", "add_eos_token"):
        if isinstance(config.get(name), bool):
            found[f"tokenizer.ggml.{name}"] = write.boolean(config[name])
    return found


def _template_values(checkpoint: Checkpoint, config: dict[str, Any]) -> dict[str, bytes]:
    path = checkpoint.folder / "chat_template.jinja"
    template = config.get("chat_template")
    if path.exists():
        template = path.read_text("utf-8", "replace")
    if isinstance(template, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return {"tokenizer.chat_template": write.string(template)} if isinstance(template, str) else {}
