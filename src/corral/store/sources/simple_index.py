"""Finding one wheel on a package index: the simple API as HTML (PEP 503) and JSON (PEP 691), and folders."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import httpx

from corral.errors import DownloadError
from corral.store.sources.pip_settings import PipSettings
from corral.store.transport.client import Patience, credentials, describe, shown, within
from corral.store.transport.download import AccessRefused

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"


@dataclass(frozen=True, slots=True)
class WheelLink:
    """Where a wheel is: an address, or a file of this machine; `sha256` (hex) if the index says it."""

    filename: str
    url: str
    sha256: str | None = None
    auth: httpx.BasicAuth | None = None
    size_bytes: int | None = None
    is_yanked: bool = False

    @property
    def path(self) -> Path | None:
        return _file_path(self.url)


def find_wheel(client: httpx.Client, settings: PipSettings, requirement: str, patience: Patience) -> WheelLink:
    """The wheel of `requirement` (`name==version`; `name`: the newest), looked for where pip would, in pip's order.

    Raises:
        AccessRefused: it was nowhere else and an index wants credentials.
        DownloadError: it is nowhere, or no index answered.
    """
    name, _, version = requirement.partition("==")
    known = _index_credentials(settings)
    places = [*settings.find_links, *(f"{url.rstrip('/')}/{_normalised(name)}/" for url in settings.index_urls)]
    failures: list[DownloadError] = []
    found: list[WheelLink] = []
    for place in places:
        try:
            for link in _links(client, place, known, patience):
                if _is_wheel_of(link.filename, name, version):
                    if version:
                        return link
                    found.append(link)
        except DownloadError as error:
            failures.append(error)
        except httpx.InvalidURL as error:
            failures.append(
                DownloadError(f"a place that pip is set up with, or a link on its page, is no address: {error}")
            )
    if (newest := _newest(found)) is not None:
        return newest
    reasons = "; ".join(str(e) for e in failures) or f"none of {len(places)} places has it"
    kind = AccessRefused if any(isinstance(e, AccessRefused) for e in failures) else DownloadError
    raise kind(f"no wheel of {requirement} on the package index that pip is set up with: {reasons}")


def _newest(links: list[WheelLink]) -> WheelLink | None:
    """The latest version; one that is meant for testers, or was taken back, only if there is no other."""
    from packaging.version import InvalidVersion, Version

    ranked: list[tuple[bool, bool, Version, int]] = []
    for index, link in enumerate(links):
        with contextlib.suppress(InvalidVersion):
            version = Version(link.filename.split("-")[1])
            ranked.append((not link.is_yanked, not version.is_prerelease, version, -index))
    return links[-max(ranked)[3]] if ranked else None


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_wheel_of(filename: str, name: str, version: str) -> bool:
    """`name-version[-build]-python-abi-platform.whl`; the file's data matters, not the platform."""
    parts = filename.removesuffix(".whl").split("-")
    return (
        filename.endswith(".whl")
        and "/" not in filename  # it becomes the name of a file here
        and len(parts) in (5, 6)
        and _normalised(parts[0]) == _normalised(name)
        and version in ("", parts[1])
    )


def _index_credentials(settings: PipSettings) -> dict[str, tuple[str, str]]:
    """User and password by host: an index's own address holds those that its files want too."""
    with_user = (u for u in (*settings.index_urls, *settings.find_links) if u.startswith("http") and "@" in u)
    known = {}
    for text in with_user:
        with contextlib.suppress(httpx.InvalidURL):  # said when it is looked at
            url = httpx.URL(text)
            known[url.host] = (url.username, url.password)
    return known


def _file_path(place: str) -> Path | None:
    if place.startswith("file:"):
        return Path(url2pathname(urlsplit(place).path))
    return None if place.startswith(("http:", "https:")) else Path(place).expanduser()


def _links(
    client: httpx.Client, place: str, known: dict[str, tuple[str, str]], patience: Patience
) -> Iterator[WheelLink]:
    path = _file_path(place)
    if path is None:
        yield from _remote_links(client, place, known, patience)
    elif path.is_file():
        yield from _html_links(path.read_text("utf-8", "replace"), httpx.URL(path.absolute().as_uri()), known)
    elif (path / "index.html").is_file():
        page = path / "index.html"
        yield from _html_links(page.read_text("utf-8", "replace"), httpx.URL(page.absolute().as_uri()), known)
    elif path.is_dir():
        for file in sorted(path.iterdir()):
            yield WheelLink(file.name, file.absolute().as_uri())


def _remote_links(
    client: httpx.Client, place: str, known: dict[str, tuple[str, str]], patience: Patience
) -> Iterator[WheelLink]:
    response = _get(client, place, known, patience)
    if response.status_code in (404, 410):
        return
    if response.status_code in (401, 403, 407):
        raise AccessRefused(f"{shown(place)} refused with {response.status_code} {response.reason_phrase}")
    if not response.is_success:
        raise DownloadError(f"{shown(place)} answered {response.status_code} {response.reason_phrase}")
    if "json" in response.headers.get("Content-Type", ""):
        yield from _json_links(response, known)
    else:
        yield from _html_links(response.text, response.url, known)


def _get(client: httpx.Client, place: str, known: dict[str, tuple[str, str]], patience: Patience) -> httpx.Response:
    """The answer of `place`; one broken connection is forgiven."""
    url = httpx.URL(place)
    auth = credentials(url, known)

    def ask() -> httpx.Response:
        return within(patience.answer_s, url.host, lambda: client.get(url, headers={"Accept": _ACCEPT}, auth=auth))

    try:
        try:
            return ask()
        except httpx.TransportError:
            time.sleep(patience.backoff_s)
            return ask()
    except httpx.HTTPError as error:
        raise DownloadError(describe(error, url)) from error


def _json_links(response: httpx.Response, known: dict[str, tuple[str, str]]) -> Iterator[WheelLink]:
    try:
        files = json.loads(response.content)["files"]
        for file in files:
            url = response.url.join(file["url"])
            size, sha256 = file.get("size"), file["hashes"].get("sha256")
            yield WheelLink(
                file["filename"],
                str(url),
                sha256,
                credentials(url, known),
                size if isinstance(size, int) and size >= 0 else None,
                bool(file.get("yanked")),
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError(f"{shown(response.url)} is no page of the simple API: {error!r}") from error


def _html_links(text: str, page: httpx.URL, known: dict[str, tuple[str, str]]) -> Iterator[WheelLink]:
    parser = _Anchors()
    parser.feed(text)
    base = page.join(parser.base) if parser.base else page
    for href in parser.hrefs:
        url = base.join(href)
        digest = re.search(r"sha256=([0-9a-f]{64})", url.fragment)
        filename = unquote(url.path.rpartition("/")[2])
        yield WheelLink(
            filename, str(url.copy_with(fragment=None)), digest[1] if digest else None, credentials(url, known)
        )


class _Anchors(HTMLParser):
    """The addresses of a page's anchors, and its <base>."""

    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []
        self.base: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if href and tag == "a":
            self.hrefs.append(href)
        elif href and tag == "base" and self.base is None:
            self.base = href
