"""The access log: one line for every request that has ended. It knows no prompt, no answer and no key."""

from __future__ import annotations

import logging
import time

from corral.logs import ACCESS_LOGGER
from corral.request import EmbedResult, RequestOutput
from corral.server.exchange import MAX_SHOWN_PATH, Exchange, Generation
from corral.server.lifecycle import PROBE_PATHS
from corral.server.logs.formats import printable

QUIET_PATHS = PROBE_PATHS | {"/load", "/metrics", "/ping"}  # asked every second
CLIENT_GONE = "client_gone"

logger = logging.getLogger(ACCESS_LOGGER)


class AccessLog:
    """An Observer."""

    def on_output(self, exchange: Exchange, generation: Generation, output: RequestOutput | EmbedResult) -> None:
        """Says nothing: only the end counts."""

    def on_end(self, exchange: Exchange) -> None:
        is_quiet = exchange.path in QUIET_PATHS and 0 < exchange.status < 400
        level = logging.DEBUG if is_quiet else logging.INFO
        if not logger.isEnabledFor(level):
            return
        fields = fields_of(exchange)
        logger.log(level, "%s", _for_people(fields), extra={"request_id": exchange.request_id, "fields": fields})


def fields_of(exchange: Exchange) -> dict[str, str | int | float]:
    """What is known of it; what it has none of is left out."""
    now = time.monotonic()
    firsts = [each.first_token for each in exchange.generations if each.first_token is not None]
    optional: dict[str, str | int | float] = {
        "cause": cause_of(exchange),
        "key": exchange.caller.name,
        "model": exchange.model,
        "ttft_s": round(min(firsts) - exchange.started, 4) if firsts else 0,
        "load_s": round(exchange.load_s, 3),
        "replays": sum(each.num_replays for each in exchange.generations),
        "trace_id": exchange.trace_id,
    }
    usages = [each.usage for each in exchange.generations]
    if usages:
        optional |= {
            "prompt_tokens": sum(usage.prompt_tokens for usage in usages),
            "completion_tokens": sum(usage.completion_tokens for usage in usages),
            "cached_tokens": sum(usage.cached_tokens for usage in usages),
        }
    always: dict[str, str | int | float] = {
        "method": exchange.method,
        "path": exchange.path[:MAX_SHOWN_PATH],
        "status": exchange.status,
        "seconds": round(now - exchange.started, 4),
    }
    return always | {name: value for name, value in optional.items() if value or name.endswith("_tokens")}


def cause_of(exchange: Exchange) -> str:
    """Why the answer is not what was asked for; "" if it is."""
    if not exchange.cause and not exchange.refusal and not exchange.is_whole:
        return CLIENT_GONE
    return exchange.cause or exchange.refusal


def _for_people(fields: dict[str, str | int | float]) -> str:
    words = [printable(str(fields["method"])), printable(str(fields["path"])), str(fields["status"])]
    words += [printable(str(fields[name])) for name in ("cause", "model") if name in fields]
    if "key" in fields:
        words.append(f"key={printable(str(fields['key']))}")
    if fields.get("prompt_tokens") or fields.get("completion_tokens"):
        words.append(f"{fields['prompt_tokens']}+{fields['completion_tokens']} tokens")
    words.append(f"{fields['seconds']:.3f} s")
    if "ttft_s" in fields:
        words.append(f"first {fields['ttft_s']:.3f} s")
    return " ".join(words)
