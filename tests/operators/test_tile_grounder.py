"""Things in overlapping tiles of a picture, with a model that is shown it reduced.

All sizes are about a quarter of those of a real picture: tiles of 256 for 1024, and a model that is
shown 250 px, and sees nothing under 5 px of that.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_grounding import EmbeddedServing, PhraseGrounder, SpecError, TileGrounder
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from tests.support.endpoint import serving_of
from tests.support.stand_ins.limited_model import LimitedModel
from tests.support.stand_ins.seeing_model import draw
from tests.support.workplace import Workplace, command

SIZE = (600, 450)
TILES = 6  # of 256 px in it: three in a row, two rows
SMALLEST = 6  # px of a side that the model sees in a tile
SEEING = LimitedModel(250, 5)
RED = "the red box"


@pytest.fixture(autouse=True)
def _model(server: LoopbackServer) -> None:
    server.answers = SEEING


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test draws its picture."""
    return tmp_path / "photo.png"


def found(
    server: LoopbackServer, path: Path, *phrases: str, operator: Any = None
) -> list[dict[str, Any]]:
    if operator is None:
        operator = TileGrounder(serving_of(server), size=256, check_every=None)
    record = {"image_path": str(path), "expressions": list(phrases or (RED,))}
    expressions = operator(record)["expressions"]
    assert isinstance(expressions, list)
    return expressions


def boxes(expression: dict[str, Any]) -> list[list[int]]:
    return [instance["bbox"] for instance in expression["instances"]]


def is_near(bbox: list[int], wanted: tuple[float, float, float, float]) -> bool:
    """Whether each edge is within 2% of its side, or 2 px, whichever is more."""
    width, height = wanted[2] - wanted[0], wanted[3] - wanted[1]
    for place, (edge, of_wanted) in enumerate(zip(bbox, wanted, strict=True)):
        if abs(edge - of_wanted) > max(2, 0.02 * (height if place % 2 else width)):
            return False
    return True


def a_thing() -> st.SearchStrategy[tuple[int, int, int, int]]:
    """A box anywhere in the picture, from the smallest that a tile shows to a tile."""

    def placed(size: tuple[int, int]) -> st.SearchStrategy[tuple[int, int, int, int]]:
        corner = st.tuples(st.integers(0, SIZE[0] - size[0]), st.integers(0, SIZE[1] - size[1]))
        return corner.map(lambda at: (at[0], at[1], at[0] + size[0], at[1] + size[1]))

    side = st.integers(SMALLEST, 256)
    return st.tuples(side, side).flatmap(placed)


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 3)  # each is a picture, and seven requests
@given(thing=a_thing())
def test_a_thing_anywhere_is_one_box(
    one_server: LoopbackServer, tmp_path_factory: pytest.TempPathFactory, thing: Any
) -> None:
    path = tmp_path_factory.mktemp("thing") / "photo.png"
    draw(str(path), SIZE, {"red": [thing]})
    [expression] = found(one_server, path)
    [bbox] = boxes(expression)
    assert is_near(bbox, thing), (bbox, thing)
    assert "doubtful" not in expression


def test_what_the_whole_picture_hides_is_found(server: LoopbackServer, path: Path) -> None:
    small = [(201, 199, 211, 209), (450, 300, 460, 311), (580, 420, 591, 431)]
    draw(str(path), SIZE, {"red": small, "blue": [(60, 230, 420, 420)]})  # type: ignore[dict-item]
    plain = PhraseGrounder(serving_of(server), check_every=None)
    phrases = (RED, "the blue box", "the green box")
    assert [len(boxes(e)) for e in found(server, path, *phrases, operator=plain)] == [0, 1, 0]
    red, blue, green = found(server, path, *phrases)
    assert len(boxes(red)) == 3
    assert all(is_near(bbox, wanted) for bbox, wanted in zip(boxes(red), small, strict=True))
    [bbox] = boxes(blue)
    assert is_near(bbox, (60, 230, 420, 420))
    assert (green["instances"], green["status"]) == ([], "none")


