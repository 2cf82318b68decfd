"""The application: routes, and around them the middleware that every request passes."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from corral.config import ServerConfig
from corral.errors import CorralError
from corral.protocol.openai_errors import ErrorReply, method_not_allowed, not_found, reply_to
from corral.server.auth import HostGuard, KeyAuth
from corral.server.lifecycle import DrainGate, Lifecycle
from corral.server.limits import BodyLimit, RefusedError
from corral.server.model_manager import ModelManager
from corral.server.openai_routes import openai_routes

CLIENT_CLOSED_REQUEST = 499  # nobody reads it; it only keeps the log honest


def build_app(manager: ModelManager, config: ServerConfig, lifecycle: Lifecycle | None = None) -> Starlette:
    """The ASGI app.

    Args:
        manager: the models it serves.
        lifecycle: whether it drains; a fresh one by default.
    """
    lifecycle = lifecycle or Lifecycle()

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "draining" if lifecycle.is_draining else "ok"})

    # What falls under Exception alone goes on to uvicorn too, which writes its stack to the log.
    handled = (CorralError, RefusedError, ClientDisconnect, HTTPException, Exception)
    app = Starlette(
        routes=[Route("/health", health), *openai_routes(manager)],
        exception_handlers=dict.fromkeys(handled, _reply_to_error),
    )
    app.router.redirect_slashes = False
    # The last one added is the outermost: no key, no byte of the body is read.
    app.add_middleware(BodyLimit, max_body_bytes=config.max_body_bytes)
    app.add_middleware(DrainGate, lifecycle=lifecycle)
    app.add_middleware(KeyAuth, keys=config.api_keys)
    if not config.api_keys and not config.no_auth:
        app.add_middleware(HostGuard, host=config.host)
    return app


def _to_response(reply: ErrorReply) -> Response:
    return Response(reply.body(), reply.status, reply.headers, "application/json")


def _reply_to_error(request: Request, error: Exception) -> Response:
    """The response to what a route, or a middleware within, has raised."""
    match error:
        case RefusedError():
            return _to_response(error.reply)
        case ClientDisconnect():
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        case HTTPException(status_code=404):
            return _to_response(not_found(request.scope["path"]))
        case HTTPException(status_code=405):
            allowed = (error.headers or {}).get("Allow", "")
            return _to_response(method_not_allowed(request.method, request.scope["path"], allowed))
        case HTTPException():
            return _to_response(ErrorReply(error.status_code, "the request could not be served"))
    return _to_response(reply_to(error))
