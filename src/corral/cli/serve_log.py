"""What `corral serve` says before and after it serves: in the form of its log, like all that comes between."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import click

from corral.cli.serve_options import WARNINGS
from corral.config import ServerConfig
from corral.errors import CorralError

EXIT_ERROR = 1

logger = logging.getLogger("corral.server")


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command with its log, which in JSON tells the error that ends it too; in text that is for whoever calls."""

    @functools.wraps(function)
    def wrapper(context: click.Context, /, **given: Any) -> Any:
        from corral.server.logs.output import log_to_stderr

        with log_to_stderr(
            ServerConfig(
                log_level=given["log_level"],
                log_format=given["log_format"],
                access_log=not given["no_access_log"],
                log_requests=given["log_requests"],
                max_log_len=given["max_log_len"],
            )
        ):
            try:
                for text in context.meta.get(WARNINGS, ()):
                    warn(text)
                return function(context, **given)
            except CorralError as error:
                if not _is_json(context):
                    raise
                logger.error("%s", error)
            except (click.exceptions.Exit, click.Abort, click.ClickException):
                raise
            except Exception:
                if not _is_json(context):
                    raise
                logger.exception("the server has failed")
            raise click.exceptions.Exit(EXIT_ERROR)

    return wrapper


def warn(text: str) -> None:
    logger.warning("%s", text)


def teller() -> Callable[[str], None] | None:
    """Where the steps of a download go, if not to the terminal as they always do."""
    context = click.get_current_context(silent=True)
    return logger.info if context is not None and _is_json(context) else None


def _is_json(context: click.Context) -> bool:
    return context.params.get("log_format") == "json"
