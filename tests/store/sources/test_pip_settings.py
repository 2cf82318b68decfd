from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from corral.errors import DownloadError
from corral.store.sources import pip_settings
from corral.store.sources.pip_settings import Pip, parse_config_list, read_pip_settings


def test_the_environment_beats_download_beats_install_beats_global() -> None:
    listing = """\
:env:.cert='/env.pem'
download.cert='/download.pem'
download.proxy='http://download'
global.cert='/global.pem'
global.index-url='https://global/simple'
global.proxy='http://global'
install.index-url='https://install/simple'
install.proxy='http://install'
list.format='columns'
wheel.index-url='https://not-asked-for/simple'
"""
    assert parse_config_list(listing) == {
        "cert": "/env.pem",
        "index-url": "https://install/simple",
        "proxy": "http://download",
    }


def test_what_pip_reads_is_what_we_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("""\
[global]
index-url = https://user:word@mirror.example/simple
extra-index-url =
    https://one.example/simple
    https://two.example/simple
trusted-host = mirror.example one.example:8443
proxy = http://proxy.example:3128
client-cert = /client.pem
[install]
find-links = /wheels
""")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_CERT", "/company.pem")
    settings = read_pip_settings()
    assert settings.index_urls == (
        "https://user:word@mirror.example/simple",
        "https://one.example/simple",
        "https://two.example/simple",
    )
    assert settings.find_links == ("/wheels",)
    assert settings.transport.cert == "/company.pem"
    assert settings.transport.client_cert == "/client.pem"
    assert settings.transport.proxy == "http://proxy.example:3128"
    assert settings.transport.trusted_hosts == ("mirror.example", "one.example:8443")


def test_without_a_setting_pip_says_its_own_index() -> None:
    (url,) = read_pip_settings().index_urls
    assert url.startswith("https://")
    assert url.endswith("/simple")


def test_no_index_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    settings = read_pip_settings()
    assert settings.index_urls == ()
    assert settings.find_links == ("/wheels",)


def test_an_environment_without_pip_asks_the_one_that_came_with_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    settings = read_pip_settings()
    assert settings.pip.wheel is not None
    assert settings.index_urls == ("https://mirror.example/simple",)
    assert settings.pip.default_index().startswith("https://")


def test_no_pip_at_all_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pip_settings, "_candidates", lambda: iter([Pip(sys.executable, "/no/such/pip.whl")]))
    with pytest.raises(DownloadError, match=r"no pip could be asked.*ensurepip"):
        read_pip_settings()


def test_a_module_of_the_working_directory_does_not_pose_as_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('an impostor')")
    monkeypatch.chdir(tmp_path)
    assert Pip(sys.executable).run("--version").returncode == 0
