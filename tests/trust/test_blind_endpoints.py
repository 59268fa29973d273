"""An endpoint that finds nothing in probe pictures, either: that it finds a thing nowhere doesn't say
that it is absent.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from dataflow_grounding import PhraseGrounder
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest, on
from dataflow_grounding.testing.answers import asks_for_rectangles
from tests.support import faults
from tests.support.endpoint import SELDOM
from tests.support.workplace import Workplace, command

X = "xyxy_1000"
ABSENT = ("ladder", "dog")  # heads of phrases that no picture shows
Answers = Callable[[ReceivedRequest], Any]


def answers(*, to_probes: Any = None, empty: bool = False) -> Answers:
    """Answers `to_probes` where given, else right; to other questions with nothing if `empty`, else
    with a box for each phrase but those of ABSENT things.
    """

    def answer(request: ReceivedRequest) -> Any:
        if asks_for_rectangles(request):
            return EchoAnswers(X)(request) if to_probes is None else to_probes
        reply = EchoAnswers(X)(request)
        if request.task == "phrase_grounding":
            found = [each for each in reply["objects"] if not each["label"].endswith(ABSENT)]
            reply = {"objects": [] if empty else found}
        return reply

    return answer


NOTHING = {"objects": []}
BLIND = answers(to_probes=NOTHING, empty=True)


def rows(place: Workplace, *phrases_of_rows: list[str]) -> None:
    """The results of step 0: phrases about pictures of their own."""
    lines = []
    for number, phrases in enumerate(phrases_of_rows):
        picture = place.folder / place.picture(f"{number}.jpg", (640, 480 + number))
        expressions = [{"text": text} for text in phrases]
        lines.append({"image_path": str(picture), "caption": "", "expressions": expressions})
    place.after_step_0(lines)


def statuses(place: Workplace) -> list[list[str]]:
    return [[each["status"] for each in row["expressions"]] for row in place.annotations()]


FOUR = (["a cup", "a spoon"], ["a plate"], ["a cup"], ["a knife", "a fork"])


def test_what_a_blind_endpoint_finds_nowhere_is_ambiguous(
    place: Workplace, server: LoopbackServer
) -> None:
    rows(place, *FOUR)
    server.answers = BLIND
    done = place.run()
    assert statuses(place) == [["ambiguous"] * len(phrases) for phrases in FOUR]
    assert done.code == 0, done
    [warning] = [line for line in done.err.splitlines() if "found none of the rec" in line]
    assert server.base_url in warning
    assert done.summary["notes"]["unseen_phrases"] == done.summary["ambiguous"] == 6
    assert done.summary["none"] == 0
    # A further row has the run made again: it asks for that row alone, and takes none of the
    # other replies for what they say.
    sent = server.count()
    rows(place, *FOUR, ["a lid"])
    place.run()
    assert statuses(place) == [["ambiguous"] * len(phrases) for phrases in (*FOUR, [0])]
    assert server.count() == sent + 2, "the row and a probe picture"
    path = place.folder / "coco.json"
    command(["export", str(place.results), "--format", "coco", "-o", str(path)])
    assert not path.exists() or not json.loads(path.read_text())["images"], "no background"


def test_classes_of_a_blind_endpoint_are_undecided(
    place: Workplace, server: LoopbackServer
) -> None:
    place.picture()
    place.rows([{"image_path": "a.jpg", "image_id": "one"}])
    server.answers = BLIND
    done = place.run(**{"data.classes": ["cup", "plate"]})
    counts = [(row["none"], row["undecided"]) for row in done.summary["classes"]]
    assert counts == [(0, 1), (0, 1)], done


BOXES_OF_NOTHING = {"objects": [{"label": "x", "bbox_2d": [1, 2, 3, 4]}]}


@pytest.mark.parametrize(
    ("to_probes", "of_the_dog"),
    [
        # It sees no rectangles, but other things: a reply with a box shows that it does.
        pytest.param(NOTHING, "ambiguous", id="nothing"),
        pytest.param("I see rectangles.", "none", id="talk"),
        pytest.param(BOXES_OF_NOTHING, "none", id="a box of no phrase"),
        pytest.param(None, "none", id="right"),
    ],
)
def test_absent_phrases_of_one_that_sees_pictures_stay_absent(
    place: Workplace, server: LoopbackServer, to_probes: Any, of_the_dog: str
) -> None:
    rows(place, ["a cup", "a ladder"], ["a dog"])
    server.answers = answers(to_probes=to_probes)
    done = place.run()
    assert (done.code, statuses(place)) == (0, [["grounded", "none"], [of_the_dog]]), done


def test_a_refused_probe_tells_nothing_of_what_is_absent(
    place: Workplace, server: LoopbackServer
) -> None:
    rows(place, ["a cup", "a ladder"], ["a dog"])
    server.answers = answers()
    server.faults = on(faults.content_filter(), where=asks_for_rectangles)
    done = place.run()
    assert (done.code, done.summary["failed"]) == (0, 0)
    assert done.summary["notes"]["unanswered_check"] == 1
    assert statuses(place) == [["grounded", "none"], ["none"]]


def test_rectangles_that_are_seen_in_one_kind_of_picture_are_enough(
    place: Workplace, server: LoopbackServer
) -> None:
    rows(place, ["a dog"], ["a dog"])
    place.picture("1.jpg", (480, 900))  # upright, where the other is wide

    def sees_wide_ones(request: ReceivedRequest) -> Any:
        [(width, height)] = request.image_sizes
        is_upright = asks_for_rectangles(request) and height > width
        return NOTHING if is_upright else answers()(request)

    server.answers = sees_wide_ones
    done = place.run()
    counts = {"left_out": 2, "probe_as_asked": 1, "unanswered_check": 1}
    assert done.summary["notes"] == counts, done
    assert statuses(place) == [["none"], ["none"]]


def test_a_later_good_check_vouches_for_what_was_absent(
    place: Workplace, server: LoopbackServer
) -> None:
    rows(place, *[["a dog"]] * 24)
    probes = Counter[str]()

    def sees_later(request: ReceivedRequest) -> Any:
        probes["count"] += asks_for_rectangles(request)
        is_early = asks_for_rectangles(request) and probes["count"] == 1
        return NOTHING if is_early else answers()(request)

    server.answers = sees_later
    done = place.run(**{"vlm.check_every": 22, "workflow.max_workers": 1})
    assert probes["count"] >= 2, done
    assert statuses(place) == [["none"]] * 24


def test_one_blind_endpoint_of_two_is_named(place: Workplace, server: LoopbackServer) -> None:
    rows(place, *[["a cup"]] * 26)
    server.answers = answers()
    with LoopbackServer(BLIND) as blind:
        both = [{"base_url": server.base_url}, {"base_url": blind.base_url}]
        settings = {"vlm.check_every": 22, "workflow.max_workers": 1}
        done = place.run(**settings, **{"vlm.openai.base_url": "", "vlm.openai.endpoints": both})
    assert done.summary["probes"] >= 4, "a check of both that comes after many replies"
    [warning] = [line for line in done.err.splitlines() if "found none of the rec" in line]
    assert blind.base_url in warning
    assert server.base_url not in warning
    counts = Counter(status for [status] in statuses(place))
    assert set(counts) == {"grounded", "ambiguous"}, done


def test_each_call_with_records_in_memory_tells_of_it(
    place: Workplace, capsys: pytest.CaptureFixture[str], server: LoopbackServer
) -> None:
    picture = str(place.folder / place.picture("photo.jpg", (640, 480)))
    server.answers = BLIND
    serving = OpenAIServing(server.base_url, "loopback", box_format=X)
    grounder = PhraseGrounder(serving, check_every=SELDOM)
    for phrase in ("a cup", "a plate"):  # the first call's check holds for the second, too
        record = grounder({"image_path": picture, "expressions": [phrase]})
        [expression] = record["expressions"]
        assert expression["status"] == "ambiguous"
        assert "found none of the rectangles" in expression["reason"]
        assert server.base_url in capsys.readouterr().err
    together = grounder([{"image_path": picture, "expressions": [each]} for each in "ab"])
    assert [row["expressions"][0]["status"] for row in together] == ["ambiguous"] * 2
