"""`split`, `stats`, `lint`: what a data set is like before it is trained on."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

import click

from dataflow_grounding._util.terminal import counted, say, say_json
from dataflow_grounding.boxes.class_table import class_lines
from dataflow_grounding.cli.arguments import (
    any_path,
    image_root_option,
    json_option,
    mention_reviewed_file,
)
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.data.results_folder import annotations_of
from dataflow_grounding.evaluation.figures.alike import Place
from dataflow_grounding.evaluation.figures.counting import FIGURES, advice_on, figures_of
from dataflow_grounding.evaluation.figures.duplicates import split
from dataflow_grounding.evaluation.figures.linting import RULES, lint

# The most that is printed; --json has all.
_MOST_GROUPS = 3  # groups of alike pictures that are named for a figure
_MOST_CLASSES = 100  # lines of the table of classes
_MOST_COUNTS = 10  # names with their counts, of a figure
_NUMBER = re.compile(r"[0-9]*\.?[0-9]+")  # "80", "0.8", ".8"
_PART_NAMES = {2: ("train", "val"), 3: ("train", "val", "test")}  # by the number of ratios
_pictures_option = click.option(
    "--no-pictures",
    "reads_pictures",
    flag_value=False,
    default=True,
    help="Read only the records, no pictures.",
)


@click.command("split")
@click.argument("results", metavar="RESULTS", type=any_path)
@click.option(
    "-o",
    "out",
    required=True,
    metavar="DIR",
    type=any_path,
    help="The folder to make, with one file per part.",
)
@click.option(
    "--ratios",
    default="0.8/0.1/0.1",
    show_default=True,
    metavar="A/B/C",
    help="The shares of train, val and test, or, as A/B, of train and val; met to about 1/√n.",
)
@click.option("--seed", default=0, show_default=True, help="The seed for drawing the parts.")
@image_root_option
@_pictures_option
@json_option
def split_command(
    results: str,
    out: str,
    ratios: str,
    seed: int,
    image_root: str | None,
    reads_pictures: bool,
    as_json: bool,
) -> None:
    """Split RESULTS (a run's folder or a file of records) by picture. Nearly equal pictures stay
    together.
    """
    mention_reviewed_file(results)
    weights = _weights_of_parts(ratios)
    summary = split(results, out, weights, seed=seed, image_root=image_root, read=reads_pictures)
    if as_json:
        say_json(summary)
    else:
        _say_parts(summary, out)


def _say_parts(summary: JsonObject, out: str) -> None:
    for name, counts in summary["parts"].items():
        records = counted(counts["records"], "record")
        pictures = counted(counts["pictures"], "picture")
        say(f"{out}/{name}.jsonl: {records}, {pictures}", err=False)
    say(
        "nearly the same as an earlier picture, and in its part:"
        f" {counted(summary['alike'], 'picture')}"
    )
    if summary["unread"]:
        say(
            f"{counted(summary['unread'], 'picture')} can't be read: whether others are nearly the"
            " same isn't known"
        )
    if summary["rejected"]:
        say(f"rejected by a reviewer, left out: {summary['rejected']:,} boxes")


def _weights_of_parts(ratios: str) -> dict[str, float]:
    """`80/20` → {"train": 80.0, "val": 20.0}, which is as good as 0.8/0.2."""
    numbers = ratios.split("/")
    are_numbers = all(map(_NUMBER.fullmatch, numbers))
    is_usable = len(numbers) in _PART_NAMES and are_numbers and min(map(float, numbers)) > 0
    if not is_usable:
        raise click.UsageError(
            "--ratios should be two or three numbers above 0: 0.8/0.2, 0.8/0.1/0.1"
        )
    names = _PART_NAMES[len(numbers)]
    return dict(zip(names, map(float, numbers), strict=True))


@click.command("stats")
@click.argument("results", metavar="RESULTS…", type=any_path, nargs=-1, required=True)
@click.option("--all", "all_figures", is_flag=True, help="Also show empty figures.")
@image_root_option
@_pictures_option
@json_option
def stats_command(
    results: tuple[str, ...],
    image_root: str | None,
    reads_pictures: bool,
    all_figures: bool,
    as_json: bool,
) -> None:
    """Show statistics of RESULTS (folders of runs or files of records), and what to do about them
    before training.

    Several RESULTS, such as the parts of a split, are counted together, and pictures that they
    share are reported as leaks. Equal picture files are found without decoding them. Empty figures
    share one line.
    """
    counts = figures_of(results, image_root=image_root, read=reads_pictures)
    figures = counts.figures()
    advice = advice_on(figures)
    if as_json:
        say_json({**figures, "advice": advice, "alike": counts.named})
        return
    shown = set(FIGURES)
    if not all_figures:
        shown = {name for name in FIGURES if figures[name]}
        shown |= {"records", *advice}  # advice may be on an empty figure
        if len(results) > 1:  # who names several asks for leaks: that there are none is an answer
            shown.add("leaks")
    for name in FIGURES:
        if name in shown:
            _say_figure(name, figures[name], counts.named.get(name, []), advice.get(name, ""))
    _say_folded([name for name in FIGURES if name not in shown], figures)


def _say_figure(name: str, figure: Any, groups: Sequence[Sequence[Place]], advice: str) -> None:
    row = FIGURES[name]
    if row.kind == "table":
        if figure:
            say(f"{row.about}: {len(figure):,}", err=False)
        for line in class_lines(figure, _MOST_CLASSES):
            say(f"  {line}", err=False)
        return
    say(f"{row.about}: {_shown(figure, row.kind)}", err=False)
    if figure:  # 0, or None with --no-pictures: there are no groups to show
        for group in groups[:_MOST_GROUPS]:
            say(f"  {_alike_pictures(group)}", err=False)
        if len(groups) > _MOST_GROUPS:
            say(f"  … ({len(groups):,}, all with --json)", err=False)
    if advice:
        say(f"  → {advice}", err=False)


def _say_folded(names: Sequence[str], figures: JsonObject) -> None:
    """Name all figures that are empty on one line."""
    empty = []
    for name in names:
        row = FIGURES[name]
        is_measured = figures[name] is not None
        is_count = row.kind != "table"
        # Leaks are pictures that several data sets share. They are among `names` only for a single
        # one, which can't have any.
        is_possible = name != "leaks"
        if is_measured and is_count and is_possible:
            empty.append(row.about)
    if empty:
        say(f"nothing of: {'; '.join(empty)}", err=False)
    if names:
        say("--all prints these, too; --json every figure", err=False)


def _alike_pictures(group: Sequence[Place]) -> str:
    if len({place.data_set for place in group}) == 1:
        return " = ".join(place.picture for place in group)
    return " = ".join(f"{place.picture} ({place.data_set})" for place in group)


def _shown(value: Any, kind: str) -> str:
    if value is None:
        return "-"
    if kind == "share":
        return f"{value:.1%}"
    if isinstance(value, dict):
        listed = []
        for name, count in islice(value.items(), _MOST_COUNTS):
            listed.append(f"{name} {count:,}")
        if len(value) > _MOST_COUNTS:
            listed.append(f"… ({len(value):,})")
        return ", ".join(listed) or "none"
    return f"{value:,}"


def _rules_with_prefixes(
    ctx: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, ...]:
    """`DG1,dg204` → all rules that begin with DG1 or DG204."""
    if not value:
        return ()
    prefixes = tuple(part.strip().upper() for part in value.split(","))
    for prefix in prefixes:
        if not prefix or not any(rule.startswith(prefix) for rule in RULES):
            raise click.UsageError(
                f"no rule begins with {prefix!r}; there are {', '.join(RULES)}", ctx
            )
    return tuple(rule for rule in RULES if rule.startswith(prefixes))


@click.command("lint")
@click.argument("data", metavar="DATA", type=any_path)
@click.option(
    "--select",
    callback=_rules_with_prefixes,
    metavar="R,…",
    help="Only rules with these prefixes: DG1,DG204.",
)
@click.option(
    "--ignore",
    callback=_rules_with_prefixes,
    metavar="R,…",
    help="All rules but those with these prefixes.",
)
@image_root_option
@_pictures_option
@json_option
def lint_command(
    data: str,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    image_root: str | None,
    reads_pictures: bool,
    as_json: bool,
) -> int:
    """Check DATA (a run's folder or a file of records), and print file, line, rule and what is
    wrong; exit 1 if any.
    """
    path = annotations_of(data)
    rules = [rule for rule in select or RULES if rule not in ignore]
    counts = Counter[str]()
    findings: list[JsonObject] = []  # for the JSON; otherwise they are printed as they come
    for line, (rule, where, _) in lint(data, rules, image_root=image_root, read=reads_pictures):
        counts[rule] += 1
        message = f"{RULES[rule]}: {where}"
        if as_json:
            findings.append({"file": path, "line": line, "rule": rule, "message": message})
        else:
            say(f"{path}:{line}: {rule} {message}", err=False)
    if as_json:
        say_json({"findings": findings, "counts": dict(sorted(counts.items()))})
    else:
        say(counted(counts.total(), "finding"))
    return 1 if counts else 0
