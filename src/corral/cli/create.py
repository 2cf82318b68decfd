"""`corral create`: a model of one's own from a Modelfile."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from corral.cli import options
from corral.cli.options import option
from corral.errors import CorralError

_DEFAULT_FILE = "Modelfile"


@click.command("create", short_help="Make a model from a Modelfile.")
@options.model
@option(
    "--file", "-f", "file", metavar="PATH",
    help='The Modelfile, by default "Modelfile" here, or FROM . if there is none; - reads standard input.',
)  # fmt: skip
@option("--quantize", "-q", metavar="TYPE", help="Quantize the weights to this type, for instance q4_K_M.")
def create(model: str, *, file: str | None, quantize: str | None) -> None:
    """Make a model from a Modelfile: another model, a .gguf file or a folder of safetensors, and what it adds."""
    text, folder = _read(file)
    from corral.cli.backend import open_backend
    from corral.cli.progress import show_status
    from corral.store.modelfile import parse_modelfile, to_spec

    spec = to_spec(parse_modelfile(text), folder)
    if quantize is not None:
        spec = dataclasses.replace(spec, quantize=quantize)
    backend = open_backend()
    with show_status() as on_status:
        backend.create(model, spec, on_status)


def _read(file: str | None) -> tuple[bytes, Path]:
    """The Modelfile's bytes, and the folder that its paths start from."""
    if file == "-":
        return sys.stdin.buffer.read(), Path.cwd()
    path = Path(file or _DEFAULT_FILE)
    try:
        return path.read_bytes(), path.resolve().parent
    except FileNotFoundError:
        if file is None:
            return b"FROM .\n", Path.cwd()
        raise CorralError(f"specified Modelfile wasn't found: {file}") from None
    except OSError as error:
        raise CorralError(f"cannot read the Modelfile {path}: {error.strerror or error}") from error
