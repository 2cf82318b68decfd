"""The Hugging Face hub, or the mirror that HF_ENDPOINT names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
from huggingface_hub import constants, get_token, hf_hub_url

from corral.errors import DigestMismatch, DownloadError, ModelNotFound
from corral.store.catalog import Artifact, HubFile
from corral.store.manifest import MODEL, PARAMS, SYSTEM, TEMPLATE, Layer
from corral.store.names import ModelName
from corral.store.pulling import Puller
from corral.store.sources.hub_files import RepoFile, choose
from corral.store.transport.client import Patience, describe, open_client, printable, within
from corral.store.transport.download import AccessRefused, Progress, Remote, Streams, download
from corral.store.transport.guard import Guard
from corral.store.transport.questions import Reply, ask

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_RENAMES = 5
_MAX_LISTING_BYTES = 64 << 20
_MAX_SIDECAR_BYTES = 1 << 20
_SIDECARS = {"template": TEMPLATE, "system": SYSTEM, "params": PARAMS}


@dataclass(frozen=True, slots=True)
class _Hub:
    """A connection to the hub. The token goes to the hub only, never to the hosts that it redirects to."""

    client: httpx.Client
    headers: dict[str, str]
    patience: Patience
    host: str


@contextmanager
def _open_hub(patience: Patience) -> Iterator[_Hub]:
    """The token is HF_TOKEN's or the one that `hf auth login` stored."""
    if constants.HF_HUB_OFFLINE:
        raise DownloadError("the Hugging Face hub is switched off by HF_HUB_OFFLINE")
    token = get_token()
    endpoint = httpx.URL(constants.ENDPOINT)
    with open_client(patience, guard=Guard(endpoint)) as client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        yield _Hub(client, headers, patience, endpoint.netloc.decode())


def fetch(
    artifact: Artifact,
    hub: HubFile,
    target: Path,
    patience: Patience,
    on_progress: Progress,
    streams: Streams | None = None,
) -> None:
    """Fetch `hub` into `target`; a hub that cannot be reached is noticed after one short question.

    Raises:
        DownloadError: no hub, no such file, no right to it; DigestMismatch: another file than the catalog's.
    """
    with _open_hub(patience) as there:
        url = hf_hub_url(hub.repo, hub.filename, revision=hub.revision, endpoint=constants.ENDPOINT)
        found = within(patience.answer_s, there.host, lambda: _head(there, url, hub.repo, hub.filename))
        if found.size_bytes not in (None, artifact.size_bytes):
            raise DigestMismatch(
                f"{hub.repo} has {found.size_bytes} bytes of {hub.filename}; {artifact.size_bytes} are expected"
            )
        if found.sha256 not in (None, artifact.sha256):
            raise DigestMismatch(
                f"{hub.repo} has {hub.filename} with SHA-256 {found.sha256}; {artifact.sha256} is expected"
            )
        on_progress(0, None, f"pulling {artifact.filename} from {there.host}")
        headers = tuple(there.headers.items())
        remote = Remote(url, artifact.filename, artifact.size_bytes, artifact.sha256, headers=headers)
        download(there.client, remote, target, patience, on_progress, streams)


def pull(name: ModelName, puller: Puller) -> tuple[Layer, ...]:
    """The layers of hf.co/org/repo:QUANT: the model, all its parts if it is split, and what the repository adds.

    Raises:
        ModelNotFound: no such repository, quantisation or file; lists what is there.
        DownloadError: the hub cannot be reached, or refuses.
    """
    repo = f"{name.namespace}/{name.model}"
    with _open_hub(puller.patience) as hub:
        revision, files = _listing(hub, repo)
        variant = choose(files, name.tag, repo)
        layers = [_model_layer(hub, puller, repo, revision, file) for file in variant.files]
        paths = {file.path for file in files}
        added = [(path, media_type) for path, media_type in _SIDECARS.items() if path in paths]
        layers += [_sidecar(hub, puller, repo, revision, path, media_type) for path, media_type in added]
        return tuple(layers)


def _listing(hub: _Hub, repo: str) -> tuple[str, list[RepoFile]]:
    """The commit that `main` is now, and the files in it."""
    url = f"{constants.ENDPOINT}/api/models/{quote(repo)}?blobs=true"
    reply = ask(hub.client, url, hub.patience, headers=hub.headers, max_bytes=_MAX_LISTING_BYTES)
    if not reply.is_success:
        raise _no_repository(reply, repo, hub)
    facts = reply.json()
    try:
        files = [_repo_file(entry) for entry in facts["siblings"]]
        return str(facts["sha"]), files
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DownloadError(f"{hub.host} lists {repo} in a form that is not the hub's: {error!r}") from error


