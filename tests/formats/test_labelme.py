"""Files of LabelMe and X-AnyLabeling: what is read, what an export gives back, what is new in it."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.formats import find_format, read
from tests.formats.data import (
    boxes_of,
    command,
    facts_of,
    record,
    records_of,
    refused,
    run_of,
    succeeds,
    told,
)
from tests.formats.place import Place
from tests.support.labelled import Labelled, labelled, saved


def of_version(version: str, *shapes: Any, path: Any = "x.png", **more: Any) -> dict[str, Any]:
    """A file as LabelMe writes it from version 3.5 on."""
    head = {"version": version, "flags": {}, "shapes": [*shapes], "imagePath": path}
    return {**head, "imageData": None, "imageHeight": 48, "imageWidth": 64, **more}


def shape(label: Any, points: Any, kind: str = "rectangle", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


@pytest.mark.parametrize("stated", [None, ""])
def test_labelmes_file_without_a_pictures_name_is_of_the_one_next_to_it(
    tmp_path: Path, stated: str | None
) -> None:
    """The picture was called "None"."""
    data = of_version("5.5.0", shape("cup", [[1, 2], [3, 4]], "Rectangle"), path=stated)
    path = saved(tmp_path / "a.json", data)
    with pytest.raises(InputError, match="it names no picture"):
        list(read(str(path), find_format("labelme")))
    (tmp_path / "a.png").touch()
    (row,) = read(str(path), find_format("labelme"))
    assert (row["image_path"], boxes_of(row)) == ("a.png", {"cup": [[1, 2, 3, 4]]})


def test_a_windows_path_is_read_with_slashes_or_found_by_its_last_part(tmp_path: Path) -> None:
    """The path: PyTorch-YOLOv3#582."""
    data = of_version("5.5.0", shape("cup", [[1, 2], [3, 4]]), path="..\\img\\a.png")
    saved(tmp_path / "a.json", data)
    labels = find_format("labelme")
    assert [row["image_path"] for row in read(str(tmp_path), labels)] == ["../img/a.png"]
    assert labels.passed_over.total() == 0
    (tmp_path / "a.png").touch()
    labels = find_format("labelme")
    assert [row["image_path"] for row in read(str(tmp_path), labels)] == ["a.png"]
    assert labels.passed_over["values of imagePath, of which only the last part is found"] == 1


def test_labelmes_corners_may_be_two_or_four_in_any_order(tmp_path: Path) -> None:
    four = [[30.5, 1], [40, 1], [40, 9.25], [30.5, 9.25]]
    shapes = [
        shape("cup", [[20, 30], [4.5, 6]]),
        shape("cup", four, score=0.5, difficult=False, attributes={}),
        shape("dog", [[1, 1], [9, 3], [5, 8]], "polygon", score=None),
        shape("dog", [[1, 1]], "point"),
    ]
    labelled(tmp_path, "labelme", [Labelled("b.png", shapes)], drawn=False)
    saved(tmp_path / "deep" / "a.json", of_version("5.5.0", path="..\\b.png"))
    source = find_format("labelme")
    first, second = read(str(tmp_path), source)
    assert boxes_of(first) == {
        "cup": [[4.5, 6, 20, 30], [30.5, 1, 40, 9.25]],
        "dog": [[1, 1, 9, 8]],
    }
    cup = first["expressions"][0]
    assert [instance.get("score") for instance in cup["instances"]] == [None, 0.5]
    assert (cup["class"], first["width"], first["height"]) == ("cup", 64, 48)
    assert source.passed_over["shapes 'point', kept for LabelMe"] == 1
    assert sum(source.passed_over.values()) == 1
    assert second["image_path"] == "deep/../b.png"
    assert second["expressions"] == []


def test_numbers_that_json_cannot_hold_are_bad_entries(tmp_path: Path) -> None:
    """They came into the results, which no file of JSON lines can hold."""
    good = shape("cup", [[1, 2], [3, 4]])
    shapes = [good, {**good, "score": float("nan")}, good]
    pictures = [Labelled("a.png", shapes), Labelled("c.png", [good]), Labelled("d.png", [good])]
    labelled(tmp_path, "labelme", pictures, drawn=False)
    saved(tmp_path / "b.json", of_version("5.5.0", x=float("inf")))
    done = command("import", tmp_path, "--format", "labelme", "-o", tmp_path / "out")
    assert done.code == 1, done
    for where in ("a.json, shape 2: ", "b.json: "):
        line = f"{where}is not of this format (a number in it is NaN or infinite"
        assert line in done.out + done.err
    rows = records_of(tmp_path / "out")
    assert [Path(row["image_path"]).name for row in rows] == ["c.png", "d.png"]


