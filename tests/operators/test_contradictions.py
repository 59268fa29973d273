"""Phrases that their own boxes contradict: told where it is clear, and silent everywhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from benchmarks import contradictions as drawn_scenes
from benchmarks.places.workplace import Workplace, command
from dataflow_grounding import ContradictionFinder
from dataflow_grounding.extras.review._record_view import view_of
from dataflow_grounding.extras.testing import LoopbackServer, ReceivedRequest

LEFT = [0, 40, 60, 100]
MIDDLE = [120, 40, 180, 100]
RIGHT = [240, 40, 300, 100]
LARGE = [200, 10, 300, 190]
WIDTH, HEIGHT = 300, 200


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Red on the left, blue on the right."""
    path = tmp_path / "photo.png"
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    drawing = ImageDraw.Draw(picture)
    drawing.rectangle(LEFT, "#c81e1e")
    drawing.rectangle(RIGHT, "#1e50be")
    picture.save(path)
    return path


def expression(text: str, *boxes: list[int]) -> dict[str, Any]:
    return {"text": text, "instances": [{"bbox": list(box)} for box in boxes]}


def reasons(photo: Path, *expressions: dict[str, Any]) -> list[str]:
    """What is noted of each expression; empty where nothing is."""
    row = {"image_path": str(photo), "expressions": list(expressions)}
    record = ContradictionFinder()(row)
    notes = [str(one.get("contradiction", "")) for one in record["expressions"]]
    assert record.get("doubtful", False) is any(notes)
    return notes


CUPS = expression("cups", LEFT, MIDDLE, RIGHT)
FALSE: dict[str, tuple[dict[str, Any], ...]] = {
    "3 are said, 2 boxes are there": (expression("three cups", LEFT, RIGHT),),
    "2 are said, 1 box is there": (expression("both men", LEFT),),
    "the left is said": (expression("the dog on the left", RIGHT),),
    "the top is said": (expression("a bird at the top of the picture", [0, 150, 60, 200]),),
    "not the left is said": (expression("the dog not on the left", LEFT),),
    "number 2 from the left is said, and 2": (
        expression("the second cup from the left", RIGHT),
        CUPS,
    ),
    "number 2 from the left is said, and 0": (
        expression("the cup second from the left", LEFT),
        CUPS,
    ),
    "the last from the left": (expression("the last cup from the left", MIDDLE), CUPS),
    "the most area": (expression("the largest cup", LEFT), expression("a cup", LARGE)),
    "the least area": (expression("the smallest cup", LARGE), expression("a cup", LEFT)),
    "the outermost on the left": (expression("the leftmost cup", MIDDLE), CUPS),
    "the left of 'the plate'": (
        expression("the cup to the left of the plate", RIGHT),
        expression("the plate", LEFT),
    ),
    "a cup is in its box": (
        expression("the table without cups", [0, 0, 300, 200]),
        expression("a cup", MIDDLE),
    ),
    "red is said, and its box is mostly blue": (expression("the red box", RIGHT),),
    "not red is said": (expression("the box that is not red", LEFT),),
}


@pytest.mark.parametrize("reason", FALSE)
def test_what_is_clear_is_told(photo: Path, reason: str) -> None:
    first, *others = reasons(photo, *FALSE[reason])
    assert first.startswith(reason)
    assert not any(others)


@pytest.mark.parametrize(
    "expressions",
    [
        pytest.param([expression("three cups", LEFT, MIDDLE, RIGHT)], id="as many"),
        pytest.param([expression("two slices of cake", LEFT)], id="pieces in one box"),
        pytest.param([expression("a pair of shoes", LEFT)], id="a pair"),
        pytest.param(
            [expression("the left cup", MIDDLE), expression("a cup", RIGHT)],
            id="left of another, both not at the left",
        ),
        pytest.param([expression("the left shoe", RIGHT)], id="its owner's left"),
        pytest.param([expression("the left headlight of the car", RIGHT)], id="the car's left"),
        pytest.param(
            [expression("the largest red cup", LEFT), expression("a cup", LARGE)],
            id="the largest of the red ones",
        ),
        pytest.param(
            [expression("the largest cup", LEFT), expression("a cup", [100, 40, 162, 102])],
            id="nearly of one size",
        ),
        pytest.param(
            [expression("the third cup from the left", LEFT)], id="others may not be boxed"
        ),
        pytest.param(
            [
                expression("the cup left of the plate", MIDDLE),
                expression("the plate", [100, 40, 190, 100]),
            ],
            id="one over the other",
        ),
        pytest.param(
            [expression("the dog on the left", [110, 40, 170, 100])], id="near the middle"
        ),
        pytest.param(
            [
                expression("the cup left of the plate", [100, 40, 160, 100]),
                expression("the plate", [60, 40, 140, 100]),
            ],
            id="half over the other",
        ),
        pytest.param(
            [expression("the second small cup from the left", RIGHT), CUPS],
            id="the second of the small ones",
        ),
        pytest.param([expression("the red wine", RIGHT)], id="a name with a colour"),
        pytest.param([expression("the red man", RIGHT)], id="nobody is of one colour"),
        pytest.param([expression("the vermilion box", RIGHT)], id="a colour that isn't known"),
        pytest.param([expression("la tasse de gauche", RIGHT)], id="another language"),
        pytest.param([expression("the dog that grandma calls lefty", RIGHT)], id="words unknown"),
        pytest.param([expression("the dog on the left")], id="no box"),
        pytest.param([expression("left " * 5000, RIGHT)], id="long"),
        pytest.param([expression("", RIGHT)], id="empty"),
    ],
)
def test_what_is_not_clear_is_not_told(photo: Path, expressions: list[dict[str, Any]]) -> None:
    if not expressions[0]["text"]:
        expressions[0]["text"] = "…"
    assert not any(reasons(photo, *expressions))


