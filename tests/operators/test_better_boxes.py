"""Samples and zoom, against a loopback model that looks at the pictures that it is
sent.
"""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import (
    BoxRefiner,
    Merger,
    Operator,
    PhraseGrounder,
)
from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.boxes.geometry import box_of
from dataflow_grounding.boxes.matching import match_boxes
from dataflow_grounding.data.expressions import Instance
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.operators._agreement import merge_answers
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.tasks import Found
from dataflow_grounding.testing import Answer, EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import probe_in
from tests.support.endpoint import serving_of
from tests.support.stand_ins.seeing_model import COLORS, SeeingModel, draw, look, picture_in
from tests.support.workplace import Workplace

SIZE = (1200, 900)
BIG = [100, 120, 480, 600]
TINY = [911, 333, 929, 351]
BLUE = "the blue box"


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("drawn") / "photo.png")
    draw(path, SIZE, {"red": [tuple(BIG)], "blue": [tuple(TINY)]})  # type: ignore[list-item]
    return path


def ground(
    server: LoopbackServer,
    photo: str,
    *phrases: str,
    then: tuple[type[Operator], ...] = (),
    samples: int = 1,
    box_format: str = "xyxy_1000",
) -> list[dict[str, Any]]:
    serving = serving_of(server, box_format)
    record = {"image_path": photo, "expressions": list(phrases)}
    record = PhraseGrounder(serving, check_every=None, samples=samples)(record)
    for step in then:
        record = step(serving, check_every=None)(record)
    expressions = record["expressions"]
    assert isinstance(expressions, list)
    return expressions


def refined(
    server: LoopbackServer,
    photo: str,
    *boxes: Any,
    box_format: str = "xyxy_1000",
    **settings: Any,
) -> list[dict[str, Any]]:
    """The boxes of the blue box after a look from closer by at these."""
    expression = {"expression_id": "a", "text": BLUE, "instances": [*boxes], "status": "grounded"}
    refiner = BoxRefiner(serving_of(server, box_format), check_every=None, **settings)
    [expression] = refiner({"image_path": photo, "expressions": [expression]})["expressions"]
    instances = expression["instances"]
    assert isinstance(instances, list)
    return instances


def found(boxes: list[list[int]]) -> Found:
    instances = [Instance(box_of(bbox), 0.9) for bbox in boxes]
    return Found("grounded" if boxes else "none", instances)


A, A2, A3, B = [10, 10, 50, 50], [12, 10, 52, 50], [14, 14, 54, 50], [200, 200, 260, 240]
C, MEDIAN = [400, 400, 440, 440], [12, 10, 52, 50]
# the boxes of each answer → boxes and scores, status, whether they disagree
MERGED: dict[str, tuple[list[Any], list[tuple[list[int], float]], str, bool]] = {
    "all agree": ([[A], [A], [A]], [(A, 1.0)], "grounded", False),
    "the median of each edge": ([[A], [A2], [A3]], [(MEDIAN, 1.0)], "grounded", False),
    "one of three sees nothing": ([[A], [], [A]], [(A, 0.6667)], "grounded", True),
    "a box of one answer alone goes": ([[A, B], [A], [A]], [(A, 1.0)], "grounded", True),
    "two things": ([[A, B], [B, A], [B, A2]], [(A, 1.0), (B, 1.0)], "grounded", False),
    "half is enough": ([[A], []], [(A, 0.5)], "grounded", True),
    "all see nothing": ([[], [], []], [], "none", False),
    "most see nothing": ([[A], [], []], [], "none", True),
    "all see different things": ([[A], [B], [C]], [], "ambiguous", True),
    "no second vote of one close by": ([[A], [A, A2]], [(A, 1.0), (A2, 0.5)], "grounded", True),
    "one answer's stay apart": ([[A, A2], [A, A2]], [(A, 1.0), (A2, 1.0)], "grounded", False),
}


@pytest.mark.parametrize(("said", "boxes", "status", "disagree"), MERGED.values(), ids=MERGED)
def test_answers_are_merged(
    said: list[Any], boxes: list[tuple[list[int], float]], status: str, disagree: bool
) -> None:
    result = merge_answers([found(answer) for answer in said], len(said))
    assert [(list(i.bbox), i.score) for i in result.instances] == boxes
    assert (result.status, result.disagreement) == (status, disagree)


