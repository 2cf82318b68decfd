"""The application: routes, and around them the middleware that every request passes."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from corral.config import ServerConfig
from corral.errors import CorralError
from corral.protocol.openai_errors import ErrorReply, method_not_allowed, not_found, reply_to
from corral.server.auth import HostGuard, KeyAuth
from corral.server.lifecycle import DrainGate, Lifecycle
from corral.server.limits import BodyLimit, RefusedError
from corral.server.model_manager import ModelManager
from corral.server.openai_routes import add_openai_routes
from corral.server.replies import to_response

CLIENT_CLOSED_REQUEST = 499  # nobody reads it; it only keeps the log honest


def build_app(
    manager: ModelManager, config: ServerConfig, lifecycle: Lifecycle | None = None, *, docs: bool = False
) -> FastAPI:
    """The ASGI app.

    Args:
        manager: the models it serves.
        lifecycle: whether it drains; a fresh one by default.
        docs: serve FastAPI's documentation pages too.
    """
    lifecycle = lifecycle or Lifecycle()
    app = FastAPI(
        title="Corral",
        docs_url="/docs" if docs else None,
        redoc_url=None,
        openapi_url="/openapi.json" if docs else None,
        redirect_slashes=False,
    )

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health() -> Response:
        return JSONResponse({"status": "draining" if lifecycle.is_draining else "ok"})

    add_openai_routes(app, manager)
    _handle_errors(app)
    # The last one added is the outermost: no key, no byte of the body is read.
    app.add_middleware(BodyLimit, max_body_bytes=config.max_body_bytes)
    app.add_middleware(DrainGate, lifecycle=lifecycle)
    app.add_middleware(KeyAuth, keys=config.api_keys)
    if not config.api_keys and not config.no_auth:
        app.add_middleware(HostGuard, host=config.host)
    return app


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(CorralError)
    async def on_corral_error(_: Request, error: CorralError) -> Response:
        return to_response(reply_to(error))

    @app.exception_handler(RefusedError)
    async def on_refused(_: Request, error: RefusedError) -> Response:
        return to_response(error.reply)

    @app.exception_handler(ClientDisconnect)
    async def on_disconnect(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        path = request.scope["path"]
        if error.status_code == 404:
            return to_response(not_found(path))
        if error.status_code == 405:
            return to_response(method_not_allowed(request.method, path, (error.headers or {}).get("Allow", "")))
        return to_response(ErrorReply(error.status_code, "the request could not be served"))

    @app.exception_handler(Exception)
    async def on_any_error(_: Request, error: Exception) -> Response:
        return to_response(reply_to(error))  # and uvicorn writes the stack to the log
