"""A benchmark's server as a process: a small one of Python's own stands for it."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import psutil
import pytest
from benchmarks.server_process import PORT, RunningServer, ServerError

# Says 503 to the first question, as a server does that still loads; has a child process.
CODE = """
import http.server, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        self.send_response(503 if Handler.asked == 1 else 200)
        self.send_header("X-Greeting", os.environ.get("GREETING", ""))
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code, PORT)


def test_a_server_is_ready_when_its_health_says_so_and_ends_with_its_children(tmp_path: Path) -> None:
    with RunningServer(python(CODE), tmp_path / "log", {"GREETING": "hello"}) as running:
        assert running.wait_ready() > 0
        assert httpx.get(running.url, trust_env=False).headers["X-Greeting"] == "hello"
        tree = [process for process in psutil.process_iter() if _has(process, running.url.rsplit(":", 1)[1])]
        tree += [child for process in tree for child in process.children()]
        assert len(tree) == 2
    assert not any(process.is_running() for process in tree)


def test_a_server_ends_when_the_run_is_broken_off(tmp_path: Path) -> None:
    running = RunningServer(python(CODE), tmp_path / "log")

    def broken_off() -> None:
        with running:
            running.wait_ready()
            sys.exit(143)

    with pytest.raises(SystemExit):
        broken_off()
    with pytest.raises(httpx.ConnectError):
        httpx.get(running.url, trust_env=False)


def test_a_server_that_ends_before_it_is_ready_says_why(tmp_path: Path) -> None:
    code = "import sys; print('no such model'); sys.exit(3)"
    said = pytest.raises(ServerError, match="code 3 before it was ready: no such model")
    with RunningServer(python(code), tmp_path / "log") as running, said:
        running.wait_ready()


def test_a_program_that_is_not_there_is_a_server_error(tmp_path: Path) -> None:
    server = RunningServer((str(tmp_path / "absent"),), tmp_path / "log")
    with pytest.raises(ServerError, match="absent cannot be started"), server:
        pass


def _has(process: psutil.Process, port: str) -> bool:
    """Whether the port is the process's last argument."""
    try:
        return bool(process.cmdline()[-1:] == [port])
    except psutil.Error:
        return False
