"""klab completion"""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete klab's commands and the names of labs, nodes and scenarios.

    \b
    Examples:
      klab completion bash > ~/.local/share/bash-completion/completions/klab
      klab completion zsh > ~/.zfunc/_klab
      klab completion fish > ~/.config/fish/completions/klab.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - click knows these three
    from lab.cli.terminal.output import echo

    echo(found(ctx.find_root().command, {}, "klab", "_KLAB_COMPLETE").source())