def test_a_folder_without_files_of_labelmes_is_told(tmp_path: Path) -> None:
    import_ = ("import", tmp_path, "--format", "labelme", "-o", tmp_path / "out")
    assert "has no .json files" in refused(*import_)


# There and back

BOX = [[3.25, 4.0], [20.5, 30.75]]
CORNERS = [[3.25, 4.0], [20.5, 4.0], [20.5, 30.75], [3.25, 30.75]]
TRIANGLE = [[1.5, 2.25], [11.0, 2.25], [11.0, 13.5]]
TURNED = [[20.0, 10.0], [36.0, 22.0], [30.0, 30.0], [14.0, 18.0]]


def png(width: int, height: int) -> str:
    """A picture of one channel as files have it in them: base64 of a PNG."""
    file = io.BytesIO()
    PIL.Image.new("L", (width, height), 1).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


PICTURE, MASK = png(64, 48), png(7, 6)


def of_3(points: Any, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    """A shape of LabelMe 3."""
    colors = {"line_color": None, "fill_color": [0, 0, 255, 128]}
    shape = {"label": "cup", **colors, "points": points, "shape_type": kind}
    return {**shape, "flags": {}, **more}


def of_5(points: Any, kind: str = "rectangle", **more: Any) -> dict[str, Any]:
    """A shape of LabelMe 5 and later."""
    return shape("cup", points, kind, description="", flags={}, mask=None) | more


def x_shape(points: Any, kind: str = "rectangle", **more: Any) -> dict[str, Any]:
    """A shape of X-AnyLabeling 2 and later."""
    own = {"score": None, "description": None, "difficult": False, "flags": {}}
    return shape("cup", points, kind, **own, attributes={}, kie_linking=[]) | more


LINES = {
    "circle": [[10, 10], [14, 13]],
    "line": [[1, 1], [9, 9]],
    "linestrip": [[1, 1], [9, 9], [12, 3]],
    "point": [[7.5, 8]],
}
COLORS = {"lineColor": [0, 255, 0, 128], "fillColor": [255, 0, 0, 128]}
FILES: dict[str, dict[str, Any]] = {
    "labelme 2": {
        "shapes": [{"label": "cup", "line_color": None, "fill_color": None, "points": TRIANGLE}],
        **COLORS,
        "imagePath": "x.png",
        "imageData": PICTURE,
    },
    "labelme 3 without sides": {
        "version": "3.2.0",
        "flags": {"night": True},
        "shapes": [of_3(TRIANGLE), of_3(BOX, "rectangle")],
        "imagePath": "x.png",
        **COLORS,
        "imageData": None,
    },
    "labelme 3": of_version(
        "3.16.7", *(of_3(points, kind) for kind, points in LINES.items()), of_3(TRIANGLE), **COLORS
    ),
    "labelme 4 with groups": of_version(
        "4.5.6",
        shape("cup", BOX, flags={"old": True}),
        shape("handle", TRIANGLE, "polygon", group_id=0),
        shape("cup", [[1, 1], [8, 8]], group_id=0),
        shape("rim", [[1, 1], [8, 3]], "line", group_id=12),
        shape("cup", [[2, 1], [8, 8]], group_id=12),
    ),
    "labelme 5": of_version("5.0.1", of_5(BOX, description="half hidden", group_id=3)),
    "labelme 5 with flags": of_version(
        "5.5.0", of_5(BOX, flags={"broken": False, "wet": True}), flags={"indoors": True}
    ),
    "labelme's mask": of_version("5.5.0", of_5([[3, 4], [9, 9]], "mask", mask=MASK), of_5(BOX)),
    "labelme's points": of_version("5.5.0", of_5(TRIANGLE, "points"), of_5(TRIANGLE, "polygon")),
    "labelme's rotated box": of_version("7.1.0", of_5(TURNED, "oriented_rectangle")),
    "imageData": of_version("5.5.0", of_5(BOX), imageData=PICTURE),
    "null sides": of_version("5.5.0", of_5(BOX), imageHeight=None, imageWidth=None),
    "a path of Windows": of_version("5.5.0", of_5(BOX), path="..\\pictures\\a path.png"),
    "a path of another machine": of_version("4.2.9", of_5(BOX), path="C:\\Users\\Ann\\m.png"),
    "a path to another folder": of_version("5.5.0", of_5(BOX), path="../pictures/other.png"),
    "a path into a folder": of_version("5.5.0", of_5(BOX), path="below/the/x.png"),
    "unicode": of_version(
        "5.5.0", of_5(BOX, label="红色的杯子", description="e\u0301clair 🐈\n"), path="ü 杯.png"
    ),
    "capitals": of_version("1.0", of_5(BOX, "Rectangle"), of_5(TRIANGLE, "Polygon")),
    "no type": of_version("5.5.0", of_5(TRIANGLE, None)),  # type: ignore[arg-type]
    "drawn from the last corner": of_version("5.5.0", of_5([BOX[1], BOX[0]])),
    "long numbers": of_version(
        "5.5.0", of_5([[1.2345678901234567, 2.000000000000001], [30.1, 40.333333333333336]])
    ),
    "equal shapes": of_version("5.5.0", of_5(BOX), of_5(BOX, group_id=1), of_5(BOX)),
    "beyond the picture": of_version("7.0.4", of_5([[-5.5, 4], [70, 60]]), of_5(LINES["line"])),
    "no shapes": of_version("5.5.0", flags={"cat": True, "dog": False}),
    "keys of others": of_version(
        "5.5.0", of_5(BOX, reviewer={"by": ["Ann", 7]}, score="high"), project={"id": 7}, tags=["a"]
    ),
    "shapes of no area": of_version(
        "6.3.1", of_5([[1, 1], [9, 9]], "polygon"), of_5([[5, 5], [5, 9]]), of_5(BOX)
    ),
    "AnyLabeling": of_version("0.3.3", shape("cup", BOX, flags={}, text="EXIT"), text="a kitchen"),
    "X-AnyLabeling 2.3": of_version(
        "2.3.7",
        x_shape(CORNERS, score=0.8125, difficult=True, description="a red cup"),
        x_shape(CORNERS, attributes={"colour": "red", "size": "2"}, group_id=1),
        x_shape(CORNERS, label="price", kie_linking=[[0, 1]], group_id=2),
        description="a table",
    ),
    "X-AnyLabeling's rotations": of_version(
        "4.0.2",
        x_shape(TURNED, "rotation", direction=0.6435011087932844, score=0.5),
        x_shape(CORNERS, "rotation", direction=0),
    ),
    "X-AnyLabeling's shapes": of_version(
        "4.0.2",
        x_shape(TURNED, "quadrilateral"),
        x_shape([*CORNERS, *TURNED], "cuboid", cuboid3d={"version": 1}),
        *(x_shape(points, kind) for kind, points in LINES.items()),
        x_shape(TRIANGLE, "polygon", locked=True),
    ),
    "X-AnyLabeling 4": of_version(
        "4.0.2", x_shape(CORNERS), checked=True, tags=["blurred"], description="", ratio=0.5
    ),
    "X-AnyLabeling without sides": of_version(
        "4.0.2", x_shape(CORNERS), imageHeight=-1, imageWidth=-1
    ),
    "only lines": of_version("4.0.2", *(x_shape(points, kind) for kind, points in LINES.items())),
}
"""What others wrote, by what is special of it."""


def picture_next_to(file: Path, image_path: Any) -> Path:
    """Where the picture is that a file means."""
    stated = str(image_path).replace("\\", "/")
    if ":" in stated:
        stated = os.path.basename(stated)
    return Path(os.path.normpath(file.parent / stated))


def written(folder: Path, files: dict[str, dict[str, Any]]) -> Path:
    """A folder with these files, each in one of its own, and their pictures."""
    for name, data in files.items():
        file = folder / name / "x.json"
        picture = picture_next_to(file, data["imagePath"])
        for path in (file, picture):
            path.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(data, ensure_ascii=False, indent=2), "utf-8")
        PIL.Image.effect_noise((64, 48), 90).save(picture)
    return folder


