"""`check`: validate spec, input and images; send nothing."""

import click

from dataflow_grounding.cli.arguments import overrides_argument, spec_option
from dataflow_grounding.jobs.checking import check_spec
from dataflow_grounding.terminal import counted, say, say_json


@click.command("check")
@spec_option
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON object.")
@overrides_argument
def command(spec_paths: tuple[str, ...], as_json: bool, overrides: tuple[str, ...]) -> int:
    """List everything that is wrong with SPEC, its input and its images. Sends nothing. Exits with 2 if there are
    problems."""
    found = check_spec(spec_paths, overrides)
    if as_json:
        say_json({"problems": found.problems, "remarks": found.remarks, "records": found.records})
        return 2 if found.problems else 0
    for remark in found.remarks:
        say(remark, err=False)
    for problem in found.problems:
        say(f"Problem: {problem}")
    say(
        f"{counted(found.records, 'record')} checked, {counted(len(found.problems), 'problem')}. Nothing was sent.",
        err=False,
    )
    return 2 if found.problems else 0
