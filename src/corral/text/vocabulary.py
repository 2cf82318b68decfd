"""The vocabulary of a model, read from GGUF metadata and checked: tokens, their kinds, scores and special ids."""

from __future__ import annotations

import enum
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from corral._native import StringIndex, StringTable
from corral.errors import InvalidVocabulary, UnsupportedModel
from corral.text.pre_split import PreSplit, pre_split_of
from corral.text.token_texts import (
    ALWAYS_VISIBLE,
    END_OF_GENERATION,
    END_OF_MESSAGE,
    END_OF_TURN,
    FILL_IN_MIDDLE,
    FILL_IN_MIDDLE_ENDS,
)

logger = logging.getLogger(__name__)

TOKENIZER_MODELS = ("gpt2", "llama", "bert")
MAX_TOKENS = 1 << 24  # four times the largest vocabulary known
MAX_TOKEN_BYTES = 1 << 16
MAX_SPECIAL_CHARS = 1 << 10
_PREFIX = "tokenizer.ggml."


class TokenType(enum.IntEnum):
    """Token types as GGUF files write them."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Checked tokenizer metadata, with llama.cpp's corrections of what files are known to get wrong.

    `types` are the file's own; `special` holds the ids that are control or unknown tokens after the corrections:
    they are found in a text only when special tokens are parsed, and never shown. `user_defined` tokens are cut out
    of every text before all else. A token may be in both: it then counts as special.
    """

    model: str
    pre_split: PreSplit | None  # None for SentencePiece and WordPiece, which do without
    tokens: StringTable  # surrogate escapes stand for bytes that are not UTF-8
    index: StringIndex  # of tokens
    types: bytes  # one TokenType each
    scores: Sequence[float]
    merges: StringTable
    special: frozenset[int]
    user_defined: frozenset[int]
    eog_ids: frozenset[int]
    bos_id: int | None
    eos_id: int | None
    unknown_id: int | None
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    strips_left: frozenset[int] = frozenset()  # special tokens that swallow white space before them
    strips_right: frozenset[int] = frozenset()


