"""Label Studio and CVAT: the rules of each tool's own reader, and what people and other tools
make of the files.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image

from dataflow_grounding.formats import find_format, read, write
from tests.formats.data import draw, exported, facts_of, hostile, record, records_of
from tests.support import labelled

SIZE = (64, 48)
CAPTION = "🐈🐈 a red mug and a red mug."
BOX = [1.5, 2.25, 40.0, 30.0]


@pytest.fixture
def out(tmp_path: Path) -> Callable[..., Path]:
    return partial(exported, tmp_path)


def tasks_of(folder: Path) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    return tasks


def mugs() -> dict[str, Any]:
    second = {"text": "a red mug", "instances": [{"bbox": BOX, "score": 0.5}]}
    phrases = [{"text": "a red mug"}, second, {"text": "a dog", "unplaced": True}]
    return record("a b/ü & 100%25+#1.png", SIZE, phrases, caption=CAPTION)


# Label Studio


def annotated(
    folder: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """What is read where a person has changed what was predicted in the only task."""
    (task,) = tasks_of(folder)
    result = change(task["predictions"].pop()["result"])
    task["annotations"] = [{"result": result, "completed_by": 1}]
    labelled.saved(folder / "tasks.json", [task])
    return list(read(str(folder), "label-studio"))


def test_label_studios_rules(out: Callable[..., Path]) -> None:
    """Every region is of a control of the configuration, on the object that it is for, with a label
    it has.
    """
    folder = out("label-studio", list(hostile()))
    view = ET.parse(folder / "labels.xml").getroot()
    controls = {tag.get("name"): tag for tag in view.iter() if tag.get("toName")}
    kinds = {"RectangleLabels": "rectanglelabels", "TextArea": "textarea"}
    for task in tasks_of(folder):
        (prediction,) = task["predictions"]
        assert 0 <= prediction.get("score", 0) <= 1
        ids = {part.get("id") for part in prediction["result"]}
        assert not any("#" in str(one) for one in ids)  # what follows would be cut off
        assert (folder / unquote(task["data"]["image"].partition("?d=")[2])).is_file()
        for part in prediction["result"]:
            control = controls[part["from_name"]]
            assert (control.get("toName"), kinds[control.tag]) == (part["to_name"], part["type"])
            labels = {label.get("value") for label in control.iter("Label")}
            assert set(part["value"].get(part["type"], [])) <= labels


def region(**more: Any) -> dict[str, Any]:
    """A box that covers the right half of the picture, without a label."""
    value = {"x": 50, "y": 0, "width": 50, "height": 100, "rotation": 0, **more.pop("value", {})}
    own = labelled.region("", {}, from_name="box", to_name="image")
    return {**own, "value": value, **more}


def text_of(region_id: str, text: str) -> dict[str, Any]:
    value = {"text": [text]}
    return {"id": region_id, "from_name": "phrase", "type": "textarea", "value": value}


def imported(
    tmp_path: Path, task: dict[str, Any], format: Any = "label-studio"
) -> list[dict[str, Any]]:
    data = {"image": "a.png", "caption": CAPTION}
    path = labelled.saved(tmp_path / "x.json", [{"data": data, **task}])
    return list(read(str(path), format))


def result_of(tmp_path: Path, *parts: dict[str, Any]) -> list[dict[str, Any]]:
    (row,) = imported(tmp_path, {"annotations": [{"result": list(parts)}]})
    expressions: list[dict[str, Any]] = row["expressions"]
    return expressions


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/data/local-files/?d=photos/a%20b.png", "photos/a b.png"),
        ("http://studio.example/data/local-files/?d=photos/a.png", "photos/a.png"),
        ("/data/upload/1/a.png", "upload/1/a.png"),
        ("https://cdn.example/a.png?d=300x300", "https://cdn.example/a.png?d=300x300"),
    ],
)
def test_only_an_address_of_a_local_file_has_its_path(
    tmp_path: Path, address: str, path: str
) -> None:
    task = {"data": {"image": address, "caption": CAPTION}, "annotations": [{"result": []}]}
    assert [row["image_path"] for row in imported(tmp_path, task)] == [path]


@pytest.mark.parametrize("name", ["p00.png", "1a2b3c4d-p00.png"])
def test_an_upload_is_the_picture_of_its_name(name: str, tmp_path: Path) -> None:
    """Of Label Studio's server only the names of its copies are in the file."""
    tasks = []
    for project, picture in enumerate((name, "1a2b3c4d-p01.png", "ffffffff-p01.png")):
        data = {"image": f"/data/upload/{project}/{picture}", "caption": CAPTION}
        tasks.append({"data": data, "annotations": [{"result": [region(), text_of("r1", "a")]}]})
    for picture in ("p00.png", "p01.png"):
        Image.new("RGB", SIZE).save(tmp_path / picture)
    path = labelled.saved(tmp_path / "x.json", tasks)
    facts = facts_of("import", path, "--format", "label-studio", "-o", tmp_path / "results")
    rows = records_of(tmp_path / "results")
    uploads = ["p00.png", "upload/1/1a2b3c4d-p01.png", "upload/2/ffffffff-p01.png"]
    assert [row["image_path"] for row in rows] == uploads
    assert facts["left_out"]["uploads, of which the picture with their name is taken"] == 1
    export = ("export", tmp_path / "results", "--format", "label-studio", "-o", tmp_path / "out")
    facts_of(*export, "--images", "reference", "--image-root", tmp_path)
    addresses = [task["data"]["image"] for task in tasks_of(tmp_path / "out")]
    assert addresses == [task["data"]["image"] for task in tasks]


