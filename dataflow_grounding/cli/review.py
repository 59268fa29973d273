"""`review`, `apply`, `certify`: mend what a run found, write it down, and say how much is wrong."""

import getpass
from contextlib import suppress
from dataclasses import asdict

import click

from dataflow_grounding._util.terminal import counted, say
from dataflow_grounding.cli.arguments import answer, any_path, image_root_option, json_option
from dataflow_grounding.review.applying import Applied, apply_decisions
from dataflow_grounding.review.certificate import certify
from dataflow_grounding.review.reviewable import Reviewable
from dataflow_grounding.review.server import ReviewServer
from dataflow_grounding.review.session import Session


@click.command("review")
@click.argument("results", metavar="RESULTS", type=any_path)
@click.option(
    "--port",
    default=0,
    type=click.IntRange(0, 65535),
    help="The port on 127.0.0.1; a free one by default.",
)
@click.option("--no-open", is_flag=True, help="Open no browser.")
@click.option(
    "--sample",
    type=click.IntRange(1),
    metavar="N",
    help="Only N boxes and phrases, drawn at random.",
)
@click.option("--seed", type=int, help="With --sample: the seed for drawing.")
@image_root_option
def review_command(
    results: str,
    port: int,
    no_open: bool,
    sample: int | None,
    seed: int | None,
    image_root: str | None,
) -> None:
    """Mend RESULTS (a folder of a run or of one of its steps, or a file of records) in a browser.
    Then write the result with `apply`.

    Each decision is saved to reviews.jsonl before the next is taken. The first line printed is the
    page's address.
    """
    if seed is not None and sample is None:
        raise click.UsageError("--seed is for a sample: give --sample N, too")
    size_and_seed = None if sample is None else (sample, seed or 0)
    reviewable = Reviewable(results, image_root)
    session = Session(reviewable, _user(), sample=size_and_seed)
    if reviewable.further_boxes:
        boxes = counted(reviewable.further_boxes, "box")
        say(f"{boxes} on a thing that another box of its class has: shown and judged with that one")
    ReviewServer(session, port).run(open_browser=not no_open)


def _user() -> str:
    with suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return "unknown"


@click.command("apply")
@click.argument("results", metavar="RESULTS", type=any_path)
@click.argument("downloads", metavar="[DECISIONS]...", type=any_path, nargs=-1)
@click.option(
    "-o",
    "out",
    metavar="FILE",
    type=any_path,
    help="A file for training, without rejected boxes; else annotations.reviewed.jsonl, with all.",
)
@image_root_option
@json_option
def apply_command(
    results: str,
    downloads: tuple[str, ...],
    out: str | None,
    image_root: str | None,
    as_json: bool,
) -> int:
    """Write RESULTS as reviewed. DECISIONS are files that the page offered for download after its
    server had ended.

    Exit codes: 0 done, 1 some of DECISIONS were refused, because others have since changed the
    same items.
    """
    # Downloaded decisions are added to RESULTS' reviews.jsonl, of which all are applied.
    applied = apply_decisions(results, out, downloads, image_root)
    for line in applied.refused:
        say(f"Not taken: {line}")
    answer(as_json, asdict(applied), _lines_on_applied(applied))
    return 1 if applied.refused else 0


def _lines_on_applied(applied: Applied) -> list[str]:
    lines = [
        f"{applied.reviewed}: {counted(applied.records, 'record')} with"
        f" {counted(applied.decisions, 'decision')}. Phrases whose boxes are all right:"
        f" {applied.verified:,}; with a wrong one: {applied.rejected:,}"
    ]
    if applied.outlines_left_out:
        outlines = counted(applied.outlines_left_out, "outline")
        lines.append(f"left out, as their boxes were resized: {outlines}")
    if applied.boxes_left_out:
        left_out = counted(applied.boxes_left_out, "box")
        lines.append(f"left out, as they were rejected: {left_out}")
    return lines


def _share(text: str) -> float:
    """`3%` or `0.03` → 0.03"""
    divisor = 100 if text.endswith("%") else 1
    with suppress(ValueError):
        share = float(text.removesuffix("%")) / divisor
        if 0 < share < 1:
            return share
    raise click.BadParameter(f"{text} should be a share such as 3% or 0.03")


@click.command("certify")
@click.argument("results", metavar="RESULTS", type=any_path)
@click.option(
    "--max-error",
    type=_share,
    metavar="SHARE",
    help="Accept at most this share of wrong boxes, such as 3%.",
)
@json_option
def certify_command(
    results: str,
    max_error: float | None,
    as_json: bool,
) -> int:
    """Say how much of RESULTS is wrong, from the sample that `review --sample` drew.

    Exit codes: 0 done, 1 --max-error may be exceeded.
    """
    certificate = certify(results, max_error)
    answer(as_json, certificate.to_json(), certificate.lines(results))
    return 0 if certificate.is_accepted else 1
