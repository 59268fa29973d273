"""Running a command as a process of its own and reading what it used; figures next to
their goals.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "dataflow_grounding")
REPOSITORY = Path(__file__).parents[2]
BOX_FORMAT = "qwen3-vl"  # that `generate` asks for


@dataclass(frozen=True)
class Used:
    """What a finished process used, by the system's own account, and what it printed."""

    cpu_s: float
    wall_s: float
    peak_mb: float
    page_faults: int
    code: int
    output: str

    def json(self) -> Any:
        """The printed JSON."""
        return json.loads(self.output)


@dataclass(frozen=True)
class Row:
    """A row of the table. `reached` is None where there is no goal."""

    what: str
    figure: str
    goal: str = ""
    reached: bool | None = None


# Runs a command and writes what it used to the file descriptor that is named first. A process that
# is begun by a large one has that one's peak memory, so this small one lies between.
_LAUNCHER = """
import json, os, sys, time
report, command = int(sys.argv[1]), sys.argv[2:]
os.set_inheritable(report, False)
began = time.perf_counter()
pid = os.posix_spawnp(command[0], command, os.environ)
_, status, usage = os.wait4(pid, 0)
used = {
    "cpu_s": usage.ru_utime + usage.ru_stime,
    "wall_s": time.perf_counter() - began,
    "peak_mb": usage.ru_maxrss / 1024,
    "page_faults": usage.ru_minflt,
    "code": os.waitstatus_to_exitcode(status),
}
os.write(report, json.dumps(used).encode())
"""


def run(
    command: Sequence[str],
    *,
    settings: Mapping[str, str] | None = None,
    codes: Sequence[int] = (0,),
) -> Used:
    """Run a command to its end and keep its output. Raises RuntimeError for an exit code that is
    not in `codes`.
    """
    environment = {**os.environ, **(settings or {})}
    # an installed package isn't compiled at each start
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryFile() as report:
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(report.fileno())]
        done = subprocess.run(
            [*launcher, *command], capture_output=True, env=environment, pass_fds=[report.fileno()]
        )
        report.seek(0)
        written = report.read()
    if not written:
        raise RuntimeError(f"can't run {command[0]}: {done.stderr.decode(errors='replace')}")
    used = Used(**json.loads(written), output=done.stdout.decode())
    if used.code not in codes:
        errors = done.stderr.decode(errors="replace")[-2000:]
        raise RuntimeError(f"{' '.join(command)} ended with {used.code}: {errors}")
    return used


def generate(
    results: Path,
    rows: Path,
    base_url: str,
    *overrides: str,
    command: Sequence[str] = COMMAND,
    **settings: str,
) -> Used:
    """`generate` with the grounding pipeline; prints its summary as JSON. `command` is what runs the
    package.
    """
    spec = results.parent / "spec.yaml"
    if not spec.exists():
        source = REPOSITORY / "dataflow_grounding" / "spec" / "image_grounding.yaml"
        spec.write_text(source.read_text())
    block = "image_grounding."
    values = [
        f"results_dir={results}",
        f"{block}data.input_jsonl={rows}",
        f"{block}vlm.backend=openai",
    ]
    values += [f"{block}vlm.openai.base_url={base_url}", f"{block}vlm.openai.model_name=loopback"]
    values += [f"{block}vlm.openai.api_key=sk-test", f"{block}vlm.box_format={BOX_FORMAT}"]
    values += [block + override for override in overrides]
    return run(
        [
            *command,
            "generate",
            "-e",
            str(spec),
            "--no-progress",
            "--no-report",
            "--json",
            *values,
        ],
        settings=settings,
    )


def median(numbers: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
    ordered, half = sorted(numbers), len(numbers) // 2
    return ordered[half] if len(numbers) % 2 else (ordered[half - 1] + ordered[half]) / 2


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder under TMPDIR."""
    with tempfile.TemporaryDirectory(prefix="dataflow-grounding-benchmark-") as folder:
        yield Path(folder)


def under(value: float, goal: float, form: str = "{:.2f}") -> tuple[str, str, bool]:
    """Figure, goal and whether it is reached, of a number that should not pass `goal`."""
    return form.format(value), "≤ " + form.format(goal), value <= goal


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    marks = {True: "reached", False: "**missed**", None: ""}
    lines = ["| what | figure | goal | |", "|---|---|---|---|"]
    return "\n".join(
        [
            *lines,
            *(f"| {row.what} | {row.figure} | {row.goal} | {marks[row.reached]} |" for row in rows),
        ]
    )


def show(measure: Callable[..., list[Row]], records: int | None = None) -> None:
    """The main of a benchmark: prints its table, or with --json its rows.

    With `records`, `measure` takes how many there are, which is that number without --records.
    """
    parser = argparse.ArgumentParser(description=measure.__doc__)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    if records is not None:
        parser.add_argument("--records", type=int, default=records)
    arguments = parser.parse_args()
    as_json = arguments.json
    rows = measure() if records is None else measure(arguments.records)
    print(json.dumps([asdict(row) for row in rows]) if as_json else table(rows))