def test_what_a_person_did_last_counts(tmp_path: Path) -> None:
    def made(text: str, when: str, **more: Any) -> dict[str, Any]:
        result = [region(), text_of("r1", text)]
        return {"updated_at": when, "result": result, "completed_by": 7, **more}

    predicted = [made("model", "2026-09-09", completed_by=None)]
    person = {"completed_by": {"id": 3, "email": "ann@example.org"}}
    done = [
        made("later", "2026-02-02", **person),
        made("first", "2026-01-01"),
        made("no", "2026-03-03", was_cancelled=True),
    ]
    for start, text, reviewer in (
        (0, "later", "ann@example.org"),
        (1, "first", "7"),
        (2, "model", None),
    ):
        task = {"annotations": done[start:], "predictions": predicted}
        (row,) = imported(tmp_path, task)
        assert (row["expressions"][0]["text"], row.get("reviewed_by")) == (text, reviewer)
    (row,) = imported(tmp_path, {"annotations": [{"result": []}], "predictions": predicted})
    assert row["expressions"] == []  # a person found nothing
    assert imported(tmp_path, {"annotations": [], "predictions": []}) == []


def test_scores_are_the_models_alone(tmp_path: Path) -> None:
    for more, score in (({}, 0.5), ({"origin": "prediction"}, 0.5), ({"origin": "manual"}, None)):
        parts = region(score=0.5, **more), text_of("r1", "a mug")
        (instance,) = result_of(tmp_path, *parts)[0]["instances"]
        assert (instance["bbox"], instance["score"]) == ([32, 0, 64, 48], score)


def test_a_task_whose_predictions_are_numbers_has_none(tmp_path: Path) -> None:
    """label-studio issue 9709: an export of the tasks alone"""
    made = find_format("label-studio")
    assert imported(tmp_path, {"annotations": [], "predictions": [287]}, made) == []
    assert made.passed_over["tasks without an annotation"] == 1


def test_phrases_without_a_relation_are_found_in_the_caption(tmp_path: Path) -> None:
    other = region(id="r2", value={"x": 0})
    (one,) = result_of(
        tmp_path, region(), text_of("r1", "A red mug"), other, text_of("r2", "A red mug")
    )
    assert (one["char_span"], len(one["instances"])) == ([3, 12], 2)
    (one,) = result_of(tmp_path, region(value={"rectanglelabels": ["Car"]}))
    assert (one["text"], one["char_span"]) == ("Car", None)


