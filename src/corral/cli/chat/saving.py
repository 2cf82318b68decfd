"""A conversation as a model of its own, for /save."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.store.names import as_path

if TYPE_CHECKING:
    from corral.cli.conversation import Conversation
    from corral.store.create import CreateSpec


def spec_of(model: str, conversation: Conversation) -> CreateSpec:
    """`model` with the system message, the parameters and the messages that this conversation has."""
    from corral.store.create import CreateSpec

    path = as_path(model)
    return CreateSpec(
        from_=model if path is None else None,
        files={} if path is None else {path.name: str(path.resolve())},
        adapters={},
        template=None,
        system=conversation.system,
        parameters=dict(conversation.options),
        messages=tuple(dict(message) for message in conversation.messages),
        licenses=(),
        quantize=None,
        renderer=None,
        parser=None,
        requires=None,
    )
