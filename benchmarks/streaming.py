"""Streaming against step by step, and repeated image bytes, on a pipeline of four steps, two of
them side by side.

    python -m benchmarks.streaming

A caption and two regions are asked for side by side, then expressions from both, then a check of
these: four requests per image. Log-normal latencies (mean 0.1 s, sigma 0.7), 16 in flight. The
server plays a provider's prompt cache: a request whose system message and image came at most 64
requests earlier is a hit. "As written" is `forward()` without `compile()`: each step does all
records before the next. "Barriers" is `stream: false`: steps side by side count as one.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import inputs
from benchmarks.process import ServerProcess
from dataflow_grounding import FileStorage, Operator, Pipeline
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.images.image import open_image
from dataflow_grounding.replies import Note, read_object
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.tasks.request import Request, object_of
from tests.support.measuring import Row, median, run, show, workplace

MEAN, SIGMA, IN_FLIGHT = 0.1, 0.7, 16
REGIONS = [
    {"id": 1, "type": "mug", "bbox": [5, 5, 30, 40]},
    {"id": 2, "type": "table", "bbox": [0, 30, 64, 48]},
]
REPEATED = "steps after an image's first that repeat its bytes within 64 requests"
LAST = "double_check"
finished_at: list[float] = []
MODES = ("as written", "barriers", "streaming")


class Question(Operator):
    """One request about the image and the columns that it reads; the reply's member `answer` is its
    column.
    """

    def __init__(
        self, serving: OpenAIServing, task: str, reads: dict[str, str], answer: str, column: str
    ) -> None:
        self.serving: OpenAIServing = serving
        self.name = task  # type: ignore[misc]
        self.input_keys = {"image": "image_path", **reads}  # type: ignore[misc]
        self.output_keys = {"output": column}  # type: ignore[misc]
        self.answer = answer

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Ask, and note when the last step's answers come."""
        image = open_image(record, "image_path", self.serving.image_limits)
        given: dict[str, Any] = {
            role: record[column] for role, column in self.reads().items() if role != "image"
        }
        if self.name == LAST:
            numbered = enumerate(given["expressions"], 1)
            given["expressions"] = [{"id": number, **expression} for number, expression in numbered]
        request = Request(
            self.name, given, (image,), f"Do the task {self.name}.", object_of(), self._read
        )
        answer = await ask(request)
        if self.name == LAST:
            finished_at.append(time.perf_counter())
        return {self.keys.output: answer}

    def _read(self, reply: str) -> tuple[Any, list[Note]]:
        data, notes = read_object(reply, required=self.answer)
        return data[self.answer], notes


class FourSteps(Pipeline):
    """Caption and regions side by side, expressions from both, a check of them."""

    def __init__(self, rows: str, cache: str, serving: OpenAIServing) -> None:
        self.storage = FileStorage(rows, cache, file_name_prefix="four")
        self.captions = Question(serving, "image_caption", {}, "caption", "described")
        self.regions = Question(
            serving, "region_expression", {"regions": "regions"}, "regions", "named"
        )
        both = {"regions": "named", "caption": "described"}
        self.expressions = Question(
            serving, "grounding_expression", both, "expressions", "expressions"
        )
        self.check = Question(serving, LAST, {"expressions": "expressions"}, "checks", "checks")

    def forward(self) -> None:
        """The four steps in order."""
        for step in (self.captions, self.regions, self.expressions, self.check):
            step.run(self.storage.step())


def one_run(mode: str, folder: Path, base_url: str) -> None:
    """Runs the pipeline over `rows.jsonl`; prints wall time and time to the first finished record,
    in seconds.
    """
    serving = OpenAIServing(base_url, "loopback", max_workers=IN_FLIGHT, api_key="sk-test")
    pipeline = FourSteps(str(folder / "rows.jsonl"), str(folder / mode.replace(" ", "-")), serving)
    if mode != "as written":
        pipeline.compile()
    began = time.perf_counter()
    summary = pipeline.forward(options=RunOptions(stream=mode == "streaming", progress=False))
    wall = time.perf_counter() - began
    assert summary.failed == 0, summary
    print(json.dumps({"wall": wall, "first": finished_at[0] - began}))


def measure_mode(mode: str, folder: Path, sigma: float = SIGMA) -> dict[str, Any]:
    """One run in a process of its own against a server of its own: wall, first record, and the
    server's counts.
    """
    latency = ["--latency", str(MEAN), *(["--sigma", str(sigma)] if sigma else [])]
    with ServerProcess("--answers", "echo", *latency) as server:
        used = run(
            [
                sys.executable,
                "-m",
                "benchmarks.streaming",
                "one",
                mode,
                str(folder),
                server.base_url,
            ]
        )
    return {**used.json(), **server.statistics["beginnings"]}


def measure() -> list[Row]:
    """Streaming against step by step, and repeated image bytes, on four steps, two of them side by
    side.
    """
    rows: list[Row] = []
    with workplace() as root:
        pictures = inputs.pictures(root / "pictures", 500, 64, 48, 2)
        for count, rounds in ((50, 3), (500, 1)):
            found: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
            for turn in range(rounds):
                folder = root / f"{count}-{turn}"
                write_rows(folder, pictures[:count])
                for mode in MODES:
                    found[mode].append(measure_mode(mode, folder))
            middle = {
                mode: {key: median([r[key] for r in runs]) for key in runs[0]}
                for mode, runs in found.items()
            }
            rows += rows_of(count, middle)
        write_rows(root / "even", pictures)
        share = measure_mode("streaming", root / "even", 0.0)["share_of_later"]
    rows.append(
        Row(
            f"500 records, streaming, latencies all alike: {REPEATED}",
            f"{share:.1%}",
            "100%",
            share == 1,
        )
    )
    return rows


def write_rows(folder: Path, pictures: list[Path]) -> None:
    """The input of the pipeline."""
    inputs.write_rows(
        folder / "rows.jsonl", ({"image_path": str(path), "regions": REGIONS} for path in pictures)
    )


def rows_of(count: int, middle: dict[str, dict[str, Any]]) -> list[Row]:
    """The lines of one number of records."""
    ideal = 4 * count * MEAN / IN_FLIGHT
    rows = []
    for mode, found in middle.items():
        what = (
            f"{count} records, {mode}: wall (requests / in flight: {ideal:.1f} s); first finished"
            " record"
        )
        rows.append(Row(what, f"{found['wall']:.1f} s; {found['first']:.2f} s"))
    stream, steps = middle["streaming"], middle["as written"]
    wall, first = steps["wall"] / stream["wall"], steps["first"] / stream["first"]
    rows.append(
        Row(
            f"{count} records: step by step / streaming, wall", f"{wall:.2f}", "1.1 to 1.6 expected"
        )
    )
    rows.append(
        Row(
            f"{count} records: step by step / streaming, first finished record",
            f"{first:.0f}",
            "sooner",
        )
    )
    for mode, found in middle.items():
        share = found["share_of_later"]
        goal, reached = ("100%", share == 1) if mode == "streaming" else ("", None)
        rows.append(Row(f"{count} records, {mode}: {REPEATED}", f"{share:.1%}", goal, reached))
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        one_run(sys.argv[2], Path(sys.argv[3]), sys.argv[4])
    else:
        show(measure)