@pytest.mark.parametrize(("unreadable", "kept"), [(1, True), (2, False)])
def test_up_to_half_of_the_answers_may_be_unreadable(
    server: LoopbackServer, photo: str, unreadable: int, kept: bool
) -> None:
    seeing, count = SeeingModel(), itertools.count()

    def answers(request: ReceivedRequest) -> Answer | dict[str, Any]:
        # The first answers come to nothing, however often they are asked for again.
        return Answer("no idea") if next(count) < unreadable else seeing(request)

    server.answers = answers
    with holding(current_options, RunOptions(max_attempts=1)):
        if kept:
            [one] = ground(server, photo, "the red box", samples=3)
            assert (one["instances"][0]["score"], one["disagreement"]) == (0.6667, True)
        else:
            with pytest.raises(UnreadableReply):
                ground(server, photo, "the red box", samples=3)


def in_px(*boxes: list[int], size: tuple[int, int] = SIZE) -> dict[str, Any]:
    scaled = [[round(1000 * edge / size[n % 2]) for n, edge in enumerate(bbox)] for bbox in boxes]
    return blue_at(*scaled)


def blue_at(*boxes: list[int]) -> dict[str, Any]:
    return {"objects": [{"id": 1, "label": BLUE, "bbox_2d": bbox} for bbox in boxes]}


def test_small_boxes_that_differ_by_a_models_noise_are_one(
    server: LoopbackServer, photo: str
) -> None:
    shifts = iter([(0, 0), (20, 0), (10, 13)])

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        x, y = next(shifts)
        return in_px([600 + x, 300 + y, 615 + x, 315 + y])

    server.answers = answers
    [one] = ground(server, photo, BLUE, samples=3)
    [instance] = one["instances"]
    assert (instance["score"], one["disagreement"]) == (1.0, False)
    assert instance["bbox"] == pytest.approx([610, 300, 625, 315], abs=1)


def test_small_things_side_by_side_stay_apart(server: LoopbackServer, tmp_path: Path) -> None:
    wanted = [(500 + 34 * n, 300, 516 + 34 * n, 316) for n in range(4)]
    path, chance = str(tmp_path / "row.png"), random.Random(0)
    draw(path, SIZE, {color: [bbox] for color, bbox in zip(COLORS, wanted, strict=False)})

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        # Whatever its colour, each is a box of the one phrase.
        size, seen = look(picture_in(request))
        noisy = [
            [round(edge + chance.gauss(0, 0.005) * max(size)) for edge in bbox]
            for [bbox] in seen.values()
        ]
        return in_px(*chance.sample(noisy, len(noisy)), size=size)

    server.answers = answers
    serving = serving_of(server)
    record = PhraseGrounder(serving, samples=3)({"image_path": path, "expressions": [BLUE]})
    record = BoxRefiner(serving, samples=3)(record)
    boxes = [tuple(instance["bbox"]) for instance in record["expressions"][0]["instances"]]
    assert len(boxes) == len(match_boxes(boxes, wanted)) == len(wanted)


CLOSER: dict[str, tuple[list[str], int]] = {
    "the first two agree": (["found", "found"], 2),
    "what finds nothing has no vote": (["nothing", "found", "nothing"], 3),
    "one that can't be read has none": (["unreadable", "found", "found"], 3),
    "none finds it": (["nothing", "nothing"], 2),
}


@pytest.mark.parametrize(("replies", "asked"), CLOSER.values(), ids=CLOSER)
def test_from_closer_by_the_last_answer_is_asked_for_where_it_counts(
    server: LoopbackServer, photo: str, replies: list[str], asked: int
) -> None:
    coming, seeing = iter(replies), SeeingModel()
    others: dict[str, Any] = {"unreadable": Answer("no idea"), "nothing": {"objects": []}}

    def answers(request: ReceivedRequest) -> Answer | dict[str, Any]:
        return others.get(next(coming)) or seeing(request)

    server.answers = answers
    given = {"bbox": [905, 330, 930, 350], "score": None}
    with holding(current_options, RunOptions(max_attempts=1)):
        [instance] = refined(server, photo, given, samples=3)
    assert server.count() == asked
    assert instance["bbox"] == (TINY if "found" in replies else given["bbox"])


