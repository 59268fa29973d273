"""`bench`: measure an endpoint on the pictures that come with the package, or on one's own."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import click

from dataflow_grounding._util.environment import read_env_files
from dataflow_grounding._util.errors import InputError, RunStopped, errors_as
from dataflow_grounding._util.terminal import in_columns, say, say_json
from dataflow_grounding.bench.choosing import best_yaml, choice_of, gain_lines, verdict_of
from dataflow_grounding.bench.document import read_document
from dataflow_grounding.bench.own_pictures import own_set
from dataflow_grounding.bench.page import (
    checked_nothing,
    failed_all,
    page_of,
    table_lines,
    warnings_of,
)
from dataflow_grounding.bench.running import (
    Bench,
    estimate_bench,
    is_taken_over,
    measure,
    write_document,
)
from dataflow_grounding.bench.scoring import scored
from dataflow_grounding.bench.ways import OWN_USUAL, USUAL, WAYS
from dataflow_grounding.boxes.orientation import Frame
from dataflow_grounding.cli.arguments import (
    answer,
    frame_option,
    json_option,
    overrides_argument,
    spec_option_for,
)
from dataflow_grounding.data.mirror import CKPT
from dataflow_grounding.data.rows import write_text
from dataflow_grounding.engine.run_lock import only_run
from dataflow_grounding.jobs.registry import spec_of_endpoint
from dataflow_grounding.spec import VlmBlock
from dataflow_grounding.spec.environment import with_environment

_FILE = "bench.json"
_BEST = "best.yaml"


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
    help="Only the first N pictures of each kind; with --gold, the folder of your pictures.",
)
@click.option("--gold", metavar="FILE", help="Records with the right boxes of your own pictures.")
@frame_option("Gold has boxes of")
@click.option("--estimate", "only_estimate", is_flag=True, help="Estimate the cost; send nothing.")
@click.option(
    "--rescore", metavar="FILE", help="Compute the figures of a bench.json again, without a model."
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
    frame: Frame,
    only_estimate: bool,
    rescore: str | None,
    as_json: bool,
    overrides: tuple[str, ...],
) -> int:
    """Measure an endpoint on 50 pictures with gold, in several ways of asking. With --pictures DIR
    and --gold FILE, compare ways on your own pictures, and leave the best as DIR/best.yaml.

    Every reply is kept in DIR/bench.json, from which --rescore computes the same figures. Exit
    codes: 4 all pictures of a way failed in this call, 1 a way's check checked nothing, or a
    rescored file states figures that differ.
    """
    if rescore is not None:
        of_own = () if gold else ("pictures", "frame")
        _refuse_with_rescore(ctx, "spec_paths", "folder", "ways", "only_estimate", *of_own)
        if overrides:
            raise click.UsageError(f"--rescore takes a file alone: leave out {overrides[0]}")
        return _rescored(rescore, _own_pictures(ctx, pictures, gold, frame), as_json)
    own = _own_pictures(ctx, pictures, gold, frame)
    folder = folder or ("bench_own" if own else "bench_results")
    ways = ways or (OWN_USUAL if own else USUAL)
    if own and "spans" in ways:
        raise click.UsageError("--gold compares ways by their boxes: leave spans out of --ways")
    first = _number_of_pictures(pictures) if own is None else None
    bench = replace(_bench(spec_paths, overrides, folder, ways), pictures=first, own=own)
    if only_estimate:
        figures = estimate_bench(bench)
        answer(as_json, figures, _estimate_lines(figures))
        return 0
    path = os.path.join(folder, _FILE)
    page = os.path.join(folder, "bench.html")
    with only_run(os.path.join(folder, CKPT)):  # each of two would drop the other's ways
        document = _measured(bench, path, page)
    _tell(document, as_json)
    say(f"{path} has every reply; page: {page}")
    if own:
        _choose(document, ways, folder, silent=as_json)
    # Ways of the document that this call didn't ask don't count.
    asked = [document["ways"][way]["figures"] for way in ways if way in document["ways"]]
    if any(failed_all(of_way) for of_way in asked):
        return 4
    return 1 if any(checked_nothing(of_way) for of_way in asked) else 0


def _own_pictures(ctx: click.Context, folder: str | None, gold: str | None, frame: Frame) -> Any:
    if gold is None:
        if frame != "upright":
            raise click.UsageError("--frame is that of --gold FILE, the right boxes", ctx)
        return None
    if folder is None:
        raise click.UsageError("--gold goes with --pictures DIR, the folder of your pictures", ctx)
    return own_set(folder, gold, frame)


def _number_of_pictures(text: str | None) -> int | None:
    if text is None:
        return None
    if os.path.isdir(text) and not text.isdecimal():
        raise click.UsageError(f"--pictures {text} goes with --gold FILE, the right boxes")
    if not text.isdecimal() or int(text) < 1:
        raise click.UsageError(f"--pictures {text} should be a number from 1, or a folder")
    return int(text)


def _choose(document: dict[str, Any], ways: Sequence[str], folder: str, *, silent: bool) -> None:
    # The ways are compared with the first of `ways` that could be asked.
    first = next(way for way in ways if way in document["ways"])
    choice = choice_of(document, first)
    if choice.gains and not silent:
        say("\n".join(["", *in_columns(list(gain_lines(choice)))]), err=False)
    say(verdict_of(choice))
    path = os.path.join(folder, _BEST)
    write_text(path, best_yaml(choice))
    say(f"next: dataflowgrounding generate -e SPEC -e {path}")


def _refuse_with_rescore(ctx: click.Context, *names: str) -> None:
    for parameter in ctx.command.params:
        name = str(parameter.name)
        source = ctx.get_parameter_source(name)
        if name in names and source is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--rescore takes a file alone: leave out {parameter.opts[0]}")


def _measured(bench: Any, path: str, page: str) -> dict[str, Any]:
    # Measure, and return what `bench.json` at the path holds then; the page next to it is new. Both
    # are written after each way. A file that is there is kept under another name, if what it has
    # isn't taken over. Raises what stops a run.
    earlier: dict[str, Any] | None = None
    why_not = ""
    if os.path.exists(path):
        try:
            earlier = scored(without_figures(read_document(path)), bench.own, path)
        except InputError as error:
            why_not = str(error)
    document: dict[str, Any] = {}
    try:
        for measured in measure(bench, earlier):
            document = scored(measured, bench.own)
            measured["ways"] = document["ways"]
            if earlier and not is_taken_over(earlier, document):
                why_not = f"{path} is of another version or of other pictures"
                if earlier["endpoint"] != document["endpoint"]:
                    why_not = f"{path} is of {earlier['endpoint']}"
            if why_not:
                _put_aside(path, why_not)
            earlier = None  # from here on the file is this call's own
            why_not = ""
            write_document(document, path)
            write_text(page, page_of(document))
    except RunStopped:
        if document:
            say(f"{path} has {', '.join(document['ways'])}.")
        raise
    return document


def _put_aside(path: str, reason: str) -> None:
    number = 1
    while os.path.exists(f"{path}.old{number}"):
        number += 1
    aside = f"{path}.old{number}"
    with errors_as(InputError, f"can't write {path}"):
        os.replace(path, aside)
    say(f"Note: {reason}. It is kept as {aside}.")


def _bench(
    spec_paths: Sequence[str],
    overrides: Sequence[str],
    folder: str,
    ways: Sequence[str],
) -> Any:
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


def _rescored(path: str, own: Any, as_json: bool) -> int:
    stated = read_document(path)
    document = scored(without_figures(stated), own, path)
    _tell(document, as_json)
    differing = []
    for way, of_way in document["ways"].items():
        stated_figures = stated["ways"][way].get("figures")
        if of_way["figures"] != stated_figures:
            names = list(_differing_figures(of_way["figures"], stated_figures))
            differing.append(f"{way} ({', '.join(names[:3])}{', …' if names[3:] else ''})")
    if differing:
        say(f"{path} states other figures of {', '.join(differing)} than its replies give.")
        return 1
    say(f"{path} states the figures that its replies give.")
    return 0


def without_figures(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document of which all figures are to be made again."""
    ways = {}
    for way, of_way in document["ways"].items():
        ways[way] = {name: value for name, value in of_way.items() if name != "figures"}
    return {**document, "ways": ways}


