"""From a request to the constraint of its answers: its grammar, the calls it must make, and how long it may think."""

from __future__ import annotations

import threading

from corral.engine.constraint import Constraint
from corral.errors import InvalidRequest
from corral.grammar import Grammar
from corral.request import Request
from corral.text.grammar.compile import GrammarCompiler
from corral.text.grammar.matcher import GrammarMatcher
from corral.text.grammar.thinking import Closing, ThinkingConstraint
from corral.text.reasoning import Markers
from corral.text.tokenizer import Tokenizer
from corral.text.tools.offered import OfferedTools
from corral.tool_call import ToolMode
from corral.worker.prompting import Prompt


class Constraining:
    """Constraints of one model. Safe to use from several threads; costs nothing until a request needs one.

    Args:
        vocab_size: of the model's logits.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._compiler = GrammarCompiler(tokenizer, vocab_size)
        self._closings: dict[tuple[Markers, bool], Closing] = {}  # a model's template has one pair, an override its own
        self._lock = threading.Lock()

    def constraint_for(self, request: Request, prompt: Prompt) -> Constraint | None:
        """What the answers must keep to, in its first state; None if nothing.

        Raises:
            InvalidRequest: the grammar, or the tools where calls are required, cannot be used; says why.
        """
        markers = prompt.markers
        # Only an answer that begins the text loses its first space, and a raw prompt's goes on in a text.
        drops_space = self._tokenizer.adds_space_prefix and request.messages is not None and not prompt.is_thinking
        answer = self._answer(request, prompt, drops_space=drops_space)
        if markers is None or (answer is None and request.thinking_budget is None):
            return answer
        closing = self._closing(markers, has_grammar=answer is not None)
        return ThinkingConstraint(closing, answer, request.thinking_budget, is_open=prompt.is_thinking)

    def _answer(self, request: Request, prompt: Prompt, *, drops_space: bool) -> GrammarMatcher | None:
        grammar = request.grammar
        choice = request.tool_choice
        is_required = bool(request.tools) and choice.mode is ToolMode.REQUIRED
        style = prompt.tool_style
        if is_required and style is None:
            raise InvalidRequest(
                "tool_choice requires a call, and it is not known how this model writes calls", param="tool_choice"
            )
        if style is None or (grammar is None and not is_required):
            return None if grammar is None else self._compiler.compile(grammar, drops_space=drops_space)
        tools = OfferedTools(request.tools or (), choice)
        if not tools.names:
            raise InvalidRequest("tool_choice names no tool that tools has", param="tool_choice")
        lark = style.call_grammar(tools, self._compiler.vocabulary.terminal)
        answer: Grammar | None = None if is_required else grammar
        is_strict = any(_is_strict(tool) for tool in request.tools or ())
        try:
            return self._compiler.compile_calls(lark, answer, is_strict=is_strict, drops_space=drops_space)
        except InvalidRequest as error:
            if answer is not None:
                # Which of the two it is: alone, the answer's grammar fails with its own reason, or it was the tools.
                self._compiler.compile(answer)
            raise InvalidRequest(error.message, param="tools") from None

    def _closing(self, markers: Markers, *, has_grammar: bool) -> Closing:
        with self._lock:
            key = (markers, has_grammar)
            if key not in self._closings:
                if len(self._closings) >= _MAX_CLOSINGS:
                    self._closings.clear()
                vocabulary = self._compiler.vocabulary if has_grammar else None
                self._closings[key] = Closing(markers, self._tokenizer, vocabulary)
            return self._closings[key]


_MAX_CLOSINGS = 8


def _is_strict(tool: dict[str, object]) -> bool:
    function = tool.get("function")
    return isinstance(function, dict) and function.get("strict") is True