def test_things_side_by_side_stay_apart(server: LoopbackServer, path: Path) -> None:
    row = [(20 + 30 * n, 190, 20 + 30 * n + 20, 210) for n in range(19)]  # across all tiles
    draw(str(path), SIZE, {"red": row})  # type: ignore[dict-item]
    [expression] = found(server, path)
    assert len(boxes(expression)) == len(row)
    assert all(any(is_near(bbox, thing) for thing in row) for bbox in boxes(expression))


def test_each_picture_is_asked_about_once(server: LoopbackServer, path: Path) -> None:
    draw(str(path), SIZE, {"red": [(10, 10, 30, 30)]})
    operator = TileGrounder(serving_of(server), size=256, phrases_per_request=1, check_every=None)
    record = operator({"image_path": str(path), "expressions": [RED, "the blue box"]})
    assert server.count() == 2 * (1 + TILES)
    assert record["tiles"] == TILES
    sizes = {size for request in server.requests for size in request.image_sizes}
    assert sizes == {SIZE, (256, 256)}


def test_a_picture_no_larger_than_a_tile_is_asked_about_alone(
    server: LoopbackServer, path: Path
) -> None:
    draw(str(path), (256, 100), {"red": [(10, 10, 30, 30)]})
    [expression] = found(server, path)
    assert server.count() == 1
    assert boxes(expression) == [[10, 10, 30, 30]]


def test_tiles_are_cut_from_the_upright_picture(server: LoopbackServer, path: Path) -> None:
    from PIL import Image

    draw(str(path), (450, 600), {"red": [(400, 40, 411, 51)]})
    stored = Image.open(path).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    stored.save(path.with_suffix(".jpg"), exif=exif, quality=95, subsampling=0)
    [expression] = found(server, path.with_suffix(".jpg"))
    [bbox] = boxes(expression)
    assert is_near(bbox, (400, 40, 411, 51))


def red_at(*numbers: int, **more: Any) -> dict[str, Any]:
    return {"objects": [{"id": 1, "label": RED, "bbox_2d": [*numbers], **more}]}


NOTHING: dict[str, Any] = {"objects": []}


def by_size(of_tile: Any, of_whole: dict[str, Any] = NOTHING) -> Any:
    """Answers for each tile as `of_tile` does, and so for the whole picture."""

    def answers(request: ReceivedRequest) -> Any:
        [size] = request.image_sizes
        return of_whole if size == SIZE else of_tile(request)

    return answers


def test_a_box_that_ends_with_its_tile_and_no_other_shows_is_doubtful(
    server: LoopbackServer, path: Path
) -> None:
    draw(str(path), SIZE, {"red": [(300, 100, 310, 110)]})
    server.answers = by_size(
        lambda request: red_at(900, 400, 1000, 600) if SEEING(request)["objects"] else NOTHING
    )
    [expression] = found(server, path)
    assert expression["instances"]
    doubt = "a box ends at the edge of a tile"
    assert (expression["doubtful"], expression["doubt"]) == (True, doubt)


@pytest.mark.parametrize(
    "thing",
    [(150, 300, 390, 330), (300, 120, 325, 370), (120, 100, 350, 330)],
    ids=["across columns", "across rows", "across both"],
)
def test_what_only_tiles_show_in_parts_is_put_together(
    server: LoopbackServer, path: Path, thing: Any
) -> None:
    draw(str(path), SIZE, {"red": [thing]})
    server.answers = by_size(SEEING)
    [expression] = found(server, path)
    [bbox] = boxes(expression)
    assert is_near(bbox, thing), bbox
    assert "doubtful" not in expression


def test_what_all_tiles_cut_ends_where_the_whole_picture_shows_it(
    server: LoopbackServer, path: Path
) -> None:
    thing = (60, 60, 420, 120)
    draw(str(path), SIZE, {"red": [thing]})

    def in_the_first_tile(request: ReceivedRequest) -> dict[str, Any]:
        shown = SEEING(request)
        is_first = shown["objects"] and shown["objects"][0]["bbox_2d"][0] > 0
        return shown if is_first else NOTHING

    server.answers = by_size(in_the_first_tile, red_at(100, 133, 700, 267))
    [expression] = found(server, path)
    [bbox] = boxes(expression)
    assert is_near(bbox, thing), bbox


