"""`serve`: a service for labelling tools."""

from functools import partial
from typing import Any

import click

from dataflow_grounding._util.terminal import say
from dataflow_grounding.cli.arguments import any_path, overrides_argument, spec_option_for
from dataflow_grounding.serve.plan import served_run
from dataflow_grounding.serve.requests import Pictures
from dataflow_grounding.serve.server import Server

TOKEN = "What clients have to send; better in DF_SERVE_TOKEN."
HOSTS = "Fetch pictures from there, wherever it is; may be given several times."
FOLDER = click.Path(exists=True, file_okay=False)
option = partial(click.option, show_default=True)


@click.command("serve")
@spec_option_for("Serve what this spec names")
@option("--host", default="127.0.0.1", metavar="NAME", help="Another needs a token.")
@option("--port", default=9090, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option("--token", envvar="DF_SERVE_TOKEN", default="", metavar="TEXT", help=TOKEN)
@click.option(
    "--results", metavar="DIR", type=any_path, help="Keep replies there, as `generate` does."
)
@click.option("--root", type=FOLDER, help="Pictures below it may be named by their path.")
@click.option("--allow-host", "allow_hosts", multiple=True, metavar="HOST", help=HOSTS)
@overrides_argument
def command(
    spec_paths: tuple[str, ...],
    overrides: tuple[str, ...],
    results: str | None,
    root: str | None,
    allow_hosts: tuple[str, ...],
    **of_server: Any,
) -> None:
    """Answer Label Studio, X-AnyLabeling and plain JSON requests, until Ctrl-C.

    Asks the endpoint of a spec, or that of DF_API_KEY, DF_BASE_URL and DF_MODEL; without either,
    the embedded grounder. The address is the first line printed. Replies are kept: the same picture
    and phrases are paid for once.
    """
    run = served_run(spec_paths, overrides, results)
    block: Any = run.spec.block  # that of image_grounding
    server = Server(run, Pictures(root, block.data, allow_hosts), **of_server)
    say(f"Asks {run.serving.model}; replies are kept in {run.spec.results_dir}.")
    server.run()
