"""Checks of the endpoint in a run: a format that is wrong, or becomes wrong, stops it, and no reply
of it is taken for good.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dataflow_grounding import PhraseGrounder, RecordedServing, RegionMarker, ground
from dataflow_grounding._util.errors import SpecError, SuspectBoxes
from dataflow_grounding.serving import OpenAIServing, Serving
from dataflow_grounding.testing import (
    EchoAnswers,
    LoopbackServer,
    ReceivedRequest,
)
from dataflow_grounding.testing.answers import asks_for_rectangles
from tests.support.endpoint import SELDOM, calibrate, endpoint_of, seldom_checked, with_settings
from tests.support.stand_ins.watched_model import SQUARES, Scene, watched
from tests.support.waiting import wait_until
from tests.support.workplace import HANGING, Done, Workplace, caption, command

X, Y = "xyxy_1000", "yxyx_1000"
Chosen = Callable[[int], str]


def is_asked_again(request: ReceivedRequest) -> bool:
    return "An earlier reply could not be read" in request.text


class Switching:
    """Answers as EchoAnswers do, in the format that `chosen` names, or names for the n-th answer
    with boxes.

    Neither probe pictures count nor what is asked again: made-up boxes look odd now and then.
    """

    def __init__(self) -> None:
        self.chosen: Chosen | str = X
        self.boxes = self.probes = self.again = 0

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        chosen = self.chosen if isinstance(self.chosen, str) else self.chosen(self.boxes)
        if asks_for_rectangles(request):
            self.probes += 1
        elif is_asked_again(request):
            self.again += 1
        elif request.task == "phrase_grounding":
            self.boxes += 1
        return EchoAnswers(chosen)(request)


@pytest.fixture
def model(server: LoopbackServer) -> Switching:
    """Who answers."""
    switching = Switching()
    server.answers = switching
    return switching


@pytest.fixture
def place(place: Workplace) -> Workplace:
    place.settings["workflow.max_workers"] = 4
    return place


class Ran(NamedTuple):
    """A run in which the format is right all along, the requests that it sent, and the boxes."""

    place: Workplace
    done: Done
    requests: list[ReceivedRequest]
    boxes: list[Any]


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory, one_server: LoopbackServer) -> Ran:
    place = seldom_checked(tmp_path_factory.mktemp("right"), one_server)
    place.many(36)
    with_settings(one_server, Switching())
    done = place.run()
    return Ran(place, done, [*one_server.requests], boxes_of(place.annotations()))


@pytest.fixture
def finished(right: Ran, tmp_path: Path) -> Workplace:
    """The pictures of that run, and a copy of its results."""
    place = Workplace(right.place.folder, **right.place.settings)
    place.results = tmp_path / "results"
    shutil.copytree(right.place.results, place.results)
    return place


def boxes_of(records: list[dict[str, Any]]) -> list[Any]:
    return [[e["instances"] for e in record["expressions"]] for record in records]


# --- wrong from the start


@pytest.mark.parametrize(
    ("asked", "written", "stream"), [(X, Y, True), ("xyxy_px", "xywh_px", False)]
)
def test_a_run_in_another_format_asks_for_one_box(
    place: Workplace, asked: str, written: str, stream: bool, model: Switching
) -> None:
    place.many(6)
    model.chosen = written
    done = place.run(**{"vlm.box_format": asked, "workflow.stream": stream})
    # one misses, and three more copies of the same picture confirm it
    assert (done.code, model.boxes, model.probes) == (2, 1, 4), done
    [line] = done.err.splitlines()
    assert f"don't look like {asked}" in line
    assert f"{written} would fit: check vlm.box_format" in line
    assert "The reply since the last good check is set aside" in line
    assert f"{written} would fit" in (place.run_json()["suspect_boxes"] or "")
    assert place.files().step_1 is None
    assert (place.files().step_0 is None) is stream, "a step that was finished before stays"
    assert not (place.results / "annotations.jsonl").exists()


def test_in_its_own_format_it_runs_and_sends_a_request_at_its_beginning_and_end(right: Ran) -> None:
    done = right.done
    assert (done.code, done.err) == (0, ""), done
    assert right.place.run_json()["suspect_boxes"] is None
    again = sum(map(is_asked_again, right.requests))
    assert (done.summary["requests"], done.summary["probes"]) == (len(right.requests), 2)
    assert len(right.requests) == 36 + 36 + again + 2


def test_the_first_check_comes_before_the_second_request_for_boxes(right: Ran) -> None:
    first = [r for r in right.requests if r.task == "phrase_grounding"][:2]
    assert any(map(asks_for_rectangles, first))


def test_a_script_is_checked_once_for_all_its_calls(
    place: Workplace, server: LoopbackServer, model: Switching
) -> None:
    picture = str(place.folder / place.picture())
    serving = OpenAIServing(server.base_url, "loopback", box_format=X)
    grounder = PhraseGrounder(serving, check_every=SELDOM)
    for n in range(6):
        grounder({"image_path": picture, "expressions": [f"a mug {n}"]})
    # a made-up box looks odd now and then, also when it is asked for again
    assert (model.boxes, model.probes <= 2) == (6, True)
    ground(picture, "a cup", serving=serving)
    assert model.probes <= 3, "and perhaps one at its random place"
    model.chosen = Y
    with pytest.raises(SuspectBoxes, match=f"{Y} would fit"):
        PhraseGrounder(serving, check_every=5)(
            [{"image_path": picture, "expressions": [f"a dog {n}"]} for n in range(6)]
        )
    with pytest.raises(SuspectBoxes):
        ground(picture, "a cat", serving=serving)


def test_a_script_that_is_stopped_sends_no_more(
    place: Workplace, server: LoopbackServer, model: Switching
) -> None:
    picture = str(place.folder / place.picture())
    rows = [{"image_path": picture, "expressions": [f"a mug {n}"]} for n in range(120)]
    model.chosen = lambda n: X if n < 12 else Y
    server.latency = 0.02
    serving = OpenAIServing(server.base_url, "loopback", box_format=X, max_workers=8)
    with pytest.raises(SuspectBoxes):
        PhraseGrounder(serving, check_every=5)(rows)
    sent = server.count()
    time.sleep(0.1)
    assert server.count() == sent
    assert model.boxes < 120


def test_boxes_that_a_model_proposes_are_checked_too(
    place: Workplace, server: LoopbackServer, model: Switching
) -> None:
    rows = [
        {"image": str(place.folder / place.picture(f"{color}.jpg", (320, 200), color=color))}
        for color in ("red", "green", "blue", "gray")
    ]
    serving = OpenAIServing(server.base_url, "loopback", box_format=X)
    marked = RegionMarker(place.folder / "marked", serving=serving, check_every=SELDOM)(rows)
    assert (len(marked), model.boxes, model.probes) == (4, 4, 1)
    model.chosen = Y
    with pytest.raises(SuspectBoxes, match=f"{Y} would fit"):
        RegionMarker(place.folder / "other", serving=serving, check_every=2)(rows)
    opencv = RegionMarker(place.folder / "opencv", serving=serving, proposals="opencv")
    asked = server.count()
    opencv(rows)
    assert server.count() == asked


def test_elongated_pictures_that_call_for_a_probe_of_their_own_spare_no_check(
    place: Workplace, server: LoopbackServer, model: Switching
) -> None:
    place.rows(
        {"image_path": place.picture("a.jpg", (800, 200)), "caption": caption(n)} for n in range(4)
    )
    model.chosen = Y
    done = place.run(
        **{"vlm.box_format": "auto", "vlm.openai.model_name": "qwen3-vl-8b-instruct"},
    )
    grounded = [
        r for r in server.requests if r.task == "phrase_grounding" and not asks_for_rectangles(r)
    ]
    assert (done.code, len(grounded)) == (2, 1), done
    assert f"{Y} would fit" in done.err


def test_the_ground_command_takes_the_specs_settings(
    place: Workplace, server: LoopbackServer, model: Switching
) -> None:
    picture = str(place.folder / place.picture())
    model.chosen = Y
    spec = place.spec(**{"vlm.openai.base_url": server.base_url})
    stopped = command(["ground", picture, "a mug", "-e", str(spec)])
    assert (stopped.code, model.boxes, f"{Y} would fit" in stopped.err) == (2, 1, True), stopped
    spec = place.spec(**{"vlm.openai.base_url": server.base_url, "vlm.on_suspect_boxes": "warn"})
    warned = command(["ground", picture, "a mug", "-e", str(spec)])
    assert (warned.code, model.boxes, "Warning" in warned.err) == (0, 1, True), warned


# --- wrong from some answer on


def test_a_format_that_changes_stops_the_run_and_what_came_since_is_asked_again(
    place: Workplace, right: Ran, server: LoopbackServer, model: Switching
) -> None:
    place.many(36)
    model.chosen = lambda n: X if n < 16 else Y

    def latency(request: ReceivedRequest) -> float:
        """Checks are quick, so that they end within their stretch, also on a busy machine."""
        is_right = model.chosen == X or model.boxes < 16
        return 0.0 if asks_for_rectangles(request) or is_right else 0.2

    server.latency = latency
    settings = {"vlm.check_every": 8, "workflow.max_workers": 2}
    done = place.run(**settings)
    assert done.code == 2, done
    # a probe picture may be the first that is answered otherwise
    assert 16 <= model.boxes < 36
    assert f"{Y} would fit" in done.err
    assert "since the last good check are set aside: the next run asks for them again" in done.err
    assert place.files().step_1 is None
    bought = model.boxes
    again = place.run(**settings)
    assert again.code == 2
    assert model.boxes <= bought + 1, "and one reply at most is bought while it is wrong"
    bought = model.boxes
    model.chosen = X
    mended = place.run(**settings)
    assert mended.code == 0, mended
    # the second stretch of 8 has a check at the latest, while some replies are on their way, and
    # some were asked again
    assert 36 - 16 <= model.boxes - bought <= 36 - 4, (
        "what was there when a good check began is not asked again"
    )
    assert boxes_of(place.annotations()) == right.boxes


def test_a_run_that_is_killed_leaves_its_last_replies_to_be_checked(
    place: Workplace, right: Ran, server: LoopbackServer, model: Switching
) -> None:
    place.many(24)
    model.chosen = lambda n: X if n < 10 else Y
    # what comes then is under way at the kill, however long that takes to come
    server.latency = lambda _: HANGING * (model.boxes >= 11)
    running = place.start()
    wait_until(lambda: model.boxes >= 11)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    server.latency, bought = 0.0, model.boxes
    done = place.run()
    assert (done.code, model.boxes) == (2, bought), done
    assert "are set aside" in done.err
    model.chosen = X
    assert place.run().code == 0
    # all but perhaps the first came after the last good check, which was the first
    assert model.boxes - bought in (23, 24)
    assert boxes_of(place.annotations()) == right.boxes[:24]


def test_replies_that_one_address_left_unchecked_count_once_a_check_passes_at_another(
    place: Workplace, right: Ran, model: Switching
) -> None:
    """The address isn't a part of the group: a server at another port isn't paid again."""
    place.many(30)
    stopped = place.run(**{"workflow.max_requests": 40})
    assert stopped.code == 3, stopped
    had = model.boxes
    with endpoint_of(place, other := Switching()):
        done = place.run()
        assert done.code == 0, done
        assert other.probes >= 1
        assert had + other.boxes in (30, 31)
        assert place.run().summary["already_complete"]
    assert boxes_of(place.annotations()) == right.boxes[:30]


def test_a_killed_run_with_all_its_replies_is_checked_before_they_are_used(
    finished: Workplace, model: Switching
) -> None:
    store = finished.replies
    lines = store.read_text().splitlines(keepends=True)
    # without what any check has said but the first
    is_mark = ["mark" in json.loads(line) for line in lines]
    first = is_mark.index(True)
    assert is_mark.count(True) >= 2
    kept = [line for n, line in enumerate(lines) if n <= first or not is_mark[n]]
    store.write_text("".join(kept))
    (finished.results / ".ckpt" / "facts.json").unlink()
    model.chosen = Y
    assert finished.run().code == 2
    assert model.boxes == 0
    model.chosen = X
    assert finished.run().code == 0
    assert model.boxes in (35, 36), "the first check vouches at most for the first reply"


def test_after_a_stop_a_run_that_may_go_on_warns_and_its_replies_are_no_good_to_one_that_may_not(
    place: Workplace, right: Ran, server: LoopbackServer, model: Switching
) -> None:
    place.many(20)
    place.settings["vlm.check_every"] = 6
    model.chosen = lambda n: X if n < 8 else Y
    # on a busy machine all of its requests may be under way by then
    assert place.run().code == 2
    warned = place.run(**{"vlm.on_suspect_boxes": "warn"})
    assert warned.code == 0, warned
    assert warned.err.count("Warning") == 1
    assert warned.err.count(f"Warning: the boxes don't look like {X}") == 1
    assert model.boxes == 20, "what was set aside is taken"
    assert len(place.annotations()) == 20
    assert f"{Y} would fit" in (place.run_json()["suspect_boxes"] or "")
    sent = server.count()
    assert place.run(**{"vlm.on_suspect_boxes": "warn"}).code == 0
    assert server.count() == sent, "the same run again sends nothing"
    model.chosen = X
    strict = place.run()
    assert strict.code == 0, strict
    assert 20 - 8 <= model.boxes - 20 <= 20
    assert boxes_of(place.annotations()) == right.boxes[:20]


def test_a_run_that_may_go_on_marks_the_records_whose_boxes_are_suspect_and_no_others(
    place: Workplace, model: Switching
) -> None:
    place.many(24)
    gone = {"image_path": "gone.jpg", "caption": "A row that fails has no place in the file."}
    place.rows([gone, *place.input.read_text().splitlines()])
    one_by_one = {"vlm.on_suspect_boxes": "warn", "vlm.check_every": 5, "workflow.max_workers": 1}
    model.chosen = lambda n: X if n < 12 else Y
    done = place.run(**one_by_one)
    assert (done.code, done.summary["done"]) == (1, 24), done
    first = [record.get("suspect_boxes", False) for record in place.annotations()]
    assert not any(first[:3]), "a check has vouched for these"
    assert all(first[12:]), "also for those that were finished before a check missed"
    counts = place.run_json()["summary"]["notes"]
    assert counts["suspect_boxes"] == sum(first)
    # not a finished run's repetition
    again = place.run(**one_by_one, **{"workflow.max_attempts": 4})
    assert again.code == 1, again
    assert [record.get("suspect_boxes", False) for record in place.annotations()] == first


def test_after_a_miss_in_memory_further_calls_are_marked_and_not_checked(
    place: Workplace, server: LoopbackServer, model: Switching
) -> None:
    place.picture()
    row = {"image_path": str(place.folder / "a.jpg"), "expressions": ["mug"]}
    model.chosen = Y
    serving = OpenAIServing(server.base_url, "missed in memory", box_format=X, max_workers=1)
    grounder = PhraseGrounder(serving, on_suspect_boxes="warn")
    marked = [grounder(row).get("suspect_boxes") for _ in range(3)]
    assert (marked, model.boxes) == ([True] * 3, 3)
    assert model.probes <= 4, "a miss and three further copies of it"
    with pytest.raises(SuspectBoxes):
        PhraseGrounder(serving)(row)


# --- what it costs


@pytest.mark.parametrize(
    ("records", "every", "probes"),
    [
        pytest.param(21, SELDOM, 2, id="twenty and more: one at the end"),
        pytest.param(21, 6, 5, id="one every so many"),
        pytest.param(9, None, 0, id="none"),
    ],
)
def test_checks_are_counted_in_requests_cost_and_estimate(
    place: Workplace,
    records: int,
    every: int | None,
    probes: int,
    model: Switching,
    server: LoopbackServer,
) -> None:
    place.many(records)
    place.settings |= {"vlm.check_every": every, "vlm.prices": {"input": 1.0, "output": 1.0}}
    told = command(["estimate", "-e", str(place.spec()), "--json"]).summary
    done = place.run()
    assert (done.code, model.boxes) == (0, records), done
    assert told["requests"] == 2 * records + probes
    # in the last stretch, and at the end, may be one or none
    assert probes - (every == 6) <= model.probes <= probes + (every == 6)
    assert done.summary["probes"] == model.probes
    sent = 2 * records + model.probes + model.again
    assert done.summary["requests"] == server.count() == sent
    paid = command(["cost", str(place.results), "--json"]).summary
    assert paid["requests"] == server.count()
    assert paid["steps"][1]["checks"]["requests"] == model.probes
    assert paid["cost_usd"] == pytest.approx(done.summary["cost_usd"])


def test_a_run_that_sends_nothing_sends_no_check(
    finished: Workplace, server: LoopbackServer, model: Switching
) -> None:
    before = finished.files()
    assert finished.run().summary["already_complete"]
    for path in finished.results.rglob("*"):
        if path.is_file() and path.name != "replies.jsonl":
            path.unlink()
    model.chosen = Y
    assert finished.run().code == 0
    assert server.count() == 0
    assert finished.files() == before


def test_a_store_from_before_there_were_checks_is_checked_before_it_is_used(
    place: Workplace, server: LoopbackServer, model: Switching
) -> None:
    place.many(8)
    assert place.run(**{"vlm.check_every": None}).code == 0
    (place.results / ".ckpt" / "facts.json").unlink()
    sent = server.count()
    assert place.run().code == 0
    assert server.count() == sent + 1
    place.many(9)
    assert place.run().code == 0
    assert (model.boxes, model.probes) == (9, 2)


# --- what is no evidence


def nothing_on_probes(request: ReceivedRequest) -> Any:
    return {"objects": []} if asks_for_rectangles(request) else EchoAnswers(X)(request)


def test_a_model_that_finds_no_rectangle_is_noted_and_ends_no_run(
    place: Workplace, server: LoopbackServer
) -> None:
    place.many(14)
    server.answers = nothing_on_probes
    done = place.run(**{"vlm.check_every": 5})
    assert done.code == 0, done
    probes = done.summary["probes"]
    assert done.summary["notes"]["unanswered_check"] == probes
    assert 3 <= probes <= 4, "one at the beginning, and one in each stretch of five"
    assert server.count() == 28 + probes
    told = command(["generate", "-e", str(place.folder / "spec.yaml"), "--no-report"])
    warning = f"Warning: {probes} checks of the box format not answered, which vouches for no box"
    assert told.err.count(warning) == 1
    assert "docs/" not in told.err  # which whoever has installed the package lacks
    assert place.run_json()["suspect_boxes"] is None


def test_what_the_message_says_helps_a_model_whose_name_says_something_else(
    place: Workplace, server: LoopbackServer, model: Switching
) -> None:
    place.many(4)
    model.chosen = "xyxy_1000@pad_square"
    named = {"vlm.openai.model_name": "qwen3-vl-8b-instruct", "vlm.box_format": "auto"}
    stopped = place.run(**named)
    assert (stopped.code, "then set vlm.box_format: calibrated" in stopped.err) == (2, True), (
        stopped
    )
    calibrate(server, "qwen3-vl-8b-instruct")
    assert place.run(**named).code == 2, "its name still goes first"
    assert place.run(**{**named, "vlm.box_format": "calibrated"}).code == 0


# --- who is not checked


def test_recorded_replies_are_not_checked(
    place: Workplace, server: LoopbackServer, model: Switching
) -> None:
    picture, recording = str(place.folder / place.picture()), place.folder / "replies.jsonl"
    row = {"image_path": picture, "expressions": ["a mug"]}
    recorded = RecordedServing(recording, OpenAIServing(server.base_url, "loopback", box_format=X))
    first = PhraseGrounder(recorded)(row)
    assert (model.boxes, model.probes) == (1, 1)
    assert PhraseGrounder(RecordedServing(recording))(row) == first


class Fixed(Serving):
    """Knows nothing but one box."""

    model = "fixed"
    box_format = X

    def __init__(self, **settings: Any) -> None:
        vars(self).update(settings)
        self.asked: list[str] = []

    async def answer(self, request: Any) -> str:
        self.asked += [phrase["text"] for phrase in request.input["phrases"]]
        return json.dumps({"objects": [{"id": 1, "label": "a mug", "bbox_2d": [10, 10, 40, 40]}]})


@pytest.mark.parametrize(
    "how", [{"takes_probes": False}, {"exact_boxes": True}, {"box_format": "kosmos-2"}]
)
def test_servings_and_formats_that_can_not_be_checked(
    place: Workplace, how: dict[str, Any]
) -> None:
    picture = str(place.folder / place.picture())
    serving = Fixed(**how)
    rows = [{"image_path": picture, "expressions": [f"mug {n}"]} for n in range(3)]
    PhraseGrounder(serving)(rows, on_error="keep")  # the box is none of Kosmos-2's grid cells
    assert set(serving.asked) == {"mug 0", "mug 1", "mug 2"}


def test_check_every_is_a_number_above_zero(place: Workplace) -> None:
    with pytest.raises(SpecError, match="check_every"):
        PhraseGrounder(Fixed(), check_every=0)
    place.many(1)
    assert "check_every" in place.run(**{"vlm.check_every": 0}).err


# --- whole runs


def test_what_shows_nowhere_is_found_by_the_next_check_at_the_latest(
    place: Workplace, server: LoopbackServer
) -> None:
    scene = Scene(things=SQUARES, level=False, sizes=((640, 640),))
    watched(place, server, lambda n, _: X if n < 15 else Y, scene, noise=0.01, outliers=0.05)
    done = place.run()
    assert (done.code, place.annotations()) == (2, []), "at the end, before anything is written"
