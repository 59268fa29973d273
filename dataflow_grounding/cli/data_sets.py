"""`split`, `stats`, `lint`: what a data set is like before it is trained on."""

import math
import os
import re
from collections import Counter, deque
from collections.abc import Sequence
from typing import IO, Any

import click

from dataflow_grounding._util.errors import InputError, told_as
from dataflow_grounding._util.paths import absolute
from dataflow_grounding._util.terminal import counted, say, say_json
from dataflow_grounding.cli.arguments import together
from dataflow_grounding.data.results_folder import annotations_of, image_folders_of
from dataflow_grounding.data.rows import write_rows
from dataflow_grounding.extras.evaluation.figures.alike import Place
from dataflow_grounding.extras.evaluation.figures.counting import (
    FIGURES,
    Compare,
    advice_on,
    figures_of,
)
from dataflow_grounding.extras.evaluation.figures.duplicates import split
from dataflow_grounding.extras.evaluation.figures.linting import RULES, Finding, lint

_NAMED = 3  # pictures that a figure names; --json has all
_SHADES = " .:-=+*#%@"
_ROOT = "Where the pictures are, if not where the run found them."
_of_data_sets = together(
    click.option("--image-root", metavar="DIR", help=_ROOT),
    click.option(
        "--no-pictures",
        "read",
        flag_value=False,
        default=True,
        help="Read no pictures, records alone.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
)


@click.command("split")
@click.argument("results", metavar="RESULTS")
@click.option(
    "-o", "out", required=True, metavar="DIR", help="The folder to make, with one file per part."
)
@click.option(
    "--ratios",
    default="0.8/0.1/0.1",
    show_default=True,
    metavar="A/B/C",
    help="How large train, val and test are; A/B: train and test.",
)
@click.option("--seed", default=0, show_default=True, help="Another seed gives other parts.")
@_of_data_sets
def of_split(results: str, out: str, ratios: str, as_json: bool, **more: Any) -> None:
    """Split RESULTS (a run's folder or a file of records) by picture; those that are nearly the
    same stay together.
    """
    weights = [
        float(part) if re.fullmatch(r"[0-9]*\.?[0-9]+", part) else 0 for part in ratios.split("/")
    ]
    names = {2: ["train", "test"], 3: ["train", "val", "test"]}.get(len(weights), [])
    if not names or min(weights) <= 0:
        raise click.UsageError(
            "--ratios should be two or three numbers above 0: 0.8/0.2, 0.8/0.1/0.1"
        )
    done = split(results, out, dict(zip(names, weights, strict=True)), **more)
    if as_json:
        say_json(done)
        return
    for name, count in done["parts"].items():
        say(
            f"{out}/{name}.jsonl:"
            f" {', '.join(counted(number, what[:-1]) for what, number in count.items())}",
            err=False,
        )
    say(
        "nearly the same as an earlier picture, and in its part:"
        f" {counted(done['alike'], 'picture')}"
    )
    say(f"can't be read, and told apart by path alone: {counted(done['unread'], 'picture')}")


@click.command("stats")
@click.argument("results", metavar="RESULTS…", nargs=-1, required=True)
@click.option(
    "--test-ids",
    type=click.File(encoding="utf-8-sig", errors="replace"),
    default=os.devnull,
    help="Ids of pictures that are tested on elsewhere, in lines.",
)
@click.option(
    "--near-duplicates",
    is_flag=True,
    help="Decode every picture, to find those that are nearly the same.",
)
@_of_data_sets
def of_stats(
    results: tuple[str, ...],
    image_root: str | None,
    read: bool,
    near_duplicates: bool,
    as_json: bool,
    test_ids: IO[str],
) -> None:
    """Show figures of RESULTS (folders of runs or files of records), and what to do about each
    before training.

    Of several, as of the parts of a split, the figures are of all together, and leaks those between
    them. Pictures that are the same file are found without opening most of them; --near-duplicates
    finds those that are nearly the same.
    """
    if near_duplicates and not read:
        raise click.UsageError(
            "--near-duplicates reads pictures, which --no-pictures forbids: give one of them"
        )
    compare: Compare = "looks" if near_duplicates else "files" if read else "names"
    counts = figures_of(results, image_root=image_root, compare=compare, test_ids=test_ids)
    figures = counts.figures()
    advice = advice_on(figures)
    if as_json:
        alike = {
            name: [[place._asdict() for place in one] for one in some]
            for name, some in counts.named.items()
        }
        say_json({**figures, "advice": advice, "alike": alike})
        return
    for name, row in FIGURES.items():
        say(f"{row['about']}: {_shown(figures[name], row.get('kind'))}", err=False)
        alike_pictures = counts.named.get(name, []) if figures[name] else []
        for places in alike_pictures[:_NAMED]:
            say(f"  {_told(places)}", err=False)
        if len(alike_pictures) > _NAMED:
            say(f"  … ({len(alike_pictures):,}, all with --json)", err=False)
        if name in advice:
            say(f"  → {advice[name]}", err=False)


def _told(places: Sequence[Place]) -> str:
    """Pictures that are alike; the data set of each, where there are several."""
    several = len({place.data_set for place in places}) > 1
    return " = ".join(
        f"{place.picture} ({place.data_set})" if several else place.picture for place in places
    )


def _shown(value: Any, kind: str | None) -> str:
    if value is None:
        return "-"
    if kind == "share":
        return f"{value:.1%}"
    if kind == "grid":  # two cells as one: letters are twice as high as wide
        rows = [
            [a + b for a, b in zip(*value[y : y + 2], strict=True)] for y in range(0, len(value), 2)
        ]
        most = max(map(max, rows))
        return "".join(
            "\n  " + "".join(_SHADES[math.ceil(9 * count / most)] for count in row) for row in rows
        )
    if isinstance(value, dict):
        listed = ", ".join(f"{name} {count:,}" for name, count in list(value.items())[:10])
        return (listed or "none") + (f", … ({len(value):,})" if len(value) > 10 else "")
    return f"{value:,}"


def _rules(ctx: click.Context, parameter: click.Parameter, given: str | None) -> tuple[str, ...]:
    """The rules that begin with what is given between commas."""
    begun = tuple(part.strip().upper() for part in given.split(",")) if given else ()
    if wrong := [
        part for part in begun if not part or not any(rule.startswith(part) for rule in RULES)
    ]:
        raise click.UsageError(
            f"no rule begins with {wrong[0]!r}; there are {', '.join(RULES)}", ctx
        )
    return tuple(rule for rule in RULES if rule.startswith(begun))


@click.command("lint")
@click.argument("data", metavar="DATA")
@click.option(
    "--select", callback=_rules, metavar="R,…", help="Only rules that begin so: DG1,DG204."
)
@click.option("--ignore", callback=_rules, metavar="R,…", help="All but rules that begin so.")
@click.option(
    "--fix", is_flag=True, help="Fix what leaves no question, and write all records to -o."
)
@click.option(
    "-o", "out", metavar="FILE", help="With --fix: the file to make; DATA stays as it is."
)
@_of_data_sets
def of_lint(
    data: str,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    out: str | None,
    as_json: bool,
    **more: Any,
) -> int:
    """Check DATA (a run's folder or a file of records), and print file, line, rule and what is
    wrong; exit 1 if any.
    """
    if more["fix"] != bool(out):
        raise click.UsageError("--fix and -o FILE go together")
    if out and os.path.lexists(out):
        raise InputError(f"{out} is there already: remove it, or choose another name")
    path, told, counts = annotations_of(data), list[dict[str, Any]](), Counter[str]()

    def tell(line: int, found: Finding) -> None:
        fixed, message = out and found.mend, f"{RULES[found.rule]['finds']}: {found.where}"
        counts["fixed" if fixed else found.rule] += 1
        if fixed:
            return
        if as_json:
            told.append({"file": path, "line": line, "rule": found.rule, "message": message})
        else:
            say(f"{path}:{line}: {found.rule} {message}", err=False)

    rows = lint(data, tell, [rule for rule in select or RULES if rule not in ignore], **more)
    with told_as(InputError, f"can't write {out}"):
        write_rows(out, rows) if out else deque(rows, 0)
    fixed, left = counts.pop("fixed", 0), counts.total()
    if as_json:
        say_json({"findings": told, "counts": dict(sorted(counts.items())), "fixed": fixed})
    else:
        say(f"{counted(left, 'finding')}{f', {fixed:,} fixed in {out}' if out else ''}")
    _say_folders(data, out, more["image_root"])
    return 1 if left else 0


def _say_folders(data: str, out: str | None, image_root: str | None) -> None:
    """Say where pictures of DATA were looked for, and those of what was written from
    it won't be.
    """
    known = {*map(absolute, image_folders_of(out))} if out else set[str]()
    if out and (
        lost := [
            folder for folder in image_folders_of(data, image_root) if absolute(folder) not in known
        ]
    ):
        say(
            f"pictures of {out} won't be looked for in {', '.join(lost)}: name their folder with"
            " --image-root"
        )
