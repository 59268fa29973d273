"""`workflow.check` and `vlm.judge` in a run: from the spec to the report, the costs and the review."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dataflow_grounding.testing import LoopbackServer, ReceivedRequest, on
from tests.support import faults
from tests.support.half_filled import scenes
from tests.support.reviewing import most_doubtful
from tests.support.stand_ins.erring_model import ErringModel, Errors, about_probes
from tests.support.stand_ins.seeing_model import COLORS
from tests.support.workplace import Workplace, command

pytestmark = pytest.mark.slow  # each is one or several runs with a judge

CLASSES = [f"the {color} box" for color in sorted(COLORS)]
PICTURES = 4
ERRORS = Errors(absent=0.9, loose=0.2, accuracy=1.0)


class Model(ErringModel):
    """Errs as it is told to, in pixels."""

    def __init__(self, errors: Errors = ERRORS) -> None:
        super().__init__(errors, box_format="xyxy_px", seed=5)

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        if not request.images:  # whether the endpoint answers at all
            return {"ok": True}
        return super().__call__(request)


Asked = set[tuple[str, str]]


def asked(server: LoopbackServer) -> Asked:
    """The models that were asked, and for which tasks."""
    return {(request.model, request.task) for request in server.requests if request.images}


@pytest.fixture(scope="module")
def second() -> Iterator[LoopbackServer]:
    with LoopbackServer(keep_bodies=True) as running:
        yield running


@pytest.fixture
def judge(second: LoopbackServer) -> LoopbackServer:
    """Another endpoint."""
    second.answers, second.received = Model(), 0
    second.requests.clear()
    return second


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures with half of the colours in them, and an input that names them."""
    folder = tmp_path_factory.mktemp("drawn")
    records = scenes(folder, PICTURES, seed=5, shrink=2)
    Workplace(folder).rows({"image_path": record["image_path"]} for record in records)
    return folder


def place_in(drawn: Path, results: Path, server: LoopbackServer) -> Workplace:
    """All colours are looked for, and checked."""
    server.answers = Model()
    place = Workplace(drawn, server.base_url)
    place.settings |= {"data.classes": CLASSES, "vlm.check_every": 100, "workflow.check": True}
    place.results = results
    return place


@pytest.fixture
def place(drawn: Path, tmp_path: Path, server: LoopbackServer) -> Workplace:
    return place_in(drawn, tmp_path / "results", server)


def checked(place: Workplace, **settings: Any) -> None:
    done = place.run(**settings)
    assert done.code == 0, done


def told(place: Workplace, code: int = 0) -> str:
    """What a run tells people."""
    done = command(["generate", "-e", str(place.spec())])
    assert done.code == code, done
    return done.err


def repeat_rows(place: Workplace, count: int) -> None:
    """Give the run an input of `count` rows, which repeat its pictures."""
    lines = place.input.read_text("utf-8").splitlines()
    place.input = place.results.with_name("many.jsonl")
    place.rows(
        {**json.loads(lines[number % PICTURES]), "image_id": f"r{number}"}
        for number in range(count)
    )


def expressions(place: Workplace) -> list[dict[str, Any]]:
    return [row for record in place.annotations() for row in record["expressions"]]


def test_a_second_run_sends_nothing_and_writes_the_same(
    place: Workplace, server: LoopbackServer
) -> None:
    checked(place)
    assert (server.by_task["box_check"], server.by_task["missing_boxes"]) == (PICTURES, 0)
    before, sent = place.annotations(), server.count()
    for path in place.results.rglob("annotations.jsonl"):
        path.unlink()
    checked(place)
    assert (place.annotations(), server.count()) == (before, sent)


def test_the_report_says_why_a_box_was_dropped(place: Workplace) -> None:
    said = told(place)
    assert "verified" in said
    assert "not checked" not in said
    assert "the judge left" not in said
    dropped = [row for row in expressions(place) if row.get("rejected")]
    assert dropped
    for row in dropped:
        assert (row["status"], row["verified"], row["instances"]) == ("none", True, [])
        assert [box["reason"] for box in row["rejected"]] == ["on another thing; presence: no"]
    page = place.results / "page.html"
    done = command(["report", str(place.results), "-o", str(page), "--single-file"])
    assert done.code == 0, done
    assert "dropped: on another thing; presence: no" in page.read_text("utf-8")


def judged_at(judge: LoopbackServer, **more: Any) -> dict[str, Any]:
    """A spec's judge at this address, which is known to answer in pixels."""
    judges = {"base_url": judge.base_url, "model_name": "judge", "box_format": "xyxy_px"}
    return {"vlm.judge": {**judges, **more}}


