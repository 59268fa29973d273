"""`bench`: measure an endpoint on the pictures that come with the package, or on one's own."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click

from dataflow_grounding._util.environment import read_env_files
from dataflow_grounding._util.errors import RunStopped
from dataflow_grounding._util.terminal import in_columns, say, say_json
from dataflow_grounding.bench.bench_set import PictureSet
from dataflow_grounding.bench.choosing import choice_of, gain_lines, verdict_of
from dataflow_grounding.bench.own_pictures import own_set
from dataflow_grounding.bench.page import (
    checked_nothing,
    failed_all,
    page_of,
    table_lines,
    warnings_of,
)
from dataflow_grounding.bench.running import Bench, measure, write_document
from dataflow_grounding.bench.ways import OWN_USUAL, USUAL, WAYS
from dataflow_grounding.cli.arguments import (
    any_path,
    json_option,
    overrides_argument,
    spec_option_for,
)
from dataflow_grounding.data.records import read_object
from dataflow_grounding.data.results_folder import CKPT
from dataflow_grounding.data.rows import write_text
from dataflow_grounding.engine.run_lock import only_run
from dataflow_grounding.jobs.registry import spec_of_endpoint
from dataflow_grounding.spec import VlmBlock
from dataflow_grounding.spec.environment import with_environment


def _ways(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    if value is None:
        return ()
    ways = tuple(dict.fromkeys(part.strip() for part in value.split(",")))
    for way in ways:
        if way not in WAYS:
            raise click.UsageError(f"{way!r} is not one of {', '.join(WAYS)}", ctx)
    return ways


@click.command("bench")
@spec_option_for("Measure the endpoint of this spec; without it, that of the environment")
@click.option(
    "-o",
    "folder",
    metavar="DIR",
    type=any_path,
    help="Where bench.json, bench.html and each way's results go; a bench in it resumes."
    "  [default: bench_results; with --gold bench_own]",
)
@click.option(
    "--ways",
    callback=_ways,
    metavar="A,B",
    help=f"Of {', '.join(WAYS)}.  [default: {','.join(USUAL)}; with --gold {','.join(OWN_USUAL)}]",
)
@click.option(
    "--pictures",
    metavar="N|DIR",
    type=any_path,
    help="Only the first N pictures of each kind; with --gold, the folder of your pictures.",
)
@click.option(
    "--gold",
    metavar="FILE",
    type=any_path,
    help="Records with the right boxes of your own pictures.",
)
@json_option
@overrides_argument
@click.pass_context
def bench_command(
    ctx: click.Context,
    spec_paths: tuple[str, ...],
    folder: str | None,
    ways: tuple[str, ...],
    pictures: str | None,
    gold: str | None,
    as_json: bool,
    overrides: tuple[str, ...],
) -> int:
    """Measure an endpoint on 50 pictures with gold, in several ways of asking. With --pictures DIR
    and --gold FILE, compare ways on your own pictures.

    Exit codes: 4 all pictures of a way failed in this call, 1 a way's check checked nothing.
    """
    # `pictures` is a folder with --gold, else a number.
    own = _own_pictures(ctx, pictures, gold)  # None without --gold
    if own:
        folder = folder or "bench_own"
        ways = ways or OWN_USUAL
        if "spans" in ways:  # it asks for the phrases of captions, without boxes
            raise click.UsageError("--gold compares ways by their boxes: leave spans out of --ways")
        most_of_kind = None  # all of one's own are asked about
    else:
        folder = folder or "bench_results"
        ways = ways or USUAL
        most_of_kind = _number_of_pictures(pictures)
    bench = replace(_bench_of(spec_paths, overrides, folder, ways), pictures=most_of_kind, own=own)
    path = os.path.join(folder, "bench.json")
    page = os.path.join(folder, "bench.html")
    # Two benches at once would each write a document without the other's ways.
    with only_run(os.path.join(folder, CKPT)):
        document = _measured(bench, path, page)
    for warning in warnings_of(document):
        say(f"Warning: {warning}")
    if as_json:
        say_json(document)
    else:
        say("\n".join(in_columns(list(table_lines(document)))), err=False)
    say(f"figures: {path}; page: {page}")
    if own:
        _say_choice(document, ways, silent=as_json)
    return _exit_code(document, ways)


def _exit_code(document: dict[str, Any], ways: Sequence[str]) -> int:
    """Only `ways` count: the document also has those that an earlier call asked."""
    # A way that the endpoint can't answer isn't in the document.
    asked_ways = [way for way in ways if way in document["ways"]]
    figures_of_asked = [document["ways"][way]["figures"] for way in asked_ways]
    if any(map(failed_all, figures_of_asked)):
        return 4
    return 1 if any(map(checked_nothing, figures_of_asked)) else 0


def _own_pictures(ctx: click.Context, folder: str | None, gold: str | None) -> PictureSet | None:
    if gold is None:
        return None
    if folder is None:
        raise click.UsageError("--gold goes with --pictures DIR, the folder of your pictures", ctx)
    return own_set(folder, gold)


def _number_of_pictures(text: str | None) -> int | None:
    if text is None:
        return None
    # "50" is a number, even where a folder has that name.
    if os.path.isdir(text) and not text.isdecimal():
        raise click.UsageError(f"--pictures {text} goes with --gold FILE, the right boxes")
    if not text.isdecimal() or int(text) < 1:
        raise click.UsageError(f"--pictures {text} should be a number from 1, or a folder")
    return int(text)


def _say_choice(document: dict[str, Any], ways: Sequence[str], *, silent: bool) -> None:
    """Compare the ways with the first of `ways` that could be asked."""
    first = next(way for way in ways if way in document["ways"])
    choice = choice_of(document, first)
    if choice.gains and not silent:
        say("\n".join(["", *in_columns(list(gain_lines(choice)))]), err=False)
    say(verdict_of(choice))


def _measured(bench: Bench, path: str, page: str) -> dict[str, Any]:
    """Write the document after each way, so that a later stop loses none."""
    latest: dict[str, Any] = {}
    try:
        for document in measure(bench, read_object(path)):
            latest = document
            write_document(document, path)
            write_text(page, page_of(document))
    except RunStopped:
        if latest:
            say(f"{path} has {', '.join(latest['ways'])}.")
        raise
    return latest


def _bench_of(
    spec_paths: Sequence[str],
    overrides: Sequence[str],
    folder: str,
    ways: Sequence[str],
) -> Bench:
    spec = spec_of_endpoint(spec_paths, overrides)
    if spec is not None:
        return Bench(
            spec.block.vlm,
            folder,
            ways,
            max_workers=spec.block.workflow.max_workers,
        )
    read_env_files()
    vlm = with_environment(VlmBlock(backend="auto"))
    return Bench(vlm, folder, ways)