@pytest.mark.parametrize("box_format", ["yxyx_1000", "xyxy_px@smart_resize_28"])
def test_a_small_box_is_looked_for_again_and_mapped_back_exactly(
    server: LoopbackServer, photo: str, box_format: str
) -> None:
    server.answers = SeeingModel(box_format)
    phrases = ("the red box", BLUE)
    expressions = ground(server, photo, *phrases, then=(BoxRefiner,), box_format=box_format)
    first, second = server.requests
    assert first.image_sizes == (SIZE,)
    [(width, height)] = second.image_sizes
    assert (width, height) == (second.input["image"]["width"], second.input["image"]["height"])
    assert 700 <= width <= 1024
    assert [phrase["text"] for phrase in second.input["phrases"]] == [BLUE]
    red, blue = (expression["instances"][0] for expression in expressions)
    assert red.get("zoomed") is None
    assert (blue["zoomed"], blue["bbox"]) == (True, TINY)


@pytest.mark.parametrize("corner", [(0, 0), (1185, 888)])
def test_boxes_at_the_edge_of_the_image(
    server: LoopbackServer, tmp_path: Path, corner: tuple[int, int]
) -> None:
    x, y = corner
    bbox = (x, y, x + 15, y + 12)
    path = str(tmp_path / "corner.png")
    draw(path, SIZE, {"green": [bbox]})
    server.answers = SeeingModel()
    [one] = ground(server, path, "the green box", then=(BoxRefiner,))
    assert server.count() == 2
    assert one["instances"][0]["bbox"] == list(bbox)


def test_what_the_crop_does_not_show_stays(server: LoopbackServer, photo: str) -> None:
    seeing = SeeingModel()
    nothing: dict[str, Any] = {"objects": []}
    server.answers = lambda request: seeing(request) if request.image_sizes == (SIZE,) else nothing
    [one] = ground(server, photo, BLUE, then=(BoxRefiner,))
    assert (one["instances"][0]["bbox"], one["instances"][0]["score"]) == (TINY, None)
    assert "zoomed" not in one["instances"][0]
    assert "disagreement" not in one


@pytest.mark.parametrize(("shift", "is_kept"), [(0, True), (3, False)])
def test_an_outline_goes_with_the_box_that_it_was_of(
    server: LoopbackServer, photo: str, shift: int, is_kept: bool
) -> None:
    x1, y1, x2, y2 = (edge + shift for edge in TINY)
    given = {"bbox": [x1, y1, x2, y2], "outline": [x1, y1, x2, y1, x1, y2]}
    server.answers = SeeingModel("xyxy_px")
    [instance] = refined(server, photo, given, box_format="xyxy_px")
    assert (instance["bbox"], instance["zoomed"]) == (TINY, True)
    assert ("outline" in instance) is is_kept


def test_of_several_in_the_crop_the_nearest_is_taken(server: LoopbackServer, photo: str) -> None:
    in_crop = ([20, 20, 80, 80], [450, 460, 550, 560], [900, 900, 990, 990])
    server.answers = lambda request: blue_at(
        *([[760, 370, 774, 390]] if request.image_sizes == (SIZE,) else in_crop)
    )
    [one] = ground(server, photo, BLUE, then=(BoxRefiner,))
    [instance] = one["instances"]
    x1, y1, x2, y2 = instance["bbox"]
    assert 900 < x1 < x2 < 945
    assert 320 < y1 < y2 < 365


def test_what_is_small_alone_is_looked_at_from_closer_by(
    server: LoopbackServer, photo: str
) -> None:
    server.answers = SeeingModel()
    phrases = ("the red box", BLUE, "the green box")
    red, blue, green = ground(server, photo, *phrases, then=(BoxRefiner,))
    assert server.count() == 1 + 1
    assert "zoomed" not in red["instances"][0]
    assert blue["instances"][0]["zoomed"] is True
    assert green["status"] == "none"


def test_boxes_that_are_not_looked_at_again_stay_to_the_last_one(
    server: LoopbackServer, photo: str
) -> None:
    given = [{"bbox_id": name, "bbox": BIG, "score": None} for name in ("mine", "too")]
    assert refined(server, photo, *given) == given
    assert server.count() == 0


