"""`lint`: what is wrong with a data set, line by line, for its CI."""

import os
from collections import Counter, deque
from functools import partial
from typing import Any

import click

from dataflow_grounding.cli.arguments import dataset_options
from dataflow_grounding.errors import InputError
from dataflow_grounding.figures.linting import RULES, Finding, lint
from dataflow_grounding.results_folder import annotations_of
from dataflow_grounding.rows import write_rows
from dataflow_grounding.terminal import counted, say, say_json


def _rules(ctx: click.Context, parameter: click.Parameter, given: str | None) -> tuple[str, ...]:
    """The rules that begin with what is given between commas."""
    begun = tuple(part.strip().upper() for part in given.split(",")) if given else ()
    if wrong := [part for part in begun if not part or not any(rule.startswith(part) for rule in RULES)]:
        raise click.UsageError(f"no rule begins with {wrong[0]!r}; there are {', '.join(RULES)}", ctx)
    return tuple(rule for rule in RULES if rule.startswith(begun))


@click.command("lint")
@click.argument("data", metavar="DATA")
@click.option("--select", callback=_rules, metavar="R,…", help="Only rules that begin so: DG1,DG204.")
@click.option("--ignore", callback=_rules, metavar="R,…", help="All but rules that begin so.")
@click.option("--fix", is_flag=True, help="Fix what leaves no question, and write all records to -o.")
@click.option("-o", "out", metavar="FILE", help="With --fix: the file to make; DATA stays as it is.")
@dataset_options
def command(
    data: str, select: tuple[str, ...], ignore: tuple[str, ...], out: str | None, as_json: bool, **more: Any
) -> int:
    """Check DATA (a run's folder or a file of records), and print file, line, rule and what is wrong; exit 1 if any."""
    if more["fix"] != bool(out):
        raise click.UsageError("--fix and -o FILE go together")
    if out and os.path.lexists(out):
        raise InputError(f"{out} is there already: remove it, or choose another name")
    path, told, counts = annotations_of(data), list[dict[str, Any]](), Counter[str]()
    tell = partial(_tell, path, counts, told if as_json else None, bool(out))
    rows = lint(data, tell, [rule for rule in select or RULES if rule not in ignore], **more)
    try:
        write_rows(out, rows) if out else deque(rows, 0)
    except OSError as error:
        raise InputError(f"can't write {out}: {error.strerror or error}") from None
    fixed, left = counts.pop("fixed", 0), counts.total()
    if as_json:
        say_json({"findings": told, "counts": dict(sorted(counts.items())), "fixed": fixed})
    else:
        say(f"{counted(left, 'finding')}{f', {fixed:,} fixed in {out}' if out else ''}")
    return 1 if left else 0


def _tell(path: str, counts: Counter[str], kept: list[Any] | None, fixing: bool, line: int, found: Finding) -> None:
    message = f"{RULES[found.rule]['finds']}: {found.where}"
    counts["fixed" if fixing and found.mend else found.rule] += 1
    if fixing and found.mend:
        return
    if kept is not None:
        kept.append({"file": path, "line": line, "rule": found.rule, "message": message})
    else:
        say(f"{path}:{line}: {found.rule} {message}", err=False)
