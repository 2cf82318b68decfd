"""Debian's Prometheus scrapes a live server, and is asked every expression of the dashboard and of the alerts."""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.models import model_path
from tests.support.serve_process import ServeProcess
from tests.test_dashboards import ALERTS, DASHBOARD, alert_expressions, panel_expressions

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

KEY = "scraper"
TIMEOUT_S = 120.0
_COMPARISON = re.compile(r" (?:>|<|==) [\d.]+$")
# Prometheus' style guide, which vLLM's names do not keep: colons, and a histogram that ends as counters do.
_OF_VLLM = re.compile(r"should not contain ':'$|^vllm:iteration_tokens_total non-counter")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that has answered a few requests, and has then been idle."""
    process = ServeProcess(
        str(model_path("smollm2-135m")),
        *("--served-model-name", "smollm2", "--api-key", KEY, "--kv-idle-release", "0.1"),
        folder=tmp_path_factory.mktemp("server"),
    )
    try:
        yield process.url()
    finally:
        process.close()


def ask(url: str) -> None:
    body = {"model": "smollm2", "messages": [{"role": "user", "content": "Count to five."}], "max_tokens": 24}
    headers = {"Authorization": f"Bearer {KEY}"}
    for stream in (False, True):
        assert httpx.post(f"{url}/v1/chat/completions", json={**body, "stream": stream}, headers=headers).is_success
    assert httpx.post(f"{url}/v1/chat/completions", json={**body, "model": "none"}, headers=headers).status_code == 404


class Prometheus:
    """The real one, with its own folder and port."""

    def __init__(self, program: str, folder: Path, target: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self._port = sock.getsockname()[1]
        job = {
            "job_name": "corral",
            "scrape_interval": "1s",
            "authorization": {"credentials": KEY},
            "static_configs": [{"targets": [target]}],
        }
        shutil.copy(ALERTS, folder / "alerts.yml")
        config = {"rule_files": ["alerts.yml"], "global": {"evaluation_interval": "1s"}, "scrape_configs": [job]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._log = (folder / "log").open("wb")
        command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        command.append(f"--web.listen-address=127.0.0.1:{self._port}")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)

    def get(self, path: str, **params: str) -> Any:
        """The data of an answer; waits for the server to be there."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            assert self._process.poll() is None, "Prometheus has ended"
            assert time.monotonic() < deadline, "Prometheus does not answer"
            try:
                answer = httpx.get(f"http://127.0.0.1:{self._port}/api/v1/{path}", params=params).json()
            except (httpx.TransportError, ValueError):
                time.sleep(0.1)
                continue
            assert answer["status"] == "success", answer
            return answer["data"]

    def query(self, expression: str) -> list[Any]:
        found: list[Any] = self.get("query", query=expression)["result"]
        return found

    def wait_for(self, expression: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not self.query(expression):
            assert time.monotonic() < deadline, f"never came about: {expression}"
            time.sleep(0.2)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


def programs(*names: str) -> list[str]:
    found = [shutil.which(name) for name in names]
    assert all(found), f"this test needs {names}; Debian has them in prometheus"
    return [program for program in found if program is not None]


def test_prometheus_reads_it_and_finds_what_dashboard_and_alerts_ask_for(server: str, tmp_path: Path) -> None:
    [program] = programs("prometheus")
    prometheus = Prometheus(program, tmp_path, server.removeprefix("http://"))
    try:
        ask(server)
        prometheus.wait_for('up{job="corral"} == 1')
        # Rates need two scrapes with a change between them, and the limit an idle moment.
        prometheus.wait_for("corral:read_bandwidth_bytes_per_second > 0")
        for _ in range(3):
            before = prometheus.query("vllm:generation_tokens_total")
            ask(server)
            prometheus.wait_for(f"vllm:generation_tokens_total > {before[0]['value'][1]}")
        for expression in panel_expressions():
            assert _numbers(prometheus.query(_plain(expression))), f"no data for {expression}"
        for alert, expression in alert_expressions().items():
            assert prometheus.query(expression) == [], f"{alert} is raised for nothing"
            compared, threshold = _COMPARISON.sub("", expression), _COMPARISON.search(expression)
            assert threshold, f"{alert} compares nothing"
            if alert != "CorralRefuses":  # nothing of the kind has happened
                assert _numbers(prometheus.query(compared)), f"no data for {compared}"
        for measured in ("request_queue_time_seconds", "request_prefill_time_seconds", "iteration_tokens_total"):
            assert prometheus.query(f"vllm:{measured}_count > 0"), f"the worker has not told {measured}"
        rules = prometheus.get("rules")["groups"][0]["rules"]
        assert len(rules) == len(yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"])
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
        assert prometheus.get("alerts")["alerts"] == []
        [share] = prometheus.query("corral:decode_limit_share")
        assert float(share["value"][1]) > 0
    finally:
        prometheus.close()


def _plain(expression: str) -> str:
    """As Grafana asks it, every variable filled in."""
    return expression.replace("$model", ".*").replace("$job", ".*").replace("$__rate_interval", "1m")


def _numbers(found: list[Any]) -> list[float]:
    """A share of nothing, or a quantile of it, is not one."""
    return [number for result in found if not math.isnan(number := float(result["value"][1]))]


def test_promtool_takes_alerts_and_metrics(server: str) -> None:
    [promtool] = programs("promtool")
    subprocess.run([promtool, "check", "rules", str(ALERTS)], check=True, capture_output=True)
    ask(server)
    text = httpx.get(f"{server}/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
    told = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    faults = [line for line in (told.stdout + told.stderr).splitlines() if not _OF_VLLM.search(line)]
    assert faults == []


def test_the_dashboard_is_json_that_grafana_imports() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert {"title", "uid", "schemaVersion", "panels", "templating"} <= dashboard.keys()
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in dashboard["panels"] if panel["type"] != "row")
