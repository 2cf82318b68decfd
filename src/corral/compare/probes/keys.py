"""What a server with a key does for those who have none, or a wrong one."""

from __future__ import annotations

from collections import Counter

from corral.compare.engines.replies import at, text
from corral.compare.probes.probe import CannotTry, Finding, Probe, failed, judged, partly, passed
from corral.compare.probes.routes import GUARDED, Kind, Route, family_nowhere, is_there, routes_of
from corral.compare.probes.target import Target
from corral.compare.probes.wire import Reply, request_of, send

_CHAT = "/v1/chat/completions"
_MOST_NAMED = 12


class OpenRoutes:
    """Asked once for all checks of one server."""

    def __init__(self) -> None:
        self._asked: dict[str, tuple[list[tuple[Route, Reply]], int, int]] = {}

    async def find(self, target: Target) -> tuple[list[tuple[Route, Reply]], int, int]:
        """Routes that a handler answers without a key; how many are guarded, and how many are not there."""
        if target.url not in self._asked:
            self._asked[target.url] = await _open_routes(target.without_key())
        return self._asked[target.url]


async def _open_routes(target: Target) -> tuple[list[tuple[Route, Reply]], int, int]:
    found: list[tuple[Route, Reply]] = []
    counts: Counter[str] = Counter()
    nowhere: dict[tuple[str, str], Reply] = {}
    for route in routes_of(target):
        limit_s = target.patience.answer_s if route.kind == "work" else target.patience.reply_s
        reply = await target.ask(route.method, route.path, route.body, timeout_s=limit_s)
        family = route.method, family_nowhere(route)
        if family not in nowhere:
            nowhere[family] = await target.ask(*family, {} if route.method != "GET" else None)
        if is_there(route, reply, nowhere[family]):
            found.append((route, reply))
        else:
            counts["guarded" if reply.status in GUARDED else "absent"] += 1
    return found, counts["guarded"], counts["absent"]


def key_probes() -> list[Probe]:
    """For a server that was started with a key, where it has such an option."""
    routes = OpenRoutes()

    async def work(target: Target) -> Finding:
        return await _of_kind(routes, target, "work")

    async def control(target: Target) -> Finding:
        return await _of_kind(routes, target, "control")

    async def talks(target: Target) -> Finding:
        return await _of_kind(routes, target, "talks")

    async def tells(target: Target) -> Finding:
        return await _of_kind(routes, target, "tells")

    return [
        Probe(
            "inference wants the key",
            "No route computes for somebody without the key: one that is forgotten gives away the machine.",
            work,
            300.0,
        ),
        Probe(
            "control wants the key",
            "Nobody without the key pauses the server, or loads, pulls, makes or deletes models.",
            control,
            300.0,
        ),
        Probe(
            "others' requests want the key",
            "What others ask and what they stored is not shown to somebody without the key.",
            talks,
            300.0,
        ),
        Probe(
            "figures and names want the key",
            "Names of models, settings, metrics and versions help an attacker. Many servers tell some of it on "
            "purpose, so an open one counts as a part.",
            tells,
            300.0,
        ),
        Probe(
            "the answer to no key", "401 with WWW-Authenticate and a JSON error, so that clients know why.", _refusal
        ),
        Probe(
            "wrong keys",
            "Keys that are nearly right, empty or odd are refused like any other, and never end in a fault (500).",
            _wrong_keys,
        ),
        Probe(
            "no way around the key",
            "Odd spellings of a path, and a Host header that looks like a path, lead past no guard (CVE-2026-48746).",
            _detours,
            120.0,
        ),
    ]


async def _of_kind(routes: OpenRoutes, target: Target, kind: Kind) -> Finding:
    found, guarded, absent = await routes.find(target)
    mine = [(route, reply) for route, reply in found if route.kind == kind]
    rest = f"of all routes that were asked, {guarded} want the key and {absent} are not there"
    prefix = f"{target.no_key}; " if target.no_key else ""
    if not mine:
        if not found and not guarded:
            raise CannotTry("no route answered at all")
        return passed(f"{prefix}none is open; {rest}")
    named = ", ".join(f"{route} {reply.status}" for route, reply in mine[:_MOST_NAMED])
    more = f" and {len(mine) - _MOST_NAMED} more" if len(mine) > _MOST_NAMED else ""
    told = f"{prefix}answered without a key: {named}{more}; {rest}"
    is_seen = kind == "control" and all(reply.status == 405 for _, reply in mine)
    return partly(told) if kind == "tells" or is_seen else failed(told)