def test_a_piece_of_a_thing_that_fills_its_tile_is_left_out(
    server: LoopbackServer, path: Path
) -> None:
    draw(str(path), SIZE, {"red": [(100, 0, 560, 450)]})
    filled = []

    def a_part_of_what_fills_a_tile(request: ReceivedRequest) -> dict[str, Any]:
        shown = SEEING(request)["objects"]
        if not shown or shown[0]["bbox_2d"] != [0, 0, 1000, 1000]:
            return NOTHING
        filled.append(request)
        return red_at(0, 0, 1000, 400)

    server.answers = by_size(a_part_of_what_fills_a_tile, red_at(167, 0, 933, 1000))
    [expression] = found(server, path)
    assert filled
    [bbox] = boxes(expression)
    assert is_near(bbox, (100, 0, 560, 450)), bbox


def test_none_in_a_tile_is_not_none_in_the_picture(server: LoopbackServer, path: Path) -> None:
    draw(str(path), SIZE, {"red": [(60, 60, 420, 360)]})
    server.answers = by_size(lambda _: NOTHING, red_at(100, 133, 700, 800, score=0.8))
    [expression] = found(server, path)
    assert expression["status"] == "grounded"
    assert [i["score"] for i in expression["instances"]] == [0.8]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 20}, "size should be a whole number from 64"),
        ({"overlap": 0.6}, "overlap should be over 0, and 0.5 at most"),
        ({"overlap": True}, "overlap should be over 0, and 0.5 at most"),
        ({"overlap": 0}, "without one a thing on the cut is two"),
    ],
)
def test_wrong_settings(server: LoopbackServer, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        TileGrounder(serving_of(server), **settings)


# A spec with `workflow.tiles`.


@pytest.fixture
def place(workplace: Workplace, server: LoopbackServer) -> Workplace:
    for number in range(2):
        path = workplace.folder / f"{number}.png"
        draw(str(path), SIZE, {"red": [(201 + number, 199, 211, 209)]})
    workplace.rows({"image_path": f"{number}.png"} for number in range(2))
    workplace.settings |= {
        "vlm.openai.base_url": server.base_url,
        "vlm.box_format": "xyxy_1000",
        "data.classes": [RED],
        "workflow.tiles": {"size": 256},
    }
    return workplace


def test_a_run_with_tiles_goes_on_where_it_stopped(
    place: Workplace, server: LoopbackServer
) -> None:
    done = place.run(**{"workflow.max_requests": 9})
    assert (done.code, server.count()) == (3, 9)
    done = place.run()
    assert (done.code, server.count()) == (0, 2 * (1 + TILES))
    rows = place.annotations()
    assert [len(row["expressions"][0]["instances"]) for row in rows] == [1, 1]
    assert [row["tiles"] for row in rows] == [TILES, TILES]
    assert place.run().summary["already_complete"]


def test_the_estimate_counts_tiles(place: Workplace) -> None:
    done = command(["estimate", "-e", str(place.spec()), "--json"])
    assert json.loads(done.out)["requests"] == 2 * (1 + TILES)


@pytest.mark.parametrize(
    ("key", "value"),
    [("workflow.samples", 3), ("workflow.negatives", 2), ("workflow.check", True)],
)
def test_what_looks_at_the_whole_picture_is_refused(
    place: Workplace, key: str, value: object
) -> None:
    done = place.run(**{key: value})
    assert done.code == 2
    assert f"{key} looks at the whole picture, which doesn't show what tiles find" in done.err


def test_tiles_share_a_fifth_of_their_side_unless_told_otherwise() -> None:
    """docs/better_boxes.md says so; with none, a thing on the cut is two."""
    assert TileGrounder(EmbeddedServing()).overlap == 0.2
