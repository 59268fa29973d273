"""What `image_referring_expression` begins from: COCO, YOLO, our own annotations and TAO's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import seed_file
from dataflow_grounding._util.errors import InputError
from dataflow_grounding.data.rows import read_records
from dataflow_grounding.formats.seed_records import find_seeds, write_seeds
from dataflow_grounding.formats.seeds import Made
from dataflow_grounding.spec.schema import ReferringData
from dataflow_grounding.testing import LoopbackServer
from tests.support.labelled import kitti, saved
from tests.support.referring_place import ReferringPlace
from tests.support.workplace import command


@pytest.fixture
def place(tmp_path: Path, server: LoopbackServer) -> ReferringPlace:
    made = ReferringPlace(tmp_path, server.base_url)
    made.picture("a.png", (200, 100))
    made.picture("sub/b.JPG", (640, 480))
    return made


def seeds_of(place: ReferringPlace, **labels: Path) -> list[dict[str, Any]]:
    """The records that a run would begin from."""
    named: Any = {kind: str(path) for kind, path in labels.items()}
    return read_records(seed_file(str(place.results), str(place.images), **named))


def regions(rows: list[dict[str, Any]]) -> dict[str, list[tuple[str, list[float]]]]:
    return {row["image_path"]: [(r["type"], r["bbox"]) for r in row["regions"]] for row in rows}


# --- KITTI


def test_seeds_are_sorted_by_path_and_have_size_and_source(place: ReferringPlace) -> None:
    place.picture("A.png")
    (place.images / "notes.txt").write_text("no image")
    (place.images / ".hidden.png").write_bytes(b"")
    for name in ("a", "A", "sub/b"):
        place.label(f"{name}.txt", [kitti("Car", 1, 2, 30, 40.50)])
    seeds = seeds_of(place, kitti=place.labels)
    assert [(s["image_id"], s["image_path"], s["width"], s["height"]) for s in seeds] == [
        ("A", "A.png", 640, 480),
        ("a", "a.png", 200, 100),
        ("sub/b", "sub/b.JPG", 640, 480),
    ]
    assert all(s["source"] == "image_referring_expression" for s in seeds)
    assert all(
        set(s) == {"image_id", "image_path", "width", "height", "regions", "source"} for s in seeds
    )
    assert '"bbox": [1, 2, 30, 40.5]' in (place.results / "seed_annotations.jsonl").read_text()


def test_boxes_are_those_of_the_upright_image(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 200), "red").save(place.images / "turned.jpg", exif=exif.tobytes())
    place.label("turned.txt", [kitti("Car", 10, 20, 190, 290)])
    done = place.run()
    assert done.code == 0, done
    turned = next(record for record in place.annotations() if record["image_id"] == "turned")
    assert (turned["width"], turned["height"], turned["regions"][0]["bbox"]) == (
        200,
        300,
        [10, 20, 190, 290],
    )
    [shown] = [r for r in server.requests if r.task == "region_expression"]
    assert (shown.image_sizes, shown.input["regions"][0]["bbox_2d"]) == (
        ((200, 300),),
        [10, 20, 190, 290],
    )


def test_labels_may_lie_beside_the_images(place: ReferringPlace) -> None:
    for name in ("a", "sub/b"):
        (place.images / f"{name}.txt").write_text(kitti("Car", 1, 2, 30, 40))
    assert regions(seeds_of(place, kitti=place.images)) == {
        "a.png": [("Car", [1, 2, 30, 40])],
        "sub/b.JPG": [("Car", [1, 2, 30, 40])],
    }


# --- COCO


IMAGES = [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "sub/b.JPG"}]


def coco(
    place: ReferringPlace,
    annotations: list[dict[str, Any]],
    images: list[dict[str, Any]] = IMAGES,
) -> Path:
    names = [{"id": 3, "name": "traffic light"}, {"id": 4, "name": "car"}]
    data = {"images": images, "annotations": annotations, "categories": names}
    path = saved(place.folder / "instances.json", data)
    place.settings |= {"data.kitti_label_dir": None, "data.coco_json": str(path)}
    return path


def test_coco_boxes_become_corners_without_binary_noise(place: ReferringPlace) -> None:
    coco(
        place,
        [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0.1, 0.2, 0.2, 50.1], "iscrowd": 0},
            {"id": 2, "image_id": 9, "category_id": 4, "bbox": [10, 20, 30, 40]},
            {"id": 3, "image_id": 9, "category_id": 4, "bbox": [0, 0, 640, 480], "iscrowd": 1},
            {"id": 4, "image_id": 1, "category_id": 4, "bbox": [0, 0, 1, 1]},
        ],
    )
    done = place.run()
    assert done.code == 0, done
    assert regions(place.annotations()) == {
        "a.png": [("traffic light", [0.1, 0.2, 0.3, 50.3])],
        "sub/b.JPG": [("car", [10, 20, 40, 60])],
    }
    assert "crowd regions that are left out: 1" in done.err
    assert "1 annotations of no image" in done.err
    assert place.run_json()["input"] == {
        "images": 2,
        "crowd_regions_left_out": 1,
        "images_without_label": {"count": 0, "first": []},
        "labels_without_image": {"count": 1, "first": ["1 annotations of no image"]},
    }


@pytest.mark.parametrize(("image_id", "iscrowd", "is_stray"), [(1, 0, True), (9, 1, False)])
def test_annotations_of_no_image_are_told_where_there_are_any(
    place: ReferringPlace, image_id: int, iscrowd: int, is_stray: bool
) -> None:
    box = {"id": 1, "image_id": 9, "category_id": 4, "bbox": [10, 20, 30, 40]}
    coco(place, [box, {**box, "id": 2, "image_id": image_id, "iscrowd": iscrowd}])
    done = place.run()
    assert done.code == 0, done
    assert ("annotations of no image" in done.err) is is_stray, done


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([1], "is not a COCO file"),
        ({"images": [{"id": 1}], "annotations": []}, "without 'id' and 'file_name'"),
        ({"images": [{"id": 1, "file_name": "z.png"}], "annotations": []}, "no image of"),
    ],
)
def test_what_is_no_coco_file_is_refused(place: ReferringPlace, content: Any, why: str) -> None:
    path = saved(place.folder / "instances.json", content)
    with pytest.raises(InputError, match=why):
        seeds_of(place, coco=path)


def test_two_images_of_coco_with_one_file_name_are_refused(place: ReferringPlace) -> None:
    """The boxes of the first one were lost without a word."""
    twins = [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "./a.png"}]
    boxes = [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]}]
    said = r"instances\.json: the images 7 and 9 have one file_name, '\./a\.png': give"
    with pytest.raises(InputError, match=said):
        seeds_of(place, coco=coco(place, boxes, twins))


# --- YOLO


def yolo(place: ReferringPlace, lines: list[str], names: str = "person\ntraffic light\n") -> None:
    for name in ("a", "sub/b"):
        place.label(f"{name}.txt", lines)
    (place.labels / "classes.txt").write_text(names)
    place.settings |= {"data.kitti_label_dir": None, "data.yolo_label_dir": str(place.labels)}


def test_yolo_boxes_come_out_again_to_their_last_digit(place: ReferringPlace) -> None:
    line = "1 0.123456 0.654321 0.111111 0.222222"
    yolo(place, [line, "0 0.5 0.5 1 1 0.87"])
    done = place.run()
    assert done.code == 0, done
    assert place.run_json()["input"]["labels_without_image"]["count"] == 0, "not the classes.txt"
    for record in place.annotations():
        light, person = record["regions"]
        assert (light["type"], person["type"]) == ("traffic light", "person")
        assert person["bbox"] == [0, 0, record["width"], record["height"]]
        x1, y1, x2, y2 = light["bbox"]
        w, h = record["width"], record["height"]
        again = ((x1 + x2) / 2 / w, (y1 + y2) / 2 / h, (x2 - x1) / w, (y2 - y1) / h)
        assert " ".join(f"{value:.6f}" for value in again) == line[2:]


def test_what_rows_of_yolo_are_read_as_is_counted(place: ReferringPlace) -> None:
    yolo(place, ["0 0.5 0.5 0.5 0.5", "1 .1 .1 .4 .1 .4 .4", "1 .1 .1 .4 .1 .4 .4 .1 .4"])
    done = place.run()
    assert done.code == 0, done
    assert "rows of labels read as outlines, of which the boxes are taken: 4" in done.err
    found = place.run_json()["input"]
    assert (found["rows_read_as_boxes"], found["rows_read_as_outlines"]) == (2, 4)


def test_class_names_come_from_the_file_that_is_named(place: ReferringPlace) -> None:
    yolo(place, ["1 0.5 0.5 0.5 0.5"])
    names = saved(place.folder / "data.yaml", "names: [one, two]")
    seeds = seeds_of(place, yolo=place.labels, yolo_names=names)
    assert regions(seeds)["a.png"] == [("two", [50, 25, 150, 75])]


def test_other_class_names_make_other_seeds(place: ReferringPlace) -> None:
    for name in ("traffic light", "boat"):
        yolo(place, ["1 0.5 0.5 0.5 0.5"], names=f"person\n{name}\n")
        seeds = seeds_of(place, yolo=place.labels)
        assert regions(seeds)["a.png"] == [(name, [50, 25, 150, 75])]


def test_yolo_without_names_is_refused(place: ReferringPlace) -> None:
    yolo(place, ["0 0.5 0.5 0.5 0.5"])
    (place.labels / "classes.txt").unlink()
    done = place.run()
    assert done.code == 2
    assert "data.yolo_names: name the file with the class names" in done.err


# --- annotations


def test_our_own_annotations_are_in_pixels_and_keep_their_columns(place: ReferringPlace) -> None:
    row = {
        "image_path": "a.png",
        "image_id": "mine",
        "source": "image_referring_expression",
        "note": {"a": [1]},
        "width": 1,
        "caption": "old",
        "expressions": [{"text": "old"}],
        "regions": [{"bbox": [0.5, 1, 200, 99.25], "type": "Car", "track": 7}],
    }
    place.given(
        row, "broken", {"image_path": "sub/b.JPG"}, {"image_path": "gone.png", "regions": []}
    )
    done = place.run()
    assert done.code == 1, done
    [record] = place.annotations()
    assert (record["image_id"], record["note"], record["width"]) == ("mine", {"a": [1]}, 200)
    [region] = record["regions"]
    assert (region["bbox"], region["track"], region["type"]) == ([0.5, 1, 200, 99.25], 7, "Car")
    assert [e["text"] for e in record["expressions"]] == [region["description"]]
    assert record["caption"] != "old"
    assert [f["kind"] for f in place.failures()] == ["broken_row", "broken_row", "image_missing"]
    assert "given.jsonl, line 2: not JSON" in done.err
    [where] = place.run_json()["input"]["broken_lines"]["first"]
    assert "given.jsonl, line 2: not JSON" in where


def test_annotations_go_on_from_where_they_stand(
    place: ReferringPlace, server: LoopbackServer
) -> None:
    """A results file of ours is what a further run may begin from: at step 2, or at step 3."""
    place.label("a.txt", [kitti("Car", 1, 2, 30, 40.5)])
    assert place.run().code == 0
    first = place.annotations()
    again = ReferringPlace(
        place.folder / "again", server.base_url, **{"data.image_dir": str(place.images)}
    )
    again.given(*first)
    sent = dict(server.by_task)
    assert again.run(**{"workflow.steps": ["3"]}).code == 0
    assert again.annotations()[0]["expressions"] == first[0]["expressions"]
    assert server.by_task["double_check"] == sent["double_check"] + 1
    again.given(*[{k: v for k, v in record.items() if k != "expressions"} for record in first])
    assert again.run(**{"workflow.steps": ["2", "3"]}).code == 0
    assert again.annotations()[0]["expressions"] == first[0]["expressions"]
    assert server.by_task["region_expression"] == sent["region_expression"]
    assert server.by_task["image_caption"] == sent["image_caption"]


# --- sizes


def sized_coco(place: ReferringPlace, width: int, height: int) -> None:
    """Labels of two pictures, of which a.png is said to have these sides."""
    place.picture("a.png", (640, 480))
    box = {"category_id": 3, "bbox": [10, 20, 30, 40]}
    sides = [{"width": width, "height": height}, {"width": 640, "height": 480}]
    images = [{**image, **stated} for image, stated in zip(IMAGES, sides, strict=True)]
    coco(place, [{"id": 1, "image_id": 7, **box}, {"id": 2, "image_id": 9, **box}], images)


@pytest.mark.parametrize(
    ("sides", "why"),
    [
        ((1024, 1024), "the boxes are in a picture of 1024 x 1024 px, the file is 640 x 480 px"),
        ((480, 640), "remove that tag, and don't turn the picture: exiftool -Orientation= /"),
    ],
    ids=["another picture's", "not turned"],
)
def test_boxes_in_a_picture_of_another_size_fail_their_image_alone(
    place: ReferringPlace, server: LoopbackServer, sides: tuple[int, int], why: str
) -> None:
    sized_coco(place, *sides)
    checked = command(["check", "-e", str(place.spec())])
    assert checked.code == 2
    assert "a.png" in checked.err
    assert why in checked.err
    assert "b.JPG" not in checked.err.replace("sub/b.JPG found", "")
    done = place.run()
    assert done.code == 1, done
    [failure] = place.failures()
    assert failure["kind"] == "size_differs"
    assert why in failure["message"]
    assert [record["image_path"] for record in place.annotations()] == ["sub/b.JPG"]
    assert set(server.by_task.values()) == {1}


def test_records_that_state_another_size_for_their_regions_fail(place: ReferringPlace) -> None:
    place.picture("a.png", (640, 480))
    row = {"image_path": "a.png", "width": 320, "height": 240}
    with_box = {**row, "regions": [{"bbox": [10, 20, 300, 200], "type": "Car"}]}
    place.given(with_box)
    checked = command(["check", "-e", str(place.spec())])
    assert checked.code == 2
    assert "in a picture of 320 x 240 px" in checked.err
    assert place.run().code == 4
    assert [failure["kind"] for failure in place.failures()] == ["size_differs"]


def test_a_box_that_reaches_out_of_its_picture_is_not_verified(place: ReferringPlace) -> None:
    place.picture("a.png", (640, 480))
    place.label("a.txt", [kitti("Car", 10, 20, 300, 800), kitti("Van", 10, 20, 300, 485)])
    assert place.run().code == 0
    [record] = (record for record in place.annotations() if record["image_id"] == "a")
    verdicts = {
        tuple(expression["instances"][0]["bbox"]): (
            expression["verified"],
            expression["verification"]["reason"],
        )
        for expression in record["expressions"]
    }
    assert verdicts[10, 20, 300, 800] == (False, "a box reaches 320 px out of the image")
    assert verdicts[10, 20, 300, 485][0] is True


def test_a_file_that_vanishes_before_it_is_read_is_named(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    records.write_text('{"image_path": "a.png", "regions": []}\n')
    data = ReferringData(input_annotations_jsonl=str(records))
    seeds = find_seeds(data, Made([], []), boxless=True)
    records.unlink()
    with pytest.raises(InputError, match=f"^no input file {records}$"):
        write_seeds(seeds, str(tmp_path / "seeds.jsonl"), str(tmp_path))