class Apart(NamedTuple):
    """A run with a judge at another address than the model's, which wants a key."""

    place: Workplace
    of_model: Asked
    of_judge: list[ReceivedRequest]


@pytest.fixture(scope="module")
def apart(
    drawn: Path,
    tmp_path_factory: pytest.TempPathFactory,
    one_server: LoopbackServer,
    second: LoopbackServer,
) -> Apart:
    place = place_in(drawn, tmp_path_factory.mktemp("apart") / "results", one_server)
    repeat_rows(place, 2)
    second.answers, one_server.key = Model(), "sk-mine"
    for server in (one_server, second):
        server.requests.clear()
    place.settings |= judged_at(second, prices={"input": 100.0, "output": 100.0})
    place.settings |= {
        "vlm.prices": {"input": 1.0, "output": 1.0},
        "vlm.openai.api_key": "sk-mine",
        "vlm.openai.extra_headers": {"X-Token": "sk-header"},
        "vlm.openai.extra_body": {"top_k": 7, "more": {"api_key": "sk-body", "seed": 1}},
    }
    checked(place)
    return Apart(place, asked(one_server), [*second.requests])


def test_another_judge_is_asked_at_its_address(apart: Apart) -> None:
    assert {request.model for request in apart.of_judge if request.task} == {"judge"}
    assert {request.task for request in apart.of_judge} <= {"box_check", ""}
    assert {model for model, _ in apart.of_model} == {"loopback"}
    assert "box_check" not in {task for _, task in apart.of_model}


def test_another_judge_is_billed_apart(apart: Apart) -> None:
    bill = command(["cost", str(apart.place.results), "--json"]).summary
    for step in bill["steps"]:
        tokens = step["tokens"]["input"] + step["tokens"]["output"]
        price = 100.0 if step["step"].endswith("box_check") else 1.0
        assert step["cost_usd"] == pytest.approx(price * tokens / 1e6, rel=1e-3), step


def test_nothing_secret_goes_to_another_address_and_all_else_does(apart: Apart) -> None:
    for request in apart.of_judge:
        assert "sk-" not in f"{dict(request.headers)} {request.body}"
    bodies = [request.body for request in apart.of_judge if request.task]
    assert bodies
    for body in bodies:
        assert body is not None
        assert (body["top_k"], body["more"]) == (7, {"seed": 1})


@pytest.mark.parametrize(("denies_all", "runs"), [(True, 2), (False, 1)])
def test_a_judge_that_denies_all_boxes_is_told_of(
    place: Workplace, server: LoopbackServer, denies_all: bool, runs: int
) -> None:
    model = Model()

    def says(request: ReceivedRequest) -> Any:
        answer = model(request)
        if request.task == "box_check" and denies_all:
            for box in answer["boxes"]:
                box["verdict"] = "nothing"
            for phrase in answer["phrases"]:
                phrase.update(there=False, count=0)
        return answer

    repeat_rows(place, 10)
    server.answers = says
    for _ in range(runs):
        assert ("it may say no to anything" in told(place)) is denies_all


def test_a_judge_that_does_not_answer_is_asked_again_by_the_same_command(
    place: Workplace, server: LoopbackServer
) -> None:
    repeat_rows(place, 2)
    place.settings["workflow.max_attempts"] = 1
    server.faults = on(faults.server_error(), task="box_check")
    assert "the same command tries again what may pass" in told(place, code=1)
    server.faults = []
    told(place)
    assert any(row["verified"] for row in expressions(place))


def test_where_the_answers_differ_a_box_is_first_in_review(
    place: Workplace, server: LoopbackServer
) -> None:
    large = scenes(place.results.parent, PICTURES, seed=5)
    place.input = place.results.with_name("large.jsonl")
    place.rows({"image_path": record["image_path"]} for record in large)
    server.answers = Model(Errors(accuracy=0.9))
    checked(place)
    doubtful = {row["text"] for row in expressions(place) if row.get("doubtful")}
    assert 0 < len(doubtful) < len(CLASSES)
    assert most_doubtful(str(place.results))[0].text in doubtful


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"workflow.check": "slow"}, "workflow.check"),
        ({"vlm.judge": {"modelname": "x"}}, "vlm.judge"),
        (
            {
                "vlm.judge": {"backend": "openai", "base_url": "http://127.0.0.1:9/v1"},
                "vlm.backend": "embedded",
            },
            "set vlm.judge.model_name",
        ),
    ],
)
def test_what_a_spec_says_wrong_is_told(
    place: Workplace, settings: dict[str, Any], complaint: str
) -> None:
    done = command(["check", "-e", str(place.spec(**settings))])
    assert done.code != 0
    assert complaint in done.err + done.out