def test_what_is_drawn_beside_ours(out: Callable[..., Path]) -> None:
    new = [region(id="new"), text_of("new", "a red mug")]
    (row,) = annotated(out("label-studio", [mugs()]), lambda ours: [*ours, *new])
    assert row["image_path"] == "images/a b/ü & 100%25+#1.png"
    found = {one["text"]: (one["status"], len(one["instances"])) for one in row["expressions"]}
    assert found == {"a red mug": ("grounded", 2), "a dog": ("none", 0)}


def test_places_and_relations_of_a_user_go_back_as_they_came(tmp_path: Path) -> None:
    value = {"start": 17, "end": 26, "text": "a red mug", "labels": ["Thing"]}
    place = {"id": "s", "from_name": "spans", "type": "labels", "value": value}
    link = {"type": "relation", "from_id": "s", "to_id": "r1", "direction": "right"}
    result = [region(), text_of("r1", "a red mug"), place, link]
    (row,) = imported(tmp_path, {"annotations": [{"result": result}]})
    [one] = row["expressions"]
    assert (one["text"], one["char_span"]) == ("a red mug", [3, 12])  # found by its words
    write([row], "label-studio", str(tmp_path / "again"), images="reference")
    assert tasks_of(tmp_path / "again")[0]["annotations"][0]["result"] == result


def test_a_box_at_no_place_leaves_its_phrase_where_it_stands(out: Callable[..., Path]) -> None:
    """It joins the first expression of its text, and says nothing of that one's place."""
    placed = {"text": "a red mug", "instances": [{"bbox": BOX}]}
    unplaced = {**placed, "instances": [{"bbox": [5, 6, 9, 9]}], "unplaced": True}
    folder = out("label-studio", [record("a.png", SIZE, [placed, unplaced])])
    (row,) = read(str(folder), "label-studio")
    found = [(one["char_span"], len(one["instances"])) for one in row["expressions"]]
    assert found == [([0, 9], 2)]


def of_class(name: str, text: str = "", **more: Any) -> dict[str, Any]:
    """What a class run finds: an expression that states its class."""
    boxes = [{"bbox": BOX, "score": 0.5}]
    return {"text": text or name, "class": name, "unplaced": True, "instances": boxes, **more}


def labels_of_boxes(folder: Path) -> list[str]:
    return [
        label
        for task in tasks_of(folder)
        for part in task["predictions"][0]["result"]
        for label in part["value"].get("rectanglelabels", [])
    ]


def configured_labels(folder: Path, kind: str = "RectangleLabels") -> list[str | None]:
    control = ET.parse(folder / "labels.xml").getroot().find(kind)
    assert control is not None
    return [label.get("value") for label in control]


def test_the_label_of_a_box_is_its_class_and_both_come_back(out: Callable[..., Path]) -> None:
    """It was `object` for all. Where a class says the phrase, a box needs no text."""
    outlined = [{"bbox": BOX, "score": 0.5, "outline": [1.5, 2.25, 40, 2.25, 40, 30]}]
    found = [of_class("cup"), of_class('19" screen & co'), of_class("person", "a man")]
    found += [of_class("object"), of_class("car", instances=outlined)]
    folder = out("label-studio", [record("a.png", SIZE, [*found, of_class("dog", instances=[])])])
    assert labels_of_boxes(folder) == ["cup", '19" screen & co', "person", "object"]
    labels = ["cup", '19" screen & co', "person", "object", "car", "dog"]
    assert configured_labels(folder) == configured_labels(folder, "PolygonLabels") == labels
    assert "required" not in (folder / "labels.xml").read_text()
    (task,) = tasks_of(folder)
    result = task["predictions"][0]["result"]
    texts = [part["value"]["text"] for part in result if part["type"] == "textarea"]
    assert texts == [["a man"], ["object"], ["dog"]]
    assert [part["value"].get("polygonlabels") for part in result].count(["car"]) == 1
    (row,) = read(str(folder), "label-studio")
    back = [(one["text"], one.get("class")) for one in row["expressions"] if one["instances"]]
    classes = [("cup", "cup"), ('19" screen & co',) * 2, ("a man", "person"), ("object", None)]
    assert back == [*classes, ("car", "car")]


