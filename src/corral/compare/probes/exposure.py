"""What a server shows and allows as it is started: addresses, models, others' words, its version, encryption."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

import psutil

from corral.compare.engines.replies import at
from corral.compare.probes.probe import CannotTry, Finding, Probe, failed, partly, passed
from corral.compare.probes.routes import Route, family_nowhere, is_there, management_routes
from corral.compare.probes.target import Target
from corral.compare.probes.wire import line_of

_MARK = "corral-probe-zanzibar"  # a word that no server says by itself
_PAGES = ("/slots", "/metrics", "/props", "/api/ps", "/load", "/server_info", "/v1/models", "/stats", "/requests")
_VERSIONED = ("/version", "/api/version", "/props", "/", "/health", "/openapi.json", "/server_info")
_VERSION = re.compile(r"\d+\.\d+|/\d", re.ASCII)  # in the header Server
_ANYWHERE = {"0.0.0.0", "::", "*", "none", "all"}  # noqa: S104 - looked for


def exposure_probes() -> list[Probe]:
    return [
        Probe(
            "addresses that listen",
            "On a machine of one's own nothing listens beyond loopback unless it was asked to: neither by default nor "
            "for its own processes.",
            _addresses,
        ),
        Probe(
            "models are managed without a key",
            "As it is started without settings: whoever reaches the port should not pull, replace or delete models. "
            "Asked for with names that nobody has.",
            _management,
            90.0,
        ),
        Probe(
            "others' words on status pages",
            "Pages of figures must not show what somebody else has asked.",
            _words,
            150.0,
        ),
        Probe(
            "version told without a key",
            "An exact version tells an attacker which faults to try. Told on purpose by many, so it counts as a part.",
            _version,
        ),
        Probe(
            "encryption",
            "It can speak HTTPS by itself, by what it says of its flags; else a proxy has to stand before it.",
            _tls,
        ),
    ]


async def _addresses(target: Target) -> Finding:
    if target.process is None:
        raise CannotTry("it runs already, so its processes are not ours to look at")
    listening = sorted(_listening(target.process.tree()))
    if not listening:
        raise CannotTry("no listening sockets were seen in its processes")
    beyond = [f"{host}:{port}" for host, port in listening if not is_loopback(host)]
    named = ", ".join(f"{host}:{port}" for host, port in listening)
    how = "asked for 127.0.0.1, " if any("127.0.0.1" in part for part in target.argv) else ""
    default = default_host(target.help_text)
    told = f"{how}its processes listen on {named}; its help's default is {default or 'not told'}"
    if beyond:
        return failed(f"beyond loopback: {', '.join(beyond)}; {told}")
    return failed(told) if default.lower() in _ANYWHERE else passed(told)


def _listening(tree: Sequence[int]) -> set[tuple[str, int]]:
    found = set()
    for pid in tree:
        try:
            connections = psutil.Process(pid).net_connections(kind="tcp")
        except (psutil.Error, OSError):
            continue
        found |= {(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN and c.laddr}
    return found


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def default_host(help_text: str) -> str:
    """What a program's help says that it binds by default; "" where it does not say."""
    flag = re.search(r"^\s*(?:-h, )?--host\b", help_text, re.MULTILINE)
    if flag is not None:
        rest = help_text[flag.end() :]
        ends = re.search(r"\n\s*(?:-\w, +)?--?[a-z][\w-]+", rest)
        own = " ".join(rest[: ends.start() if ends else 2000].split())
        said = re.search(r"default(?:s to)?:?\s*\(?['\"]?([\w.:*]+?)['\"]?(?=[\s)\],;]|$)", own)
        return said.group(1) if said else ""
    ollama = re.search(r"OLLAMA_HOST\b.*?default:?\s*([\w.]+)", help_text)
    return ollama.group(1) if ollama else ""


async def _management(target: Target) -> Finding:
    bare = target.without_key()
    open_routes: list[str] = []
    shut: list[str] = []
    for method, path, body in management_routes():
        route = Route(method, path, "control", body)
        reply = await bare.ask(method, path, body, timeout_s=target.patience.reply_s)
        nowhere = await bare.ask(method, family_nowhere(route), body)
        told = f"{route} {reply.told(60)}"
        (open_routes if is_there(route, reply, nowhere) else shut).append(told)
    if open_routes:
        return failed(f"done for anybody, as far as it goes: {'; '.join(open_routes)}")
    return passed(f"no such routes, or refused: {'; '.join(shut)}")


async def _words(target: Target) -> Finding:
    reply = await target.answer(target.chat(f"Say {_MARK}.", max_tokens=2))
    if not reply.is_ok:
        raise CannotTry(f"a chat: {reply.told()}")
    seen, shown = [], []
    for path in _PAGES:
        page = await target.ask("GET", path)
        if page.is_ok:
            seen.append(path)
            if _MARK.encode() in page.body:
                shown.append(path)
    if not seen:
        return passed(f"after a chat about {_MARK}: none of {', '.join(_PAGES)} is there")
    pages = f"after a chat about {_MARK}, pages that were looked at: {', '.join(seen)}"
    return failed(f"the chat's words stand on {', '.join(shown)}; {pages}") if shown else passed(pages)


async def _version(target: Target) -> Finding:
    bare = target.without_key()
    told = []
    for path in _VERSIONED:
        reply = await bare.ask("GET", path)
        server = reply.headers.get("server", "")
        if _VERSION.search(server) and f"Server: {server}" not in told:
            told.append(f"Server: {server}")
        parsed = reply.json() if reply.is_ok else None
        for name in (("version",), ("build_info",), ("info", "version")):
            value = at(parsed, *name)
            if isinstance(value, str) and value:
                told.append(f"GET {path} {line_of(value, 40)}")
    if not told:
        return passed(f"none in GET {', '.join(_VERSIONED)} nor in the header Server")
    return partly("; ".join(dict.fromkeys(told)))


async def _tls(target: Target) -> Finding:
    if target.origin.is_tls:
        return passed(f"it is asked over HTTPS: {target.url}")
    if not target.help_text:
        raise CannotTry("what its program says of its flags is not known")
    flags = sorted(set(re.findall(r"--(?:ssl|tls|https)[\w-]*", target.help_text)))
    if flags:
        return passed(f"its help has {', '.join(flags[:6])}; not tried")
    return failed("its help has no flag with ssl, tls or https")
