"""The law at the end of every run: rows read are rows written and failures, for every
step's file.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow_grounding import FileStorage
from dataflow_grounding._util.errors import OperatorFailed, RunStopped, StorageFailed
from dataflow_grounding.data.records import Record
from dataflow_grounding.engine.outputs import Outcome, Outputs
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.operators.function import operator


@operator(reads=["n"], writes=["m"])
def look(record: Record) -> dict[str, int]:
    return {"m": record["n"]}


def outputs(folder: Path, **how: bool) -> Outputs:
    """Two steps, three rows: both steps got through, the second failed, the first failed; earlier
    files are there.
    """
    storage = FileStorage(str(folder / "in.jsonl"), str(folder / "cache"))
    found = Outputs([Step(look, storage.step()), Step(look, storage.step())], Summary())
    for number in (1, 2):
        (folder / "cache" / f"dataflow_cache_step_step{number}.jsonl").write_text("earlier\n")
    one, other = Record({"n": 1}), Record({"n": 2})
    failure = ("step1_look", OperatorFailed("no"))
    found.put(0, Outcome(1, "a", [one, one]))
    found.put(1, Outcome(2, "b", [other], [] if how.get("unexplained") else [failure]))
    found.put(2, Outcome(3, "c", [], [failure]))
    return found


def files(folder: Path) -> list[str]:
    return [
        (folder / "cache" / f"dataflow_cache_step_step{number}.jsonl").read_text()
        for number in (1, 2)
    ]


def test_where_the_numbers_add_up_the_files_are_put_in_place(tmp_path: Path) -> None:
    outputs(tmp_path).commit(3)
    assert [text.count("\n") for text in files(tmp_path)] == [2, 1]


@pytest.mark.parametrize(("rows", "unexplained"), [(4, False), (2, False), (3, True)])
def test_where_they_do_not_nothing_is_replaced(
    tmp_path: Path, rows: int, unexplained: bool
) -> None:
    found = outputs(tmp_path, unexplained=unexplained)
    with pytest.raises(
        RunStopped, match=f"of {rows} rows, step._look wrote . and . failed. Nothing was replaced"
    ):
        found.commit(rows)
    found.close()
    assert files(tmp_path) == ["earlier\n", "earlier\n"]


def test_earlier_failures_that_cannot_be_read_stop_the_run_as_a_full_disk_does(
    tmp_path: Path,
) -> None:
    found = outputs(tmp_path)
    (tmp_path / "cache" / "dataflow_cache_step_failures.jsonl").mkdir()
    with pytest.raises(StorageFailed, match="run the same command again"):
        found.commit(3)
