"""Labels of the stored frame in runs: seeds, proposals, and gold of `eval` and `bench`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from dataflow_grounding.testing import LoopbackServer
from tests.formats.test_stored_frame import BOX, Labelled, kitti, pictures, red_box
from tests.support.referring_place import ReferringPlace
from tests.support.stand_ins.asking_model import AskingModel
from tests.support.stand_ins.check_quality import scenes
from tests.support.stand_ins.erring_model import ErringModel, Errors
from tests.support.stand_ins.heeding_model import Heeding
from tests.support.workplace import Workplace, command

Records = list[dict[str, Any]]
# How a picture is stored that an orientation turns upright: Pillow's operation, if any.
STORED = {
    1: None,
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_90,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_270,
}


def box_as_stored(box: list[float], size: tuple[int, int], orientation: int) -> list[int]:
    """Where a box of an upright picture is in the stored one, by Pillow's operation on a mask."""
    mask = PIL.Image.new("1", size)
    mask.paste(1, [int(edge) for edge in box])
    operation = STORED[orientation]
    stored = mask if operation is None else mask.transpose(operation)
    found = stored.getbbox()
    assert found is not None
    return [*found]


def stored_scenes(folder: Path, count: int) -> tuple[Records, Records]:
    """Gold of pictures that EXIF turns, each in another way: upright, and as they are stored."""
    upright = scenes(folder, count, seed=5)
    stored = []
    for number, record in enumerate(upright):
        orientation = number % 8 + 1
        with PIL.Image.open(record["image_path"]) as picture:
            picture.load()
        size = picture.size
        operation = STORED[orientation]
        turned = picture if operation is None else picture.transpose(operation)
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        turned.save(record["image_path"], exif=exif)
        expressions = []
        for expression in record["expressions"]:
            boxes = [one["bbox"] for one in expression["instances"]]
            instances = [{"bbox": box_as_stored(box, size, orientation)} for box in boxes]
            expressions.append({**expression, "instances": instances})
        sides = {"width": turned.width, "height": turned.height}
        stored.append({**record, **sides, "expressions": expressions})
    return upright, stored


def write_lines(path: Path, records: Records) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")


# Seeds


@pytest.fixture
def place(tmp_path: Path) -> Iterator[ReferringPlace]:
    with LoopbackServer(keep_bodies=True) as server:
        made = ReferringPlace(tmp_path, server.base_url)
        made.settings |= {"workflow.steps": ["1"], "data.frame": "stored"}
        yield made


def check_seeds(place: ReferringPlace) -> None:
    done = place.run()
    assert done.code == 0, done
    seeds = place.seeds()
    assert len(seeds) == 16
    for seed in seeds:
        size, red = red_box(place.images / seed["image_path"])
        assert (seed["width"], seed["height"]) == size
        assert [region["bbox"] for region in seed["regions"]] == [red]


def test_seeds_of_kitti(place: ReferringPlace) -> None:
    place.labels.rmdir()
    kitti(place.folder, pictures(place.images))
    check_seeds(place)


def test_seeds_of_yolo(place: ReferringPlace) -> None:
    x1, y1, x2, y2 = BOX
    for name, (width, height), _ in pictures(place.images):
        numbers = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height]
        numbers += [(x2 - x1) / width, (y2 - y1) / height]
        place.label(name.replace(".jpg", ".txt"), [" ".join(map(str, [0, *numbers]))])
    place.label("classes.txt", ["cup"])
    place.settings |= {"data.kitti_label_dir": None, "data.yolo_label_dir": str(place.labels)}
    done = place.run()
    assert done.code == 0, done
    for seed in place.seeds():
        _, red = red_box(place.images / seed["image_path"])
        assert seed["regions"][0]["bbox"] == pytest.approx(red, abs=1e-9)


def coco_seeds(place: ReferringPlace, labelled: list[Labelled]) -> None:
    images = []
    annotations = []
    for number, (name, (width, height), (x1, y1, x2, y2)) in enumerate(labelled):
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        box = [x1, y1, x2 - x1, y2 - y1]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box})
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cup"}]}
    path = place.folder / "coco.json"
    path.write_text(json.dumps(coco), "utf-8")
    place.settings |= {"data.kitti_label_dir": None, "data.coco_json": str(path)}


def test_seeds_of_coco(place: ReferringPlace) -> None:
    coco_seeds(place, pictures(place.images))
    check_seeds(place)