def read_vocabulary(metadata: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary in a GGUF file's metadata.

    Raises:
        UnsupportedModel: an unknown kind of tokenizer.
        InvalidVocabulary: a missing key, a wrong type, lengths that differ, duplicates, ids out of range.
    """
    fields = _Fields(metadata)
    model = fields.text("model")
    if model not in TOKENIZER_MODELS:
        raise UnsupportedModel(
            f"tokenizer.ggml.model is {model!r}; Corral knows {', '.join(TOKENIZER_MODELS)}. "
            "Use a model converted with one of these"
        )
    tokens, index = _read_tokens(fields)
    types = _read_types(fields, len(tokens))
    scores = _read_scores(fields, len(tokens)) if model == "llama" else ()
    merges = fields.strings("merges") if model == "gpt2" else StringTable([])
    is_spm = model == "llama"
    is_wordpiece = model == "bert"
    # Llama's ids are a convention of SentencePiece files. llama.cpp also has 11 for every BPE file that names none,
    # Falcon's; in most vocabularies that is a comma, so here such a file has no BOS and no EOS.
    pre_split = _read_pre_split(fields) if model == "gpt2" else None
    if is_wordpiece:
        bos_id, eos_id = _text_borders(fields, len(tokens))
    else:
        bos_id = fields.token_id("bos_token_id", len(tokens), 1 if is_spm else None)
        eos_id = fields.token_id("eos_token_id", len(tokens), 2 if is_spm else None)
    kinds = _Kinds(tokens, index, types)
    eog_ids = _end_of_generation(fields, kinds, eos_id)
    left, right = _white_space_rules(metadata, kinds)
    for token_id in kinds.special | kinds.user_defined:
        if len(tokens[token_id]) > MAX_SPECIAL_CHARS:
            raise InvalidVocabulary(
                _PREFIX + "tokens", f"special token {token_id} is longer than {MAX_SPECIAL_CHARS} characters"
            )
    return Vocabulary(
        model=model,
        pre_split=pre_split,
        tokens=tokens,
        index=index,
        types=types,
        scores=scores,
        merges=merges,
        special=frozenset(kinds.special),
        user_defined=frozenset(kinds.user_defined),
        eog_ids=eog_ids,
        bos_id=bos_id,
        eos_id=eos_id,
        unknown_id=fields.token_id("unknown_token_id", len(tokens), 0 if is_spm else 100 if is_wordpiece else None),
        # [CLS] and [SEP] stand around every text, whatever the flags say: so do llama.cpp and BERT's own tokenizer.
        add_bos=is_wordpiece or fields.flag("add_bos_token", is_spm or (pre_split is not None and pre_split.adds_bos)),
        add_eos=is_wordpiece or fields.flag("add_eos_token", False),
        add_space_prefix=is_wordpiece or fields.flag("add_space_prefix", is_spm),
        strips_left=left,
        strips_right=right,
    )


def _text_borders(fields: _Fields, num_tokens: int) -> tuple[int | None, int | None]:
    """What stands before and after a text of WordPiece: [CLS] and [SEP]. The misspelt key is the format's own."""
    first = fields.token_id("cls_token_id", num_tokens, 101)
    last = fields.token_id("eos_token_id", num_tokens, 102)
    return fields.token_id("bos_token_id", num_tokens, first), fields.token_id("seperator_token_id", num_tokens, last)


def token_bytes_of(text: str) -> bytes:
    """The bytes of a token's text, surrogate escapes turned back into the file's bytes."""
    return text.encode("utf-8", "surrogateescape")


def ids_of_types(types: bytes, *wanted: TokenType) -> list[int]:
    """The ids of all tokens of these types."""
    return [match.start() for match in re.finditer(b"[%b]" % re.escape(bytes(wanted)), types)]


def is_unicode(text: str) -> bool:
    """Whether a token's text can be encoded; one that cannot stands in no text."""
    # Nearly all texts are printable, and surrogates never are.
    return text.isprintable() or not any("\ud800" <= character <= "\udfff" for character in text)


class _Fields:
    """Typed access to the keys below `tokenizer.ggml.`."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata

    def has(self, name: str) -> bool:
        return _PREFIX + name in self._metadata

    def text(self, name: str, default: str | None = None) -> str:
        value = self._metadata.get(_PREFIX + name, default)
        if not isinstance(value, str):
            raise self._fault(name, "a text", value)
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._metadata.get(_PREFIX + name, default)
        if not isinstance(value, bool):
            raise self._fault(name, "true or false", value)
        return value

    def token_id(self, name: str, num_tokens: int, default: int | None) -> int | None:
        """The id under `name`; the default, if in range, when the file has none."""
        if not self.has(name):
            return default if default is not None and default < num_tokens else None
        value = self._metadata[_PREFIX + name]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < num_tokens:
            raise self._fault(name, f"a token id from 0 to {num_tokens - 1}", value)
        return value

    def strings(self, name: str) -> StringTable:
        value = self._metadata.get(_PREFIX + name)
        if isinstance(value, StringTable):
            return value
        try:
            return StringTable(self._list(name, (str,), "a list of texts"))
        except ValueError as error:
            raise InvalidVocabulary(_PREFIX + name, str(error)) from error

    def numbers(self, name: str, kinds: tuple[type, ...], num_tokens: int) -> list[Any]:
        values = self._list(name, kinds, "a list of numbers")
        if len(values) != num_tokens:
            raise InvalidVocabulary(_PREFIX + name, f"{len(values)} entries for {num_tokens} tokens")
        return values

    def _list(self, name: str, kinds: tuple[type, ...], expected: str) -> list[Any]:
        value = self._metadata.get(_PREFIX + name)
        if not isinstance(value, list | tuple):
            raise self._fault(name, expected, value)
        # The set of types is small, however long the list is.
        if wrong := {type(entry) for entry in value} - set(kinds):
            raise self._fault(name, expected, f"a list with {sorted(t.__name__ for t in wrong)}")
        return list(value)

    def _fault(self, name: str, expected: str, given: object) -> InvalidVocabulary:
        shown = "missing" if given is None else f"{given!r:.80}"
        return InvalidVocabulary(_PREFIX + name, f"must be {expected}, and is {shown}")


def _read_pre_split(fields: _Fields) -> PreSplit:
    pre = fields.text("pre", "")
    if not pre:
        logger.warning("the file does not name its pre-tokenizer; taking 'default', which may cost quality")
    return pre_split_of(pre or "default")


def _read_tokens(fields: _Fields) -> tuple[StringTable, StringIndex]:
    tokens = fields.strings("tokens")
    if not 0 < len(tokens) <= MAX_TOKENS:
        raise InvalidVocabulary(_PREFIX + "tokens", f"{len(tokens)} tokens; 1 to {MAX_TOKENS} are allowed")
    if tokens.longest_bytes > MAX_TOKEN_BYTES:
        raise InvalidVocabulary(_PREFIX + "tokens", f"a token is longer than {MAX_TOKEN_BYTES} bytes")
    index = _index_of(tokens)
    if index.find("") is not None:  # llama.cpp's name for an empty token
        named = [text or f"[EMPTY_{token_id}]" for token_id, text in enumerate(tokens.to_list())]
        tokens = StringTable(named)
        index = _index_of(tokens)
    if index.duplicate is not None:
        first, second = index.duplicate
        raise InvalidVocabulary(_PREFIX + "tokens", f"tokens {first} and {second} are both {tokens[first]!r:.80}")
    return tokens, index


def _index_of(tokens: StringTable) -> StringIndex:
    try:
        return StringIndex(tokens)
    except ValueError as error:
        raise InvalidVocabulary(_PREFIX + "tokens", str(error)) from error


def _read_types(fields: _Fields, num_tokens: int) -> bytes:
    if not fields.has("token_type"):
        return bytes([TokenType.NORMAL]) * num_tokens
    types = fields.numbers("token_type", (int,), num_tokens)
    if not set(types) <= set(TokenType):
        wrong = min(set(types) - set(TokenType))
        raise InvalidVocabulary(_PREFIX + "token_type", f"token {types.index(wrong)} has type {wrong}; 0 to 6 exist")
    return bytes(types)


def _read_scores(fields: _Fields, num_tokens: int) -> list[float]:
    if not fields.has("scores"):
        return [0.0] * num_tokens
    scores = fields.numbers("scores", (float, int), num_tokens)
    if not all(map(math.isfinite, scores)):
        raise InvalidVocabulary(_PREFIX + "scores", "a score is not finite")
    return scores


@dataclass(slots=True)
class _Kinds:
    """What each token counts as, while llama.cpp's corrections are being made."""

    tokens: StringTable
    index: StringIndex
    types: bytes
    special: set[int] = field(init=False)
    user_defined: set[int] = field(init=False)
    ids: dict[str, int] = field(init=False)  # of the texts that the corrections look for, as far as present

    def __post_init__(self) -> None:
        self.special = set(ids_of_types(self.types, TokenType.CONTROL, TokenType.UNKNOWN))
        self.user_defined = set(ids_of_types(self.types, TokenType.USER_DEFINED))
        wanted = {*END_OF_GENERATION, *END_OF_MESSAGE, *ALWAYS_VISIBLE, "<mask>"}
        wanted.update(text for _, texts in FILL_IN_MIDDLE for text in texts)
        self.ids = {text: i for text in wanted if (i := self.index.find(text)) is not None}

    def first(self, texts: Sequence[str]) -> int | None:
        """The lowest id among tokens with one of `texts`. llama.cpp takes whichever its hash table has first."""
        return min((self.ids[text] for text in texts if text in self.ids), default=None)

    def mark_control(self, token_id: int) -> None:
        self.special.add(token_id)

    def show(self, token_id: int) -> None:
        """Makes a token user-defined and nothing else."""
        self.special.discard(token_id)
        self.user_defined.add(token_id)


def _end_of_generation(fields: _Fields, kinds: _Kinds, eos_id: int | None) -> frozenset[int]:
    """The ids that end an answer, found as llama.cpp finds them; corrects `kinds` on the way."""
    num_tokens = len(kinds.tokens)
    eog: set[int] = set()
    named = {"eot_token_id": END_OF_TURN, "eom_token_id": END_OF_MESSAGE, **dict(FILL_IN_MIDDLE)}
    old_names = {
        "fim_pre_token_id": "prefix_token_id",
        "fim_suf_token_id": "suffix_token_id",
        "fim_mid_token_id": "middle_token_id",
    }
    found: dict[str, int | None] = {}
    for key, texts in named.items():
        token_id = fields.token_id(old_names.get(key, key), num_tokens, None) if key in old_names else None
        token_id = fields.token_id(key, num_tokens, token_id)
        if token_id is None and (token_id := kinds.first(texts)) is not None:
            kinds.mark_control(token_id)
        found[key] = token_id
    eog.update(token_id for key in FILL_IN_MIDDLE_ENDS if (token_id := found[key]) is not None)
    for text in END_OF_GENERATION:
        if (token_id := kinds.ids.get(text)) is not None:
            eog.add(token_id)
            kinds.mark_control(token_id)
    for text in ALWAYS_VISIBLE:
        if (token_id := kinds.ids.get(text)) is not None:
            kinds.show(token_id)
    eog.update(i for i in (eos_id, found["eot_token_id"], found["eom_token_id"]) if i is not None)
    _drop_false_ends(kinds, eog)
    return frozenset(eog)


def _drop_false_ends(kinds: _Kinds, eog: set[int]) -> None:
    """Two vocabularies use a text that ends an answer elsewhere for something else."""
    ends = {kinds.tokens[i]: i for i in eog}
    # gpt-oss and Solar: <|end|> closes one channel of an answer.
    has_channels = ends.keys() & {"<|call|>", "<|calls|>"} and ends.keys() & {"<|return|>", "<|flush|>"}
    if has_channels and "<|end|>" in ends:
        eog.discard(ends["<|end|>"])
        kinds.show(ends["<|end|>"])
    # Gemma 4 and PLaMo: </s> is HTML.
    if ends.keys() & {"<|tool_response>", "<|plamo:eos|>"} and "</s>" in ends:
        eog.discard(ends["</s>"])
        kinds.special.discard(ends["</s>"])
        kinds.user_defined.discard(ends["</s>"])


def _white_space_rules(metadata: Mapping[str, Any], kinds: _Kinds) -> tuple[frozenset[int], frozenset[int]]:
    """Tokens that swallow white space to their left and right. GGUF has no key for it; llama.cpp goes by names."""
    name = metadata.get("general.name", "")
    pre = metadata.get(_PREFIX + "pre", "")
    left: set[int] = set()
    right: set[int] = set()
    if isinstance(pre, str) and pre.startswith("jina-v2-") and "<mask>" in kinds.ids:
        left.add(kinds.ids["<mask>"])
    elif isinstance(name, str) and any(phi in name.lower() for phi in ("phi-3", "phi3")):
        keep = {"<unk>", "<s>", "<|endoftext|>"}
        right.update(i for i in kinds.special | kinds.user_defined if kinds.tokens[i] not in keep)
    return frozenset(left), frozenset(right)
