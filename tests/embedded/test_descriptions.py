"""The embedded serving on given regions: what phrases mean among them, and which phrase means one
alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dataflow_grounding.embedded._descriptions import Descriptions
from dataflow_grounding.embedded._picture import Picture
from dataflow_grounding.embedded.regions import Thing, dominant_color, plural_of, read_things
from tests.support.workplace import command

EXAMPLES = Path(__file__).resolve().parents[2] / "example_data"
BLANK = Picture(np.zeros((480, 640, 3), np.uint8))
THINGS = [
    Thing(1, (10, 10, 70, 60), "car", "red"),
    Thing(2, (200, 10, 260, 60), "car", "red"),
    Thing(3, (400, 300, 460, 350), "car", "blue"),
    Thing(4, (500, 100, 630, 250), "bus", ""),
    Thing(5, (300, 300, 350, 400), "person sitting", "green"),
    Thing(6, (30, 300, 130, 400), "orange", "orange"),
    Thing(7, (150, 300, 250, 400), "orange", "yellow"),
]


def seen(things: list[Thing] | None = None) -> Descriptions:
    return Descriptions(THINGS if things is None else things, BLANK)


MEANINGS = [
    ("the bus", [4]),
    ("The Bus", [4]),
    ("a blue car", [3]),
    ("the red car", [1, 2]),
    ("two red cars", [1, 2]),
    ("the car on the right", [3]),
    ("the orange orange", [6]),
    ("the yellow orange", [7]),
    ("the person sitting", [5]),
]
UNKNOWN = [
    *("the shiny car", "the dog", "three red cars", "the car that is not red", "the red bus"),
    *("the red thing", "", "it", "the dark blue car", "the car near me"),
]


@pytest.mark.parametrize(("text", "ids"), [pytest.param(*case, id=case[0]) for case in MEANINGS])
def test_what_a_phrase_means_among_the_regions(text: str, ids: list[int]) -> None:
    assert seen().meaning(text) == ids


def test_a_singular_that_fits_several_means_none_of_them() -> None:
    assert seen().means("two red cars", [2, 1])
    assert not seen().means("the red car", [1, 2])


@pytest.mark.parametrize("text", UNKNOWN)
def test_a_phrase_that_is_not_in_the_table_means_nothing_known(text: str) -> None:
    assert seen().meaning(text) is None


def test_the_shortest_phrase_that_means_each_alone() -> None:
    assert {thing.id: seen().shortest(thing) for thing in THINGS} == {
        1: None,
        2: None,
        3: "the blue car",
        4: "the bus",
        5: "the person sitting",
        6: "the orange orange",
        7: "the yellow orange",
    }


sides, kinds = st.floats(2, 200), st.sampled_from(["car", "van", "dog"])
colors = st.sampled_from(["red", "blue", ""])
rows = st.tuples(st.floats(0, 600), st.floats(0, 440), sides, sides, kinds, colors)


@pytest.mark.slow
@given(st.lists(rows, max_size=12))
def test_a_phrase_always_means_its_thing_alone_and_says_nothing_false(rows: list[Any]) -> None:
    made = [
        Thing(n, (x, y, x + w, y + h), kind, color)
        for n, (x, y, w, h, kind, color) in enumerate(rows, 1)
    ]
    described = Descriptions(made, BLANK)
    for thing in made:
        text = described.shortest(thing)
        if text is None:
            continue
        assert described.means(text, [thing.id])
        words = text.split()
        assert thing.kind in words
        assert all(word not in words or word == thing.color for word in ("red", "blue"))
        if text.endswith("on the left"):
            assert thing.bbox[0] + thing.bbox[2] < BLANK.width
    for text, ids in described.groups():
        assert all(
            described.things[n - 1].kind in text or plural_of(described.things[n - 1].kind) in text
            for n in ids
        )
    assert sum(len(ids) for _, ids in described.groups()) == len(made)


@pytest.mark.parametrize(
    ("rows", "caption"),
    [
        ([("car", "red"), ("car", "red"), ("bus", "")], "Two red cars and a bus."),
        ([("car", "red"), ("car", "")], "Two cars."),
        ([("orange", "")], "An orange."),
        ([("glasses", "black"), ("man", ""), ("man", "")], "Two men and black glasses."),
        ([("leaf", "")] * 13, "13 leaves."),
        ([], "A picture."),
    ],
)
def test_captions_count(rows: list[tuple[str, str]], caption: str) -> None:
    made = [Thing(n, (10 * n, 10, 10 * n + 8, 20), *row) for n, row in enumerate(rows)]
    assert seen(made).caption() == caption


PLURALS = """
    bus: buses, person sitting: people sitting, man running: men running, dog lying: dogs lying,
    bird flying: birds flying, car turning: cars turning, charcoal drawing: charcoal drawings,
    pedestrian crossing: pedestrian crossings, zebra crossing: zebra crossings,
    gold ring: gold rings, wedding ring: wedding rings, office building: office buildings,
    guitar string: guitar strings, silver earring: silver earrings, parking lot: parking lots,
    swimming pool: swimming pools, running shoe: running shoes, summer evening: summer evenings,
    wooden ceiling: wooden ceilings, work clothing: work clothing, clothing: clothing,
    fly: flies, toy: toys, box: boxes, traffic light: traffic lights, glasses: glasses,
    bench: benches, bookshelf: bookshelves, snowman: snowmen, housewife: housewives,
    saleswoman: saleswomen, human: humans, mongoose: mongooses, roof: roofs, chief: chiefs,
    belief: beliefs, proof: proofs, safe: safes
