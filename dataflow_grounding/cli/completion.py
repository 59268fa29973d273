"""`completion`: the shell's completion script."""

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print the script that makes SHELL complete commands and options: eval "$(dataflowgrounding completion bash)"."""
    from dataflow_grounding.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "dataflowgrounding", "_DATAFLOWGROUNDING_COMPLETE").source())  # noqa: TID251
    return 0
