"""`agent`: what a coding agent has to know to use this package: agent.txt, with what the code says
of itself.
"""

import inspect
from collections.abc import Iterator
from importlib.resources import files
from string import Template

import click

from dataflow_grounding._util.terminal import say
from dataflow_grounding._util.version import __version__
from dataflow_grounding.cli.main import COMMANDS, cli
from dataflow_grounding.data.records import STATUSES
from dataflow_grounding.jobs.registry import JOBS
from dataflow_grounding.operators.base import OPERATOR_REGISTRY

_MANY = 5  # options that two commands share
# options that are told once, for all commands
_ELSEWHERE = {"--json", "--image-root", "--no-pictures"}
# what operators take that is told of the spec's `vlm`
_OF_VLM = ("self", "on_suspect_boxes", "check_every")


@click.group("agent")
def command() -> None:
    """Write what a coding agent has to know to use this package."""


@command.command("context")
@click.pass_context
def context(here: click.Context) -> None:
    """Print the commands, spec keys, operators and columns as one page of text."""
    page = Template(
        files(__package__).joinpath("agent.txt").read_text(encoding="utf-8")
    ).substitute(
        version=__version__,
        commands="\n".join(_commands(here)),
        spec_keys="\n".join(_spec_keys()),
        operators="\n".join(_operators()),
        statuses=", ".join(STATUSES),
    )
    say(page.rstrip(), err=False)


def _commands(here: click.Context) -> Iterator[str]:
    told: dict[str, set[str]] = {}
    for name, says in COMMANDS.items():
        command = cli.get_command(here, name)
        arguments = [
            p.make_metavar(click.Context(command))
            for p in command.params
            if isinstance(p, click.Argument)
        ]
        given = [
            p.opts
            for p in command.params
            if isinstance(p, click.Option) and not _ELSEWHERE & {*p.opts}
        ]
        options = [min(names, key=len) for names in given]
        for other, known in told.items():
            if len(known.intersection(options)) > _MANY:
                options = [
                    *(option for option in options if option not in known),
                    f"(those of {other})",
                ]
        told[name] = set(options)
        yield f"- {' '.join([name, *arguments, *options])}: {says}"


def _spec_keys() -> list[str]:
    """The shipped specs, the second and third only where they differ from those before."""
    seen, lines = set[str](), list[str]()
    for name in JOBS:
        text = files("dataflow_grounding.spec").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        block = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        lines += [line for line in block if line not in seen]
        seen |= {
            line for line in block if line.strip().rstrip(":") not in ("workflow", "data", name)
        }
    return lines


def _operators() -> Iterator[str]:
    for name, cls in (
        row
        for row in OPERATOR_REGISTRY
        if row[1].__module__.startswith("dataflow_grounding.operators")
    ):
        parameters = [
            p for p in inspect.signature(cls).parameters.values() if p.name not in _OF_VLM
        ]
        settings = ", ".join(
            p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters
        )
        columns = (cls.input_keys, cls.output_keys)
        reads, writes = (
            ", ".join(f"{role}={column}" for role, column in keys.items()) for keys in columns
        )
        yield f"- {name}({settings}): {reads} -> {writes}. {cls.get_desc()}"
