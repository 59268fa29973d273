"""`serve`: a service for labelling tools."""

import click

from dataflow_grounding._util.terminal import say
from dataflow_grounding.cli.arguments import overrides_argument, spec_option_for
from dataflow_grounding.data.working_folder import address_of
from dataflow_grounding.serve.plan import served_job
from dataflow_grounding.serve.requests import Pictures
from dataflow_grounding.serve.server import Server


@click.command("serve")
@spec_option_for("Serve what this spec names")
@click.option("--host", default="127.0.0.1", metavar="NAME", help="Another needs a token.")
@click.option(
    "--port", default=9090, type=click.IntRange(0, 65535), help="9090 unless given; 0: a free one."
)
@click.option(
    "--token",
    envvar="DF_SERVE_TOKEN",
    default="",
    metavar="TEXT",
    help="What clients have to send; better in DF_SERVE_TOKEN.",
)
@click.option("--results", metavar="DIR", help="Keep replies there, as `generate` does.")
@click.option("--root", metavar="DIR", help="Pictures below it may be named by their path.")
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="HOST",
    help="Fetch pictures from there, wherever it is; may be given several times.",
)
@click.option(
    "--queue",
    default=256,
    type=click.IntRange(0),
    metavar="N",
    help="Requests that may wait (256); more are answered 429.",
)
@click.option(
    "--timeout",
    default=90.0,
    type=click.FloatRange(0.1),
    metavar="S",
    help="Seconds that a request waits for its answer (90).",
)
@click.option(
    "--max-mb", default=64, type=click.IntRange(1), metavar="N", help="Of a request's body (64)."
)
@overrides_argument
def command(
    spec_paths: tuple[str, ...],
    host: str,
    port: int,
    token: str,
    results: str | None,
    root: str | None,
    allow_hosts: tuple[str, ...],
    queue: int,
    timeout: float,
    max_mb: int,
    overrides: tuple[str, ...],
) -> None:
    """Answer Label Studio, X-AnyLabeling and plain JSON requests, until Ctrl-C.

    Asks the endpoint of a spec, or that of DF_API_KEY, DF_BASE_URL and DF_MODEL; without either,
    the embedded grounder. The address is the first line printed. Replies are kept: the same picture
    and phrases are paid for once.
    """
    job = served_job(spec_paths, overrides, results)
    pictures = Pictures(root, job.data, allow_hosts)
    server = Server(job, pictures, host, port, token)
    server.queue = queue
    server.timeout = timeout
    server.most_bytes = max_mb * 2**20
    say(f"Asks {job.serving.model}; replies are kept in {address_of(job.folder)}.")
    server.run()