def files_in(folder: Path) -> dict[str, Any]:
    files = sorted(folder.rglob("*.json"))
    return {file.parent.name: json.loads(file.read_text("utf-8")) for file in files}


def without_picture(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "imageData": None}


@pytest.mark.slow
@pytest.mark.parametrize(("images", "folder"), [("copy", "images"), ("reference", "labels")])
def test_what_others_wrote_comes_back_as_it_was(tmp_path: Path, images: str, folder: str) -> None:
    """Next to pictures that are copied, or in a folder of its own."""
    source = written(tmp_path / "data", FILES)
    results, out = tmp_path / "results", tmp_path / "out"
    succeeds("import", source, "--format", "labelme", "-o", results)
    said = told("export", results, "--format", "labelme", "-o", out, "--images", images)
    assert len(FILES) >= 30
    assert files_in(out / folder) == {name: without_picture(FILES[name]) for name in FILES}
    assert "files that came with it: 2\n" in said
    for file in (out / "images").rglob("*.json"):
        data = json.loads(file.read_text("utf-8"))
        assert picture_next_to(file, data["imagePath"]).is_file()


@pytest.mark.parametrize("name", [name for name in FILES if "path" in name])
def test_a_file_alone_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    file = written(tmp_path / "data", {name: FILES[name]}) / name / "x.json"
    succeeds("import", file, "--format", "labelme", "-o", tmp_path / "results")
    succeeds("export", tmp_path / "results", "--format", "labelme", "-o", tmp_path / "out")
    [out] = (tmp_path / "out").rglob("*.json")
    data = without_picture(FILES[name])
    if "pictures" in data["imagePath"]:  # the picture was above the folder of the file
        data["imagePath"] = os.path.basename(data["imagePath"].replace("\\", "/"))
    assert json.loads(out.read_text("utf-8")) == data
    assert picture_next_to(out, data["imagePath"]).is_file()


