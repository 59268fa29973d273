"""`data.skip_bad`: seeds go on after labels that can't be read, up to a limit, and name them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dataflow_grounding import seed_file
from dataflow_grounding.testing import LoopbackServer
from tests.support.referring_place import ReferringPlace, kitti
from tests.support.workplace import command

SIZE = (200, 100)
BOX = [10.0, 20.0, 50.0, 60.0]


@pytest.fixture
def place(tmp_path: Path, server: LoopbackServer) -> ReferringPlace:
    made = ReferringPlace(tmp_path, server.base_url)
    for name in ("a.png", "b.png"):
        made.picture(name, SIZE)
    return made


def of_kitti(place: ReferringPlace) -> list[str]:
    place.label("a.txt", [kitti("cup", *BOX)])
    place.label("b.txt", [kitti("cup", *BOX), "cup 1 2", kitti("cup", 9, 2, 3, 4)])
    return ["b.txt, line 2: has 3 fields", "b.txt, line 3: the box"]


def of_yolo(place: ReferringPlace) -> list[str]:
    (place.labels / "classes.txt").write_text("cup\n")
    place.label("a.txt", ["0 0.15 0.4 0.2 0.4"])
    place.label("b.txt", ["0 0.15 0.4 0.2 0.4", "3 0.5 0.5 0.1 0.1", "0 9 9 4 4"])
    place.settings |= {"data.kitti_label_dir": None, "data.yolo_label_dir": str(place.labels)}
    return [
        "b.txt, line 2: class '3' is not one of the 1 names",
        "b.txt, line 3: 9 9 4 4 should be",
    ]


def of_coco(place: ReferringPlace) -> list[str]:
    good = {"category_id": 1, "bbox": [10.0, 20.0, 40.0, 40.0]}
    boxes = [
        {"id": 1, "image_id": 1, **good},
        {"id": 2, "image_id": 2, **good},
        {"id": 3, "image_id": 2, **good, "bbox": [1, 2, 0, 4]},
        {"id": 1, "image_id": 2, **good},
    ]
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}, {"id": 3}]
    path = place.folder / "instances.json"
    data = {"images": images, "categories": [{"id": 1, "name": "cup"}], "annotations": boxes}
    path.write_text(json.dumps(data))
    place.settings |= {"data.kitti_label_dir": None, "data.coco_json": str(path)}
    return [
        "instances.json, entry 3 of images: an image without",
        "instances.json: two annotations have the id 1",
        "instances.json, annotation 3: the box [1.0, 2.0, 0.0, 4.0] has no area",
    ]


def of_records(place: ReferringPlace) -> list[str]:
    path = place.folder / "seeds.jsonl"
    rows = [
        {"image_path": name, "regions": [{"bbox": BOX, "type": "cup"}]}
        for name in ("a.png", "b.png")
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(lines + '{"image_path": "c.png"\n7\n')
    place.settings |= {"data.kitti_label_dir": None, "data.input_annotations_jsonl": str(path)}
    return ["seeds.jsonl, line 3: ", "seeds.jsonl, line 4: "]


Maker = Callable[[ReferringPlace], list[str]]
MAKERS = [of_kitti, of_yolo, of_coco, of_records]


@pytest.mark.parametrize("maker", MAKERS)
def test_bad_labels_are_left_out_named_and_counted(maker: Maker, place: ReferringPlace) -> None:
    reasons = maker(place)
    done = place.run(**{"data.skip_bad": len(reasons)})
    assert done.code == 0, done
    rows = {row["image_path"]: row for row in place.annotations()}
    assert [len(rows[name]["regions"]) for name in ("a.png", "b.png")] == [1, 1]
    bad = place.run_json()["input"]["bad"]
    assert bad["count"] == len(bad["entries"]) == len(reasons)
    for entry, reason in zip(bad["entries"], reasons, strict=True):
        assert reason in entry
        assert reason in done.err
    assert f"left out as bad: {len(reasons)} entr" in done.err


@pytest.mark.parametrize("maker", MAKERS)
def test_seeds_that_are_read_twice_count_once(maker: Maker, place: ReferringPlace) -> None:
    reasons = maker(place)
    done = place.run(**{"data.skip_bad": len(reasons), "workflow.negatives": 1})
    assert done.code == 0, done  # which looks for the types of all regions first
    assert place.run_json()["input"]["bad"]["count"] == len(reasons)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("limit", ["N", "10%"])
def test_over_the_limit_nothing_is_asked_or_written(
    maker: Maker, limit: str, place: ReferringPlace, server: LoopbackServer
) -> None:
    reasons = maker(place)
    most = "10%" if limit == "10%" else str(len(reasons) - 1)
    done = place.run(**{"data.skip_bad": most})
    assert done.code == 2
    assert reasons[0] in done.err.splitlines()[-1]
    assert not (place.results / "seed_annotations.jsonl").exists()
    assert not server.requests


def test_a_picture_with_a_left_out_label_is_not_complete(place: ReferringPlace) -> None:
    of_yolo(place)
    assert place.run(**{"data.skip_bad": "50%"}).code == 0
    rows = {row["image_path"]: row for row in place.annotations()}
    assert ("skipped_entries" in rows["a.png"], rows["b.png"]["skipped_entries"]) == (False, 2)
    out = place.folder / "coco"
    arguments = ["export", str(place.results), "--format", "coco", "-o", str(out), "--json"]
    said = json.loads(command(arguments).out)
    assert said["records"] == 1
    assert any("an import left out objects of theirs" in each for each in said["remarks"])


def test_a_changed_limit_reads_the_labels_again(place: ReferringPlace) -> None:
    of_yolo(place)
    assert place.run().code == 1  # the line fails its picture, as ever
    assert place.run(**{"data.skip_bad": "2"}).code == 0
    assert len(place.annotations()) == 2


def test_a_limit_that_is_none_is_refused(place: ReferringPlace) -> None:
    of_kitti(place)
    done = place.run(**{"data.skip_bad": "many"})
    assert done.code == 2
    assert "data.skip_bad: 'many' is no number of entries, as 20, and no share" in done.err


def test_seed_file_takes_the_limit(place: ReferringPlace) -> None:
    of_yolo(place)
    path = seed_file(
        str(place.folder / "s"), str(place.images), yolo=str(place.labels), skip_bad="2"
    )
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    assert [len(row["regions"]) for row in rows] == [1, 1]
