"""What web pages in a user's browser may do with a server on his machine."""

from __future__ import annotations

import msgspec

from corral.compare.engines.replies import at
from corral.compare.probes.probe import CannotTry, Finding, Probe, failed, judged, partly, passed
from corral.compare.probes.target import Target
from corral.compare.probes.wire import Reply

_FOREIGN = "https://probe.example"
_CHAT = "/v1/chat/completions"


def page_probes() -> list[Probe]:
    return [
        Probe(
            "foreign pages read answers (CORS)",
            "A page of any site must not read what a server on one's own machine answers, unless its owner allows it.",
            _cors,
        ),
        Probe(
            "foreign pages send requests",
            "A page may send plain text anywhere without asking (no preflight): that must start no work.",
            _plain_post,
            150.0,
        ),
        Probe(
            "foreign Host header (DNS rebinding)",
            "A site that points its name to 127.0.0.1 has its pages ask this server as their own: an unknown name in "
            "Host must be refused on loopback, as long as no key is asked for.",
            _host,
        ),
    ]


async def _cors(target: Target) -> Finding:
    simple = await target.ask("GET", "/v1/models", headers={"Origin": _FOREIGN})
    wish = {
        "Origin": _FOREIGN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    preflight = await target.without_key().ask("OPTIONS", _CHAT, headers=wish)
    if not simple.status:
        raise CannotTry(f"GET /v1/models: {simple.told()}")
    faults, told = [], []
    for name, reply in (("GET /v1/models", simple), ("preflight of a chat", preflight)):
        allowed = reply.headers.get("access-control-allow-origin", "")
        told.append(f"{name} from {_FOREIGN}: {reply.status}, allows {allowed or 'nobody'}")
        if allowed in ("*", _FOREIGN):
            with_cookies = reply.headers.get("access-control-allow-credentials", "").lower() == "true"
            who = "any page" if allowed == "*" else "whichever page asks"
            faults.append(f"{who} may read ({name}{', credentials too' if with_cookies else ''})")
    return judged(faults, "; ".join(told))


async def _plain_post(target: Target) -> Finding:
    """As a form or `fetch` of a page sends it: text/plain, with the page's origin."""
    body = msgspec.json.encode(target.chat(max_tokens=1))
    headers = {"Origin": _FOREIGN, "Content-Type": "text/plain", "Sec-Fetch-Site": "cross-site"}
    reply = await target.ask("POST", _CHAT, body, headers=headers, timeout_s=target.patience.answer_s)
    found = f"POST {_CHAT} as text/plain from {_FOREIGN}: {reply.told()}"
    if not reply.status:
        raise CannotTry(found)
    if _is_answer(reply):
        return failed(found)
    return passed(found) if 400 <= reply.status < 500 else partly(found)


async def _host(target: Target) -> Finding:
    local = await target.ask("GET", "/v1/models")
    if not local.is_ok:
        raise CannotTry(f"GET /v1/models: {local.told()}")
    foreign = await target.ask("GET", "/v1/models", headers={"Host": "probe.example"})
    found = f"GET /v1/models with Host: probe.example: {foreign.told()}; with its own: {local.status}"
    return failed(found) if foreign.is_ok else passed(found)


def _is_answer(reply: Reply) -> bool:
    return reply.is_ok and at(reply.json(), "choices") is not None