def test_what_is_kept_is_counted(tmp_path: Path) -> None:
    files = {name: FILES[name] for name in ("X-AnyLabeling 2.3", "labelme 4 with groups")}
    source = written(tmp_path / "data", files)
    kept = facts_of("import", source, "--format", "labelme", "-o", tmp_path / "out")
    assert kept["left_out"] == {
        "keys 'description' of shapes, kept for LabelMe": 1,
        "keys 'difficult' of shapes, kept for LabelMe": 1,
        "keys 'attributes' of shapes, kept for LabelMe": 1,
        "keys 'group_id' of shapes, kept for LabelMe": 6,
        "keys 'kie_linking' of shapes, kept for LabelMe": 1,
        "keys 'flags' of shapes, kept for LabelMe": 1,
        "keys 'description' of files, kept for LabelMe": 1,
        "shapes 'line', kept for LabelMe": 1,
    }


# What was changed


Expressions = list[dict[str, Any]]
Shapes = list[dict[str, Any]]


def shapes_back(place: Place, change: Callable[[Expressions], object], *shapes: Any) -> Shapes:
    """The shapes of a file that is imported, changed by a function, and exported again."""
    version = "4.0.2" if "kie_linking" in shapes[0] else "5.5.0"
    place.pictures = written(place.folder / "data", {"x": of_version(version, *shapes)})
    place.back(place.pictures, "labelme", lambda records: change(records[0]["expressions"]))
    found: Shapes = files_in(place.out)["x"]["shapes"]
    return found


def resized(expressions: Expressions) -> None:
    expressions[0]["instances"][0] |= {"bbox": [5, 6, 15, 16.5], "score": None}


def shifted(expressions: Expressions) -> None:
    (box,) = expressions[0]["instances"]
    box["bbox"] = [edge + 3 for edge in box["bbox"]]
    box["outline"] = [number + 3 for number in box["outline"]]


def outlined(expressions: Expressions) -> None:
    expressions[0]["instances"][0]["outline"] = [3.25, 4, 20.5, 4, 20.5, 30.75]


def renamed(expressions: Expressions) -> None:
    """The class goes with its phrase, as in a review; words of the source are kept."""
    cup, plate = expressions
    cup["text"] = "mug"
    del cup["class"]
    plate["text"] = "the left plate"


def rejected(expressions: Expressions) -> None:
    expressions[0] |= {"verified": False, "reviewed_by": "ann"}