def test_zoom_stays_and_the_check_comes_last(place: Workplace) -> None:
    spec = place.spec(**{"workflow.zoom": True, "workflow.check": True})
    done = command(["estimate", "-e", str(spec), "--json"])
    assert done.code == 0, done
    steps = [step["step"].partition("_")[2] for step in done.summary["steps"]]
    assert steps[-3:] == ["box_refinement", "box_check", "missing_search"]


def test_a_judge_at_the_same_address_has_its_key(place: Workplace, server: LoopbackServer) -> None:
    repeat_rows(place, 2)
    server.key = "sk-mine"
    place.settings |= {"vlm.openai.api_key": "sk-mine", "vlm.judge": {"model_name": "judge"}}
    checked(place)
    assert ("judge", "box_check") in asked(server)
    assert ("loopback", "box_check") not in asked(server)


def test_a_budget_in_usd_wants_the_judges_prices_too(place: Workplace) -> None:
    place.settings |= {
        "vlm.prices": {"input": 1.0, "output": 1.0},
        "vlm.judge": {"model_name": "unheard-of"},
        "workflow.budget_usd": 1.0,
    }
    done = place.run()
    assert done.code == 2
    assert "unheard-of" in done.err
    assert "vlm.judge.prices" in done.err


def test_shards_ask_the_judge_too(
    place: Workplace, server: LoopbackServer, judge: LoopbackServer
) -> None:
    place.settings |= judged_at(judge)
    for number in (1, 2):
        done = place.run("--shard", f"{number}/2")
        assert done.code == 0, done
    done = command(["merge", str(place.results)])
    assert done.code == 0, done
    merged = place.run_json()["summary"]["classes"]
    sent = server.count() + judge.count()
    checked(place)
    assert server.count() + judge.count() == sent
    whole = place.run_json()["summary"]["classes"]
    for row, expected in zip(merged, whole, strict=True):
        assert row == {**expected, "mean_side": pytest.approx(expected["mean_side"], abs=0.1)}
    assert sum(not about_probes(request) for request in judge.requests) == PICTURES
    assert asked(judge) == {("judge", "box_check")}
    assert all(row["verification"]["there"] is not None for row in expressions(place))


OWN_JUDGE = """
from dataflow_grounding.serving import OpenAIServing
class Judge(OpenAIServing):
    def __init__(self, base_url):
        super().__init__(base_url, "of another backend", box_format="xyxy_px")
"""


def test_a_judge_of_another_backend_is_asked(place: Workplace, judge: LoopbackServer) -> None:
    repeat_rows(place, 2)
    (place.folder / "own_judge.py").write_text(OWN_JUDGE)
    check = {"backend": "own_judge:Judge", "base_url": judge.base_url}
    checked(place, **{"vlm.judge": check})
    assert asked(judge) == {("of another backend", "box_check")}


def test_a_run_that_stops_amid_the_check_goes_on_and_pays_for_nothing_twice(
    place: Workplace, judge: LoopbackServer
) -> None:
    place.settings |= {**judged_at(judge), "vlm.check_every": None}
    place.settings["workflow.max_requests"] = PICTURES + 2
    assert place.run().code == 3
    assert 0 < judge.count() < PICTURES
    place.settings["workflow.max_requests"] = None
    checked(place)
    assert judge.count() == PICTURES
    assert all(row["verification"]["there"] is not None for row in expressions(place))


def test_a_judge_whose_answers_differ_is_told_of(place: Workplace, server: LoopbackServer) -> None:
    model = Model()

    def says(request: ReceivedRequest) -> Any:
        answer = model(request)
        if request.task == "box_check" and not about_probes(request):
            for box in answer["boxes"]:
                box["verdict"] = "other" if box["verdict"] == "right" else "right"
        return answer

    server.answers = says
    said = told(place)
    rows = expressions(place)
    undecided = [row for row in rows if row["verified"] is None]
    assert len(undecided) > len(rows) / 2
    assert not any(row.get("rejected") for row in rows)
    assert f"{len(undecided)} undecided" in said
    assert f"Warning: the judge left {len(undecided)} of {len(rows)} undecided" in said