def test_who_asks_one_serving_shares_its_box_format() -> None:
    address = "http://127.0.0.1:9/v1"
    serving, other = (OpenAIServing(address, name) for name in ("nobody-knows-it", "other"))
    grounder, refiner, merger = PhraseGrounder(serving), BoxRefiner(serving), Merger(serving)
    assert grounder.format_choice is refiner.format_choice is merger.format_choice
    assert grounder.format_choice.pending
    assert PhraseGrounder(serving, box_format="xyxy_1").format_choice is not grounder.format_choice
    assert PhraseGrounder(other).format_choice is not grounder.format_choice


# --- in a run

FIRST = {"step_0_expression_extraction", "step_1_grounding"}
REFINED = "step_2_box_refinement"
FURTHER: dict[str, Any] = {"workflow.zoom": True}


@pytest.fixture
def album(workplace: Workplace, server: LoopbackServer) -> Workplace:
    for n in range(2):
        boxes = {"red": [(100 + n, 120, 480, 600)], "blue": [(900 + n, 333, 918 + n, 351)]}
        draw(str(workplace.folder / f"p{n}.png"), SIZE, boxes)  # type: ignore[arg-type]
    caption = "the red box and the blue box"
    workplace.rows({"image_path": f"p{n}.png", "caption": caption} for n in range(2))
    workplace.settings["vlm.openai.base_url"] = server.base_url
    server.answers = model()
    return workplace


def model(**errors: float) -> Any:
    seeing = SeeingModel("xyxy_px", **errors)  # type: ignore[arg-type]

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        if request.task == "phrase_grounding":
            return seeing(request)
        texts = [f"the {color} box" for color in ("red", "blue")]
        return {
            "cleaned_caption": request.input["caption"],
            "expressions": [{"text": text, "noun_chunk": text[4:]} for text in texts],
        }

    return answers


def written(album: Workplace) -> set[str]:
    return {path.parent.name for path in album.results.glob("step_*/annotations.jsonl")}


def test_zoom_adds_a_step_with_a_file_of_its_own(album: Workplace, server: LoopbackServer) -> None:
    server.answers = model(noise=0.001)
    assert album.run().code == 0
    assert written(album) == FIRST
    grounded = album.files().step_1
    assert album.run(**FURTHER).code == 0
    assert written(album) == FIRST | {REFINED}
    sent = server.count()
    assert sent == 2 + 2 + 2, "the replies of the run before count"
    for step in ("1", "2"):
        assert album.run(**FURTHER, **{"workflow.steps": [step]}).code == 0
    assert server.count() == sent
    assert album.files().step_1 == grounded
    assert album.files().annotations == (album.results / REFINED / "annotations.jsonl").read_bytes()
    for record in album.annotations():
        assert [name[:5] for name in record["pipeline_steps"]] == [
            "step0",
            "step1",
            "step2",
        ]


def test_a_step_chosen_alone_says_which_one_to_run_first(album: Workplace) -> None:
    done = album.run(**FURTHER, **{"workflow.steps": ["2"]})
    assert done.code == 2, done
    assert f"step 2 reads {album.results}/step_1_grounding/annotations.jsonl: run step 1 first" in (
        done.err
    )


def test_the_questions_of_further_steps_are_numbered_as_ever(
    album: Workplace, server: LoopbackServer
) -> None:
    """A crop's are those of the answers: what is stored under them counts."""
    album.settings |= {"workflow.samples": 2, **FURTHER}
    assert album.run().code == 0
    before, sent = album.annotations(), server.count()
    (album.results / ".ckpt" / "facts.json").unlink()
    assert album.run().code == 0
    assert (album.annotations(), server.count()) == (before, sent)
    numbers: dict[str, set[int]] = {}
    for line in map(json.loads, album.replies.read_text().splitlines()):
        if line["task"] == "phrase_grounding":
            numbers.setdefault(line["step"], set()).add(line.get("sample", 0))
    assert numbers == {
        "step1_grounding": {0, 1},
        "step2_box_refinement": {0, 1},
    }


def test_the_steps_of_a_run_watch_their_boxes_together(
    album: Workplace, server: LoopbackServer
) -> None:
    asked, echo = model(), EchoAnswers("xyxy_px")
    server.answers = lambda request: echo(request) if probe_in(request) else asked(request)
    done = album.run(**FURTHER, **{"vlm.check_every": 100})
    # before the first box, whichever step asks for it, and one for each kind of crops
    assert 1 <= done.summary["probes"] <= 5
