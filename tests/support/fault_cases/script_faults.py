"""Faults in pipelines written by hand: clumsy operators, changed steps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dataflow_grounding import (
    ExpressionExtractor,
    FileStorage,
    OpenAIServing,
    Operator,
    PhraseGrounder,
    Pipeline,
    Serving,
    operator,
)
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.plan import Ask
from tests.support.fault_cases.fault_case import Case, Outcome, Witness
from tests.support.workplace import Workplace, rows_of

COUNT = 24
ODD = 7


class Custom(Operator):
    """A user's step, which does as `on_odd` says with some records."""

    name = "custom"
    input_keys = {"expressions": "expressions"}
    output_keys = {"count": "count"}

    def __init__(self, on_odd: Mapping[str, Callable[[], Any]]) -> None:
        self.on_odd = on_odd

    async def annotate(self, record: Record, ask: Ask) -> Update:
        if record["image_id"] in self.on_odd:
            found = self.on_odd[record["image_id"]]()
            return await found if asyncio.isfuture(found) else found  # type: ignore[no-any-return]
        return {self.keys.count: len(record["expressions"])}


@operator(reads=["expressions"], writes=["expression_count"])
def count(record: Record) -> Update:
    return {"expression_count": len(record["expressions"])}


class ByHand(Pipeline):
    """Extraction, grounding, and a step of the user's between them if there is one."""

    def __init__(
        self, folder: Path, serving: Serving, between: Operator | None = None, prefix: str = "step"
    ) -> None:
        self.storage = FileStorage(str(folder / "captions.jsonl"), str(folder / "cache"), prefix)
        self.extractor, self.between = ExpressionExtractor(serving), between
        self.grounder = PhraseGrounder(serving, check_every=None)

    def forward(self) -> None:
        self.extractor.run(self.storage.step())
        if self.between is not None:
            self.between.run(self.storage.step())
        self.grounder.run(self.storage.step())


def serving_of(witness: Witness) -> OpenAIServing:
    return OpenAIServing(witness.server.base_url, "loopback", box_format="xyxy_px", max_workers=8)


def clumsy(ways: Sequence[Callable[[], Any]], place: Workplace, full: bool) -> Outcome:
    """Each fails its record with a sentence, and every other one is there."""
    on_odd = {f"r{number}": way for number, way in enumerate(ways, ODD)}
    place.many(COUNT)
    sent = twice = lost = 0
    for compiled in (True, False):
        folder = place.folder / str(compiled)
        folder.mkdir()
        (folder / "captions.jsonl").write_text(
            place.input.read_text().replace('"a.jpg"', json.dumps(str(place.folder / "a.jpg")))
        )
        with Witness() as witness:
            pipeline = ByHand(folder, serving_of(witness), Custom(on_odd))
            if compiled:
                pipeline.compile()
            summary = pipeline.forward()
            assert (summary.failed, summary.exit_code) == (len(ways), 1), summary
            assert summary.done == COUNT - len(ways)
            done = {row["image_id"] for row in rows_of(folder / "cache" / "step_step3.jsonl")}
            failures = rows_of(folder / "cache" / "step_failures.jsonl")
            assert {failure["id"] for failure in failures} == {*on_odd}
            for failure in failures:
                assert failure["kind"] == "operator_failed", failure
                assert "custom" in failure["message"]
            sent, twice = sent + witness.sent, twice + witness.twice
            lost += len({f"r{n}" for n in range(COUNT)} - done - {*on_odd})
    return Outcome(sent, twice, lost)


def cancels_itself() -> Any:
    """What awaits something that was cancelled."""
    task = asyncio.ensure_future(asyncio.sleep(5))
    task.cancel()
    return task


def raises(error: BaseException) -> Callable[[], Any]:
    def on_odd() -> Any:
        raise error

    return on_odd


def steps_changed(place: Workplace, full: bool) -> Outcome:
    """A step put in, taken out, another prefix: nothing is asked again."""
    place.many(COUNT)
    with Witness() as witness:
        for between, prefix in ((None, "step"), (count, "step"), (None, "step"), (None, "other")):
            assert (
                ByHand(place.folder, serving_of(witness), between, prefix).forward().done == COUNT
            )
            assert witness.sent == 2 * COUNT, (between, prefix)
        return Outcome(witness.sent, witness.twice)


CLUMSY: dict[str, Callable[[], Any]] = {
    "CancelledError": raises(asyncio.CancelledError()),
    "a cancelled task": cancels_itself,
    "None": lambda: None,
    "a list": lambda: [1],
    "sys.exit": raises(SystemExit(3)),
    "GeneratorExit": raises(GeneratorExit()),
}
"""What an operator may do with a record."""


def play_clumsy(place: Workplace) -> None:
    outcome = clumsy([*CLUMSY.values()], place, False)
    assert (outcome.lost, outcome.twice) == (0, 0)


SCRIPTS: list[Case] = [
    Case("steps added, removed or renamed", "Nothing is asked again.", steps_changed),
]
