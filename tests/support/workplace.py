"""A folder with pictures, input and spec in which tests and benchmarks run `generate` as a user
would.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import dataflow_grounding
from dataflow_grounding.cli.main import main
from tests.support.forking import Forked

REPOSITORY = Path(dataflow_grounding.__file__).resolve().parent.parent
ORIENTATION = 0x0112
READ_AT_IMPORT = {"PYTHONIOENCODING", "PYTHONPATH", "SSL_CERT_FILE"}
LONG_AGO = (10**9, 10**9)  # when an old picture was read and changed last
MAIN = "from dataflow_grounding.cli.main import main; main()"
Rows = list[dict[str, Any]]
Running: TypeAlias = "subprocess.Popen[str] | Forked"


STEPS = ("step_0_expression_extraction", "step_1_grounding")
LEFT = ("annotations.jsonl", "failures.jsonl", *(f"{step}/annotations.jsonl" for step in STEPS))
"""What a run leaves for its user, bar run.json."""


def left(results: Path) -> dict[str, bytes]:
    """Those of LEFT that are in results, with what is in them."""
    return {name: (results / name).read_bytes() for name in LEFT if (results / name).exists()}


class Files(NamedTuple):
    """What a run leaves for its user, as bytes; None for a file that is not there."""

    annotations: bytes | None
    step_0: bytes | None
    step_1: bytes | None


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        """The JSON object on standard output."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    def __str__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


class Place:
    """A folder with a spec and results; `settings` are keys of the spec's block, dotted, for every
    run.
    """

    kind: str  # of the pipeline, and the block's name

    def __init__(self, folder: Path, base_url: str, **settings: Any) -> None:
        self.folder = folder
        self.results = folder / "results"
        self.settings: dict[str, Any] = {
            "vlm.backend": "openai",
            "vlm.box_format": "xyxy_px",
            "vlm.check_every": None,  # what is counted are the requests of records
            "vlm.openai.base_url": base_url,
            "vlm.openai.model_name": "loopback",
            **settings,
        }
        folder.mkdir(parents=True, exist_ok=True)

    def written(self, settings: Mapping[str, Any]) -> Path:
        """Write the spec with these settings alone; returns its path."""
        block: dict[str, Any] = {}
        for key, value in settings.items():
            *outer, last = key.split(".")
            inner = block
            for name in outer:
                inner = inner.setdefault(name, {})
            inner[last] = value
        spec = {"results_dir": str(self.results), "autolabel_type": self.kind, self.kind: block}
        path = self.folder / "spec.yaml"
        path.write_text(json.dumps(spec), encoding="utf-8")  # JSON is YAML
        return path

    def failures(self) -> Rows:
        """The lines of `failures.jsonl`."""
        return rows_of(self.results / "failures.jsonl")

    def run_json(self) -> dict[str, Any]:
        """What `run.json` says."""
        found: dict[str, Any] = json.loads((self.results / "run.json").read_text(encoding="utf-8"))
        return found