TWO, FOUR = [[5.0, 6.0], [15.0, 16.5]], [[5.0, 6.0], [15.0, 6.0], [15.0, 16.5], [5.0, 16.5]]
MOVED = [[x + 3, y + 3] for x, y in TURNED]
LINE, WET = of_5(LINES["line"], "line"), {"group_id": 7, "description": "wet"}
# of four corners where X-AnyLabeling drew four, of two where LabelMe did, or others
CHANGED: list[tuple[Callable[[Expressions], None], Shapes, Shapes]] = [
    (resized, [of_5(BOX, **WET), of_5(BOX)], [of_5(TWO, **WET), of_5(BOX)]),
    (resized, [x_shape(TURNED, "rotation", direction=0.64, score=0.5)], [x_shape(FOUR)]),
    (resized, [x_shape(CORNERS, score=0.5)], [x_shape(FOUR)]),
    (resized, [x_shape(TRIANGLE, "polygon", locked=True)], [x_shape(TWO, locked=True)]),
    (resized, [of_5([[3, 4], [9, 9]], "mask", mask=MASK)], [of_5(TWO)]),
    (resized, [of_5(CORNERS, "polygon")], [of_5(TWO)]),
    (resized, [of_5(TURNED, "oriented_rectangle")], [of_5(TWO)]),
    (
        shifted,
        [x_shape(TURNED, "rotation", direction=0.64, group_id=5)],
        [x_shape(MOVED, "rotation", direction=0.64, group_id=5)],
    ),
    (outlined, [of_5(BOX)], [of_5([[3.25, 4], [20.5, 4], [20.5, 30.75]], "polygon")]),
    (
        renamed,
        [of_5(BOX), of_5(BOX, label="plate", description="wet")],
        [of_5(BOX, label="mug"), of_5(BOX, label="the left plate", description="wet")],
    ),
    (rejected, [of_5(BOX), LINE], [LINE]),
]


@pytest.mark.parametrize(("change", "came", "becomes"), CHANGED)
def test_what_is_changed_of_shapes(
    change: Callable[[Expressions], None], came: Shapes, becomes: Shapes, place: Place
) -> None:
    assert shapes_back(place, change, *came) == becomes


def test_a_new_box_is_drawn_as_the_others_of_its_file(place: Place) -> None:
    def added(expressions: Expressions) -> None:
        new = {"bbox": [1, 2, 9, 8], "score": 0.25}
        expressions.append({**expressions[0], "text": "a red plate", "class": "plate"})
        expressions[-1] |= {"instances": [new], "expression_id": "new"}

    old, new = shapes_back(place, added, x_shape(CORNERS))
    assert old == x_shape(CORNERS)
    assert new["points"] == [[1, 2], [9, 2], [9, 8], [1, 8]]
    assert (new["label"], new["description"], new["score"]) == ("plate", "a red plate", 0.25)


# What is new


def predicted(folder: Path, *names: str) -> Path:
    """A run's folder: a class, a phrase of another class, a box with an outline."""
    box, other = [1.0, 2.0, 30.5, 40.0], [32.0, 2.0, 62.0, 41.0]
    outlined = {"bbox": [3.0, 4.0, 9.0, 9.0], "outline": [3.0, 4.0, 9.0, 4.0, 9.0, 9.0]}
    rows = []
    for name in names:
        phrases: list[dict[str, Any]] = [
            {"text": "cup", "class": "cup", "instances": [{"bbox": box, "score": 0.75}]},
            {"text": "the red cup", "class": "cup", "instances": [{"bbox": other}]},
            {"text": "a plate", "instances": [outlined]},
        ]
        rows.append(record(name, (64, 48), phrases))
    return run_of(folder, rows)


def test_predictions_are_shapes_that_both_tools_read(tmp_path: Path) -> None:
    run, out = predicted(tmp_path / "run", "a.png", "deep/b.png"), tmp_path / "out"
    succeeds("export", run, "--format", "labelme", "-o", out)
    base: dict[str, Any] = {"group_id": None, "description": "", "flags": {}}
    assert json.loads((out / "images/deep/b.json").read_text()) == {
        "version": "6.3.1",
        "flags": {},
        "shapes": [
            {**base, "label": "cup", "points": [[1, 2], [30.5, 40]], "shape_type": "rectangle"}
            | {"score": 0.75},
            {**base, "label": "cup", "points": [[32, 2], [62, 41]], "shape_type": "rectangle"}
            | {"description": "the red cup", "phrase_in": "description"},
            {**base, "label": "a plate", "points": [[3, 4], [9, 4], [9, 9]]}
            | {"shape_type": "polygon"},
        ],
        "imagePath": "b.png",
        "imageData": None,
        "imageHeight": 48,
        "imageWidth": 64,
    }
    assert (out / "images/deep/b.png").is_file()
    first, second = read(str(out), "labelme")
    assert (first["image_path"], second["image_path"]) == ("images/a.png", "images/deep/b.png")
    found = [(one["text"], one["class"]) for one in first["expressions"]]
    assert found == [("cup", "cup"), ("the red cup", "cup"), ("a plate", "a plate")]


