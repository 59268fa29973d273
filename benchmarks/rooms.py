"""What each room of the package weighs, and how far a spec and a picture travel through it.

    python -m benchmarks.rooms

Lines are all lines of a file; tokens are Python's, without comments, docstrings and line ends. A
late import is one of the package's own modules within a function. The roads are those of a run of
one picture and caption, with the embedded grounder: a stop is a module whose function is called for
the first time, a return is a stop in a module that was left before, and a climb is a stop in a
higher layer than the one before. The spec's road ends where the run begins, the picture's with its
record.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tempfile
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from PIL import Image

from benchmarks.readability import SILENT, docstring_lines
from dataflow_grounding.jobs.executing import execute_spec
from dataflow_grounding.jobs.registry import load_spec
from dataflow_grounding.jobs.spec_run import ready_to_run

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dataflow_grounding"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Weight:
    """What the files of a room come to."""

    files: int = 0
    lines: int = 0
    tokens: int = 0
    functions: int = 0
    late: int = 0

    def add(self, path: Path) -> None:
        """Add a file."""
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        documented = docstring_lines(tree)
        self.files += 1
        self.lines += len(text.splitlines())
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type not in SILENT and token.start[0] not in documented:
                self.tokens += 1
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS):
                self.functions += 1
        self.late += len(late_imports(tree))


def late_imports(tree: ast.AST) -> set[int]:
    """The lines of imports of the package's own modules within functions."""
    lines = set()
    for function in ast.walk(tree):
        if not isinstance(function, FUNCTIONS):
            continue
        for node in ast.walk(function):
            of_ours = isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                PACKAGE.name
            )
            if of_ours:
                lines.add(node.lineno)
    return lines


def weights() -> dict[str, Weight]:
    """The weight of each room, by its name."""
    rooms: dict[str, Weight] = defaultdict(Weight)
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        rooms[parts[0] if len(parts) > 1 else "(top)"].add(path)
    return rooms


def layers() -> dict[str, int]:
    """Room → its layer in the import contract, counted from below."""
    _, _, contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("layers = [")
    rows = re.findall('"(.*)"', contract.partition("\n]")[0])
    numbers = {}
    for number, row in enumerate(reversed(rows)):
        for module in row.split("|"):
            numbers[module.strip().removeprefix(f"{PACKAGE.name}.")] = number
    return numbers


@dataclass
class Road:
    """The modules that are called, in order, each function counted once."""

    modules: list[str] = field(default_factory=list)
    functions: set[Any] = field(default_factory=set)

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Take a call, as `sys.setprofile` tells of it."""
        path = frame.f_code.co_filename
        if event != "call" or not path.startswith(str(PACKAGE)) or frame.f_code in self.functions:
            return
        if frame.f_code.co_name.startswith("<"):
            return
        self.functions.add(frame.f_code)
        module = Path(path).relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        if not self.modules or self.modules[-1] != module:
            self.modules.append(module)

    def figures(self) -> dict[str, int]:
        """How many stops, returns and climbs the road has."""
        layer_of = layers()
        seen: set[str] = set()
        returns = climbs = 0
        before: int | None = None
        for module in self.modules:
            returns += module in seen
            seen.add(module)
            layer = layer_of.get(module.partition(".")[0], 0)
            climbs += before is not None and layer > before
            before = layer
        return {"stops": len(self.modules), "returns": returns, "climbs": climbs}


@contextmanager
def walked() -> Iterator[Road]:
    """The road that the block takes."""
    road = Road()
    sys.setprofile(road)
    try:
        yield road
    finally:
        sys.setprofile(None)


def roads() -> Iterator[tuple[str, Road]]:
    """The road of a spec, and of a picture."""
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (320, 240), "white").save(Path(folder) / "a.png")
        (Path(folder) / "in.jsonl").write_text('{"image_path": "a.png", "caption": "A red cup."}\n')
        spec = Path(folder) / "spec.yaml"
        spec.write_text(
            f"results_dir: {folder}/results\nautolabel_type: image_grounding\nimage_grounding:\n"
            f"  vlm: {{backend: embedded}}\n  data: {{input_jsonl: {folder}/in.jsonl}}\n"
        )
        with walked() as road:
            run = ready_to_run(load_spec(str(spec)))
        yield "spec", road
        with walked() as road:
            execute_spec(run)
        yield "picture", road


def main() -> None:
    """Print the table and the roads."""
    rooms = weights()
    print(f"{'room':12} {'files':>6} {'lines':>7} {'tokens':>8} {'functions':>10} {'late':>5}")
    whole = Weight()
    for name, weight in sorted(rooms.items()):
        print(
            f"{name:12} {weight.files:6} {weight.lines:7,} {weight.tokens:8,}"
            f" {weight.functions:10,} {weight.late:5}"
        )
        for key, value in vars(weight).items():
            setattr(whole, key, getattr(whole, key) + value)
    print(
        f"{'all':12} {whole.files:6} {whole.lines:7,} {whole.tokens:8,}"
        f" {whole.functions:10,} {whole.late:5}"
    )
    for name, road in roads():
        figures = ", ".join(f"{count} {what}" for what, count in road.figures().items())
        print(f"the road of a {name}: {figures}")


if __name__ == "__main__":
    main()
