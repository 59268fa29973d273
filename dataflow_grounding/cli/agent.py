"""`agent`: what a coding agent has to know to use this package.

It is agent.txt, with what the code says of itself.
"""

import inspect
from collections.abc import Iterator, Mapping
from importlib.resources import files
from string import Template

import click

from dataflow_grounding._util.terminal import say
from dataflow_grounding._util.version import __version__
from dataflow_grounding.cli.main import COMMANDS, cli
from dataflow_grounding.data.records import STATUSES
from dataflow_grounding.jobs.registry import PIPELINES
from dataflow_grounding.operators.operator_base import OPERATOR_REGISTRY

_MANY = 5  # where two commands share more options than this, the second one refers to the first
# Options that the page explains once for all commands.
_EXPLAINED_ONCE = {"--json", "--image-root", "--no-pictures"}
_USUAL_COLUMNS = "image=image_path, expressions -> output=expressions"
# Arguments of operators that the page explains once for all of them, or with the spec's `vlm`.
_SHARED = (
    "self",
    "on_suspect_boxes",
    "check_every",
    "box_format",
    "merge_iou",
    "regions_per_request",
)


@click.group("agent")
def command() -> None:
    """Print what a coding agent needs to know to use this package."""


@command.command("context")
@click.pass_context
def context(here: click.Context) -> None:
    """Print the commands, spec keys, operators and columns as one page of text."""
    text = files(__package__).joinpath("agent.txt").read_text(encoding="utf-8")
    page = Template(text).substitute(
        version=__version__,
        commands="\n".join(_commands(here)),
        spec_keys="\n".join(_spec_keys()),
        operators="\n".join(_operators()),
        statuses=", ".join(STATUSES),
    )
    say(page.rstrip(), err=False)


def _commands(here: click.Context) -> Iterator[str]:
    """A line for each; `(those of check)` is for more than _MANY options of an earlier one."""
    # By an earlier command, the options that its line names itself, not by a reference.
    options_on_line: dict[str, set[str]] = {}
    for name, purpose in COMMANDS.items():
        arguments, options = _arguments_and_options(cli.command_named(here, name))
        for earlier_command, earlier_options in options_on_line.items():
            if len(earlier_options.intersection(options)) > _MANY:
                options = [option for option in options if option not in earlier_options]
                options.append(f"(those of {earlier_command})")
        options_on_line[name] = set(options)
        yield f"- {' '.join([name, *arguments, *options])}: {purpose}"


def _arguments_and_options(command: click.Command) -> tuple[list[str], list[str]]:
    arguments = []
    options = []
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            arguments.append(parameter.make_metavar(click.Context(command)))
        elif _EXPLAINED_ONCE.isdisjoint(parameter.opts):
            options.append(min(parameter.opts, key=len))  # `-e` of `-e`, `--experiment_spec`
    return arguments, options


def _spec_keys() -> list[str]:
    """The lines of each spec that no earlier spec has, and each head of a block (`data:`)."""
    lines: list[str] = []
    earlier_lines = set[str]()
    for name in PIPELINES:
        text = files("dataflow_grounding.spec").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        # without empty lines, and comments that take a whole line
        key_lines = [
            line for line in text.splitlines() if line.strip() and not line.startswith("#")
        ]
        lines += [line for line in key_lines if line not in earlier_lines]
        heads = ("workflow", "data", name)
        for line in key_lines:
            is_head = line.strip().rstrip(":") in heads  # "  data:"
            if not is_head:
                earlier_lines.add(line)
    return lines


def _operators() -> Iterator[str]:
    for name, cls in OPERATOR_REGISTRY:
        if not cls.__module__.startswith("dataflow_grounding.operators"):
            continue
        settings = []
        for parameter in inspect.signature(cls).parameters.values():
            if parameter.name in _SHARED:
                continue
            required = parameter.default is parameter.empty
            setting = parameter.name if required else f"{parameter.name}={parameter.default!r}"
            settings.append(setting)
        columns = f"{_columns(cls.input_keys)} -> {_columns(cls.output_keys)}"
        if columns == _USUAL_COLUMNS:  # which the page says once
            yield f"- {name}({', '.join(settings)}): {cls.get_desc()}"
        else:
            yield f"- {name}({', '.join(settings)}): {columns}. {cls.get_desc()}"


def _columns(column_of: Mapping[str, str]) -> str:
    """{"image": "image_path", "expressions": "expressions"} → `image=image_path, expressions`"""
    columns = []
    for role, column in column_of.items():
        columns.append(role if role == column else f"{role}={column}")
    return ", ".join(columns)
