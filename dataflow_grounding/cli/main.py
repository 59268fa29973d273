"""`dataflowgrounding`: the group of commands.

And how errors, and streams that can't be written, become exit codes.
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

from dataflow_grounding._util.entry_points import targets_of
from dataflow_grounding._util.environment import read_env_files
from dataflow_grounding._util.errors import GroundingError, RunStopped, message_of
from dataflow_grounding._util.exit_codes import exit_codes
from dataflow_grounding._util.nearest import nearest
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding._util.settings import speaks_of_specs
from dataflow_grounding._util.terminal import say
from dataflow_grounding._util.threads import LEAVING
from dataflow_grounding._util.version import __version__

# Python looks for cycles of dead objects whenever 700 more objects are alive. A run leaves hardly
# any, and looking for them took 8% of its time.
_MORE_ALIVE = 10_000

_GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Most used": {
        "generate": ("generate", "Run the pipeline that a spec names."),
        "ground": ("ground", "Find phrases in one image."),
        "review": ("review", "Mend results in a browser."),
        "export": ("formats", "Write results in a format that a trainer reads."),
        "eval": ("comparing", "Compare results with gold annotations."),
        "report": ("report", "Write a page that shows the results."),
    },
    "More": {
        "init": ("starting", "Write pipelines, example data and specs into a folder."),
        "default_specs": ("starting", "Write a commented spec for each pipeline, to fill in."),
        "prompts": ("prompts", "Show the prompts, or copy them for editing."),
        "doctor": ("endpoints", "Show what is installed and what an endpoint accepts."),
        "calibrate": ("endpoints", "Find out which box format a model uses."),
        "check": ("before_run", "Validate spec, input and images; send nothing."),
        "estimate": ("before_run", "Estimate what a run will send and cost."),
        "serve": ("serve", "Answer labelling tools over HTTP."),
        "merge": ("merge", "Merge the shards of a run."),
        "cost": ("cost", "Show what results cost, per step."),
        "apply": ("review", "Write the reviewed results."),
        "certify": ("review", "Say how much is wrong, from a reviewed sample."),
        "stats": ("data_sets", "Show statistics of a data set, and what to do about them."),
        "lint": ("data_sets", "Check a data set line by line."),
        "split": ("data_sets", "Split results into parts that share no picture."),
        "import": ("formats", "Turn another format's annotations into a results folder."),
        "completion": ("main", "Print the shell's completion script."),
    },
}
"""Group → command → its module of this folder, imported when it is used, and what `--help` says."""
# Command → its module and what `--help` says.
_COMMANDS = {name: about for group in _GROUPS.values() for name, about in group.items()}
COMMANDS = {name: purpose for name, (_, purpose) in _COMMANDS.items()}
"""Command → what `--help` says of it."""


class _LazyGroup(click.Group):
    """Commands that are imported when they are used: else each start would import them all."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *_other_packages_commands()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; None for an unknown one while a shell completes a line: an error would
        be printed into that line.
        """
        try:
            return self.command_named(ctx, cmd_name)
        except click.UsageError:
            if ctx.resilient_parsing:
                return None
            raise

    def command_named(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Return the command of a name, in which `-` and `_` are equal; it is imported only now.
        The package's own comes before another package's. Raises UsageError for an unknown name.
        """
        name = cmd_name.replace("-", "_")
        if name in _COMMANDS:
            module_name, _ = _COMMANDS[name]
            return _command_in(f"dataflow_grounding.cli.{module_name}", name)
        targets = targets_of("commands")  # other packages': "their_package.module:command"
        target = targets.get(name) or targets.get(cmd_name)
        if target:
            module_name, _, attribute = target.partition(":")
            command = getattr(importlib.import_module(module_name), attribute, None)
            if isinstance(command, click.Command):
                return command
            wrong = f"{cmd_name!r}: {target} of another package is no click command"
            raise click.UsageError(wrong, ctx)
        raise click.UsageError(f"{cmd_name!r} is not a command{nearest(name, COMMANDS)}", ctx)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write all on one screen, with a line for each option."""
        self.format_usage(ctx, formatter)
        formatter.write(f"{self.help}\n")
        rows_of_heading = self._help_rows(ctx)
        width = max(len(name) for rows in rows_of_heading.values() for name, _ in rows)
        for heading, rows in rows_of_heading.items():
            formatter.write(f"\n{heading}\n")
            for name, purpose in rows:
                formatter.write(f"  {name:{width}}  {purpose}\n")

    def _help_rows(self, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
        """{"Most used:": [("generate", "Run the pipeline …"), …], …, "Options:": […]}"""
        rows_of_heading = {}
        for group, names in _GROUPS.items():
            rows_of_heading[f"{group}:"] = [(name, COMMANDS[name]) for name in names]
        of_other_packages = []
        for name in _other_packages_commands():
            try:
                purpose = self.command_named(ctx, name).get_short_help_str()
            except Exception as error:  # whatever an import of theirs raises hides no other command
                purpose = f"can't be loaded: {excerpt(message_of(error), 60)}"
            of_other_packages.append((name, purpose))
        if of_other_packages:
            rows_of_heading["Commands of other packages:"] = of_other_packages
        records = [option.get_help_record(ctx) for option in self.get_params(ctx)]
        rows_of_heading["Options:"] = [record for record in records if record]  # no hidden ones
        return rows_of_heading


def _other_packages_commands() -> list[str]:
    return [name for name in targets_of("commands") if name not in COMMANDS]


def _command_in(module_name: str, name: str) -> click.Command:
    module = importlib.import_module(module_name)
    for value in vars(module).values():
        if isinstance(value, click.Command) and value.name == name:
            return value
    raise AssertionError(f"{module_name} has no command {name}")


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", message="dataflowgrounding %(version)s")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Turns images into grounded annotations with a vision-language model."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete commands and options.

    For bash: eval "$(dataflowgrounding completion bash)".
    """
    completion_class = get_completion_class(shell)
    assert completion_class is not None  # click has one for each of the choices
    script = completion_class(cli, {}, "dataflowgrounding", "_DATAFLOWGROUNDING_COMPLETE")
    # Not by `say`, which may change what it prints: a script has to stay as it is.
    click.echo(script.source())  # noqa: TID251


