"""The Python package index as the user's pip is set up with it.

pip itself is asked (`pip config list`): it alone knows its files, their order and the environment's part in them.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corral.errors import DownloadError
from corral.store.transport.client import Transport

_SECTIONS = ("global", "install", "download", ":env:")  # the later one wins
_LINE = re.compile(r"(?P<section>global|install|download|:env:)\.(?P<key>[\w-]+)=(?P<value>.+)")
_DEFAULT_INDEX = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"


@dataclass(frozen=True, slots=True)
class Pip:
    """An interpreter that runs a pip; `wheel` is the one to run, if none is installed."""

    python: str
    wheel: str | None = None

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`pip <arguments>`. A wheel of pip runs from where it lies; -P keeps a module of the working directory out."""
        return self._python(*((f"{self.wheel}/pip",) if self.wheel else ("-m", "pip")), *arguments)

    def default_index(self) -> str:
        """The index pip uses when none is set; "" if this pip does not tell."""
        code = f"import sys; sys.path.insert(0, {self.wheel!r}); {_DEFAULT_INDEX}" if self.wheel else _DEFAULT_INDEX
        return self._python("-c", code).stdout.strip()

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.python, "-P", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@dataclass(frozen=True, slots=True)
class PipSettings:
    """What pip would use, in the order in which pip would look."""

    pip: Pip
    index_urls: tuple[str, ...]
    find_links: tuple[str, ...]
    transport: Transport


def read_pip_settings() -> PipSettings:
    """Ask pip for its index and how to reach it.

    Raises:
        DownloadError: there is no pip to ask, or it does not say.
    """
    pip, listing = _ask_a_pip()
    options = parse_config_list(listing)
    index_urls: list[str] = []
    if options.get("no-index", "").lower() not in ("1", "true", "yes", "on"):
        index_urls = [options.get("index-url") or _default_index(pip), *options.get("extra-index-url", "").split()]
    return PipSettings(
        pip=pip,
        index_urls=tuple(index_urls),
        find_links=tuple(options.get("find-links", "").split()),
        transport=Transport(
            cert=options.get("cert"),
            client_cert=options.get("client-cert"),
            proxy=options.get("proxy"),
            trusted_hosts=tuple(options.get("trusted-host", "").split()),
        ),
    )


def parse_config_list(listing: str) -> dict[str, str]:
    """The options in force, from lines such as `global.index-url='...'`."""
    found: dict[tuple[str, str], str] = {}
    for line in listing.splitlines():
        if match := _LINE.fullmatch(line.strip()):
            found[match["section"], match["key"]] = str(ast.literal_eval(match["value"]))
    ordered = sorted(found.items(), key=lambda item: _SECTIONS.index(item[0][0]))
    return {key: value for (_, key), value in ordered if value}


def _candidates() -> Iterator[Pip]:
    """An environment without pip (uv makes such) still has the pip that came with Python, or its base has one."""
    import ensurepip

    yield Pip(sys.executable)
    bundled = sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))
    if bundled:
        yield Pip(sys.executable, str(bundled[-1]))
    base = Path(sys.base_prefix) / "bin" / "python3"
    if sys.base_prefix != sys.prefix and base.exists():
        yield Pip(str(base))


def _ask_a_pip() -> tuple[Pip, str]:
    """The first pip that answers, and its settings."""
    complaint = ""
    for pip in _candidates():
        answer = pip.run("config", "list", "--disable-pip-version-check")
        if answer.returncode == 0:
            return pip, answer.stdout
        complaint = answer.stderr.strip()
    raise DownloadError(
        f"no pip could be asked for the package index ({complaint}); install one, for instance with "
        "`python -m ensurepip` or `uv pip install pip`"
    )


def _default_index(pip: Pip) -> str:
    if index := pip.default_index():
        return index
    raise DownloadError("pip names no package index; set one: `pip config set global.index-url ADDRESS`")
