"""The application: routes, and around them the middleware that every request passes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from corral.config import ServerConfig
from corral.errors import CorralError
from corral.protocol.openai.errors import ErrorReply, method_not_allowed, not_found, reply_to
from corral.server.audit_trail import AuditTrail
from corral.server.auth import HostGuard, KeyAuth
from corral.server.batch_runner import BatchRunner
from corral.server.batch_store import BatchStore
from corral.server.database import Database
from corral.server.deadlines import Deadlines
from corral.server.exchange import Exchanges, Observer
from corral.server.file_store import FileStore
from corral.server.keys.audit import AuditLog
from corral.server.keys.ring import KeyRing
from corral.server.keys.store import KeyStore
from corral.server.lifecycle import DrainGate, Farewell, Lifecycle
from corral.server.limits import BodyLimit, RefusedError
from corral.server.live_settings import LiveSettings
from corral.server.logs.access import AccessLog
from corral.server.metrics.recorder import MetricsRecorder
from corral.server.model_manager import ModelManager
from corral.server.origins import EXPOSED_HEADERS, OriginGuard, origin_pattern
from corral.server.quota_headers import NAMES as QUOTA_HEADERS
from corral.server.quota_headers import QuotaHeaders
from corral.server.replies import error_response, response_of
from corral.server.routes.admin import admin_routes
from corral.server.routes.anthropic import anthropic_routes
from corral.server.routes.embeddings import embedding_routes
from corral.server.routes.limits import limits_routes
from corral.server.routes.metrics import metrics_routes
from corral.server.routes.ollama import ollama_routes
from corral.server.routes.ollama_store import ollama_store_routes
from corral.server.routes.openai import openai_routes
from corral.server.routes.openai_batches import batch_routes
from corral.server.routes.openai_files import file_routes
from corral.server.routes.openapi import openapi_routes
from corral.server.routes.probes import probe_routes
from corral.server.routes.responses import responses_routes
from corral.server.routes.tokenizing import tokenizing_routes
from corral.server.routes.usage import usage_routes
from corral.server.store_access import StoreAccess
from corral.server.tracing.setup import tracer_of
from corral.server.usage.recorder import UsageRecorder
from corral.server.usage.store import UsageStore

CLIENT_CLOSED_REQUEST = 499  # nobody reads it; it only keeps the log honest
INTERNAL_ERROR = 500

logger = logging.getLogger("corral.server")


def build_app(
    manager: ModelManager,
    config: ServerConfig,
    lifecycle: Lifecycle | None = None,
    store: StoreAccess | None = None,
    database: Database | None = None,
) -> Starlette:
    """The ASGI app.

    Args:
        manager: the models it serves.
        lifecycle: whether it drains; a fresh one by default.
        store: where models lie; the one that the environment names by default.
        database: where responses, files and batches are kept; a file in Corral's data folder by default.

    Raises:
        InvalidConfig: an origin that is none.
    """
    lifecycle = lifecycle or Lifecycle()
    settings = LiveSettings(config)

    handled = (CorralError, RefusedError, ClientDisconnect, HTTPException)  # what else is raised is for Exchanges
    database = database or Database(config.database_url)
    key_store, audit = KeyStore(database), AuditLog(database)
    is_open_by_wish = config.no_auth and not config.api_keys
    keys = KeyRing(config.api_keys, None if is_open_by_wish else key_store)
    usage_store = UsageStore(database)
    usage = UsageRecorder(usage_store, manager.quotas, config.usage_retention_days)
    tracer = tracer_of(config)
    observers: list[Observer] = [usage, MetricsRecorder(manager.books), AccessLog()]
    if tracer is not None:
        observers.insert(0, tracer)
    files = FileStore(database)

    async def routes_alone(scope: Scope, receive: Receive, send: Send) -> None:
        within = ExceptionMiddleware(app.router, handlers=app.exception_handlers)
        await DrainGate(within, lifecycle)({**scope, "app": app}, receive, send)

    stored_batches = BatchStore(files)
    batches = BatchRunner(Exchanges(routes_alone, observers), stored_batches, lifecycle, keys.caller_of_owner)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await keys.start()
        await usage.start()
        batches.start()
        yield
        await batches.close()
        await usage.close()
        await keys.close()
        await database.close()
        if tracer is not None:
            await tracer.close()

    app = Starlette(
        lifespan=lifespan,
        routes=[
            *probe_routes(manager, lifecycle),
            *anthropic_routes(manager),  # before OpenAI's: the list of models is at the same path
            *openai_routes(manager),
            *embedding_routes(manager),
            *tokenizing_routes(manager),
            *openapi_routes(),
            *limits_routes(manager, settings),
            *file_routes(files),
            *batch_routes(stored_batches, batches),
            *responses_routes(manager, database),
            *admin_routes(key_store, keys, audit),
            *usage_routes(usage_store, usage),
            *metrics_routes(manager, lifecycle, manager.books, lambda: app.state.num_connections()),
            *ollama_routes(manager),
            *ollama_store_routes(manager, store or StoreAccess(), lifecycle),
        ],
        exception_handlers=dict.fromkeys(handled, _reply_to_error),
    )
    app.router.redirect_slashes = False
    app.state.settings = settings  # a reload puts others there
    app.state.num_connections = lambda: 0  # the server that runs it knows
    app.state.keys = keys  # whose reload() reads them anew
    # The last one added is the outermost: no key, no byte of the body is read.
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(Deadlines, settings=settings)
    app.add_middleware(DrainGate, lifecycle=lifecycle)
    app.add_middleware(QuotaHeaders, book=manager.quotas)
    app.add_middleware(KeyAuth, keys=keys)
    app.add_middleware(AuditTrail, log=audit)
    pattern = origin_pattern(config.origins)
    app.add_middleware(
        CORSMiddleware,
        allow_origin_regex=pattern,
        allow_methods=["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"],
        allow_headers=["*"],
        expose_headers=(*EXPOSED_HEADERS, *QUOTA_HEADERS),
    )
    app.add_middleware(OriginGuard, pattern=pattern)
    if not config.no_auth and config.uds is None:  # it looks away while keys are asked for
        app.add_middleware(HostGuard, host=config.host, keys=keys)
    app.add_middleware(Farewell, lifecycle=lifecycle)
    app.add_middleware(Exchanges, observers=observers)
    return app


def _reply_to_error(request: Request, error: Exception) -> Response:
    """The response to what a route, or a middleware within, has raised."""
    path = request.scope["path"]
    match error:
        case RefusedError():
            return response_of(request.scope, error.reply)
        case ClientDisconnect():
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        case HTTPException(status_code=404):
            return response_of(request.scope, not_found(path))
        case HTTPException(status_code=405):
            allowed = (error.headers or {}).get("Allow", "")
            return response_of(request.scope, method_not_allowed(request.method, path, allowed))
        case HTTPException():
            return response_of(request.scope, ErrorReply(error.status_code, "the request could not be served"))
    if isinstance(error, CorralError) and reply_to(error).status == INTERNAL_ERROR:
        logger.error("%s %s: %s", request.method, path, error)  # where the file lies is for the log, not for the client
    return error_response(request.scope, error)
