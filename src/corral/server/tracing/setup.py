"""Whether requests are traced, and where the traces go."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from corral.config import ServerConfig, traces_in_environment
from corral.errors import InvalidConfig

if TYPE_CHECKING:
    from corral.server.tracing.tracer import RequestTracer

TRACES_PATH = "/v1/traces"
INSTALL = "pip install 'corral[otel]'"

logger = logging.getLogger("corral.server")


def check_tracing(config: ServerConfig) -> None:
    """Raises InvalidConfig where the command line asks for traces that cannot be had."""
    if config.otlp_traces_endpoint is None:
        return
    endpoint_of(config.otlp_traces_endpoint)
    if not _is_installed():
        raise InvalidConfig(f"--otlp-traces-endpoint needs OpenTelemetry, which is not installed: {INSTALL}")


def tracer_of(config: ServerConfig) -> RequestTracer | None:
    """What traces the requests; None where nobody asks for it.

    Raises:
        InvalidConfig: as `check_tracing`.
    """
    check_tracing(config)
    if config.otlp_traces_endpoint is None:
        if not traces_in_environment():
            return None
        if not _is_installed():  # such variables are often set for all programs of a machine
            logger.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set, but requests are not traced; that needs %s", INSTALL)
            return None
    from corral.server.tracing.tracer import RequestTracer, otlp_exporter

    given = config.otlp_traces_endpoint
    return RequestTracer(otlp_exporter(None if given is None else endpoint_of(given)))


def endpoint_of(text: str) -> str:
    """The address that spans are posted to; OTLP's own path where none is given.

    Raises:
        InvalidConfig: no address of HTTP.
    """
    try:
        parts = urlsplit(text.strip())
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise InvalidConfig(
            f"--otlp-traces-endpoint is {text!r}; it must be an http:// or https:// address of a collector's OTLP over "
            "HTTP, for instance http://localhost:4318"
        )
    return urlunsplit(parts._replace(path=TRACES_PATH)) if parts.path in ("", "/") else text.strip()


def _is_installed() -> bool:
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError:
        return False
    return True
