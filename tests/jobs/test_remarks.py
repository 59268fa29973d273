"""What replies say next to their answers, from a run to its files, its report and its review."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.data.records import dump_line
from dataflow_grounding.testing import EchoAnswers
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support.endpoint import endpoint_of
from tests.support.reviewing import most_doubtful
from tests.support.workplace import Done, Workplace, caption, command

ROWS = 30
ODD = {7: "The picture is <b>dark</b> & blurred.", 11: "Both look much alike."}
USUAL = "I found N objects"
COUNTS = {USUAL: ROWS - 2, "Both look much alike": 1, "The picture is b dark /b blurred": 1}
LINE = (
    f"28 records: {USUAL}; 1 record: Both look much alike;"
    " 1 record: The picture is b dark /b blurred; 2 records with a rare remark"
)


class Talking(EchoAnswers):
    """Says before each answer on boxes how many there are, and of some rows something odd."""

    def __init__(self, odd: dict[int, str]) -> None:
        super().__init__()
        self.odd = {caption(number).split()[-1]: text for number, text in odd.items()}

    def __call__(self, request: ReceivedRequest) -> Any:
        answer = super().__call__(request)
        if request.task != "phrase_grounding":
            return answer
        said = f"I found {len(answer['objects'])} objects."
        for item in request.input["phrases"]:
            said = self.odd.get(item["text"], said)
        return f"{said}\n```json\n{json.dumps(answer)}\n```"


def run(place: Workplace, odd: dict[int, str], *arguments: str) -> Done:
    """A run of 30 rows as people run it, whose model says this of some."""
    place.many(ROWS)
    with endpoint_of(place, Talking(odd)):
        done = command([word for word in place.arguments(*arguments) if word != "--json"])
    assert done.code == 0, done
    return done


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, Done]:
    """A run whose model says something odd of two rows; a third of its replies is of its pilot."""
    place = Workplace(tmp_path_factory.mktemp("odd"))
    run(place, ODD, "--pilot", "12")
    return place, run(place, ODD)


def test_a_run_counts_what_is_usual_and_what_is_rare(odd: tuple[Workplace, Done]) -> None:
    workplace, done = odd
    summary = workplace.run_json()["summary"]
    assert (summary["remarks"], summary["remarks_rare"]) == (COUNTS, 2)
    assert f"said next to answers: {LINE}: see them in the report" in f"{done.out}{done.err}"
    said = [row["remark"] for row in workplace.annotations() if row["image_id"] in ("r7", "r11")]
    assert said == [*ODD.values()]
    figures = command(["stats", str(workplace.results), "--no-pictures", "--json"]).summary
    assert (figures["remarks"], figures["remarks_rare"]) == (COUNTS, 2)


def test_a_usual_remark_of_a_small_run_is_never_rare(workplace: Workplace) -> None:
    done = run(workplace, {})
    assert f"said next to answers: {ROWS} records: {USUAL}" in f"{done.out}{done.err}".splitlines()
    assert workplace.run_json()["summary"]["remarks_rare"] == 0
    line = ["export", str(workplace.results), "--format", "datasets", "--strict"]
    exported = command([*line, "-o", str(workplace.folder / "out")])
    assert exported.code == 0, exported


def test_answers_without_words_leave_no_trace(workplace: Workplace) -> None:
    workplace.many(3)
    workplace.run()
    assert not {"remarks", "remarks_rare"} & set(workplace.run_json()["summary"])
    assert all("remark" not in record for record in workplace.annotations())


def test_remarks_of_shards_are_counted_together(
    workplace: Workplace,
) -> None:
    alike = dict.fromkeys(range(0, ROWS, 5), "The light is poor.")
    for number in (1, 2, 3):
        run(workplace, {**alike, 11: ODD[11]}, "--shard", f"{number}/3")
    shards = [json.loads(path.read_text()) for path in workplace.results.glob("shards/*/run.json")]
    assert len(shards) == 3
    assert sum(shard["summary"]["remarks_rare"] for shard in shards) > 1
    assert command(["merge", str(workplace.results), "--no-report"]).code == 0
    summary = workplace.run_json()["summary"]
    assert summary["remarks"] == {
        USUAL: ROWS - 7,
        "The light is poor": 6,
        "Both look much alike": 1,
    }
    assert summary["remarks_rare"] == 7


def test_the_report_counts_remarks_and_shows_their_words_escaped(
    odd: tuple[Workplace, Done],
) -> None:
    results = odd[0].results
    assert command(["report", str(results)]).code == 0
    page = (results / "report.html").read_text(encoding="utf-8")
    assert f"{LINE}." in page
    assert "<dt>unusual</dt><dd>2</dd>" in page
    data = "".join(path.read_text("utf-8") for path in results.glob("report_files/*/*.js"))
    assert "The model said with its answer: Both look much alike." in data
    assert "<b>dark" not in page + data


@pytest.mark.slow
def test_a_review_shows_rare_remarks_first(odd: tuple[Workplace, Done], tmp_path: Path) -> None:
    lines = []
    for number, record in enumerate(odd[0].annotations()):
        for expression in record["expressions"]:
            # what is said as usual is more doubtful by all else
            expression["disagreement"] = number not in ODD
        suspect = {} if number in ODD else {"suspect_boxes": True, "doubtful": True}
        # each of a picture of its own: the records of one are reviewed as one
        own = {"image_path": f"{number}.jpg", "image_id": str(number)}
        lines.append(dump_line({**record, **own, **suspect}))
    shutil.copytree(odd[0].results, tmp_path / "results")
    (tmp_path / "results" / "annotations.jsonl").write_text("".join(lines), encoding="utf-8")
    by_doubt = [item.record for item in most_doubtful(str(tmp_path / "results"))]
    rare = [record for record in by_doubt if record in ODD]
    assert rare
    assert by_doubt[: len(rare)] == rare
