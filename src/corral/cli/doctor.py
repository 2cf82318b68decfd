"""`corral doctor`: what this machine can do for language models, what limits it, and what to change."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from corral.cli.options import option
from corral.errors import CorralError


@click.command("doctor")
@option("--offline", is_flag=True, help="Leave the network alone.")
@option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(*, offline: bool, as_json: bool) -> None:
    """Look at processor, memory, disk, network and limits, and say in plain words what to change.

    Takes about a second. Exits with 1 if something keeps Corral from working here.
    """
    from corral.cli.doctor_checks import Level, run_checks

    findings = run_checks(is_online=not offline)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(f"{finding.level.value:<5} {finding.subject:<13} {finding.text}")
            if finding.advice:
                click.echo(f"{'':<19} -> {finding.advice}")
    if failed := [finding.subject for finding in findings if finding.level is Level.FAIL]:
        raise CorralError(f"Corral cannot work here as things are: see {', '.join(failed)}")
