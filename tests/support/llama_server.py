"""llama.cpp's own server as a program, from a wheel that has it compiled: `llama-server` takes ten minutes to build.

It understands those flags of llama-server that `corral compare` gives, and is built for any CPU: no rival in speed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

_GIVEN = os.environ.get("CORRAL_COMPARE_LLAMA_SERVER")  # read before tests/conftest.py takes it away


def main() -> None:
    """Serves until it is told to end."""
    import xllamacpp

    parser = argparse.ArgumentParser("llama-server")
    parser.add_argument("--version", action="version", version=f"version: xllamacpp {xllamacpp.__version__}")
    parser.add_argument("-m", dest="model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("-c", dest="context", type=int, default=0)
    parser.add_argument("-np", dest="slots", type=int, default=1)
    parser.add_argument("-t", dest="threads", type=int, default=1)
    parser.add_argument("--jinja", action="store_true")
    parser.add_argument("--no-repack", action="store_true")
    parser.add_argument("--api-key", action="append", default=[], help="key that clients must send")
    asked = parser.parse_args()

    params = xllamacpp.CommonParams()
    params.model.path = asked.model
    params.model_alias = {asked.alias}
    params.hostnames, params.port = [asked.host], asked.port
    params.n_ctx, params.n_parallel = asked.context, asked.slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = asked.threads
    params.use_jinja, params.no_extra_bufts = asked.jinja, asked.no_repack
    params.api_keys = asked.api_key
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    server = xllamacpp.Server(params)
    print(f"listening at {server.listening_address}", flush=True)
    signal.sigwait(signals)


def find_llama_server(folder: Path) -> Path | None:
    """The one that the user has, else one written into the folder; None without the extra `clients`."""
    if found := _GIVEN or shutil.which("llama-server"):
        return Path(found)
    if find_spec("xllamacpp") is None:
        return None
    program = folder / "llama-server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).absolute()}" "$@"\n')
    program.chmod(0o755)
    return program


if __name__ == "__main__":
    main()