def test_seeds_of_both_frames_are_refused_before_anything_is_asked(place: ReferringPlace) -> None:
    labelled = pictures(place.images)
    changed = [one._replace(size=one.size[::-1]) if "_7" in one.name else one for one in labelled]
    coco_seeds(place, changed)
    done = place.run()
    assert done.code == 2
    assert "labels of two frames: of the stored picture in tall_5.jpg (48 x 64 px), " in done.err
    assert "of the upright one in tall_7.jpg (64 x 48 px), wide_7.jpg (48 x 64 px)" in done.err
    assert not (place.results / "seed_annotations.jsonl").exists()


def test_seeds_are_written_anew_where_the_frame_was_changed(place: ReferringPlace) -> None:
    place.labels.rmdir()
    kitti(place.folder, pictures(place.images))
    assert place.run(**{"data.frame": "upright"}).code == 0
    assert {tuple(seed["regions"][0]["bbox"]) for seed in place.seeds()} == {BOX}
    check_seeds(place)


def test_seeds_of_records(place: ReferringPlace) -> None:
    rows = []
    for name, (width, height), box in pictures(place.images):
        region = {"bbox": box, "type": "cup"}
        rows.append({"image_path": name, "width": width, "height": height, "regions": [region]})
    path = place.folder / "rows.jsonl"
    write_lines(path, rows)
    place.settings |= {"data.kitti_label_dir": None, "data.input_annotations_jsonl": str(path)}
    check_seeds(place)


def test_records_of_both_frames_are_refused(place: ReferringPlace) -> None:
    rows = []
    for name, size, box in pictures(place.images):
        width, height = size[::-1] if name == "wide_5.jpg" else size
        region = {"bbox": box, "type": "cup"}
        rows.append({"image_path": name, "width": width, "height": height, "regions": [region]})
    path = place.folder / "rows.jsonl"
    write_lines(path, rows)
    place.settings |= {"data.kitti_label_dir": None, "data.input_annotations_jsonl": str(path)}
    done = place.run()
    assert done.code == 2
    assert "of the upright one in wide_5.jpg (48 x 64 px): read each sort by itself" in done.err


def test_seeds_of_taos_records(place: ReferringPlace) -> None:
    rows = []
    for name, size, box in pictures(place.images):
        part = [round(edge * 1000 / size[number % 2]) for number, edge in enumerate(box)]
        row = {"image_path": name, "width": size[0], "height": size[1]}
        row |= {"source": "image_referring_expression", "kitti_bboxes": [[*box, "cup"]]}
        rows.append({**row, "regions": [{"bbox": part, "type": "cup"}]})
    path = place.folder / "rows.jsonl"
    write_lines(path, rows)
    place.settings |= {"data.kitti_label_dir": None, "data.input_annotations_jsonl": str(path)}
    check_seeds(place)


def test_a_record_whose_picture_is_missing_fails_alone(place: ReferringPlace) -> None:
    rows = []
    for name, _, box in pictures(place.images):
        rows.append({"image_path": name, "regions": [{"bbox": box, "type": "cup"}]})
    (place.images / "tall_6.jpg").unlink()
    path = place.folder / "rows.jsonl"
    write_lines(path, rows)
    place.settings |= {"data.kitti_label_dir": None, "data.input_annotations_jsonl": str(path)}
    assert place.run().code == 1
    [failure] = place.failures()
    assert "no image 'tall_6.jpg'" in failure["message"]


@pytest.mark.parametrize(
    "pipeline", ["image_grounding", "image_referring_expression"], ids=["proposals", "seeds"]
)
def test_an_unknown_frame_is_refused(
    place: ReferringPlace, workplace: Workplace, pipeline: str
) -> None:
    if pipeline == "image_grounding":
        done = workplace.run(**{"data.frame": "exif"})
    else:
        done = place.run(**{"data.frame": "exif"})
    assert done.code == 2
    assert "data.frame" in done.err
    assert "'upright' or 'stored'" in done.err


# Proposals


@pytest.fixture
def proposals(workplace: Workplace) -> Records:
    """Gold; `detections.json` has its boxes as proposals, in the frame of the stored pictures."""
    upright, stored = stored_scenes(workplace.folder, 8)
    names = [expression["text"] for expression in upright[0]["expressions"]]
    images = []
    annotations = []
    for number, record in enumerate(stored):
        sides = {"width": record["width"], "height": record["height"]}
        images.append({"id": number, "file_name": Path(record["image_path"]).name, **sides})
        for expression in record["expressions"]:
            for instance in expression["instances"]:
                x1, y1, x2, y2 = instance["bbox"]
                facts = {"id": len(annotations), "image_id": number, "score": 0.5}
                facts["category_id"] = names.index(expression["text"])
                annotations.append({**facts, "bbox": [x1, y1, x2 - x1, y2 - y1]})
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    workplace.input = workplace.folder / "detections.json"
    workplace.input.write_text(json.dumps(coco), "utf-8")
    workplace.settings |= {
        "data.proposals": "coco",
        "data.frame": "stored",
        "data.classes": names,
        "vlm.check_every": 100,
    }
    return upright