def test_a_portrait_that_is_turned_is_seen_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: 40 x 80 as stored is 80 x 40 upright
    picture = Image.new("RGB", (200, 400), "#1e50be")
    ImageDraw.Draw(picture).rectangle((0, 0, 200, 200), "#c81e1e")
    path = tmp_path / "turned.png"
    picture.save(path, exif=exif)
    # the stored picture's upper half is the upright one's right half
    assert reasons(path, expression("the red box", [220, 20, 380, 180])) == [""]
    [said] = reasons(path, expression("the red box", [20, 20, 180, 180]))
    assert said == "red is said, and its box is mostly blue"


def test_a_note_that_no_longer_holds_goes(photo: Path) -> None:
    wrong = {**expression("the dog on the left", LEFT), "contradiction": "as it was"}
    assert reasons(photo, wrong) == [""]


def test_lint_tells_it_without_a_picture(tmp_path: Path) -> None:
    rows = [
        {
            "image_path": "a.jpg",
            "width": WIDTH,
            "height": HEIGHT,
            "caption": "",
            "expressions": said,
        }
        for said in (
            [{**expression("the dog on the left", RIGHT), "status": "grounded"}],
            [{**expression("the dog on the right", RIGHT), "status": "grounded"}],
            [{**expression("the red box", RIGHT), "status": "grounded"}],  # colours take a picture
        )
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    done = command(["lint", str(data), "--no-pictures", "--select", "DG208"])
    assert (done.code, done.out.splitlines()) == (
        1,
        [
            f"{data}:1: DG208 boxes that the phrase's own words contradict: a side, a rank, a"
            " number, a size: 'the dog on the left': the left is said, and it is across from there"
        ],
    )


def boxes_on_the_right(request: ReceivedRequest) -> dict[str, Any]:
    """A model that boxes the right side, whatever is asked for."""
    if request.task == "expression_extraction":
        return {
            "cleaned_caption": "A dog on the left.",
            "expressions": [{"text": "A dog on the left"}],
        }
    width, height = request.input["image"]["width"], request.input["image"]["height"]
    box = [0.8 * width, 0.3 * height, width, 0.6 * height]
    phrases = request.input["phrases"]
    return {
        "objects": [{"id": each["id"], "label": each["text"], "bbox_2d": box} for each in phrases]
    }


def test_from_a_spec_it_costs_no_request_and_review_shows_it_first(workplace: Workplace) -> None:
    workplace.many(3)
    with LoopbackServer(boxes_on_the_right) as server:
        settings = {
            "vlm.openai.base_url": server.base_url,
            "vlm.check_every": None,
            "vlm.box_format": "xyxy_px",
            "data.classes": ["the dog on the left", "the dog on the right"],
        }
        done = workplace.run(**settings)
        assert done.code == 0, done
        plain = server.requests
        noted = workplace.run(**settings, **{"workflow.contradictions": True})
        assert noted.code == 0, noted
        assert server.requests == plain, "no request"
    for record in workplace.annotations():
        first, second = record["expressions"]
        assert first["contradiction"] == "the left is said, and it is across from there"
        assert "contradiction" not in second
        assert record["doubtful"] is True
        [shown, _] = view_of(record)["expressions"]
        assert shown["reasons"] == [
            f"words and boxes contradict each other: {first['contradiction']}"
        ]


def test_nothing_is_told_of_gold() -> None:
    assert drawn_scenes.of_examples().reached


@pytest.mark.slow
def test_of_drawn_scenes_nearly_all_is_told_and_nothing_that_is_right() -> None:
    tallies = drawn_scenes.run(10, seed=11)
    for name in ("all", "held out"):
        assert tallies[name].recall >= 0.8, name
        assert tallies[name].precision >= 0.99, name
    assert all(tally.recall >= 0.8 for tally in tallies.values())