def test_labels_are_in_the_order_of_the_list_and_as_it_writes_them(
    out: Callable[..., Path],
) -> None:
    rows = [record("a.png", SIZE, [of_class("cup"), {"text": "a mug", "instances": []}])]
    folder = out("label-studio", rows, class_list=["kite", "Cup"])
    assert labels_of_boxes(folder) == ["Cup"]
    # Label Studio's exports to COCO and YOLO list each label as a class.
    assert configured_labels(folder) == ["kite", "Cup"]
    assert "a mug" in str(tasks_of(folder))  # it is absent, and needs no label


def test_without_classes_the_label_is_object_and_a_text_is_needed(out: Callable[..., Path]) -> None:
    folder = out("label-studio", [mugs()], class_list=["a red mug"])  # as of the parts of a split
    assert configured_labels(folder) == ["object"]
    text = ET.parse(folder / "labels.xml").getroot().find("TextArea")
    assert text is not None
    assert text.get("required") == "true"


@pytest.mark.parametrize("text", ["cup", "Mug"])
def test_a_label_that_a_person_changed_is_the_class(text: str, out: Callable[..., Path]) -> None:
    def labelled_otherwise(result: list[dict[str, Any]]) -> list[dict[str, Any]]:
        boxes = [part for part in result if part["type"] == "rectanglelabels"]
        boxes[-1]["value"]["rectanglelabels"] = ["dog"]
        return result

    two = [{"bbox": BOX, "score": 0.5}, {"bbox": [5, 6, 9, 9], "score": 0.5}]
    folder = out("label-studio", [record("a.png", SIZE, [of_class("cup", text, instances=two)])])
    (row,) = annotated(folder, labelled_otherwise)
    back = [(one["text"], one["class"], len(one["instances"])) for one in row["expressions"]]
    assert back == [(text, "cup", 1), ("dog" if text == "cup" else text, "dog", 1)]


def test_a_box_of_a_class_that_was_absent_is_found(out: Callable[..., Path]) -> None:
    found = [of_class("cup"), of_class("dog", instances=[])]
    drawn = region(value={"rectanglelabels": ["dog"]})
    folder = out("label-studio", [record("a.png", SIZE, found)])
    (row,) = annotated(folder, lambda result: [*result, drawn])
    back = [(one["text"], one["class"], one["status"]) for one in row["expressions"]]
    assert back == [("cup", "cup", "grounded"), ("dog", "dog", "grounded")]


@pytest.mark.parametrize(("class_name", "boxes"), [("person", 1), (None, 2)])
@pytest.mark.parametrize("format", ["label-studio", "cvat", "labelme"])
def test_things_of_one_class_are_there_once(
    format: str, class_name: str | None, boxes: int, out: Callable[..., Path]
) -> None:
    """Without a class, each phrase is a thing of its own."""
    stated = {"class": class_name} if class_name else {}
    phrases = [
        {"text": text, **stated, "instances": [{"bbox": BOX, "score": 0.5}]}
        for text in ("a person", "a human")
    ]
    (row,) = read(str(out(format, [record("a.png", SIZE, phrases)])), format)
    assert sum(len(one["instances"]) for one in row["expressions"]) == boxes


def test_a_class_that_joins_ours_is_labelled_so(out: Callable[..., Path], tmp_path: Path) -> None:
    """Boxes that somebody adds to what came back are labelled as the others are."""
    folder = out("label-studio", [record("a.png", SIZE, [of_class("cup")])])
    (row,) = read(str(folder), "label-studio")
    row["expressions"].append(of_class("dog", "a puppy", status="grounded"))
    write([row], "label-studio", str(tmp_path / "again"), images="reference")
    assert labels_of_boxes(tmp_path / "again") == ["cup", "dog"]
    (row,) = read(str(tmp_path / "again"), "label-studio")
    assert [one["text"] for one in row["expressions"]] == ["cup", "a puppy"]


@pytest.mark.parametrize("name", ["kind", "label", "box"])
def test_a_label_is_the_class_and_a_text_the_phrase_in_any_configuration(
    name: str, tmp_path: Path
) -> None:
    """HumanSignal/label-studio-converter#226: the class vanished."""
    box = region(from_name=name, value={"rectanglelabels": ["Sign"]})
    text = {**text_of("r1", "STOP"), "from_name": "transcription"}
    (one,) = result_of(tmp_path, box, text)
    assert (one["text"], one["class"]) == ("STOP", "Sign")