"""


@pytest.mark.parametrize("pair", PLURALS.split(","))
def test_plurals(pair: str) -> None:
    kind, _, plural = pair.partition(":")
    assert plural_of(kind.strip()) == plural.strip()


@pytest.mark.parametrize(
    ("fill", "color"),
    [
        ((200, 30, 38), "red"),
        ((30, 70, 190), "blue"),
        ((250, 250, 250), "white"),
        ((20, 20, 20), "black"),
        ((120, 120, 120), "gray"),
        ((100, 66, 40), "brown"),
        ((240, 200, 40), "yellow"),
    ],
)
def test_the_dominant_colour_inside_a_box(fill: tuple[int, int, int], color: str) -> None:
    pixels = np.full((200, 300, 3), (180, 220, 200), np.uint8)
    pixels[50:150, 100:200] = fill[::-1]
    picture = Picture(pixels)
    scale = picture.width / 300
    assert dominant_color(picture, (100 * scale, 50 * scale, 200 * scale, 150 * scale)) == color


def test_what_has_many_colours_is_called_by_none() -> None:
    stripes = np.zeros((120, 120, 3), np.uint8)
    for n, fill in enumerate([(200, 30, 38), (30, 70, 190), (250, 250, 250), (30, 140, 60)]):
        stripes[:, 30 * n : 30 * n + 30] = fill[::-1]
    assert dominant_color(Picture(stripes), (0, 0, 120, 120)) == ""


def test_people_are_not_called_by_a_colour() -> None:
    picture = Picture(np.full((100, 100, 3), (40, 40, 200), np.uint8))
    given_regions = [
        {"id": n, "bbox_2d": [0, 0, 50, 50], "type": kind}
        for n, kind in enumerate(("Pedestrian", "man", "Car"))
    ]
    assert [thing.color for thing in read_things(picture, given_regions)] == ["", "", "red"]


# --- the example data


def generated(folder: Path, **block: Any) -> list[dict[str, Any]]:
    """The records of a run of the embedded serving."""
    name = "image_referring_expression"
    block["vlm"] = {"backend": "embedded"}
    spec = {"results_dir": str(folder / "out"), "autolabel_type": name, name: block}
    (folder / "spec.json").write_text(json.dumps(spec))
    done = command(["generate", "-e", str(folder / "spec.json"), "--no-progress"])
    assert done.code == 0, done
    assert "without" not in done.err
    lines = (folder / "out" / "annotations.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    data = {"image_dir": str(EXAMPLES), "kitti_label_dir": str(EXAMPLES / "labels")}
    folder = tmp_path_factory.mktemp("examples")
    return generated(folder, data=data)


@pytest.mark.slow
def test_every_single_expression_of_the_example_data_means_exactly_its_region(
    records: list[dict[str, Any]],
) -> None:
    assert len(records) == 13
    single = described = 0
    for record in records:
        assert record["model"] == "embedded-opencv"
        label = EXAMPLES / "labels" / f"{record['image_id']}.txt"
        objects = [
            line.split()
            for line in label.read_text().splitlines()
            if not line.startswith("DontCare")
        ]
        assert [region["bbox"] for region in record["regions"]] == [
            [float(n) for n in o[4:8]] for o in objects
        ]
        with Image.open(EXAMPLES / record["image_path"]) as image:
            pixels = np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
        rows = [
            {"id": n, "box": r["bbox"], "type": r["type"], "color": r["color"]}
            for n, r in enumerate(record["regions"], 1)
        ]
        picture = Picture(pixels)
        meanings = Descriptions(read_things(picture, rows), picture)
        for expression in record["expressions"]:
            ids = [instance["region_id"] for instance in expression["instances"]]
            assert meanings.means(expression["text"], ids), (record["image_path"], expression)
            assert expression["verified"] is not False, expression
            single += len(ids) == 1
        described += len(record["regions"])
        texts = [expression["text"] for expression in record["expressions"]]
        assert len(set(texts)) == len(texts)
    assert single >= 0.7 * described


@pytest.mark.slow
def test_swapped_expressions_are_found_and_mended_without_a_model(
    records: list[dict[str, Any]], tmp_path: Path
) -> None:
    [parking] = [record for record in records if record["image_id"] == "crowds/parking"]
    parking = json.loads(json.dumps(parking))
    first, second = [e for e in parking["expressions"] if e["text"] in ("the bus", "the van")]
    first["instances"], second["instances"] = second["instances"], first["instances"]
    path = tmp_path / "given.jsonl"
    path.write_text(json.dumps(parking) + "\n", encoding="utf-8")
    data = {"input_annotations_jsonl": str(path), "image_dir": str(EXAMPLES)}
    [record] = generated(tmp_path, data=data, workflow={"steps": ["3"]})
    mended = {e["text"]: e for e in record["expressions"]}
    assert [i["region_id"] for i in mended["the bus"]["instances"]] == [10]
    assert [i["region_id"] for i in mended["the van"]["instances"]] == [11]
    assert mended["the bus"]["verification"]["before"] == {"text": "the bus", "region_ids": [11]}
