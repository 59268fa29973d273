"""`tune`: find out on pictures with gold how a spec's model is best asked."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from dataflow_grounding._util.errors import InputError, SpecError, told_as
from dataflow_grounding._util.files import within
from dataflow_grounding._util.terminal import answers_alone, counted, in_columns, say, say_json
from dataflow_grounding.cli.arguments import overrides_argument
from dataflow_grounding.data.records import dump_text
from dataflow_grounding.data.rows import write_text

if TYPE_CHECKING:
    from dataflow_grounding.extras.tuning.trying import Tuning

_LEAST_REQUESTS = 16  # those of one whole round, in which two ways are asked


@click.command("tune")
@click.argument("spec", metavar="SPEC")
@click.option(
    "--gold",
    metavar="FILE",
    help="Records with the right boxes; without it, what `review` and `apply` left in results_dir.",
)
@click.option(
    "-o",
    "folder",
    default="tuning",
    show_default=True,
    metavar="DIR",
    help="Where tuned.yaml, tuning.html and all replies go; there it goes on, too.",
)
@click.option("--candidates", metavar="FILE", help="Ways of your own to try, in YAML.")
@click.option(
    "--max-requests",
    type=click.IntRange(_LEAST_REQUESTS),
    default=160,
    show_default=True,
    metavar="N",
    help="Most requests, those of earlier calls among them.",
)
@click.option(
    "--pictures",
    type=click.IntRange(1),
    default=40,
    show_default=True,
    metavar="N",
    help="Most pictures of the gold, drawn by lot.",
)
@click.option(
    "--definitions",
    is_flag=True,
    help="Also define classes from errors on half of the pictures; kept if the others say so.",
)
@click.option("--estimate", "only_estimate", is_flag=True, help="Say what it costs; send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
@overrides_argument
@answers_alone()
def of_tune(
    spec: str,
    gold: str | None,
    folder: str,
    candidates: str | None,
    max_requests: int,
    pictures: int,
    definitions: bool,
    only_estimate: bool,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Choose how SPEC's model is best asked, on 20 to 40 pictures with gold; leaves DIR/tuned.yaml,
    for `generate -e SPEC -e DIR/tuned.yaml`.

    All ways are asked about the same pictures in rounds; those that are clearly worse leave. The
    spec's own way stays unless another is shown to be better. A second call sends nothing.
    """
    from dataflow_grounding.extras.tuning.page import (
        definition_lines,
        page_of,
        table_lines,
        tuned_yaml,
        verdict_of,
    )
    from dataflow_grounding.extras.tuning.trying import (
        PIPELINE,
        document_of,
        most_usd,
        run_race,
        try_definitions,
    )

    tuning = _tuning(spec, overrides, gold, folder, candidates, max_requests, pictures)
    tuning = replace(tuning, definitions=definitions)
    tuning.lay_out()
    tuning = _without_unsuited_ways(tuning, candidates)
    plan = tuning.plan()
    bound = {
        "pictures": len(tuning.pictures),
        "ways": list(tuning.ways),
        "max_requests": max_requests,
        "max_usd": most_usd(plan, max_requests),
    }
    if not as_json:
        say(_bound_in_words(bound, tuning.run_of(tuning.own, 1)))
    if only_estimate:
        if as_json:
            say_json(bound)
        else:
            say("Nothing was sent.", err=False)
        return
    race = run_race(tuning)
    tried_definitions = try_definitions(tuning, race) if definitions else None
    document = document_of(tuning, race, tried_definitions)
    write_text(within(folder, "tuning.json"), dump_text(document, 1) + "\n")
    page = within(folder, "tuning.html")
    write_text(page, page_of(document))
    tuned = within(folder, "tuned.yaml")
    write_text(tuned, tuned_yaml(document, PIPELINE))
    if as_json:
        say_json(document)
    else:
        say("\n".join(in_columns(list(table_lines(document)))), err=False)
        for line in in_columns(list(definition_lines(document))):
            say(line, err=False)
        say(verdict_of(document), err=False)
    say(f"{tuned} has what was chosen; page: {page}")
    say(f"next: dataflowgrounding generate -e {spec} -e {tuned}")