@pytest.mark.slow
def test_proposals_are_verified_where_they_are_in_the_upright_picture(
    workplace: Workplace, proposals: Records
) -> None:
    with LoopbackServer(ErringModel(Errors(), box_format="xyxy_px"), keep_bodies=True) as server:
        endpoint = {"vlm.openai.base_url": server.base_url}
        assert workplace.run(**endpoint, **{"data.frame": "upright"}).code == 1
        assert {failure["kind"] for failure in workplace.failures()} == {"size_differs"}
        done = workplace.run(**endpoint)
    assert done.code == 0, done
    for truth, record in zip(proposals, workplace.annotations(), strict=True):
        wanted = {
            one["text"]: [box["bbox"] for box in one["instances"]] for one in truth["expressions"]
        }
        found = {
            one["text"]: [box["bbox"] for box in one["instances"]] for one in record["expressions"]
        }
        assert found == wanted
        assert not any(one.get("rejected") for one in record["expressions"])


def test_proposals_of_both_frames_are_refused_before_anything_is_asked(
    workplace: Workplace, proposals: Records
) -> None:
    coco = json.loads(workplace.input.read_text("utf-8"))
    image = coco["images"][-1]
    image |= {"width": image["height"], "height": image["width"]}
    workplace.input.write_text(json.dumps(coco), "utf-8")
    with LoopbackServer(keep_bodies=True) as server:
        done = workplace.run(**{"vlm.openai.base_url": server.base_url})
        assert done.code == 2, done
        assert server.count() == 0
    assert "of the upright one in 5-7.png (1200 x 900 px): read each sort by itself" in done.err


def test_a_frame_without_proposals_is_refused(workplace: Workplace) -> None:
    workplace.rows([{"image_path": "a.jpg", "caption": "A box."}])
    done = workplace.run(**{"data.frame": "stored", "vlm.openai.base_url": "http://127.0.0.1:9"})
    assert done.code == 2
    assert "data.frame is of the boxes in data.proposals" in done.err


# Gold


def test_gold_of_eval(tmp_path: Path) -> None:
    upright, stored = stored_scenes(tmp_path, 8)
    for record in [*upright, *stored]:
        record["image_path"] = Path(record["image_path"]).name
    write_lines(tmp_path / "found.jsonl", upright)
    write_lines(tmp_path / "gold.jsonl", stored)
    compare = ["eval", str(tmp_path / "found.jsonl"), "--gold", str(tmp_path / "gold.jsonl")]
    done = command([*compare, "--frame", "stored", "--json"])
    assert done.code == 0, done
    assert done.summary["acc_0.9"] == 1
    assert command([*compare, "--json"]).summary["acc_0.9"] < 0.5


def test_gold_of_both_frames_is_refused(tmp_path: Path) -> None:
    _, stored = stored_scenes(tmp_path, 8)
    for record in stored:
        if record["image_path"].endswith("5-6.png"):
            record |= {"width": record["height"], "height": record["width"]}
    write_lines(tmp_path / "gold.jsonl", stored)
    gold = str(tmp_path / "gold.jsonl")
    done = command(["eval", gold, "--gold", gold, "--frame", "stored"])
    assert done.code == 2
    assert "5-6.png (1200 x 900 px): read each sort by itself" in done.err


@pytest.mark.slow
def test_gold_of_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    _, stored = stored_scenes(Path("pictures"), 8)
    named = [{**record, "image_path": Path(record["image_path"]).name} for record in stored]
    write_lines(Path("gold.jsonl"), named)
    own = ["--pictures", "pictures", "--gold", "gold.jsonl", "--ways", "plain"]
    with LoopbackServer(Heeding(AskingModel({"": 0.999999})), keep_bodies=True) as server:
        environment = {
            "DF_BASE_URL": server.base_url,
            "DF_MODEL": "m",
            "DF_BOX_FORMAT": "xyxy_1000",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        done = command(["bench", *own, "--frame", "stored"])
    assert done.code == 0, done
    document = json.loads(Path("bench_own/bench.json").read_text("utf-8"))
    assert document["ways"]["plain"]["figures"]["all"]["mean_f1"]["value"] > 0.9


def test_a_frame_without_gold_is_refused() -> None:
    done = command(["bench", "--frame", "stored"])
    assert done.code == 2
    assert "--frame is that of --gold FILE" in done.err
