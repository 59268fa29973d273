"""Pipelines written by hand, on the engine: streaming and step by step, order, limits, failures,
resuming.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dataflow_grounding import FileStorage, Pipeline
from dataflow_grounding._util.errors import BudgetExceeded, EndpointRefused, InputError, PlanError
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.operators import ExpressionExtractor, Operator, PhraseGrounder
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import Fault, LoopbackServer, ReceivedRequest, on
from tests.support import faults
from tests.support.pacing import lognormal
from tests.support.workplace import HANGING, caption, rows_of

pytestmark = pytest.mark.slow


class Count(Operator):
    """A custom step: how many expressions there are. Raises for what it doesn't like."""

    name = "count"
    input_keys: ClassVar = {"expressions": "expressions"}
    output_keys: ClassVar = {"count": "count"}

    async def annotate(self, record: Record, ask: Ask) -> Update:
        if record["n"] == 5:
            raise ZeroDivisionError("five\nis bad")
        return {self.keys.count: len(record[self.keys.expressions])}


class Grounding(Pipeline):
    name = "by_hand"

    def __init__(
        self, folder: Path, server: LoopbackServer, max_workers: int = 8, **storage: Any
    ) -> None:
        self.folder = folder
        self.storage = FileStorage(str(folder / "in.jsonl"), str(folder / "cache"), **storage)
        serving = OpenAIServing(
            server.base_url, "loopback", box_format="xyxy_px", max_workers=max_workers
        )
        self.extractor, self.grounder, self.count = (
            ExpressionExtractor(serving),
            PhraseGrounder(serving, check_every=None),
            Count(),
        )

    def forward(self) -> None:
        self.extractor.run(self.storage.step())
        self.count.run(self.storage.step())
        self.grounder.run(self.storage.step())

    def files(self) -> dict[str, bytes]:
        paths = sorted((self.folder / "cache").glob("*.jsonl"))
        return {path.name: path.read_bytes() for path in paths}

    def step_files(self) -> dict[str, bytes]:
        return {name: data for name, data in self.files().items() if "failures" not in name}


def captioned(folder: Path, count: int) -> list[dict[str, Any]]:
    """Rows of one picture, no two of which have the same caption."""
    from PIL import Image

    path = str(folder / "a.jpg")
    Image.new("RGB", (64, 48), "navy").save(path)
    return [{"image_path": path, "caption": caption(n), "n": n} for n in range(count)]


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    return captioned(tmp_path, 20)


Make = Callable[..., Grounding]


@pytest.fixture
def made(tmp_path: Path, server: LoopbackServer) -> Make:
    """Makes a pipeline in a folder of its own that asks the server about these rows."""

    def make(
        rows: list[dict[str, Any]], name: str = "each", kind: Make = Grounding, **settings: Any
    ) -> Grounding:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return kind(tmp_path / name, server, **settings)

    return make


def test_both_ways_give_the_same_bytes_whatever_the_order_of_replies(
    made: Make, rows: list[dict[str, Any]], server: LoopbackServer
) -> None:
    server.latency = lognormal(0.01, 1.0)
    server.faults = on(faults.content_filter(), containing="Cup 9 ")
    eager, streamed = (made(rows, name) for name in ("eager", "streamed"))
    first = eager.forward()
    streamed.compile()
    second = streamed.forward()
    # Streaming, the last two steps run side by side: record 5 is grounded before its count fails.
    assert server.count() == (20 + 18) + (20 + 19)
    for summary in (first, second):
        assert (summary.records, summary.failed, summary.exit_code) == (20, 2, 1)
    steps = eager.step_files()
    assert steps == streamed.step_files()
    assert len(steps) == 3
    last = [json.loads(line) for line in steps["dataflow_cache_step_step3.jsonl"].splitlines()]
    assert [record["n"] for record in last] == [n for n in range(20) if n not in (5, 9)]
    for each in (eager, streamed):
        lines = rows_of(each.folder / "cache" / "dataflow_cache_step_failures.jsonl")
        assert {(line["step"], line["kind"]) for line in lines} == {
            ("step1_count", "operator_failed"),
            ("step0_expression_extraction", "refused"),
        }
        assert all("\n" not in line["message"] for line in lines)


class Beside(Grounding):
    """Its last step needs nothing of the others, so that it works before the second one."""

    def forward(self) -> None:
        self.extractor.run(self.storage.step())
        self.grounder.run(self.storage.step())
        self.count.run(self.storage.step(), input_expressions_key="caption")


def test_a_record_that_fails_in_a_step_that_needs_no_other_is_in_their_files(
    made: Make, rows: list[dict[str, Any]]
) -> None:
    beside = made(rows, kind=Beside)
    beside.compile()
    summary = beside.run()
    assert (summary.done, summary.failed) == (19, 1)
    files = beside.files()
    counts = [len(files[f"dataflow_cache_step_step{n}.jsonl"].splitlines()) for n in (1, 2, 3)]
    assert counts == [20, 20, 19]
    [failure] = files["dataflow_cache_step_failures.jsonl"].splitlines()
    assert json.loads(failure)["step"] == "step2_count"


