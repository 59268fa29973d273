"""Samples, zoom and verification, against a loopback model that looks at the pictures that it is
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
    BoxVerifier,
    Merger,
    Operator,
    PhraseGrounder,
)
from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.boxes.matching import agreement, match_boxes
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.operators._agreement import merge_answers
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.tasks import Found
from dataflow_grounding.testing import Answer, EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import probe_in
from tests.support.stand_ins.seeing_model import COLORS, SeeingModel, draw, look, picture_in
from tests.support.workplace import Workplace

BIG = [100, 120, 480, 600]
TINY = [911, 333, 929, 351]


@pytest.fixture
def photo(tmp_path: Path) -> str:
    path = tmp_path / "photo.png"
    draw(str(path), (1200, 900), {"red": [tuple(BIG)], "blue": [tuple(TINY)]})  # type: ignore[list-item]
    return str(path)


def ground(
    server: LoopbackServer,
    photo: str,
    *phrases: str,
    then: tuple[type[Operator], ...] = (),
    samples: int = 1,
) -> list[dict[str, Any]]:
    serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_1000")
    record = {"image_path": photo, "expressions": list(phrases)}
    record = PhraseGrounder(serving, check_every=None, samples=samples)(record)
    for step in then:
        record = step(serving, check_every=None)(record)
    expressions = record["expressions"]
    assert isinstance(expressions, list)
    return expressions


def found(*boxes: list[int]) -> Found:
    return Found("grounded" if boxes else "none", [{"bbox": bbox, "score": 0.9} for bbox in boxes])


A, A2, A3, B = [10, 10, 50, 50], [12, 10, 52, 50], [14, 14, 54, 50], [200, 200, 260, 240]
MERGED = [
    ("all agree", [found(A), found(A), found(A)], [(A, 1.0)], "grounded", False),
    (
        "the median of each edge",
        [found(A), found(A2), found(A3)],
        [([12, 10, 52, 50], 1.0)],
        "grounded",
        False,
    ),
    ("one of three sees nothing", [found(A), found(), found(A)], [(A, 0.6667)], "grounded", True),
    (
        "a box of one answer alone goes",
        [found(A, B), found(A), found(A)],
        [(A, 1.0)],
        "grounded",
        True,
    ),
    (
        "two things",
        [found(A, B), found(B, A), found(B, A2)],
        [(A, 1.0), (B, 1.0)],
        "grounded",
        False,
    ),
    ("half is enough", [found(A), found()], [(A, 0.5)], "grounded", True),
    ("all see nothing", [found(), found(), found()], [], "none", False),
    ("most see nothing", [found(A), found(), found()], [], "none", True),
    (
        "all see different things",
        [found(A), found(B), found([400, 400, 440, 440])],
        [],
        "ambiguous",
        True,
    ),
    (
        "another box close by is no second vote",
        [found(A), found(A, A2)],
        [(A, 1.0), (A2, 0.5)],
        "grounded",
        True,
    ),
    (
        "one answer's boxes stay apart",
        [found(A, A2), found(A, A2)],
        [(A, 1.0), (A2, 1.0)],
        "grounded",
        False,
    ),
]


@pytest.mark.parametrize(
    ("answers", "boxes", "status", "disagreement"), [pytest.param(*c[1:], id=c[0]) for c in MERGED]
)
def test_answers_are_merged(
    answers: list[Found], boxes: list[tuple[list[int], float]], status: str, disagreement: bool
) -> None:
    result = merge_answers(answers, len(answers))
    assert [(i["bbox"], i["score"]) for i in result.instances] == boxes
    assert (result.status, result.disagreement) == (status, disagreement)


@pytest.mark.slow
@pytest.mark.parametrize(("unreadable", "kept"), [(1, True), (2, False)])
def test_up_to_half_of_the_answers_may_be_unreadable(
    photo: str, unreadable: int, kept: bool
) -> None:
    seeing, count = SeeingModel(), itertools.count()

    def answers(request: ReceivedRequest) -> Answer | dict[str, Any]:
        # The first answers come to nothing, however often they are asked for again.
        return Answer("no idea") if next(count) < unreadable else seeing(request)

    with (
        holding(current_options, RunOptions(max_attempts=1)),
        LoopbackServer(answers, keep_bodies=True) as server,
    ):
        if kept:
            [one] = ground(server, photo, "the red box", samples=3)
            assert (one["instances"][0]["score"], one["disagreement"]) == (0.6667, True)
        else:
            with pytest.raises(UnreadableReply):
                ground(server, photo, "the red box", samples=3)


def in_px(*boxes: list[int], size: tuple[int, int] = (1200, 900)) -> dict[str, Any]:
    scaled = [[round(1000 * edge / size[n % 2]) for n, edge in enumerate(bbox)] for bbox in boxes]
    return {"objects": [{"id": 1, "label": "the blue box", "bbox_2d": bbox} for bbox in scaled]}


@pytest.mark.slow
def test_small_boxes_that_differ_by_a_models_noise_are_one(photo: str) -> None:
    shifts = iter([(0, 0), (20, 0), (10, 13)])

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        x, y = next(shifts)
        return in_px([600 + x, 300 + y, 615 + x, 315 + y])

    with LoopbackServer(answers) as server:
        [one] = ground(server, photo, "the blue box", samples=3)
    [instance] = one["instances"]
    assert (instance["score"], one["disagreement"]) == (1.0, False)
    assert all(abs(a - b) <= 1 for a, b in zip(instance["bbox"], [610, 300, 625, 315], strict=True))


@pytest.mark.slow
def test_small_things_side_by_side_stay_apart(tmp_path: Path) -> None:
    wanted = [(500 + 34 * n, 300, 516 + 34 * n, 316) for n in range(4)]
    path, chance = str(tmp_path / "row.png"), random.Random(0)
    draw(path, (1200, 900), {color: [bbox] for color, bbox in zip(COLORS, wanted, strict=False)})

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        # Whatever its colour, each is a box of the one phrase.
        size, seen = look(picture_in(request))
        noisy = [
            [round(edge + chance.gauss(0, 0.005) * max(size)) for edge in bbox]
            for [bbox] in seen.values()
        ]
        return in_px(*chance.sample(noisy, len(noisy)), size=size)

    with LoopbackServer(answers, keep_bodies=True) as server:
        serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_1000")
        record = PhraseGrounder(serving, samples=3)(
            {"image_path": path, "expressions": ["the blue box"]}
        )
        record = BoxRefiner(serving, samples=3)(record)
    boxes = [tuple(instance["bbox"]) for instance in record["expressions"][0]["instances"]]
    assert len(boxes) == len(match_boxes(boxes, wanted)) == len(wanted)


CLOSER = [
    ("the first two agree", ["found", "found"], 2),
    ("what finds nothing has no vote", [None, "found", None], 3),
    ("one that can't be read has none", ["unreadable", "found", "found"], 3),
    ("none finds it", [None, None], 2),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("replies", "asked"), [pytest.param(*case[1:], id=case[0]) for case in CLOSER]
)
def test_from_closer_by_the_last_answer_is_asked_for_where_it_counts(
    photo: str, replies: list[str | None], asked: int
) -> None:
    coming, seeing = iter(replies), SeeingModel()

    def answers(request: ReceivedRequest) -> Answer | dict[str, Any]:
        reply = next(coming)
        return (
            seeing(request) if reply == "found" else Answer("no idea") if reply else {"objects": []}
        )

    given = [{"bbox": [905, 330, 930, 350], "score": None}]
    expressions = [
        {"expression_id": "a", "text": "the blue box", "instances": given, "status": "grounded"}
    ]
    with (
        holding(current_options, RunOptions(max_attempts=1)),
        LoopbackServer(answers, keep_bodies=True) as server,
    ):
        serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_1000")
        refiner = BoxRefiner(serving, samples=3, check_every=None)
        record = refiner({"image_path": photo, "expressions": expressions})
        assert server.count() == asked
    [instance] = record["expressions"][0]["instances"]
    assert instance["bbox"] == (TINY if "found" in replies else given[0]["bbox"])


@pytest.mark.slow
@pytest.mark.parametrize("box_format", ["yxyx_1000", "xyxy_px@smart_resize_28"])
def test_a_small_box_is_looked_for_again_and_mapped_back_exactly(
    photo: str, box_format: str
) -> None:
    with LoopbackServer(SeeingModel(box_format), keep_bodies=True) as server:
        serving = OpenAIServing(server.base_url, "loopback", box_format=box_format)
        record = PhraseGrounder(serving, check_every=None)(
            {"image_path": photo, "expressions": ["the red box", "the blue box"]}
        )
        record = BoxRefiner(serving, check_every=None)(record)
        assert server.count() == 2
        first, second = server.requests
        assert first.image_sizes == ((1200, 900),)
        [(width, height)] = second.image_sizes
        assert (width, height) == (second.input["image"]["width"], second.input["image"]["height"])
        assert 700 <= width <= 1024
        assert [phrase["text"] for phrase in second.input["phrases"]] == ["the blue box"]
    red, blue = (expression["instances"][0] for expression in record["expressions"])
    assert red.get("zoomed") is None
    assert blue["zoomed"] is True
    assert blue["bbox"] == TINY


@pytest.mark.slow
@pytest.mark.parametrize("corner", [(0, 0), (1185, 888)])
def test_boxes_at_the_edge_of_the_image(tmp_path: Path, corner: tuple[int, int]) -> None:
    x, y = corner
    bbox = (x, y, x + 15, y + 12)
    path = tmp_path / "corner.png"
    draw(str(path), (1200, 900), {"green": [bbox]})
    with LoopbackServer(SeeingModel(), keep_bodies=True) as server:
        [one] = ground(server, str(path), "the green box", then=(BoxRefiner,))
        assert server.count() == 2
    assert one["instances"][0]["bbox"] == list(bbox)


def test_what_the_crop_does_not_show_stays(photo: str) -> None:
    seeing = SeeingModel()

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        return seeing(request) if request.image_sizes == ((1200, 900),) else {"objects": []}

    with LoopbackServer(answers, keep_bodies=True) as server:
        [one] = ground(server, photo, "the blue box", then=(BoxRefiner,))
    assert (one["instances"][0]["bbox"], one["instances"][0]["score"]) == (TINY, None)
    assert "zoomed" not in one["instances"][0]
    assert "disagreement" not in one


@pytest.mark.parametrize(("shift", "is_kept"), [(0, True), (3, False)])
def test_an_outline_goes_with_the_box_that_it_was_of(photo: str, shift: int, is_kept: bool) -> None:
    x1, y1, x2, y2 = (edge + shift for edge in TINY)
    instance = {"bbox": [x1, y1, x2, y2], "outline": [x1, y1, x2, y1, x1, y2]}
    row = {"image_path": photo, "expressions": [{"text": "the blue box", "instances": [instance]}]}
    with LoopbackServer(SeeingModel("xyxy_px"), keep_bodies=True) as server:
        serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_px")
        record = BoxRefiner(serving, check_every=None)(row)
    [refined] = record["expressions"][0]["instances"]
    assert (refined["bbox"], refined["zoomed"]) == (TINY, True)
    assert ("outline" in refined) is is_kept


def test_of_several_in_the_crop_the_nearest_is_taken(photo: str) -> None:
    def answers(request: ReceivedRequest) -> dict[str, Any]:
        if request.image_sizes == ((1200, 900),):
            return {
                "objects": [{"id": 1, "label": "the blue box", "bbox_2d": [760, 370, 774, 390]}]
            }
        boxes = ([20, 20, 80, 80], [450, 460, 550, 560], [900, 900, 990, 990])
        return {"objects": [{"id": 1, "label": "the blue box", "bbox_2d": box} for box in boxes]}

    with LoopbackServer(answers) as server:
        [one] = ground(server, photo, "the blue box", then=(BoxRefiner,))
    [instance] = one["instances"]
    x1, y1, x2, y2 = instance["bbox"]
    assert 900 < x1 < x2 < 945
    assert 320 < y1 < y2 < 365


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param([A, B], [B, A], 1.0, id="the same in another order"),
        pytest.param([A, A], [A], 0.5, id="one box answers for one box"),
        pytest.param([A], [A, B], 0.5, id="a box too many"),
        pytest.param([A], [A, A], 0.5, id="the same box twice"),
        pytest.param([A], [], 0.0, id="nothing again"),
    ],
)
def test_how_well_two_answers_agree(
    one: list[list[int]], other: list[list[int]], expected: float
) -> None:
    boxes = ([{"bbox": bbox} for bbox in answer] for answer in (one, other))
    assert agreement(*boxes) == expected


def test_regrounding_asks_afresh_even_for_a_single_phrase(photo: str) -> None:
    seeing, count = SeeingModel(), itertools.count()

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        if next(count):
            return {"objects": [{"id": 1, "label": "the red box", "bbox_2d": [700, 700, 800, 800]}]}
        return seeing(request)

    with LoopbackServer(answers, keep_bodies=True) as server:
        [red] = ground(server, photo, "the red box", then=(BoxVerifier,))
        assert server.count() == 2
    assert red["instances"][0]["bbox"] == BIG
    assert (red["verified"], red["verification"]["iou"]) == (False, 0.0)


# --- in a run


@pytest.fixture
def album(workplace: Workplace) -> Workplace:
    for n in range(2):
        boxes = {"red": [(100 + n, 120, 480, 600)], "blue": [(900 + n, 333, 918 + n, 351)]}
        draw(str(workplace.folder / f"p{n}.png"), (1200, 900), boxes)  # type: ignore[arg-type]
    rows = [
        {"image_path": f"p{n}.png", "caption": "the red box and the blue box"} for n in range(2)
    ]
    workplace.rows(rows)
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


def test_a_record_whose_verification_fails_keeps_its_boxes(album: Workplace) -> None:
    answers = model()

    def failing(request: ReceivedRequest) -> Answer | dict[str, Any]:
        alone = request.task == "phrase_grounding" and len(request.input["phrases"]) == 1
        return (
            Answer("no idea")
            if alone and "red" in request.input["phrases"][0]["text"]
            else answers(request)
        )

    with LoopbackServer(failing, keep_bodies=True) as server:
        settings = {"vlm.openai.base_url": server.base_url, "workflow.verify": "reground"}
        done = album.run(**settings)
    assert done.code == 1, done
    assert [failure["kind"] for failure in album.failures()] == ["unreadable_reply"] * 2
    for record in album.annotations():
        red, blue = record["expressions"]
        assert (red["verified"], len(red["instances"])) == (None, 1)
        assert red["verification"]["method"] == "reground"
        assert blue["verified"] is True
    # without zoom, verification is the step after grounding
    assert "step_2_box_verification" in written(album)
    wrong = album.run(**settings, **{"workflow.steps": ["3"]})
    assert (wrong.code, "the steps are 0, 1, 2" in wrong.err) == (2, True), wrong


# --- further steps


GROUNDED = "step_1_grounding"
REFINED, VERIFIED = "step_2_box_refinement", "step_3_box_verification"
FURTHER: dict[str, Any] = {"workflow.zoom": True, "workflow.verify": "reground"}


def written(album: Workplace) -> set[str]:
    return {path.parent.name for path in album.results.glob("step_*/annotations.jsonl")}


def stored(album: Workplace) -> list[dict[str, Any]]:
    lines = map(json.loads, (album.results / ".ckpt" / "replies.jsonl").read_text().splitlines())
    return [line for line in lines if line["task"] == "phrase_grounding"]


@pytest.mark.slow
def test_zoom_and_verify_add_steps_with_files_of_their_own(album: Workplace) -> None:
    with LoopbackServer(model(noise=0.001), keep_bodies=True) as server:
        settings = {"vlm.openai.base_url": server.base_url}
        assert album.run(**settings).code == 0
        first = {"step_0_expression_extraction", GROUNDED}
        assert written(album) == first
        grounded = (album.results / GROUNDED / "annotations.jsonl").read_bytes()
        assert album.run(**settings, **FURTHER).code == 0
        assert written(album) == first | {REFINED, VERIFIED}
        sent = server.count()
        assert sent == 2 + 2 + 2 + 2 * (1 + 2), "the replies of the run before count"
        assert album.run(**settings, **FURTHER, **{"workflow.steps": ["1"]}).code == 0
        assert album.run(**settings, **FURTHER, **{"workflow.steps": ["3"]}).code == 0
        assert server.count() == sent
    assert (album.results / GROUNDED / "annotations.jsonl").read_bytes() == grounded
    assert album.annotations() == [
        json.loads(line) for line in (album.results / VERIFIED / "annotations.jsonl").open()
    ]
    names = [
        "step0_expression_extraction",
        "step1_grounding",
        "step2_box_refinement",
        "step3_box_verification",
    ]
    assert all(record["pipeline_steps"] == names for record in album.annotations())


def test_a_step_chosen_alone_says_which_one_to_run_first(album: Workplace) -> None:
    alone = {"vlm.openai.base_url": "http://127.0.0.1:9/v1", "workflow.steps": ["3"]}
    done = album.run(**FURTHER, **alone)
    assert done.code == 2, done
    assert f"step 3 reads {album.results}/{REFINED}/annotations.jsonl: run step 2 first" in done.err


@pytest.mark.slow
def test_the_questions_of_further_steps_are_numbered_as_ever(album: Workplace) -> None:
    """A crop's are those of the answers, a verification's comes after all answers: what is stored
    under them counts.
    """
    with LoopbackServer(model(), keep_bodies=True) as server:
        settings = {"vlm.openai.base_url": server.base_url, "workflow.samples": 2}
        assert album.run(**settings, **FURTHER).code == 0
        before, sent = album.annotations(), server.count()
        (album.results / ".ckpt" / "finished.json").unlink()
        assert album.run(**settings, **FURTHER).code == 0
        assert (album.annotations(), server.count()) == (before, sent)
    numbers: dict[str, set[int]] = {}
    for line in stored(album):
        numbers.setdefault(line["step"], set()).add(line.get("sample", 0))
    assert numbers == {
        "step1_grounding": {0, 1},
        "step2_box_refinement": {0, 1},
        "step3_box_verification": {2},
    }


@pytest.mark.slow
def test_the_steps_of_a_run_watch_their_boxes_together(album: Workplace) -> None:
    asked, echo = model(), EchoAnswers("xyxy_px")
    with LoopbackServer(lambda r: echo(r) if probe_in(r) else asked(r), keep_bodies=True) as server:
        settings = {
            "vlm.openai.base_url": server.base_url,
            "workflow.force_reprocess": True,
            "vlm.check_every": 100,
        }
        probes = [album.run(**settings, **ways).summary["probes"] for ways in ({}, FURTHER)]
        assert probes[0] == 1, "before the first box, whichever step asks for it"
        assert 1 <= probes[1] <= 4, "and one for each kind of crops"


def test_what_comes_again_is_verified_until_its_box_is_another(photo: str) -> None:
    phrases = ("the red box", "the blue box", "the green box")
    with LoopbackServer(SeeingModel(), keep_bodies=True) as server:
        red, blue, green = ground(server, photo, *phrases, then=(BoxVerifier, BoxRefiner))
        # all at once, each that was found once more, and then the blue one from closer by
        assert server.count() == 1 + 2 + 1
    assert (red["verified"], red["verification"]) == (True, {"method": "reground", "iou": 1.0})
    assert "zoomed" not in red["instances"][0]
    assert blue["instances"][0]["zoomed"] is True
    assert not {"verified", "verification"} & set(blue)
    assert ("verified" in green, green["status"]) == (False, "none")


def test_boxes_that_are_not_looked_at_again_stay_to_the_last_one(photo: str) -> None:
    given = [
        {"bbox_id": "mine", "bbox": BIG, "score": None},
        {"bbox_id": "too", "bbox": BIG, "score": None},
    ]
    expressions = [
        {"expression_id": "a", "text": "the red box", "instances": given, "status": "grounded"}
    ]
    with LoopbackServer(SeeingModel(), keep_bodies=True) as server:
        serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_1000")
        record = BoxRefiner(serving)({"image_path": photo, "expressions": expressions})
        assert server.count() == 0
    assert record["expressions"] == expressions


def test_who_asks_one_serving_shares_its_box_format() -> None:
    serving = OpenAIServing("http://127.0.0.1:9/v1", "nobody-knows-it")
    grounder, refiner, merger = PhraseGrounder(serving), BoxRefiner(serving), Merger(serving)
    assert grounder.format_choice is refiner.format_choice is merger.format_choice
    assert grounder.format_choice.pending
    assert PhraseGrounder(serving, box_format="xyxy_1").format_choice is not grounder.format_choice
    assert (
        PhraseGrounder(OpenAIServing("http://127.0.0.1:9/v1", "other")).format_choice
        is not grounder.format_choice
    )
