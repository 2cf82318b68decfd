"""The Hugging Face hub, or the mirror that HF_ENDPOINT names."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from huggingface_hub import constants, get_token, hf_hub_url

from corral.errors import DigestMismatch, DownloadError
from corral.store.catalog import Artifact, HubFile
from corral.store.download import AccessRefused, Progress, Remote, download
from corral.store.http_client import Patience, describe, open_client, within

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_RENAMES = 5


def fetch(artifact: Artifact, hub: HubFile, target: Path, patience: Patience, on_progress: Progress) -> None:
    """Fetch `hub` into `target`; a hub that cannot be reached is noticed after one short question.

    The token is HF_TOKEN's or the one that `hf auth login` stored; it is sent to the hub only, never to the
    hosts that the hub redirects to.

    Raises:
        DownloadError: no hub, no such file, no right to it; DigestMismatch: another file than the catalog's.
    """
    if constants.HF_HUB_OFFLINE:
        raise DownloadError("the Hugging Face hub is switched off by HF_HUB_OFFLINE")
    url = hf_hub_url(hub.repo, hub.filename, revision=hub.revision, endpoint=constants.ENDPOINT)
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with open_client(patience) as client:
        host = httpx.URL(url).netloc.decode()
        within(patience.answer_s, host, lambda: _check(client, url, headers, artifact, hub))
        on_progress(0, None, f"pulling {artifact.filename} from {host}")
        remote = Remote(url, artifact.filename, artifact.size_bytes, artifact.sha256, headers=tuple(headers.items()))
        download(client, remote, target, patience, on_progress)


def _check(client: httpx.Client, url: str, headers: dict[str, str], artifact: Artifact, hub: HubFile) -> None:
    """Ask the hub what it has under `url`, before any byte of it."""
    try:
        response = client.head(url, headers=headers, follow_redirects=False)
        for _ in range(_MAX_RENAMES):
            # A renamed repository redirects within the hub; the answer that leads off it carries the facts.
            if response.next_request is None or response.next_request.url.host != response.url.host:
                break
            if constants.HUGGINGFACE_HEADER_X_LINKED_ETAG in response.headers:
                break
            response = client.send(response.next_request, follow_redirects=False)
    except httpx.HTTPError as error:
        raise DownloadError(describe(error, url)) from error
    if not (response.is_success or response.is_redirect):
        raise _refusal(response, hub)
    size = response.headers.get(constants.HUGGINGFACE_HEADER_X_LINKED_SIZE, "")
    if size.isdecimal() and int(size) != artifact.size_bytes:
        raise DigestMismatch(f"{hub.repo} has {size} bytes of {hub.filename}; {artifact.size_bytes} are expected")
    etag = response.headers.get(constants.HUGGINGFACE_HEADER_X_LINKED_ETAG, "").removeprefix("W/").strip('"')
    if _SHA256.fullmatch(etag) and etag != artifact.sha256:
        raise DigestMismatch(f"{hub.repo} has {hub.filename} with SHA-256 {etag}; {artifact.sha256} is expected")


def _refusal(response: httpx.Response, hub: HubFile) -> DownloadError:
    what = response.headers.get("X-Error-Message") or f"{response.status_code} {response.reason_phrase}"
    text = f"{response.url.netloc.decode()} has no {hub.filename} of {hub.repo} for us: {what}"
    if response.status_code in (401, 403):
        return AccessRefused(f"{text}. Set HF_TOKEN, or run `hf auth login`, with a token that may read it")
    return DownloadError(text)