async def _refusal(target: Target) -> Finding:
    reply = await target.without_key().answer(target.chat(max_tokens=1))
    found = f"POST {_CHAT} without a key: {reply.told()}"
    if target.no_key:
        return failed(f"{target.no_key}; {found}")
    if reply.status not in GUARDED:
        return failed(found)
    faults = []
    if reply.status != 401:
        faults.append(f"status {reply.status}, not 401")
    if "www-authenticate" not in reply.headers:
        faults.append("no WWW-Authenticate")
    else:
        found += f"; WWW-Authenticate: {reply.headers['www-authenticate']}"
    told = reply.json()
    if not (text(at(told, "error", "message")) or text(at(told, "error")) or text(at(told, "message"))):
        faults.append("no JSON error with a message")
    return judged(faults, found, is_partly=True)


async def _wrong_keys(target: Target) -> Finding:
    _need_key(target)
    right = await target.answer(target.chat(max_tokens=1))
    if not right.is_ok:
        raise CannotTry(f"the right key was answered {right.told()}")
    near = {
        "empty": "Bearer ",
        "a part of it": f"Bearer {target.key[:-1]}",
        "more than it": f"Bearer {target.key}x",
        "in capitals": f"Bearer {target.key.swapcase()}",
        "not ASCII": "Bearer \xff\xfe",
        "no scheme": "x",
        "another scheme": "Basic Og==",
    }
    faults, told = [], []
    for name, value in near.items():
        reply = await target.without_key().ask(
            "POST",
            _CHAT,
            target.chat(max_tokens=1),
            headers={"Authorization": value},
            timeout_s=target.patience.answer_s,
        )
        told.append(f"{name} {reply.status}")
        if reply.status not in (400, *GUARDED):
            faults.append(f"a key that is {name} was answered {reply.told(80)}")
    return judged(faults, f"the right key {right.status}; {', '.join(told)}")


async def _detours(target: Target) -> Finding:
    """Each asks for a chat without the key; a 200 is one that got through."""
    _need_key(target)
    bare = target.without_key()
    base, body = target.origin.path, _body(target)
    ways: dict[str, tuple[str, dict[str, str]]] = {
        "//v1/": (f"{base}//v1/chat/completions", {}),
        "/v1/../v1/": (f"{base}/v1/../v1/chat/completions", {}),
        "/health/../v1/": (f"{base}/health/../v1/chat/completions", {}),
        "/v1/models/../chat/": (f"{base}/v1/models/../chat/completions", {}),
        "/%76%31/": (f"{base}/%76%31/chat/completions", {}),
        "/v1%2Fchat/": (f"{base}/v1%2Fchat/completions", {}),
        "/V1/": (f"{base}/V1/chat/completions", {}),
        "trailing slash": (f"{base}{_CHAT}/", {}),
        ";x": (f"{base}{_CHAT};x", {}),
        "?/health": (f"{base}{_CHAT}?/health", {}),
        "#/health": (f"{base}{_CHAT}#/health", {}),
        "\\": (f"{base}/v1\\chat\\completions", {}),
        "absolute": (f"http://probe.invalid{base}{_CHAT}", {}),
        "Host: x/health?": (f"{base}{_CHAT}", {"Host": "x/health?"}),
        "Host: x/v1/models#": (f"{base}{_CHAT}", {"Host": "x/v1/models#"}),
        "X-Original-URL": (f"{base}{_CHAT}", {"X-Original-URL": "/health", "X-Rewrite-URL": "/health"}),
        "X-Forwarded-Prefix": (f"{base}{_CHAT}", {"X-Forwarded-Prefix": "/health", "X-Forwarded-For": "127.0.0.1"}),
    }
    through, faults, statuses = [], [], Counter[int]()
    for name, (path, headers) in ways.items():
        fields = {"Content-Type": "application/json", **headers}
        request = request_of(bare.origin, "POST", path, fields, body)
        reply = await send(bare.origin, request, timeout_s=target.patience.answer_s)
        statuses[reply.status] += 1
        if reply.is_ok and at(reply.json(), "choices") is not None:
            through.append(f"{name} was answered {reply.told(80)}")
        elif reply.status >= 500 and reply.status != 501:
            faults.append(f"{name} ended in {reply.told(80)}")
    counted = ", ".join(f"{count} times {status or 'no answer'}" for status, count in sorted(statuses.items()))
    found = f"{len(ways)} spellings: {counted}"
    return judged([*through, *faults], found, is_partly=not through)


def _body(target: Target) -> bytes:
    import msgspec

    return msgspec.json.encode(target.chat(max_tokens=1))


def _need_key(target: Target) -> None:
    if not target.key:
        raise CannotTry(target.no_key or "it was started without a key")