def _repo_file(entry: dict[str, object]) -> RepoFile:
    lfs = entry.get("lfs")
    sha256 = lfs.get("sha256") if isinstance(lfs, dict) else None
    size = entry.get("size")
    path = entry["rfilename"]
    if not isinstance(path, str):
        raise TypeError(f"a file's name is {path!r}")
    is_sound = isinstance(sha256, str) and _SHA256.fullmatch(sha256)
    is_size = isinstance(size, int) and size >= 0
    return RepoFile(path, size if is_size else None, sha256 if is_sound else None)  # type: ignore[arg-type]


def _model_layer(hub: _Hub, puller: Puller, repo: str, revision: str, file: RepoFile) -> Layer:
    """One file; the hub is asked for it first, as it tells here why it refuses."""
    url = hf_hub_url(repo, file.path, revision=revision, endpoint=constants.ENDPOINT)
    found = within(hub.patience.answer_s, hub.host, lambda: _head(hub, url, repo, file.path))
    sha256, size = file.sha256 or found.sha256, file.size_bytes if file.size_bytes is not None else found.size_bytes
    if sha256 is None or found.sha256 not in (None, sha256):
        raise DownloadError(f"{hub.host} does not say which SHA-256 {file.path} of {repo} has, or says two")
    remote = Remote(url, file.path, size, sha256, headers=tuple(hub.headers.items()))
    return puller.fetch(hub.client, remote, MODEL)


def _sidecar(hub: _Hub, puller: Puller, repo: str, revision: str, path: str, media_type: str) -> Layer:
    """A small file that the repository keeps for Ollama, under the same name and with the same meaning."""
    url = hf_hub_url(repo, path, revision=revision, endpoint=constants.ENDPOINT)
    reply = ask(hub.client, url, hub.patience, headers=hub.headers, max_bytes=_MAX_SIDECAR_BYTES)
    if not reply.is_success:
        raise _refusal(reply.status, reply.reason, reply.headers, hub.host, repo, path)
    if media_type == PARAMS:
        try:
            is_sound = isinstance(json.loads(reply.body), dict)
        except (ValueError, RecursionError):
            is_sound = False
        if not is_sound:
            raise DownloadError(f"the file params of {repo} is no JSON object of parameters")
    return puller.library.add_bytes(reply.body, media_type)


def _head(hub: _Hub, url: str, repo: str, filename: str) -> RepoFile:
    """Ask the hub what it has under `url`, before any byte of it."""
    try:
        response = hub.client.head(url, headers=hub.headers, follow_redirects=False)
        for _ in range(_MAX_RENAMES):
            # A renamed repository redirects within the hub; the answer that leads off it carries the facts.
            if response.next_request is None or response.next_request.url.host != response.url.host:
                break
            if constants.HUGGINGFACE_HEADER_X_LINKED_ETAG in response.headers:
                break
            response = hub.client.send(response.next_request, follow_redirects=False)
    except httpx.HTTPError as error:
        raise DownloadError(describe(error, url)) from error
    if not (response.is_success or response.is_redirect):
        raise _refusal(response.status_code, response.reason_phrase, response.headers, hub.host, repo, filename)
    size = response.headers.get(constants.HUGGINGFACE_HEADER_X_LINKED_SIZE, "")
    etag = response.headers.get(constants.HUGGINGFACE_HEADER_X_LINKED_ETAG, "").removeprefix("W/").strip('"')
    return RepoFile(filename, int(size) if size.isdecimal() else None, etag if _SHA256.fullmatch(etag) else None)


def _refusal(status: int, reason: str, headers: httpx.Headers, host: str, repo: str, filename: str) -> DownloadError:
    what = printable(headers.get("X-Error-Message") or f"{status} {reason}")
    text = f"{host} has no {filename} of {repo} for us: {what}"
    if headers.get("X-Error-Code") == "GatedRepo":
        return AccessRefused(
            f"{text}. Its makers ask for consent: agree to their terms at {constants.ENDPOINT}/{repo}, then set "
            "HF_TOKEN, or run `hf auth login`, with a token of the same account"
        )
    if status in (401, 403):
        return AccessRefused(f"{text}. Set HF_TOKEN, or run `hf auth login`, with a token that may read it")
    return DownloadError(text)


def _no_repository(reply: Reply, repo: str, hub: _Hub) -> DownloadError | ModelNotFound:
    """The hub does not tell a repository that is private from one that does not exist."""
    if reply.status in (401, 403, 404):
        has_token = "the token of HF_TOKEN or `hf auth login` may not read it" if hub.headers else "HF_TOKEN is not set"
        return ModelNotFound(
            f"{hub.host} has no repository {repo}, or it is private and {has_token} "
            f"({reply.status} {reply.reason}). Is the name hf.co/organisation/repository?"
        )
    return DownloadError(f"{hub.host} answered {reply.status} {reply.reason} when asked for the files of {repo}")