def _differing_figures(made: Any, stated: Any, path: str = "") -> Iterator[str]:
    if not isinstance(made, dict) or not isinstance(stated, dict):
        if made != stated:
            yield f"{path or 'figures'} is {json.dumps(made):.40}, not {json.dumps(stated):.40}"
        return
    for name in dict.fromkeys([*made, *stated]):
        key = f"{path}.{name}" if path else f"{name}"
        if name not in made:
            yield f"{key} is no figure"
        elif name not in stated:
            yield f"{key} is left out"
        else:
            yield from _differing_figures(made[name], stated[name], key)


def _tell(document: dict[str, Any], as_json: bool) -> None:
    for warning in warnings_of(document):
        say(f"Warning: {warning}")
    if not as_json:
        say("\n".join(in_columns(list(table_lines(document)))), err=False)
        return
    names = ("run", "figures")
    ways = {way: {name: of_way[name] for name in names} for way, of_way in document["ways"].items()}
    say_json({**document, "ways": ways})


def _estimate_lines(figures: dict[str, Any]) -> Iterator[str]:
    rows = [["way", "requests", "USD"]]
    for way, of_way in {**figures["ways"], "total": figures}.items():
        cost = "-" if of_way["cost_usd"] is None else f"{of_way['cost_usd']:.4f}"
        rows.append([way, f"{of_way['requests']:,}", cost])
    yield from in_columns(rows)
    yield "zoom and check ask more where the model errs; finding out how an unknown model writes"
    yield "boxes takes 3 to 67 requests, once."
    yield "Nothing was sent."