def test_in_the_template_for_ocr_the_label_is_a_part_of_its_own(tmp_path: Path) -> None:
    """Its text is what is written there, and no phrase."""
    label = {"id": "r1", "from_name": "label", "type": "labels", "value": {"labels": ["Text"]}}
    parts = [region(type="rectangle"), label, text_of("r1", "STOP")]
    (one,) = result_of(tmp_path, *parts)
    assert (one["text"], one["class"], len(one["instances"])) == ("Text", "Text", 1)


# CVAT

IMAGE = '<image id="0" name="a.png" width="64" height="48">{}</image>'
CORNERS = 'xtl="1" ytl="2" xbr="3.5" ybr="4"'
PHRASE = '<attribute name="phrase">{}</attribute>'


def cvat(tmp_path: Path, inside: str, format: Any = "cvat") -> list[dict[str, Any]]:
    path = labelled.saved(tmp_path / "x.xml", f"<annotations>{inside}</annotations>")
    return list(read(str(path), format))


def boxes_in(row: dict[str, Any]) -> list[tuple[str, int]]:
    return [(one["text"], len(one["instances"])) for one in row["expressions"]]


def test_cvats_own_export(tmp_path: Path) -> None:
    """Two boxes of one group, a class without a phrase, and a tag that says nothing to us."""
    boxes = f'<box label="object" group_id="3" {CORNERS}>{PHRASE.format("a mug")}</box>'
    boxes += f'<box label="car" group_id="0" {CORNERS}/>'
    tag = '<tag label="blurred" source="manual"/>'
    (row,) = cvat(tmp_path, "<version>1.1</version><meta/>" + IMAGE.format(tag + boxes + boxes))
    assert boxes_in(row) == [("a mug", 2), ("car", 2)]
    assert row["expressions"][0]["instances"][0]["bbox"] == [1, 2, 3.5, 4]


def test_the_label_of_cvat_is_the_class_and_both_come_back(out: Callable[..., Path]) -> None:
    """It was `object` for all."""
    found = [of_class("cup"), of_class("person", "a man"), {"text": "a mug", "unplaced": True}]
    found[2]["instances"] = [{"bbox": [1, 2, 9, 9], "score": 0.5}]
    folder = out("cvat", [record("a.png", SIZE, found)], class_list=["kite"])
    root = ET.parse(folder / "annotations.xml").getroot()
    assert [box.get("label") for box in root.iter("box")] == ["cup", "person", "object"]
    listed = [label.findtext("name") for label in root.iter("label")]
    assert listed == ["object", "no box", "picture", "kite", "cup", "person"]
    (row,) = read(str(folder), "cvat")
    back = [(one["text"], one.get("class")) for one in row["expressions"]]
    assert back == [("cup", "cup"), ("a man", "person"), ("a mug", None)]


def corrected(folder: Path, text: str) -> list[dict[str, Any]]:
    """What is read where a person has corrected the phrase of the last box."""
    path = folder / "annotations.xml"
    before, _, behind = path.read_text().rpartition(">animals<")
    path.write_text(f"{before}>{text}<{behind}")
    return list(read(str(path), "cvat"))


@pytest.mark.slow
def test_phrases_that_a_person_corrected_have_ids_of_their_own(
    out: Callable[..., Path], tmp_path: Path
) -> None:
    """In CVAT and in COCO, and once more: the first correction made `a#0~2`, which the second one
    must not get, too.
    """
    boxes = [{"bbox": [corner, 6, 9, 9], "score": None} for corner in (1, 2, 5)]
    rows = [record("a.png", SIZE, [{"text": "animals", "instances": boxes}])]
    first = corrected(out("cvat", rows), "a dog")
    write(first, "coco", str(tmp_path / "c.json"))
    for row in (*first, *read(str(tmp_path / "c.json"), "coco")):
        assert boxes_in(row) == [("animals", 2), ("a dog", 1)]
        assert [one["expression_id"] for one in row["expressions"]] == ["a#0", "a#0~2"]
    (row,) = corrected(out("cvat", first), "a cat")
    assert sorted(boxes_in(row)) == [("a cat", 1), ("a dog", 1), ("animals", 1)]
    assert len({one["expression_id"] for one in row["expressions"]}) == 3


