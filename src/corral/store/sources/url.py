"""One file at an address, held to the digest that stands behind it."""

from __future__ import annotations

import httpx

from corral.errors import DownloadError
from corral.store.manifest import MODEL, Layer
from corral.store.pulling import Puller
from corral.store.transport.client import credentials, open_client, shown
from corral.store.transport.download import Remote
from corral.store.transport.guard import Guard
from corral.store.transport.questions import ask
from corral.store.wanted import WebFile


def pull(wanted: WebFile, puller: Puller) -> tuple[Layer, ...]:
    """The layer of the file.

    Raises:
        DownloadError: plain HTTP without leave, no such file, no size, other bytes.
    """
    try:
        url = httpx.URL(wanted.url)
    except httpx.InvalidURL as error:
        raise DownloadError(f"{wanted.url[:200]!r} is no address: {error}") from error
    if url.scheme == "http" and not puller.insecure:
        raise DownloadError(f"{shown(url)} is not encrypted; pull it with --insecure if that is meant")
    guard = Guard(url, may_be_plain=puller.insecure)
    with open_client(puller.patience, guard=guard, verify=not puller.insecure) as client:
        digest = f"sha256:{wanted.sha256}"
        size = None if puller.library.blob(digest) else _size(client, url, puller)
        plain = str(url.copy_with(username=None, password=None))
        remote = Remote(plain, shown(url).rpartition("/")[2], size, wanted.sha256, auth=credentials(url))
        return (puller.fetch(client, remote, MODEL),)


def _size(client: httpx.Client, url: httpx.URL, puller: Puller) -> int | None:
    """What the server says before the file is asked for; None if it will not."""
    reply = ask(client, url, puller.patience, method="HEAD", auth=credentials(url))
    length = reply.headers.get("Content-Length", "")
    is_file = reply.is_success and not reply.headers.get("Content-Type", "").startswith("text/html")
    return int(length) if is_file and length.isdecimal() else None
