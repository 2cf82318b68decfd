"""A program that starts, serves /health, floods, crashes or hangs as engines do.

python fake_engine.py MODE PORT [FILE]
"""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import time

MODE, PORT = sys.argv[1], int(sys.argv[2])
CHILD = [sys.executable, "-c", "import time; held = b'x' * (40 << 20); time.sleep(600)"]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base
        print(format % args, flush=True)


def main() -> None:
    if MODE == "crash":
        print("loading the model")
        print("error: no such tensor", flush=True)
        raise SystemExit(3)
    if MODE == "signal" and "--safe" not in sys.argv:
        os.kill(os.getpid(), signal.SIGSEGV)
    if MODE == "hang":
        print("still loading", flush=True)
        time.sleep(600)
    if MODE == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if MODE == "flood":
        for _ in range(200):
            sys.stdout.write("a word too many\n" * 6400)
    if MODE == "tree":
        for apart in (False, True):
            child = subprocess.Popen(CHILD, start_new_session=apart)
            print("child", child.pid, flush=True)
    if MODE == "burn" and os.fork() == 0:
        while True:
            pass
    if MODE == "environment":
        for name in sorted(os.environ):
            print(name, flush=True)
    http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()


if __name__ == "__main__":
    main()