def _tuning(
    spec_path: str,
    overrides: tuple[str, ...],
    gold: str | None,
    folder: str,
    candidates: str | None,
    max_requests: int,
    most_pictures: int,
) -> Any:
    """Return the Tuning that the command line asks for, and make its folder.

    Raises:
        SpecError: The spec is of another pipeline, no way to try suits its backend, or a way has
            keys that the spec can't have; the message names the way.
        InputError: The gold can't be used.
    """
    from dataflow_grounding.extras.tuning.candidates import candidates_for
    from dataflow_grounding.extras.tuning.gold import gold_pictures
    from dataflow_grounding.extras.tuning.trying import PIPELINE, Tuning
    from dataflow_grounding.jobs.registry import load_spec

    spec = load_spec([spec_path], overrides)
    if spec.autolabel_type != PIPELINE:
        raise SpecError(f"{spec_path}: tune is of {PIPELINE}, not of {spec.autolabel_type}")
    source = gold or _reviewed_in(spec.results_dir)
    image_root = getattr(spec.block.data, "image_root", "")
    folders = [image_root] if image_root else []
    pictures = gold_pictures(source, folders, most_pictures)
    tuning = Tuning(
        [spec_path],
        overrides,
        pictures,
        candidates_for(spec.block.vlm.backend, candidates),
        folder,
        max_requests,
    )
    if not tuning.candidates:
        raise SpecError(
            f"no way to try suits vlm.backend {spec.block.vlm.backend}: name some in --candidates"
        )
    with told_as(InputError, f"can't write {folder or 'to a folder without a name'}"):
        os.makedirs(folder, exist_ok=True)
    for way in tuning.candidates:
        try:
            tuning.spec_of(way)
        except SpecError as error:
            where = candidates or "the shipped ways"
            raise SpecError(f"{where}, {way.name}: {_first_line(error)}") from None
    return tuning


def _without_unsuited_ways(tuning: "Tuning", candidates: str | None) -> "Tuning":
    """Return a tuning without the ways that its model can't be asked in; they are named.

    Raises SpecError where such a way is of the user's own file, `candidates`.
    """
    suited = []
    for way in tuning.candidates:
        try:
            tuning.run_of(way, 1)
            suited.append(way)
        except SpecError as error:
            if candidates:
                raise SpecError(f"{candidates}, {way.name}: {_first_line(error)}") from None
            say(f"not tried: {way.name} ({_first_line(error)})")
    return replace(tuning, candidates=suited)


def _first_line(error: SpecError) -> str:
    """Return the first line of an error's text."""
    return str(error).splitlines()[0]


def _reviewed_in(results_dir: str) -> str:
    """Return the file of a results folder that `apply` made of reviewed annotations.

    Raises InputError where there is none.
    """
    path = os.path.join(results_dir, "annotations.reviewed.jsonl")
    if not os.path.exists(path):
        raise InputError(
            f"no {path}: review some pictures and `apply`, or name gold annotations with --gold"
        )
    return path


def _bound_in_words(bound: Mapping[str, Any], run: Any) -> str:
    """Return in words what may be spent at most, and what the calibration takes besides.

    Args:
        bound: What `tune --estimate --json` prints.
        run: A run of the spec's own way, which tells whom it asks and whether it calibrates.
    """
    usd = bound["max_usd"]
    cost = "no known price" if usd is None else f"at most {usd:.4f} USD"
    pictures = counted(bound["pictures"], "picture")
    ways = f"{len(bound['ways'])} ways"
    text = (
        f"{ways} of asking {run.who}, {pictures} with gold: at most"
        f" {bound['max_requests']:,} requests, {cost}."
    )
    if run.calibrates:
        from dataflow_grounding.trust.choice import REQUESTS

        text += f" Before them the box format is calibrated: {REQUESTS}."
    return text