def test_a_phrase_that_was_corrected_in_the_tool_comes_in(tmp_path: Path) -> None:
    out = tmp_path / "out"
    succeeds("export", predicted(tmp_path / "run", "a.png"), "--format", "labelme", "-o", out)
    file = out / "images/a.json"
    file.write_text(file.read_text().replace("the red cup", "the blue cup"))
    imported = ("import", out, "--format", "labelme", "-o", tmp_path / "back")
    assert facts_of(*imported)["left_out"] == {}
    (row,) = records_of(tmp_path / "back")
    assert [*boxes_of(row)] == ["cup", "the blue cup", "a plate"]


def test_files_in_a_folder_find_their_pictures_by_the_image_root(tmp_path: Path) -> None:
    run, out = predicted(tmp_path / "run", "a.png", "deep/b.png"), tmp_path / "out"
    succeeds("export", run, "--format", "labelme", "-o", out, "--images", "reference")
    assert not (out / "images").exists()
    rows = list(read(str(out), "labelme", image_root=str(run)))
    assert [row["image_path"] for row in rows] == ["a.png", "deep/b.png"]


def test_a_file_whose_path_would_be_wrong_is_next_to_its_picture(place: Place) -> None:
    """Labels and pictures were in two folders, of which only that of the pictures is copied."""
    data = of_version("5.5.0", of_5(BOX), path="../pictures/b.png")
    out = place.back(written(place.folder, {"labels": data}) / "labels", "labelme")
    assert json.loads((out / "images/b.json").read_text()) == {**data, "imagePath": "b.png"}
    assert (out / "images/b.png").is_file()


def test_all_records_of_a_picture_are_in_its_file(tmp_path: Path) -> None:
    run, out = predicted(tmp_path / "run", "a.png"), tmp_path / "out"
    line = (run / "annotations.jsonl").read_text()
    (run / "annotations.jsonl").write_text(line + line.replace("cup", "mug"))
    succeeds("export", run, "--format", "labelme", "-o", out)
    shapes = json.loads((out / "images/a.json").read_text())["shapes"]
    labels = [shape["label"] for shape in shapes]
    assert labels == ["cup", "cup", "a plate", "mug", "mug", "a plate"]


def test_further_records_of_a_file_say_nothing_twice(place: Place) -> None:
    data = of_version("5.5.0", of_5(BOX), of_5(LINES["line"], "line"), of_5(BOX, label="plate"))

    def parted(records: list[dict[str, Any]]) -> None:
        [row] = records
        records[:] = [{**row, "expressions": [one]} for one in row["expressions"]]

    place.pictures = written(place.folder / "data", {"x": data})
    assert files_in(place.back(place.pictures, "labelme", parted)) == {"x": data}


def test_pictures_that_would_share_a_file_are_refused(tmp_path: Path) -> None:
    run = predicted(tmp_path / "run", "a.jpg", "a.png")
    line = refused("export", run, "--format", "labelme", "-o", tmp_path / "out")
    assert "images/a.png and another picture would share a.json: rename one" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "column",
    [
        {"file": 7, "place": "../../x.json", "picture": "a.png"},
        {"file": {"imagePath": 7}, "place": 7, "picture": 7},
        {"file": {}, "place": "C:\\x\n.json", "picture": "a.png", "items": [7, {"points": "x"}]},
        {"items": [{"shape_type": "rotation", "points": ["ab"]}, None], "read": [0, 1]},
    ],
)
def test_a_column_of_somebody_else_leads_nowhere(tmp_path: Path, column: dict[str, Any]) -> None:
    run, out = predicted(tmp_path / "run", "a.png"), tmp_path / "out"
    [row] = records_of(run)
    row["imported"] = {"format": "labelme", "items": [], "read": [], **column}
    for number, one in enumerate(row["expressions"][1:]):
        one["instances"][0]["imported"] = {"item": number, "bbox": [1, 1, 2, 2], "text": "x"}
    saved(run / "annotations.jsonl", row)
    succeeds("export", run, "--format", "labelme", "-o", out)
    [file] = tmp_path.rglob("*.json")
    assert file.is_relative_to(out / "images")
