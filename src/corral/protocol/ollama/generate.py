"""Ollama's /api/generate: body -> Request. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corral.errors import InvalidRequest
from corral.protocol.ollama.call import Call, read_call, refuse_images
from corral.protocol.ollama.fields import Fields
from corral.request import Request


@dataclass(frozen=True, slots=True)
class GenerateCall(Call):
    """A prompt, or the beginning and the end of a text whose middle is wanted.

    Args:
        system, template: in place of the Modelfile's.
        context: ids of an earlier exchange, as its answer gave them.
    """

    prompt: str
    suffix: str
    system: str
    template: str
    raw: bool
    context: tuple[int, ...]

    def request(self, parameters: Mapping[str, Any]) -> Request:
        """The Request, with the model's own `parameters` where the client gave none.

        Raises:
            InvalidRequest: it asks for what cannot be done, or a value cannot be obeyed.
        """
        if self.raw:
            return self._request(parameters, "gen", prompt=self.prompt, suffix=self.suffix or None)
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": self.prompt})
        return self._request(
            parameters,
            "gen",
            messages=messages,
            suffix=self.suffix or None,
            template=self.template or None,
            context=self.context,
            with_prompt_ids=True,
        )


def parse_generate(body: Mapping[str, Any]) -> GenerateCall:
    """Reads a body.

    Raises:
        InvalidRequest: a wrong type or value, in Ollama's words.
    """
    fields = Fields(body, "GenerateRequest")
    prompt, raw = fields.text("prompt"), bool(fields.flag("raw"))
    system, template = fields.text("system"), fields.text("template")
    context = _read_context(fields)
    if raw and (template or system or context):
        raise InvalidRequest("raw mode does not support template, system, or context")
    refusals = (refuse_images(fields.text("model"), fields.items("images")),)
    return GenerateCall(
        **read_call(fields, is_empty=not prompt, refusals=refusals),
        prompt=prompt,
        suffix=fields.text("suffix"),
        system=system,
        template=template,
        raw=raw,
        context=context,
    )


def _read_context(fields: Fields) -> tuple[int, ...]:
    ids = fields.items("context")
    for value in ids:
        if type(value) is not int or not 0 <= value < 1 << 31:
            raise InvalidRequest("context must be the token ids of an earlier answer", param="context")
    return tuple(ids)
