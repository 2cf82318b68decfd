"""How a byte-level BPE vocabulary cuts a text into words before merging: llama.cpp's `pre` kinds.

The expressions are Oniguruma's, as the tokenizers library runs them. They match what llama.cpp's hand-written
splitters and std::regex patterns match, with two differences in form:
- Letters, numbers and punctuation are those of Unicode 15.1, as in llama.cpp; Oniguruma's newer ones are taken out.
- Nothing backtracks over a long run, as the usual patterns do once per character. Where that changes a pattern's
  form, a comment says why it changes no match.
"""

from __future__ import annotations

from dataclasses import dataclass

from corral.errors import UnsupportedModel

# Assigned by Unicode 16, so unassigned to llama.cpp's tables.
_NEW_LETTERS = (
    r"\x{1C89}-\x{1C8A}\x{A7CB}-\x{A7CD}\x{A7DA}-\x{A7DC}\x{105C0}-\x{105F3}\x{10D4A}-\x{10D65}\x{10D6F}-\x{10D85}"
    r"\x{10EC2}-\x{10EC4}\x{11380}-\x{11389}\x{1138B}\x{1138E}\x{11390}-\x{113B5}\x{113B7}\x{113D1}\x{113D3}"
    r"\x{11BC0}-\x{11BE0}\x{13460}-\x{143FA}\x{16100}-\x{1611D}\x{16D40}-\x{16D6C}\x{18CFF}\x{1E5D0}-\x{1E5ED}\x{1E5F0}"
)
_NEW_NUMBERS = (
    r"\x{10D40}-\x{10D49}\x{116D0}-\x{116E3}\x{11BF0}-\x{11BF9}\x{16130}-\x{16139}\x{16D70}-\x{16D79}"
    r"\x{1CCF0}-\x{1CCF9}\x{1E5F1}-\x{1E5FA}"
)
_NEW_PUNCTUATION = (
    r"\x{1B4E}-\x{1B4F}\x{1B7F}\x{10D6E}\x{113D4}-\x{113D5}\x{113D7}-\x{113D8}\x{11BE1}\x{16D6D}-\x{16D6F}\x{1E5FF}"
)
_LETTER = rf"[\p{{L}}&&[^{_NEW_LETTERS}]]"
_NUMBER = rf"[\p{{N}}&&[^{_NEW_NUMBERS}]]"
_PUNCTUATION = rf"[\p{{P}}&&[^{_NEW_PUNCTUATION}]]"
_OTHER = rf"[^\s{_LETTER}{_NUMBER}]"
_LEAD = rf"[^\r\n{_LETTER}{_NUMBER}]"  # what may stand before the letters of a word

# \s+(?!\S) takes a run of white space but for its last character, or all of it at the end of the text.
_SPACES = r"(?:\s(?=\s|\z))++|\s++"
# \s*[\r\n]+ takes a run of white space up to its last line break.
_LINE_BREAKS = r"(?:[^\S\r\n]*+[\r\n]++)++"
_CONTRACTION = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?{_LETTER}++| ?{_NUMBER}++| ?{_OTHER}++|{_SPACES}"


def _llama3(num_digits: int) -> str:
    numbers = _NUMBER if num_digits == 1 else rf"{_NUMBER}{{1,{num_digits}}}"
    return rf"{_CONTRACTION}|{_LEAD}?{_LETTER}++|{numbers}| ?{_OTHER}++[\r\n]*+|{_LINE_BREAKS}|{_SPACES}"


def _tekken() -> str:
    # llama.cpp knows case only in ASCII: letters are A-Z (upper), a-z (lower), and others, which count as both.
    # Its first pattern is [upper]*[lower]+ with backtracking; "upper" runs end before a-z or at no letter at all:
    # - before a-z, the run and the lower letters after it are the match;
    # - else the match ends with the last letter of the run that also counts as lower.
    # Its second pattern, [upper]+[lower]*, is then left with runs of A-Z only.
    upper, lower, both = (rf"[{_LETTER}&&[^{ascii_range}]]" for ascii_range in ("a-z", "A-Z", "a-zA-Z"))
    first = rf"(?:{upper}*+{lower}++|(?:[A-Z]*+{both}++)++)"
    return rf"{_LEAD}?{first}|{_LEAD}?[A-Z]++|{_NUMBER}| ?{_OTHER}++[\r\n/]*+|{_LINE_BREAKS}|{_SPACES}"


@dataclass(frozen=True, slots=True)
class PreSplit:
    """One kind of pre-split: `patterns` are applied one after the other, each inside the pieces of the one before."""

    patterns: tuple[str, ...]
    keeps_whole_words: bool = False  # a word that is a token is taken as it is, without merging
    adds_bos: bool = False  # unless the file says otherwise


_LLAMA3 = PreSplit((_llama3(3),), keeps_whole_words=True, adds_bos=True)
_LLAMA3_MERGING = PreSplit((_llama3(3),))
_QWEN2 = PreSplit((_llama3(1),))
_SMOLLM = PreSplit((_NUMBER, _GPT2))
_GPT_2 = PreSplit((_GPT2,))
_TEKKEN = PreSplit((_tekken(),), keeps_whole_words=True, adds_bos=True)
_DEFAULT = PreSplit((rf"[{_PUNCTUATION}$+<=>^~|]++", _GPT2, rf"{_NUMBER}++", "[0-9][0-9][0-9]"))

PRE_SPLITS: dict[str, PreSplit] = {
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"), _LLAMA3
    ),
    **dict.fromkeys(("dbrx", "smaug-bpe"), _LLAMA3_MERGING),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan"), _QWEN2),
    "solar-open": _QWEN2,
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _SMOLLM),
    "mellum2": _SMOLLM,
    **dict.fromkeys(("gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "exaone4", "mpt", "olmo", "jais"), _GPT_2),
    **dict.fromkeys(("trillion", "granite-docling", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de"), _GPT_2),
    "tekken": _TEKKEN,
    "default": _DEFAULT,
}


def pre_split_of(pre: str) -> PreSplit:
    """The kind called `pre` in GGUF files.

    Raises:
        UnsupportedModel: no such kind is known.
    """
    if pre in PRE_SPLITS:
        return PRE_SPLITS[pre]
    raise UnsupportedModel(
        f"tokenizer.ggml.pre is {pre!r}; Corral knows {', '.join(sorted(PRE_SPLITS))}. "
        "Use a model with one of these tokenizers"
    )
