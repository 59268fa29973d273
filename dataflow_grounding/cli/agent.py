"""`agent`: what a coding agent has to know to use this package, made from the code."""

import inspect
from importlib import resources

import click

from dataflow_grounding.cli.main import COMMANDS
from dataflow_grounding.jobs.registry import JOBS
from dataflow_grounding.operators.kit import OPERATOR_REGISTRY
from dataflow_grounding.records import STATUSES
from dataflow_grounding.terminal import say
from dataflow_grounding.version import __version__

_HEAD = """\
# dataflow-grounding {version}
Turns images and captions into grounded annotations with a vision-language model (VLM).
Every reply is stored; after any stop the same command goes on, and a finished run sends nothing.
Endpoint: the spec's, else DF_BASE_URL, DF_MODEL, DF_API_KEY; scripts and `ground` without them: embedded, not a VLM.
Order of work: default_specs, check, estimate, generate --pilot 10, report (look at it), generate.
Exit codes: 0 all done, 1 some records failed, 2 spec or input wrong, 3 stopped by a limit,
4 endpoint refused or nothing succeeded, 130 interrupted.
"""
_FILES = """\
## Files in results_dir
annotations.jsonl: finished records, in input order. failures.jsonl: id, kind, message of the others. \
step_*: after each step.
run.json: spec, model, counts, tokens, cost. report.html: written by `report`.
.ckpt/: the replies, which were paid for: never delete it.
"""
_FIELDS = f"""\
## Fields of an expression (column `expressions`)
expression_id; text; char_span: [start, end) in cleaned_caption, code points, null where it isn't there; \
caption_span: in caption;
noun_chunk; status: {", ".join(STATUSES)}; reason;
instances: bbox_id, bbox [x1, y1, x2, y2] in pixels of the upright image, score 0 to 1 or null, region_id;
disagreement (samples > 1); verified: true, false or null; verification: method, iou, reason, before.
"""


_MANY = 5  # options that two commands share


@click.group("agent")
def command() -> None:
    """Write what a coding agent has to know to use this package."""


@command.command("context")
@click.pass_context
def context(here: click.Context) -> int:
    """Print the commands, spec keys, operators and columns as one page of text."""
    parts = [_HEAD.format(version=__version__), _commands(here), _spec_keys(), _operators(), _FIELDS, _FILES]
    say("\n".join(part.rstrip() + "\n" for part in parts).rstrip(), err=False)
    return 0


def _commands(here: click.Context) -> str:
    root = here.find_root()
    assert isinstance(root.command, click.Group)
    told: dict[str, set[str]] = {}
    lines = ["## Commands: dataflowgrounding COMMAND (those that print figures take --json)"]
    for name in root.command.list_commands(root):
        command = root.command.get_command(root, name)
        assert command is not None
        arguments = [p.make_metavar(click.Context(command)) for p in command.params if isinstance(p, click.Argument)]
        given = [p.opts for p in command.params if isinstance(p, click.Option) and "--json" not in p.opts]
        options = [min(names, key=len) for names in given]
        for other, known in told.items():
            if len(known.intersection(options)) > _MANY:
                options = [*(option for option in options if option not in known), f"(those of {other})"]
        told[name] = set(options)
        usage = " ".join([name, *arguments, *options])
        lines.append(f"- {usage}: {COMMANDS[name]}")
    return "\n".join(lines)


def _spec_keys() -> str:
    """The shipped specs, the second and third only where they differ from those before."""
    seen: set[str] = set()
    lines = [
        "## Spec keys (YAML; any can be set as KEY=VALUE on the command line: image_grounding.workflow.max_workers=64)"
    ]
    for name in JOBS:
        text = resources.files("dataflow_grounding.spec").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        block = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        lines += [line for line in block if line not in seen]
        seen |= {line for line in block if line.strip().rstrip(":") not in ("workflow", "data", name)}
    return "\n".join(lines)


def _operators() -> str:
    import dataflow_grounding.operators  # noqa: F401 - they register themselves

    lines = [
        "## Operators: operator.run(storage.step(), input_ROLE_key=COLUMN, ...); from dataflow_grounding import ..."
    ]
    for name, cls in (row for row in OPERATOR_REGISTRY if row[1].__module__.startswith("dataflow_grounding.operators")):
        parameters = [p for p in inspect.signature(cls).parameters.values() if p.name != "self"]
        settings = ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters)
        columns = (cls.input_keys, cls.output_keys)
        reads, writes = (", ".join(f"{role}={column}" for role, column in keys.items()) for keys in columns)
        lines.append(f"- {name}({settings}): {reads} -> {writes}. {cls.get_desc()}")
    return "\n".join(lines)
