"""`dataflowgrounding`: the group of commands; how errors, and streams that can't be written, become
exit codes.
"""

import errno
import gc
import importlib
import io
import os
import select
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, TextIO

import click
from click.shell_completion import get_completion_class

from dataflow_grounding._util.environment import read_env_files
from dataflow_grounding._util.errors import GroundingError, RunStopped
from dataflow_grounding._util.terminal import say, speaks_of_specs
from dataflow_grounding._util.threads import LEAVING
from dataflow_grounding._util.version import __version__

_COMMANDS = {
    "init": ("starting", "Write editable pipelines, example data and a spec into a folder."),
    "generate": ("generate", "Run the pipeline that a spec names."),
    "merge": ("results", "Put shards together."),
    "default_specs": ("starting", "Write a complete, commented spec for each pipeline."),
    "check": ("before_run", "Validate spec, input and images; send nothing."),
    "doctor": (
        "endpoints",
        "Show what is installed, which keys are set, and what an endpoint accepts.",
    ),
    "estimate": ("before_run", "Estimate what a run will send and cost."),
    "calibrate": ("endpoints", "Find out which box format a model uses."),
    "ground": ("ground", "Find phrases in one image."),
    "cost": ("results", "Show what was paid for results, per step."),
    "report": ("results", "Write a page that shows the results."),
    "review": ("review", "Mend results in a browser."),
    "apply": ("review", "Write results as they were reviewed."),
    "certify": ("review", "Say how much is wrong, by a reviewed sample."),
    "export": ("formats", "Write results in a format that a trainer reads."),
    "import": ("formats", "Make another format's annotations a results folder."),
    "convert": ("formats", "Write annotations of one format in another."),
    "split": ("data_sets", "Make parts of results that have no picture in common."),
    "stats": ("data_sets", "Show figures of a data set, and what to do about each."),
    "lint": ("data_sets", "Check a data set line by line, and fix what leaves no question."),
    "eval": ("eval", "Compare results with gold annotations."),
    "agree": ("eval", "Show how far two annotators agree."),
    "agent": ("agent", "Print what a coding agent has to know."),
    "completion": ("main", "Print the shell's completion script."),
}
COMMANDS = {name: says for name, (_, says) in _COMMANDS.items()}
"""Command → what `--help` says; the module of this folder that it stands in is imported when it is
used.
"""


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        name = cmd_name.replace("-", "_")
        if name not in COMMANDS:
            from dataflow_grounding.spec.problems import nearest

            raise click.UsageError(f"{cmd_name!r} is not a command{nearest(name, COMMANDS)}", ctx)
        module = importlib.import_module(f"dataflow_grounding.cli.{_COMMANDS[name][0]}")
        return next(
            made
            for made in vars(module).values()
            if isinstance(made, click.Command) and made.name == name
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", message="dataflowgrounding %(version)s")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Turns images into grounded annotations with a vision-language model."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete commands and options: eval "$(dataflowgrounding
    completion bash)".
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "dataflowgrounding", "_DATAFLOWGROUNDING_COMPLETE").source())  # noqa: TID251


def main() -> None:
    """Run the command line and leave with its exit code."""
    # Python looks for cycles whenever 700 more objects live: 300 times in a run of 1,500 records,
    # which has hardly any.
    gc.set_threshold(10_000, 10, 10)
    try:
        with _standard_streams():
            copy_context().run(_run)
    except SystemExit as leave:
        if any(thread.name == LEAVING for thread in threading.enumerate()):
            # Ray's library breaks down in Python's end
            sys.stdout.flush()
            os._exit(leave.code if isinstance(leave.code, int) else 0)
        raise


@contextmanager
def as_command() -> Iterator[None]:
    """Let a script end as the command line does: Ctrl-C and a GroundingError are told in a line;
    `--debug` shows where.

    Raises:
        SystemExit: With 130 after Ctrl-C, the `exit_code` of a RunStopped, and 2 for another
            GroundingError, or where memory doesn't do.
    """
    try:
        yield
    except (KeyboardInterrupt, click.Abort):
        say("Error: interrupted: run the same command again")
        raise SystemExit(130) from None
    except MemoryError:
        if "--debug" in sys.argv:
            say(traceback.format_exc())
        say(
            "Error: this takes more memory than there is. What was stored is kept: the same command"
            " goes on"
        )
        raise SystemExit(2) from None
    except GroundingError as error:
        if "--debug" in sys.argv:
            say(traceback.format_exc())
        for line in str(error).splitlines():
            say(f"Error: {line}")
        raise SystemExit(error.exit_code if isinstance(error, RunStopped) else 2) from None


def _run() -> None:
    speaks_of_specs.set(True)
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        with as_command():
            read_env_files()
            sys.exit(cli.main(arguments, prog_name="dataflowgrounding", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show(said := io.StringIO())
        say(said.getvalue().rstrip())
        sys.exit(2)
    except Exception as error:
        if "--debug" in sys.argv:
            say(traceback.format_exc())
        say(f"Internal error: {type(error).__name__}: {error} (--debug shows where)")
        sys.exit(70)


class _Sink(io.FileIO):
    """What can't be written is dropped; the first reason is kept."""

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:  # a pipe that is full and doesn't block
                select.select([], [self], [])
            return written
        except OSError as error:
            self.failed = self.failed or error
            return memoryview(data).nbytes


@contextmanager
def _standard_streams() -> Iterator[None]:
    """Makes printing safe: exits with 130 where output couldn't be written; a reader that went away
    is fine.
    """
    if sys.stdout is not sys.__stdout__:  # a caller's own
        yield
        return
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # closed: the next file that is opened would be it, and take what others print
            setattr(
                sys,
                name,
                os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"),
            )
    streams: list[Any] = [sys.stdout, sys.stderr]
    sinks = [_Sink(os.dup(stream.fileno()), "w") for stream in streams]
    # what user code starts prints there, not into the answer
    os.dup2(streams[1].fileno(), streams[0].fileno())
    sys.stdout, sys.stderr = map(_over, sinks, streams)
    try:
        yield
    except SystemExit as leave:
        sys.stdout.flush()
        failed = sinks[0].failed
        if failed is None or failed.errno == errno.EPIPE:
            raise
        say(f"Error: can't write to standard output: {failed.strerror}")
        raise SystemExit(leave.code or 130) from None


def _over(sink: _Sink, stream: Any) -> TextIO:
    """The stream's text into the sink; what can't be encoded is written escaped."""
    errors = "backslashreplace" if stream.errors == "strict" else stream.errors
    return io.TextIOWrapper(
        io.BufferedWriter(sink), stream.encoding, errors, line_buffering=stream.line_buffering
    )
