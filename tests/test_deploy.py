"""What lies in deploy/ agrees with the server: its settings, its probes, and the time that it takes to stop."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from corral.cli.serve import configs_of, serve
from corral.config import ServerConfig
from corral.server.lifecycle import LIVE_PATH, PROBE_PATHS
from corral.server.listen import EXPOSED_DRAIN_DELAY_S

DEPLOY = Path(__file__).parent.parent / "deploy"
UNIT = DEPLOY / "corral.service"
MANIFEST = DEPLOY / "kubernetes.yaml"


def documents() -> dict[str, dict[str, Any]]:
    """The manifest's parts by their kinds."""
    return {document["kind"]: document for document in yaml.safe_load_all(MANIFEST.read_text())}


def pod() -> dict[str, Any]:
    found: dict[str, Any] = documents()["Deployment"]["spec"]["template"]["spec"]
    return found


def settings_of(arguments: list[str]) -> ServerConfig:
    assert arguments[0] == "serve"
    return configs_of(serve.make_context("serve", arguments[1:]))[1]


def unit_value(name: str) -> str:
    found = re.search(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert found is not None, name
    return found[1]


def test_the_manifests_settings_are_ours_and_leave_time_to_drain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text(documents()["ConfigMap"]["data"]["config.toml"])
    monkeypatch.setenv("CORRAL_API_KEY", "secret")
    arguments = [item.replace("/etc/corral", str(tmp_path)) for item in pod()["containers"][0]["args"]]
    config = settings_of(arguments)
    assert config.host == "0.0.0.0"
    assert config.drain_delay_s is not None
    assert config.drain_delay_s + config.drain_timeout_s < pod()["terminationGracePeriodSeconds"]
    ready = pod()["containers"][0]["readinessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] < config.drain_delay_s


def test_the_manifests_probes_are_ours() -> None:
    container = pod()["containers"][0]
    probes = {kind: container[kind]["httpGet"]["path"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert set(probes.values()) <= PROBE_PATHS
    assert probes["startupProbe"] == probes["livenessProbe"] == LIVE_PATH  # nothing restarts a server that mends itself
    assert probes["readinessProbe"] != LIVE_PATH


def test_the_container_serves_and_probes_what_the_manifest_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DEPLOY / "Containerfile").read_text()
    command = re.search(r"^CMD (\[.*\])$", text, re.MULTILINE)
    assert command is not None
    monkeypatch.setenv("CORRAL_API_KEY", "secret")
    config = settings_of(yaml.safe_load(command[1]))
    port = pod()["containers"][0]["ports"][0]["containerPort"]
    assert config.port == port
    assert f"http://127.0.0.1:{port}{LIVE_PATH}" in text
    assert f"USER {pod()['securityContext']['runAsUser']}" in text


def test_the_unit_leaves_time_to_drain() -> None:
    arguments = shlex.split(unit_value("ExecStart"))[1:]
    config = settings_of(arguments)
    minutes = re.fullmatch(r"(\d+)min", unit_value("TimeoutStopSec"))
    assert minutes is not None
    assert EXPOSED_DRAIN_DELAY_S + config.drain_timeout_s < int(minutes[1]) * 60


@pytest.mark.slow
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    assert shutil.which("systemd-analyze"), "this test needs systemd-analyze; Debian has it in systemd"
    program = tmp_path / "corral"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "corral.service"
    unit.write_text(UNIT.read_text().replace("/opt/corral/bin/corral", str(program)))
    told = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.slow
def test_kubernetes_takes_the_manifest() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install corral[clients]")
    for document in documents().values():
        validate.validate(document, "1.33", strict=True)
