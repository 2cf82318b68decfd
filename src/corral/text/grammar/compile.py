"""Compiles grammars: within limits of size and time, and each one only once while it is remembered."""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np

from corral.errors import CorralError, InvalidRequest
from corral.grammar import Grammar
from corral.limits import GRAMMAR_CACHE_BYTES, MAX_COMPILE_S, MAX_COMPILING
from corral.text.grammar.matcher import GrammarMatcher, reason_of
from corral.text.grammar.schema import MAX_MULTIPLE
from corral.text.grammar.sources import limited_lark, ll_grammar, name_of
from corral.text.grammar.vocabulary import GrammarVocabulary
from corral.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits

# A compiled grammar holds its automaton and the rows of its parser: measured up to 170 bytes for each one of its
# source, some 100 KB for the rest, and 370 for each number that multipleOf counts to.
_BYTES_PER_SOURCE_BYTE = 200
_BYTES_EACH = 100_000
_BYTES_OF_MULTIPLES = 400 * MAX_MULTIPLE

logger = logging.getLogger(__name__)


class GrammarCompiler:
    """Grammars of one model. Safe to use from several threads; what it needs of llguidance is made at the first one.

    Args:
        vocab_size: of the model's logits.
        cache_bytes: compiled grammars are forgotten, the longest unused first, when they come to more.
        max_compile_s: a grammar that takes longer is refused.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab_size: int,
        *,
        cache_bytes: int = GRAMMAR_CACHE_BYTES,
        max_compile_s: float = MAX_COMPILE_S,
    ) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._cache_bytes = cache_bytes
        self._max_compile_s = max_compile_s
        self._vocabulary: GrammarVocabulary | None = None
        self._cache: OrderedDict[str, LLMatcher] = OrderedDict()  # by what llguidance reads
        self._num_bytes = 0
        self._lock = threading.Lock()
        self._vocabulary_lock = threading.Lock()
        self._slots = threading.Semaphore(MAX_COMPILING)

    @property
    def num_bytes(self) -> int:
        """What the remembered grammars hold, by estimate."""
        return self._num_bytes

    @property
    def vocabulary(self) -> GrammarVocabulary:
        """The model's tokens, once for all grammars."""
        with self._vocabulary_lock:
            if self._vocabulary is None:
                self._vocabulary = GrammarVocabulary(self._tokenizer, self._vocab_size)
            return self._vocabulary

    def compile(self, grammar: Grammar, *, drops_space: bool = False) -> GrammarMatcher:
        """A matcher at the beginning of an answer.

        Args:
            drops_space: as GrammarMatcher says.

        Raises:
            InvalidRequest: the grammar is wrong, too large, takes too long, or asks for what is not supported.
        """
        return self._compiled([ll_grammar(grammar)], name_of(grammar.kind), drops_space)

    def compile_calls(
        self, lark: str, answer: Grammar | None = None, *, is_strict: bool = False, drops_space: bool = False
    ) -> GrammarMatcher:
        """As `compile`, of calls in llguidance's Lark; with `answer`, what it allows may be written instead.

        Args:
            is_strict: arguments that cannot be held to the whole of their schema are refused; otherwise they are held
                to what of it can be enforced.

        Raises:
            InvalidRequest: as `compile`.
        """
        lark = limited_lark(lark, is_lenient=not is_strict, is_closed=True)
        if answer is None:
            return self._compiled([{"lark_grammar": lark}], "tools' parameters", drops_space)
        grammars = [
            {"lark_grammar": "start: @calls | @answer"},
            {"name": "calls", "lark_grammar": lark},
            {"name": "answer", **ll_grammar(answer)},
        ]
        return self._compiled(grammars, f"{name_of(answer.kind)} with tools", drops_space)

    def _compiled(self, grammars: list[dict[str, Any]], name: str, drops_space: bool) -> GrammarMatcher:
        source = json.dumps({"grammars": grammars})
        with self._lock:
            known = self._cache.get(source)
            if known is not None:
                self._cache.move_to_end(source)
                return GrammarMatcher(known.deep_copy(), self.vocabulary, drops_space=drops_space)
        matcher = self._compile_in_time(source, name)
        copy = matcher.deep_copy()
        self._remember(source, matcher)
        return GrammarMatcher(copy, self.vocabulary, drops_space=drops_space)

    def _compile_in_time(self, source: str, name: str) -> LLMatcher:
        """On a thread of its own: llguidance cannot be interrupted, so one that takes too long is left behind."""
        vocabulary = self.vocabulary
        if not self._slots.acquire(timeout=self._max_compile_s):
            raise InvalidRequest(f"the {name} had to wait too long behind others that are compiled", param="grammar")
        result: Future[LLMatcher] = Future()

        def run() -> None:
            try:
                result.set_result(_compile(source, name, vocabulary))
            except BaseException as error:  # noqa: BLE001 - whoever waits gets it
                result.set_exception(error)
            finally:
                self._slots.release()

        threading.Thread(target=run, name="corral-grammar", daemon=True).start()
        try:
            return result.result(self._max_compile_s)
        except TimeoutError:
            message = f"the {name} takes more than {self._max_compile_s:g} s to compile; give a simpler one"
            raise InvalidRequest(message, param="grammar", code="limit_exceeded") from None

    def _remember(self, source: str, matcher: LLMatcher) -> None:
        size = _size_of(source)
        with self._lock:
            if size > self._cache_bytes or source in self._cache:
                return
            self._cache[source] = matcher
            self._num_bytes += size
            while self._num_bytes > self._cache_bytes:
                oldest, _ = self._cache.popitem(last=False)
                self._num_bytes -= _size_of(oldest)


def _size_of(source: str) -> int:
    multiples = _BYTES_OF_MULTIPLES if "multipleOf" in source else 0
    return _BYTES_EACH + _BYTES_PER_SOURCE_BYTE * len(source) + multiples


def _limits() -> LLParserLimits:
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_items_in_row=2_000,
        max_lexer_states=20_000,  # 1 to 2 KB each
        max_grammar_size=500_000,
        verbose_errors=False,
    )


def _compile(source: str, name: str, vocabulary: GrammarVocabulary) -> LLMatcher:
    """Compiles, and works out the first mask: much of what may go wrong does so there."""
    from llguidance import LLMatcher

    try:
        matcher = LLMatcher(vocabulary.ll, source, limits=_limits(), log_level=0)
        if not matcher.is_error():
            mask = np.zeros(vocabulary.num_words, dtype=np.uint32)
            matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
    except CorralError:
        raise
    except Exception as error:  # a fault of llguidance's own
        logger.exception("llguidance could not compile a grammar")
        raise InvalidRequest(f"the {name} could not be compiled", param="grammar") from error
    if matcher.is_error():
        raise InvalidRequest(f"the {name} cannot be used: {reason_of(matcher.get_error())}", param="grammar")
    return matcher
