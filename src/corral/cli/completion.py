"""`corral completion`: what a shell needs to complete our words."""

from __future__ import annotations

import click

COMPLETE_VARIABLE = "_CORRAL_COMPLETE"


@click.command("completion", short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that lets a shell complete commands, flags and the names of models.

    For bash: echo 'eval "$(corral completion bash)"' >> ~/.bashrc

    For zsh: echo 'eval "$(corral completion zsh)"' >> ~/.zshrc

    For fish: corral completion fish > ~/.config/fish/completions/corral.fish
    """
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    kind = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}[shell]
    click.echo(kind(context.find_root().command, {}, "corral", COMPLETE_VARIABLE).source())