def test_attributes_of_ones_own_that_are_called_as_ours(tmp_path: Path) -> None:
    own = {"score": "1.01", "status": "moving", "start": "2026-01-01", "end": "-1", "caption": "x"}
    attributes = "".join(f'<attribute name="{key}">{own[key]}</attribute>' for key in own)
    inside = IMAGE.format(f'<box label="car" {CORNERS}>{attributes}</box>')
    made = find_format("cvat")
    (row,) = cvat(tmp_path, inside, format=made)
    (expression,) = row["expressions"]
    (instance,) = expression["instances"]
    assert (expression["text"], expression["status"]) == ("car", "grounded")
    del instance["imported"]
    assert instance == {"bbox": [1, 2, 3.5, 4], "score": None, "bbox_id": "a#0.0"}
    assert +made.passed_over == {f"attributes {name!r}, kept for CVAT": 1 for name in own}


@pytest.mark.parametrize("label", ["picture", "no box"])
def test_a_class_named_as_our_tags_are(label: str, tmp_path: Path) -> None:
    box = f'<box label="{label}" {CORNERS}>{PHRASE.format("x")}</box>'
    (row,) = cvat(tmp_path, IMAGE.format(box))
    assert boxes_in(row) == [("x", 1)]
    (row,) = cvat(tmp_path, IMAGE.format(f'<polyline label="{label}" points="1,2;3,4;5,6"/>'))
    assert (row["expressions"], row["background"]) == ([], False)


def names_in(xml: Path) -> list[str | None]:
    return [image.get("name") for image in ET.parse(xml).getroot().iter("image")]


def test_names_in_a_folder_start_in_its_images(out: Callable[..., Path], tmp_path: Path) -> None:
    """With `images/` before a name, CVAT found no such picture, and took that of the number."""
    folder = out("cvat", [mugs()])
    assert names_in(folder / "annotations.xml") == ["a b/ü & 100%25+#1.png"]
    (row,) = read(str(folder), "cvat")
    assert row["image_path"] == "images/a b/ü & 100%25+#1.png"
    write([row], "cvat", str(tmp_path / "alone.xml"), folders=[str(folder)])
    assert names_in(tmp_path / "alone.xml") == ["a b/ü & 100%25+#1.png"]


def test_names_of_pictures_that_stay_where_they_are_are_theirs(out: Callable[..., Path]) -> None:
    box = {"text": "a mug", "instances": [{"bbox": BOX, "score": None}]}
    folder = out("cvat", [record("images/a.png", SIZE, [box])], images="reference")
    assert names_in(folder / "annotations.xml") == ["images/a.png"]


def test_an_earlier_export_gets_the_new_names(out: Callable[..., Path], tmp_path: Path) -> None:
    folder = out("cvat", [mugs()])
    xml = folder / "annotations.xml"
    xml.write_text(xml.read_text("utf-8").replace('name="a b/', 'name="images/a b/'), "utf-8")
    (row,) = read(str(folder), "cvat")
    assert (folder / row["image_path"]).is_file()
    write([row], "cvat", str(tmp_path / "again"), folders=[str(folder)])
    assert names_in(tmp_path / "again" / "annotations.xml") == ["a b/ü & 100%25+#1.png"]


def test_a_picture_next_to_the_file_is_taken_before_one_in_images(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "images"):
        draw(folder, [record("a.png", SIZE, [])])
    (row,) = cvat(tmp_path, IMAGE.format(""))
    assert row["image_path"] == "a.png"


def test_texts_that_xml_cant_hold(out: Callable[..., Path]) -> None:
    mug = {"text": "a \x01mug\ufffe", "unplaced": True, "instances": [{"bbox": BOX}]}
    (back,) = read(str(out("cvat", [record("a.png", SIZE, [mug])])), "cvat")
    assert back["expressions"][0]["text"] == "a mug"
