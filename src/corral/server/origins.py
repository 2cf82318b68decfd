"""Which web pages may call us: those of this machine and of desktop apps, and the origins that the operator names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from corral.errors import InvalidConfig
from corral.protocol.openai.errors import foreign_origin
from corral.server.replies import send_reply

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

# Ollama's own defaults: pages of this machine on any port, and apps that show a page of their own.
_LOCAL_NAMES = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104 - what a page is called, nothing is bound
DEFAULT_ORIGINS = (
    *(f"{scheme}://{name}{port}" for name in _LOCAL_NAMES for scheme in ("http", "https") for port in ("", ":*")),
    *("app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*"),
)
EXPOSED_HEADERS = (
    *("Retry-After", "X-Corral-Ignored", "Request-Id"),
    *("X-Corral-Queue-Position", "X-Corral-Expected-Wait"),
)
_ORIGIN = re.compile(r"\*|[A-Za-z][A-Za-z0-9+.-]*://[^\s/]+")


def origin_pattern(origins: Iterable[str]) -> str:
    """A regular expression that matches the whole of every origin allowed; "*" stands for any characters.

    Raises:
        InvalidConfig: one is no origin.
    """
    allowed = [*DEFAULT_ORIGINS, *origins]
    for origin in allowed:
        if not _ORIGIN.fullmatch(origin):
            raise InvalidConfig(
                f"{origin!r} is no origin; give scheme://host[:port], where * may stand for a part, or *"
            )
    patterns = "|".join(re.escape(origin).replace(r"\*", ".*") for origin in allowed)
    return f"(?i:{patterns})"


class OriginGuard:
    """Refuses what web pages of other origins send.

    A browser lets any page send a form or plain text to 127.0.0.1 without asking us first, and Ollama's API does not
    look at content types. But the browser says whose page it is, and the page cannot change that.
    """

    def __init__(self, app: ASGIApp, pattern: str) -> None:
        self._app = app
        self._allowed = re.compile(pattern)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_allowed(scope):
            await send_reply(scope, send, foreign_origin())
        else:
            await self._app(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        origins = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"origin"]
        hosts = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
        own = {f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")}
        return all(origin in own or self._allowed.fullmatch(origin) for origin in origins)