def main() -> None:
    """Run the command line and leave with its exit code: raises SystemExit, or ends the process."""
    gc.set_threshold(_MORE_ALIVE)
    try:
        with _standard_streams():
            copy_context().run(_run)  # what `_run` sets in its context ends with it
    except SystemExit as leave:
        does_thread_wait_for_ray = any(thread.name == LEAVING for thread in threading.enumerate())
        if does_thread_wait_for_ray:
            # Ray's library would break down while Python ends: so Python doesn't clean up.
            sys.stdout.flush()
            os._exit(leave.code if isinstance(leave.code, int) else 0)
        raise


@contextmanager
def as_command() -> Iterator[None]:
    """Let a script end as the command line does.

    After Ctrl-C, a GroundingError, or where memory runs out, a line on standard error says what
    happened. With `--debug` among the process's arguments a traceback shows where an error was
    raised. Other exceptions pass through.

    At the end of the block the exit code says whether records failed in its runs, of pipelines or
    by `run` of operators. The highest code counts. A run that is done again replaces its code.

    Raises:
        SystemExit: With 130 after Ctrl-C, the `exit_code` of a RunStopped, and 2 for another
            GroundingError, or where memory runs out. At the end of the block with 1 where records
            failed, and 4 where none succeeded.
    """
    try:
        with exit_codes() as codes:
            yield
    except (KeyboardInterrupt, click.Abort):
        say("Error: interrupted: run the same command again")
        raise SystemExit(130) from None
    except (MemoryError, RuntimeError) as error:
        # A thread that can't start for want of memory is a RuntimeError, known by its words alone.
        has_no_thread = "can't start new thread" in str(error)
        if not (isinstance(error, MemoryError) or has_no_thread):
            raise
        _say_traceback_if_asked()
        say(
            "Error: this takes more memory than there is. What was stored is kept: the same command"
            " goes on"
        )
        raise SystemExit(2) from None
    except GroundingError as error:
        _say_traceback_if_asked()
        for line in str(error).splitlines():
            say(f"Error: {line}")
        exit_code = error.exit_code if isinstance(error, RunStopped) else 2
        raise SystemExit(exit_code) from None
    code = max(codes.values(), default=0)  # of the runs in the block; 0 if there was none
    if code:
        raise SystemExit(code)