def test_resume_step_begins_with_an_earlier_steps_file(
    made: Make, rows: list[dict[str, Any]], server: LoopbackServer
) -> None:
    each = made(rows)
    with pytest.raises(InputError, match="dataflow_cache_step_step2"):
        each.forward(resume_step=2)
    assert server.count() == 0
    each.forward()
    before = each.files()
    sent = server.count()
    (each.folder / "cache" / "dataflow_cache_step_step3.jsonl").unlink()
    each.forward(resume_step=2)
    assert (server.count(), each.files()) == (sent, before)
    with pytest.raises(PlanError, match="steps 0 to 2"):
        each.forward(resume_step=3)


@pytest.mark.parametrize("compiled", [True, False], ids=["streaming", "step by step"])
def test_a_stop_leaves_earlier_results_and_the_next_run_goes_on(
    made: Make, rows: list[dict[str, Any]], server: LoopbackServer, compiled: bool
) -> None:
    each = made([row for row in rows if row["n"] != 5])
    if compiled:
        each.compile()
    with pytest.raises(BudgetExceeded, match="max_requests=7"):
        each.forward(options=RunOptions(max_requests=7))
    assert server.count() == 7
    assert not list((each.folder / "cache").glob("*.part"))
    server.faults = on(faults.unauthorized())
    with pytest.raises(EndpointRefused):
        each.forward()
    server.faults = ()
    assert server.count(200) == 7
    assert each.forward().exit_code == 0
    assert server.count(200) == 38


def test_columns_that_nobody_provides_are_found_before_anything_is_sent(
    made: Make, rows: list[dict[str, Any]], server: LoopbackServer
) -> None:
    for row in rows:
        row["captions"] = row.pop("caption")
    each = made(rows)
    for run in (each.compile, each.forward):
        with pytest.raises(PlanError, match=r"'caption'.*is it 'captions'\?"):
            run()
    assert server.count() == 0


def extractor(server: LoopbackServer, max_workers: int = 16) -> ExpressionExtractor:
    return ExpressionExtractor(OpenAIServing(server.base_url, "loopback", max_workers=max_workers))


def test_by_a_server_that_takes_one_at_a_time_all_are_answered(
    tmp_path: Path, server: LoopbackServer
) -> None:
    server.latency, server.capacity = 0.03, 1
    assert len(extractor(server, 64)(captioned(tmp_path, 30))) == server.count(200) == 30
    # 32 places are halved until the server takes as many: 31, 15, 7, 3 and 1 are refused at most,
    # as those in flight may end first.
    assert server.count() <= 33 + 2 * 32, "a tenth more, and the first flights"


def test_two_servings_of_one_endpoint_keep_their_own_max_workers(
    tmp_path: Path, made: Make, server: LoopbackServer
) -> None:
    numbers = itertools.count(1)

    def seconds(request: ReceivedRequest) -> float:
        """A run begins with 8 at once, and one more for each reply: with 24 replies it may have 32,
        which wait here until even a busy machine has sent them.
        """
        if request.task != "phrase_grounding":
            return 0.02
        return 0.1 if next(numbers) <= 24 else 1.5

    server.latency = seconds
    each = made([{**row, "n": 0} for row in captioned(tmp_path, 60)], max_workers=2)
    wide = OpenAIServing(server.base_url, "loopback", box_format="xyxy_px", max_workers=48)
    each.grounder = PhraseGrounder(wide, check_every=None)
    assert each.forward().done == 60
    assert 24 < server.max_in_flight <= 48


def test_a_hold_ends_though_the_call_that_met_it_is_over(
    rows: list[dict[str, Any]], server: LoopbackServer
) -> None:
    limits = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "700ms"}
    server.faults = on(Fault(headers=limits), times=1)
    extract = extractor(server)
    assert extract(rows[0])["expressions"]  # its event loop, which set the timer, ends here
    with ThreadPoolExecutor(1) as thread:
        another = thread.submit(extract, rows[7])
        assert another.result(timeout=HANGING)["expressions"]


def test_calls_from_threads_share_the_max_workers_of_their_serving(
    tmp_path: Path, server: LoopbackServer
) -> None:
    many = captioned(tmp_path, 60)
    server.latency = 0.03
    extractor(server)(many[:20])  # the endpoint takes more than the serving below may send
    narrow = extractor(server, 2)
    server.max_in_flight = 0
    with ThreadPoolExecutor(5) as threads:
        parts = threads.map(narrow, (many[start : start + 8] for start in range(20, 60, 8)))
        assert sum(map(len, parts)) == 40
    assert server.max_in_flight == 2
