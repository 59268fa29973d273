"""Things in overlapping tiles of a picture, with a model that is shown it reduced.

All sizes are a quarter of those of a real picture: 1000 px for 4000, tiles of 256 for 1024, and a
model that is shown 250 px, and sees nothing under 4 px of that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_grounding import OpenAIServing, PhraseGrounder, SpecError, TileGrounder
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from tests.support.stand_ins.limited_model import LimitedModel
from tests.support.stand_ins.seeing_model import draw
from tests.support.workplace import Workplace, command

SIZE = (1000, 750)
TILES = 20  # of 256 px in it: five in a row, four rows
SMALLEST = 5  # px of a side that the model sees in a tile


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(LimitedModel(250, 4), keep_bodies=True) as server:
        yield server


def found(
    server: LoopbackServer, path: Path, *phrases: str, operator: Any = None
) -> list[dict[str, Any]]:
    if operator is None:
        operator = TileGrounder(serving_of(server), size=256, check_every=None)
    expressions = operator({"image_path": str(path), "expressions": list(phrases)})["expressions"]
    assert isinstance(expressions, list)
    return expressions


def serving_of(server: LoopbackServer) -> OpenAIServing:
    return OpenAIServing(server.base_url, "loopback", box_format="xyxy_1000")


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


@settings(max_examples=settings().max_examples // 5)  # each is a picture, and a dozen requests
@given(thing=a_thing())
def test_a_thing_anywhere_is_one_box(
    server: LoopbackServer, tmp_path_factory: pytest.TempPathFactory, thing: Any
) -> None:
    path = tmp_path_factory.mktemp("thing") / "photo.png"
    draw(str(path), SIZE, {"red": [thing]})
    [expression] = found(server, path, "the red box")
    [bbox] = boxes(expression)
    assert is_near(bbox, thing), (bbox, thing)
    assert "doubtful" not in expression


def test_what_the_whole_picture_hides_is_found(server: LoopbackServer, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    small = [(201, 199, 211, 209), (750, 400, 760, 412), (980, 720, 992, 731)]
    draw(str(path), SIZE, {"red": small, "blue": [(100, 300, 700, 700)]})  # type: ignore[dict-item]
    plain = PhraseGrounder(serving_of(server), check_every=None)
    phrases = ("the red box", "the blue box", "the green box")
    assert [len(boxes(e)) for e in found(server, path, *phrases, operator=plain)] == [0, 1, 0]
    red, blue, green = found(server, path, *phrases)
    assert len(boxes(red)) == 3
    assert all(is_near(bbox, wanted) for bbox, wanted in zip(boxes(red), small, strict=True))
    assert len(boxes(blue)) == 1
    assert is_near(boxes(blue)[0], (100, 300, 700, 700))
    assert (green["instances"], green["status"]) == ([], "none")


def test_things_side_by_side_stay_apart(server: LoopbackServer, tmp_path: Path) -> None:
    path = tmp_path / "row.png"
    row = [(60 + 30 * n, 190, 60 + 30 * n + 20, 210) for n in range(25)]  # across all tiles
    draw(str(path), SIZE, {"red": row})  # type: ignore[dict-item]
    [expression] = found(server, path, "the red box")
    assert len(boxes(expression)) == len(row)
    assert all(any(is_near(bbox, thing) for thing in row) for bbox in boxes(expression))


def test_each_picture_is_asked_about_once(server: LoopbackServer, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    draw(str(path), SIZE, {"red": [(10, 10, 30, 30)]})
    operator = TileGrounder(serving_of(server), size=256, phrases_per_request=1, check_every=None)
    before = server.count()
    record = {"image_path": str(path), "expressions": ["the red box", "the blue box"]}
    record = operator(record)
    assert server.count() - before == 2 * (1 + TILES)
    assert record["tiles"] == TILES
    sizes = {size for request in server.requests[before:] for size in request.image_sizes}
    assert sizes == {SIZE, (256, 256)}


def test_a_picture_no_larger_than_a_tile_is_asked_about_alone(
    server: LoopbackServer, tmp_path: Path
) -> None:
    path = tmp_path / "photo.png"
    draw(str(path), (256, 100), {"red": [(10, 10, 30, 30)]})
    before = server.count()
    [expression] = found(server, path, "the red box")
    assert server.count() - before == 1
    assert boxes(expression) == [[10, 10, 30, 30]]


def test_tiles_are_cut_from_the_upright_picture(server: LoopbackServer, tmp_path: Path) -> None:
    from PIL import Image

    drawn, path = tmp_path / "drawn.png", tmp_path / "phone.jpg"
    draw(str(drawn), (750, 1000), {"red": [(600, 40, 612, 52)]})
    stored = Image.open(drawn).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    stored.save(path, exif=exif, quality=95, subsampling=0)
    [expression] = found(server, path, "the red box")
    [bbox] = boxes(expression)
    assert is_near(bbox, (600, 40, 612, 52))


def in_tiles_only(reply: Any) -> Any:
    """Answers with nothing for the whole picture, and with `reply` for each tile."""

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        [size] = request.image_sizes
        return {"objects": []} if size == SIZE else reply(request)

    return answers


@pytest.mark.slow
def test_a_box_that_ends_with_its_tile_and_no_other_shows_is_doubtful(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    draw(str(path), SIZE, {"red": [(400, 300, 410, 310)]})
    seeing = LimitedModel(250, 4)

    def at_the_edge(request: ReceivedRequest) -> dict[str, Any]:
        if not seeing(request)["objects"]:
            return {"objects": []}
        return {"objects": [{"id": 1, "label": "the red box", "bbox_2d": [900, 400, 1000, 600]}]}

    with LoopbackServer(in_tiles_only(at_the_edge), keep_bodies=True) as server:
        [expression] = found(server, path, "the red box")
    assert expression["instances"]
    assert (expression["doubtful"], expression["doubt"]) == (
        True,
        "a box ends at the edge of a tile",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "thing",
    [(150, 300, 390, 330), (300, 120, 325, 370), (120, 100, 350, 330)],
    ids=["across columns", "across rows", "across both"],
)
def test_what_only_tiles_show_in_parts_is_put_together(tmp_path: Path, thing: Any) -> None:
    path = tmp_path / "photo.png"
    draw(str(path), SIZE, {"red": [thing]})
    with LoopbackServer(in_tiles_only(LimitedModel(250, 4)), keep_bodies=True) as server:
        [expression] = found(server, path, "the red box")
    [bbox] = boxes(expression)
    assert is_near(bbox, thing), bbox
    assert "doubtful" not in expression


@pytest.mark.slow
def test_a_piece_of_a_thing_that_fills_its_tile_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    draw(str(path), SIZE, {"red": [(100, 100, 900, 700)]})
    seeing = LimitedModel(250, 4)

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        [size] = request.image_sizes
        numbers = [100, 133, 900, 933]
        if size != SIZE:
            shown = seeing(request)["objects"]
            if not shown or shown[0]["bbox_2d"] != [0, 0, 1000, 1000]:
                return {"objects": []}
            numbers = [0, 0, 1000, 400]  # a part of what fills the tile
        return {"objects": [{"id": 1, "label": "the red box", "bbox_2d": numbers}]}

    with LoopbackServer(answers, keep_bodies=True) as server:
        [expression] = found(server, path, "the red box")
    [bbox] = boxes(expression)
    assert is_near(bbox, (100, 100, 900, 700)), bbox


@pytest.mark.slow
def test_none_in_a_tile_is_not_none_in_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    draw(str(path), SIZE, {"red": [(100, 100, 700, 600)]})

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        [size] = request.image_sizes
        if size != SIZE:
            return {"objects": []}
        numbers = [100, 133, 700, 800]
        return {"objects": [{"id": 1, "label": "the red box", "bbox_2d": numbers, "score": 0.8}]}

    with LoopbackServer(answers) as server:
        [expression] = found(server, path, "the red box")
    assert expression["status"] == "grounded"
    assert [i["score"] for i in expression["instances"]] == [0.8]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 20}, "size should be a whole number from 64"),
        ({"overlap": 0.6}, "overlap should be from 0 to 0.5"),
        ({"overlap": True}, "overlap should be from 0 to 0.5"),
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
        "data.classes": ["the red box"],
        "workflow.tiles": {"size": 256},
    }
    return workplace


def test_a_run_with_tiles_goes_on_where_it_stopped(
    place: Workplace, server: LoopbackServer
) -> None:
    before = server.count()
    done = place.run(**{"workflow.max_requests": 30})
    assert (done.code, server.count() - before) == (3, 30)
    done = place.run()
    assert (done.code, server.count() - before) == (0, 2 * (1 + TILES))
    rows = place.annotations()
    assert [len(row["expressions"][0]["instances"]) for row in rows] == [1, 1]
    assert [row["tiles"] for row in rows] == [TILES, TILES]
    assert place.run().summary["already_complete"]


def test_the_estimate_counts_tiles(place: Workplace) -> None:
    done = command(["estimate", "-e", str(place.spec()), "--json"])
    assert json.loads(done.out)["requests"] == 2 * (1 + TILES)


@pytest.mark.parametrize(
    "other",
    [{"workflow.samples": 3}, {"workflow.negatives": 2}, {"workflow.verify": "reground"}],
    ids=str,
)
def test_what_looks_at_the_whole_picture_is_refused(place: Workplace, other: Any) -> None:
    [key] = other
    done = place.run(**other)
    assert done.code == 2
    assert f"{key} looks at the whole picture, which doesn't show what tiles find" in done.err