def _say_traceback_if_asked() -> None:
    if "--debug" in sys.argv:
        say(traceback.format_exc())


def _run() -> None:
    """Exit with the command's code or `as_command`'s; 2: wrong arguments, 70: a defect of ours."""
    speaks_of_specs.set(True)  # messages name a setting `vlm.box_format`, not `box_format=`
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        with as_command():
            read_env_files()
            # Not standalone, click returns what the command does, and raises its own errors.
            code = cli.main(arguments, prog_name="dataflowgrounding", standalone_mode=False)
            sys.exit(code or 0)  # most commands return None
    except click.ClickException as error:
        # Through `say`, which masks keys: a wrong argument may be one.
        message = io.StringIO()
        error.show(message)
        say(message.getvalue().rstrip())
        sys.exit(2)
    except Exception as error:
        _say_traceback_if_asked()
        say(f"Internal error: {type(error).__name__}: {error} (--debug shows where)")
        sys.exit(70)  # EX_SOFTWARE of sysexits.h


class _FailSafeFile(io.FileIO):
    """A file to which writing never raises: what can't be written is dropped; `failed` says why."""

    failed: OSError | None = None  # the first error

    def write(self, data: Any) -> int:
        """Write some of the data, and return how many bytes. After an error that is all of them:
        they are dropped.
        """
        try:
            while True:
                written = super().write(data)
                if written is not None:
                    return written
                # A pipe that is full, and doesn't block: wait until there is room.
                select.select([], [self], [])
        except OSError as error:
            self.failed = self.failed or error
            return memoryview(data).nbytes


@contextmanager
def _standard_streams() -> Iterator[None]:
    """Output that can't be written raises nothing in the block, which ends with a SystemExit."""
    has_callers_stream = sys.stdout is not sys.__stdout__
    if has_callers_stream:
        yield
        return
    _open_closed_streams()
    stdout_sink = _redirect_streams()
    try:
        yield
    except SystemExit as leave:
        stdout: Any = sys.stdout
        stdout.flush()  # writing what is still held back may fail, too
        failed = stdout_sink.failed
        has_reader_gone = failed is not None and failed.errno == errno.EPIPE  # `head`, say
        if failed is None or has_reader_gone:
            raise
        say(f"Error: can't write to standard output: {failed.strerror}")
        # 130, as where a run's files can't be written (RunStopped): it can be run again.
        raise SystemExit(leave.code or 130) from None


def _open_closed_streams() -> None:
    """Open the null device for each stream that was closed before the process began."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # Its number (1 for stdout) is free. Else the next file to be opened would get it, and
            # with it what libraries written in C print.
            stream = open(os.devnull, "r+")  # noqa: SIM115
            setattr(sys, name, stream)
            # Held twice: `_redirect_streams` replaces `sys.stdout`, and a stream that nothing holds
            # is closed.
            setattr(sys, f"__{name}__", stream)


def _redirect_streams() -> _FailSafeFile:
    """Put streams that never raise in place of stdout and stderr; return the first one's file."""
    stdout: Any = sys.stdout
    stderr: Any = sys.stderr
    stdout_sink = _FailSafeFile(os.dup(stdout.fileno()), "w")
    stderr_sink = _FailSafeFile(os.dup(stderr.fileno()), "w")
    # From here on, only the copy leads to standard output. Descriptor 1 leads to standard error:
    # programs that user code starts inherit it, and what they print is no answer of ours.
    os.dup2(stderr.fileno(), stdout.fileno())
    sys.stdout = _text_into(stdout_sink, stdout)
    sys.stderr = _text_into(stderr_sink, stderr)
    return stdout_sink


def _text_into(sink: _FailSafeFile, stream: Any) -> TextIO:
    """Characters that the stream's encoding can't hold are escaped, where `stream` would raise."""
    errors = "backslashreplace" if stream.errors == "strict" else stream.errors
    return io.TextIOWrapper(
        io.BufferedWriter(sink), stream.encoding, errors, line_buffering=stream.line_buffering
    )
