"""The standing check: boxes in another format than was asked for are noticed, ordinary ones never are."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest

from benchmarks.workplace import Workplace
from dataflow_grounding import PhraseGrounder
from dataflow_grounding.box_formats import find_box_format
from dataflow_grounding.coordinates import BoxFormat, to_xyxy
from dataflow_grounding.errors import SuspectBoxes
from dataflow_grounding.geometry import Bbox, Size
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.watch.drift import Drift
from dataflow_grounding.watch.signs import MOST, Seen, first_sign

SIZES = [(640, 480), (480, 640), (1024, 768), (1920, 1080), (2048, 1365), (1200, 1600), (500, 375), (800, 800)]
TALL, WIDE, ANY = (
    ("a tall man", "the woman in red"),
    ("a red car", "the bus"),
    ("a mug", "a dog", "the sign", "two birds"),
)


def suspicion(seen: list[Seen], asked: BoxFormat) -> str | None:
    found = first_sign(seen, asked)
    return found[1] if found else None


def things(draw: random.Random, size: Size, phrase: str) -> Bbox:
    """A box as photos have them: a twentieth to all of the side, somewhere; people upright, cars wide, mostly."""
    w, h = (side * min(1.0, draw.lognormvariate(-1.4, 0.8)) for side in size)
    usual = draw.random() < 0.88
    if (phrase in TALL) == usual and phrase not in ANY and phrase not in WIDE:
        w, h = min(w, h * 0.5), h
    if phrase in WIDE and usual:
        w, h = w, min(h, w * 0.6)
    x, y = draw.uniform(0, size[0] - w), draw.uniform(0, size[1] - h)
    return x, y, x + w, y + h


def photos(seed: int, asked: str, written: str, boxes: int = MOST, sizes: list[Size] = SIZES) -> list[Seen]:
    """Boxes of photos, written in one format and read in another."""
    draw = random.Random(seed)
    known, other = find_box_format(asked, ""), find_box_format(written, "")
    seen: list[Seen] = []
    for reply in range(boxes):
        size = draw.choice(sizes)
        for _ in range(draw.randint(1, 4)):
            phrase = draw.choice([*TALL, *WIDE, *ANY, *ANY])
            a, b, c, d = other.from_pixels(things(draw, size, phrase), original=size)
            width, height = known.limits(size)
            x1, y1, x2, y2 = to_xyxy((a, b, c, d), known.order)
            corners = (x1 / width, y1 / height, x2 / width, y2 / height)
            seen.append(Seen(corners, (a, b, c, d), None, size, phrase, reply))
    return seen[:boxes]


@pytest.mark.parametrize("name", ["xyxy_1000", "yxyx_1000", "xyxy_px", "xywh_px", "xyxy_1", "cxcywh_1", "xyxy_100"])
def test_ordinary_photos_never_look_strange(name: str) -> None:
    asked = find_box_format(name, "")
    for seed in range(40):
        seen = photos(seed, name, name)
        for count in (3, 8, 16, 32, 64, 128, MOST):
            assert suspicion(seen[:count], asked) is None


def test_photos_of_one_small_size_never_look_strange() -> None:
    """Where numbers up to 1000 are more than the picture has pixels, nothing may be said from few boxes."""
    for seed in range(60):
        seen = photos(seed, "xyxy_px", "xyxy_px", sizes=[(320, 240)])
        assert suspicion(seen, find_box_format("xyxy_px", "")) is None


LARGE = [(1920, 1080), (2048, 1365), (1500, 2000)]
SMALL = [(640, 480), (480, 640), (500, 375)]
WRONG = [
    ("xyxy_1000", "xyxy_px", LARGE, "reach out of the picture", "xyxy_px would fit"),
    ("xyxy_1000", "xyxy_px", SMALL, "stay within pixels of the picture", "xyxy_px would fit"),
    ("xyxy_px", "xyxy_1000", LARGE, "stay within 0 to 1000", "xyxy_1000 would fit"),
    ("xyxy_px", "xyxy_1", SIZES, "within 0 to 1", "xyxy_1 would fit"),
    ("xyxy_1000", "xyxy_1", SIZES, "within 0 to 1", "xyxy_1 would fit"),
    ("xyxy_1000", "xyxy_100", SIZES, "top left quarter", "xyxy_100 would fit"),
    ("xyxy_1000", "xywh_1000", SIZES, "end before they begin", "xywh_1000 would fit"),
    ("xywh_1000", "xyxy_1000", SIZES, "reach out of the picture", "xyxy_1000 would fit"),
    ("xyxy_1000", "yxyx_1000", SIZES, "are the wrong way, wide or tall", "yxyx_1000 would fit"),
    ("yxyx_1000", "xyxy_1000", SIZES, "are the wrong way, wide or tall", "xyxy_1000 would fit"),
    ("xyxy_px", "yxyx_px", LARGE, "reach out of the picture", "yxyx_px would fit"),
]


@pytest.mark.parametrize(
    ("asked", "written", "sizes", "sign", "remedy"),
    [pytest.param(*case, id=f"{case[1]} for {case[0]}: {case[3]}") for case in WRONG],
)
def test_another_format_is_noticed_and_named(
    asked: str, written: str, sizes: list[Size], sign: str, remedy: str
) -> None:
    for seed in range(20):
        found = suspicion(photos(seed, asked, written, sizes=sizes), find_box_format(asked, ""))
        assert found is not None
        assert sign in found
        assert remedy in found
        assert "vlm.box_format" in found


def test_one_box_for_everything_is_noticed() -> None:
    seen = [
        Seen((0.1, 0.1, 0.9, 0.9), (100, 100, 900, 900), None, (640, 480), phrase, reply)
        for reply in range(20)
        for phrase in ("a mug", "a dog")
    ]
    found = suspicion(seen, find_box_format("xyxy_1000", ""))
    assert found is not None
    assert "the same for different phrases" in found


def corner(draw: random.Random, reply: int, share: float = 0.4) -> Seen:
    """A box in the top left part of a square picture, asked for in xyxy_1000."""
    x1, y1 = draw.uniform(0, share - 0.1), draw.uniform(0, share - 0.1)
    corners = (x1, y1, draw.uniform(x1 + 0.05, share), draw.uniform(y1 + 0.05, share))
    a, b, c, d = (round(1000 * edge) for edge in corners)
    return Seen(corners, (a, b, c, d), None, (900, 900), "a mug", reply)


def test_few_boxes_few_pictures_and_one_box_again_say_nothing_about_places() -> None:
    asked, draw = find_box_format("xyxy_1000", ""), random.Random(1)
    many = [corner(draw, reply) for reply in range(40)]
    assert suspicion(many, asked) is not None
    assert suspicion(many[:29], asked) is None
    assert suspicion([corner(draw, reply % 3) for reply in range(40)], asked) is None
    assert suspicion([replace(many[0], reply=reply) for reply in range(200)], asked) is None


def test_where_no_format_fits_none_is_named() -> None:
    asked, draw = find_box_format("xyxy_1000", ""), random.Random(1)
    found = suspicion([corner(draw, reply) for reply in range(60)], asked)
    assert found is not None
    assert "No plain format fits: run dataflowgrounding calibrate" in found


def test_a_few_people_lying_down_are_no_sign() -> None:
    seen = [Seen((0.1, 0.4, 0.9, 0.5), (100, 400, 900, 500 + n), None, (900, 900), "a man", n) for n in range(30)]
    asked = find_box_format("xyxy_1000", "")
    assert suspicion(seen[:20], asked) is None
    assert "are the wrong way" in (suspicion(seen, asked) or "")


# --- in a run


@pytest.mark.parametrize("written", ["xyxy_1000", "yxyx_1000"])
def test_numbers_that_are_no_fractions_any_more_have_drifted(written: str) -> None:
    for seed in range(6):
        drift = Drift(find_box_format("xyxy_1", ""))
        for name, answers in (("xyxy_1", 60), (written, 26)):
            assert not drift.alarmed
            for reply, boxes in groupby(photos(seed, "xyxy_1", name, 999), lambda box: box.reply):
                drift.add([*boxes] if reply < answers else [])
        assert drift.alarmed


def pixels(request: ReceivedRequest) -> dict[str, Any]:
    """Answers in pixels, whatever was asked for."""
    size = (request.input["image"]["width"], request.input["image"]["height"])
    draw = random.Random(request.text)
    return {
        "objects": [
            {"id": p["id"], "label": p["text"], "bbox_2d": [round(edge) for edge in things(draw, size, p["text"])]}
            for p in request.input.get("phrases", [])
        ]
    }


def words(request: ReceivedRequest) -> dict[str, Any]:
    return EchoAnswers()(request) if request.task == "expression_extraction" else pixels(request)


@pytest.fixture
def photo_album(workplace: Workplace) -> Workplace:
    for n in range(24):
        workplace.picture(f"p{n}.jpg", (1800, 1300 + n))
    workplace.rows({"image_path": f"p{n}.jpg", "caption": f"Alpha Beta Gamma number{n}"} for n in range(24))
    return workplace


SIGNS_ALONE: dict[str, Any] = {"vlm.check_every": None, "vlm.box_format": "xyxy_1000"}


def test_a_run_that_may_go_on_warns_once_and_says_so_in_run_json(photo_album: Workplace) -> None:
    with LoopbackServer(words) as server:
        photo_album.settings |= {**SIGNS_ALONE, "vlm.openai.base_url": server.base_url}
        done = photo_album.run(**{"vlm.on_suspect_boxes": "warn"})
    assert done.err.count("Warning: the boxes don't look like xyxy_1000") == 1
    assert "xyxy_px would fit" in done.err
    run = json.loads((photo_album.results / "run.json").read_text())
    assert (run["state"], "xyxy_px would fit" in run["suspect_boxes"]) == ("finished", True)
    assert all(record["suspect_boxes"] for record in photo_album.annotations()), "nothing vouches for any of them"


def test_a_sign_alone_stops_a_run_where_nothing_can_be_checked_and_says_it_again(photo_album: Workplace) -> None:
    with LoopbackServer(words) as server:
        stop = {**SIGNS_ALONE, "vlm.openai.base_url": server.base_url, "workflow.max_workers": 1}
        done = photo_album.run(**stop)
        assert done.code == 2, done
        assert "xyxy_px would fit" in done.err
        sent = server.count()
        assert sent < 24
        run = json.loads((photo_album.results / "run.json").read_text())
        assert (run["state"], "xyxy_px would fit" in run["suspect_boxes"]) == ("stopped", True)
        again = photo_album.run(**stop)
        assert (again.code, server.count() - sent <= 2) == (2, True)  # the stored replies are enough to say it again
        assert photo_album.run(**{**stop, "vlm.box_format": "xyxy_px"}).code == 0


def test_a_run_in_the_right_format_says_nothing(photo_album: Workplace) -> None:
    with LoopbackServer(words) as server:
        done = photo_album.run(**{"vlm.openai.base_url": server.base_url})
    assert (done.code, done.err) == (0, "")
    assert json.loads((photo_album.results / "run.json").read_text())["suspect_boxes"] is None


def test_boxes_that_the_reply_takes_back_are_no_sign(photo_album: Workplace) -> None:
    def corrected(request: ReceivedRequest) -> Any:
        if request.task == "expression_extraction":
            return words(request)
        right = EchoAnswers("xyxy_1000")(request)
        return f"{json.dumps(pixels(request))}\n\nWait, looking again. The right answer:\n{json.dumps(right)}"

    with LoopbackServer(corrected) as server:
        done = photo_album.run(**{**SIGNS_ALONE, "vlm.openai.base_url": server.base_url})
    assert (done.code, done.err) == (0, "")
    assert done.summary["notes"]["superseded"]


def test_a_script_is_stopped_by_a_sign_too(photo_album: Workplace) -> None:
    rows = [{"image_path": str(photo_album.folder / f"p{n}.jpg"), "expressions": ["a mug", "a dog"]} for n in range(24)]
    with LoopbackServer(pixels) as server:
        serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_1000", max_workers=2)
        grounder = PhraseGrounder(serving, check_every=None)
        for _ in range(2):  # each run is looked at anew
            with pytest.raises(SuspectBoxes, match="xyxy_px would fit"):
                grounder(rows)