class Workplace(Place):
    """Everything for `image_grounding` under one folder."""

    kind = "image_grounding"

    def __init__(self, folder: Path, base_url: str = "", **settings: Any) -> None:
        own = {"vlm.openai.timeout": 20, "workflow.max_workers": 8}
        super().__init__(folder, base_url, **{**own, **settings})
        self.input = folder / "captions.jsonl"

    def picture(
        self,
        name: str = "a.jpg",
        size: tuple[int, int] = (64, 48),
        orientation: int = 1,
        color: str = "navy",
    ) -> str:
        """Write a JPEG; `size` is in stored pixels. Returns its name."""
        from PIL import Image

        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", size, color)
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        picture.save(path, "JPEG", exif=exif.tobytes() if orientation != 1 else b"")
        return name

    def rows(self, rows: Iterable[Mapping[str, Any] | str]) -> None:
        """Write the input; a string stands for a line as it is."""
        lines = [
            row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows
        ]
        self.input.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def many(self, count: int) -> None:
        """Write an input of `count` rows with captions of their own and one picture, an old one.

        Rows of a picture that has changed just now aren't kept by a run.
        """
        self.picture()
        os.utime(self.folder / "a.jpg", LONG_AGO)
        self.rows(
            {"image_path": "a.jpg", "image_id": f"r{n}", "caption": caption(n)}
            for n in range(count)
        )

    def after_step_0(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write what step 0 would have left, for runs of step 1 alone."""
        before = self.results / LEFT[2]
        before.parent.mkdir(parents=True, exist_ok=True)
        before.write_text("".join(json.dumps(record) + "\n" for record in records))
        self.rows([])
        self.settings["workflow.steps"] = ["1"]

    def spec(self, **settings: Any) -> Path:
        """Write the spec; returns its path."""
        return self.written({"data.input_jsonl": str(self.input), **self.settings, **settings})

    def arguments(self, *arguments: str, **settings: Any) -> list[str]:
        """The arguments of a `generate` with these settings."""
        return [
            "generate",
            "-e",
            str(self.spec(**settings)),
            "--json",
            "--no-progress",
            "--no-report",
            *arguments,
        ]

    def run(self, *arguments: str, **settings: Any) -> Done:
        """`generate` within this process, through the command line's own entry."""
        return command(self.arguments(*arguments, **settings))

    def check(self, *arguments: str, **settings: Any) -> Done:
        """`check` within this process."""
        return command(["check", "-e", str(self.spec(**settings)), *arguments])

    def start(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        first: str = "",
        **settings: Any,
    ) -> Running:
        """`generate` as a process of its own, not waited for; the code in `first` runs before."""
        line = self.arguments(*arguments, **settings)
        return process(line, env=env, first=first, cwd=self.folder)

    def annotations(self) -> Rows:
        """The records of `annotations.jsonl`."""
        return rows_of(self.results / "annotations.jsonl")

    @property
    def replies(self) -> Path:
        """The store of replies."""
        return self.results / ".ckpt" / "replies.jsonl"

    def forget_all_but_replies(self) -> None:
        """Remove all files of the results but the store of replies."""
        for path, _ in list(self.everything()):
            if path != self.replies:
                path.unlink()

    def files(self) -> Files:
        """The annotations and both step files."""
        found = left(self.results)
        return Files(*(found.get(name) for name in LEFT if name != "failures.jsonl"))

    def everything(self) -> Iterable[tuple[Path, bytes]]:
        """Every file of the results."""
        return (
            (path, path.read_bytes()) for path in sorted(self.results.rglob("*")) if path.is_file()
        )


def caption(number: int) -> str:
    """A caption with a word of letters that no other number has, so that no two
    requests are equal.
    """
    letters = "".join(chr(ord("a") + int(digit)) for digit in str(number))
    return f"Cup {number} of N{letters}"


def command(arguments: Sequence[str]) -> Done:
    """The command line within this process: fast, and all but the process is real."""
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["dataflowgrounding", *arguments]
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as leave:
        code = leave.code
    finally:
        sys.argv = argv
    return Done(int(code) if isinstance(code, int) else 0, out.getvalue(), err.getvalue())


def process(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    first: str = "",
    cwd: Path | str | None = None,
) -> Running:
    """The command line as a process of its own, in which the code in `first` runs before.

    It is a new interpreter where `env` has what is read when modules are imported, and for Ray,
    whose workers import what their driver is; else it is forked.
    """
    if "--engine" in arguments or not READ_AT_IMPORT.isdisjoint(env or {}):
        return interpreter(arguments, env=env, first=first, cwd=cwd)
    return Forked(arguments, cwd, {**os.environ, **(env or {})}, first)


def interpreter(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    first: str = "",
    **options: Any,
) -> subprocess.Popen[str]:
    """The command line in a new interpreter, in which the code in `first` runs before."""
    whole = {**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})}
    line = [sys.executable, "-c", f"{first}\n{MAIN}", *arguments]
    if not first:
        line[1:3] = ["-m", "dataflow_grounding"]
    piped = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "encoding": "utf-8",
        **options,
    }
    return subprocess.Popen(line, env=whole, **piped)


ONE_AFTER_ANOTHER = """
import json, sys
from tests.support.workplace import command
for line in json.load(sys.stdin):
    done = command(line)
    print(json.dumps([done.code, done.out, done.err]), flush=True)
"""


def one_after_another(
    lines: Iterable[Sequence[str]],
    *,
    env: Mapping[str, str] | None = None,
    first: str = "",
    **options: Any,
) -> list[Done]:
    """Command lines in one process of their own, in which the code in `first` runs before."""
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", f"{first}\n{ONE_AFTER_ANOTHER}"],
        input=json.dumps([*lines]),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(env or {})},
        capture_output=True,
        encoding="utf-8",
        timeout=HANGING,
        **options,
    )
    assert done.returncode == 0, done
    assert "Traceback" not in done.stderr, done
    return [Done(*json.loads(line)) for line in done.stdout.splitlines()]


HANGING = 280.0
"""After this many seconds nothing is waited for any longer: shortly before pytest ends the test. On a
busy machine, too, what happens at all has long happened by then.
"""


def ended(running: Running) -> Done:
    """Wait for a process. One that is still running after HANGING is killed, and an error."""
    try:
        out, err = running.communicate(timeout=HANGING)
    except subprocess.TimeoutExpired:
        running.kill()
        out, err = running.communicate()
        raise AssertionError(f"still running after {HANGING:g} s\n{out}\n{err}") from None
    assert running.returncode is not None
    return Done(running.returncode, out, err)


def lives(pid: int) -> bool:
    """Whether a process is there, and hasn't ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def tar_of(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Write a tar file, as a shard of WebDataset is, of names and what is in them."""
    with tarfile.open(path, "w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def rows_of(path: Path) -> Rows:
    """The rows of a file of JSON lines; none where it isn't there."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def write_rows(path: Path, *rows: Mapping[str, Any] | str) -> Path:
    """Write a file of JSON lines, and the folder that it is in; a text is a line as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
