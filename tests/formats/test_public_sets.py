"""Published data sets, in small and as each is laid out: RefCOCO, gRefCOCO, Flickr30k Entities,
GRIT, Visual Genome.
"""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from benchmarks.places.workplace import Done
from benchmarks.places.workplace import command as in_process
from dataflow_grounding._util.errors import InputError, SpecError
from dataflow_grounding.extras.formats import FORMATS, WRITTEN, read, write

IMAGES = [
    {"id": n, "file_name": f"COCO_train2014_{n:012}.jpg", "width": 640, "height": 480}
    for n in (5, 6)
]
OBJECTS = [
    {"id": 11, "image_id": 5, "bbox": [10.5, 20, 30, 40]},
    {"id": 12, "image_id": 6, "bbox": [0, 0, 640, 480]},
]


def command(*arguments: object) -> Done:
    return in_process([str(argument) for argument in arguments])


def ref(image_id: int, ann_id: Any, split: str, *sentences: str) -> dict[str, Any]:
    said = [
        {"sent_id": f"{image_id}{n}", "raw": text.upper(), "sent": text}
        for n, text in enumerate(sentences)
    ]
    name = f"COCO_train2014_{image_id:012}_{ann_id}.jpg"
    return {
        "ref_id": 1,
        "ann_id": ann_id,
        "image_id": image_id,
        "split": split,
        "file_name": name,
        "sentences": said,
    }


def refcoco(folder: Path, refs: list[dict[str, Any]], name: str = "refs(unc).p") -> Path:
    (folder / "instances.json").write_text(
        json.dumps({"images": IMAGES, "annotations": OBJECTS, "categories": []})
    )
    (folder / name).write_bytes(
        json.dumps(refs).encode() if name.endswith("json") else pickle.dumps(refs, 0)
    )
    return folder


def test_refcoco(tmp_path: Path) -> None:
    folder = refcoco(
        tmp_path,
        [
            ref(5, 11, "val", "the cat", "left one"),
            ref(6, 12, "testA", "all"),
            ref(5, 11, "val", " "),
        ],
    )
    first, second = read(str(folder), "refcoco")
    assert (first["image_path"], first["width"], first["image_id"]) == (
        IMAGES[0]["file_name"],
        640,
        "COCO_train2014_000000000005",
    )
    assert [(one["text"], one["expression_id"]) for one in first["expressions"]] == [
        ("the cat", "50"),
        ("left one", "51"),
    ]
    assert first["expressions"][1]["instances"][0]["bbox"] == [10.5, 20, 40.5, 60]
    assert first["expressions"][0]["char_span"] is None
    assert [row["expressions"] for row in read(str(folder), "refcoco", split="testA")] == [
        second["expressions"]
    ]
    with pytest.raises(InputError, match="nothing of split 'test'"):
        list(read(str(folder), "refcoco", split="test"))


def test_grefcoco(tmp_path: Path) -> None:
    refs = [ref(5, [11, 12], "val", "both"), ref(5, [-1], "val", "a dog")]
    for name in ("grefs(unc).json", "grefs(unc).p"):
        folder = tmp_path / name
        folder.mkdir()
        (row,) = read(str(refcoco(folder, refs, name)), "refcoco")
        assert [
            (one["text"], one["status"], len(one["instances"])) for one in row["expressions"]
        ] == [
            ("both", "grounded", 2),
            ("a dog", "none", 0),
        ]


@pytest.mark.parametrize("side", ["NaN", '"wide"', "Infinity", "640.5", "true"])
def test_a_size_that_is_no_number_of_pixels(tmp_path: Path, side: str) -> None:
    path = refcoco(tmp_path, [ref(5, 11, "val", "the cat")]) / "instances.json"
    path.write_text(path.read_text().replace("640", side))
    with pytest.raises(InputError, match="width and height should be whole numbers of pixels"):
        list(read(str(tmp_path), "refcoco"))


def test_a_folder_with_several_lists_of_sentences(tmp_path: Path) -> None:
    for name in ("refs(unc).p", "refs(google).p"):
        refcoco(tmp_path, [ref(5, 11, "val", "the cat")], name)
    with pytest.raises(InputError, match="has 2 files refs"):
        list(read(str(tmp_path), "refcoco"))
    assert len(list(read(str(tmp_path / "refs(unc).p"), "refcoco"))) == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="has 0 files refs"):
        list(read(str(empty), "refcoco"))


class _Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    "bad",
    [
        pickle.dumps([_Evil()]),
        b"",
        b"\x80\x04.",
        b"(lp0\nI1\n",
        pickle.dumps([{"split": 1}]),
        b"\x82\x01.",
    ],
)
def test_a_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    (refcoco(tmp_path, []) / "refs(unc).p").write_bytes(bad)
    done = command("import", tmp_path, "--format", "refcoco", "-o", "out")
    assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
    assert "refs(unc).p" in done.err
    assert not (tmp_path / "ran").exists()


SENTENCE = "[/EN#1/people/other Two men] and [/EN#1/people two men] at [/EN#2/scene night] near [/EN#0/notvisual it] ."
XML = """<annotation><filename>1.jpg</filename><size><width>500</width><height>300</height></size>
<object><name>1</name><name>3</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>500</xmax><ymax>300</ymax></bndbox></object>
<object><name>1</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>
<object><name>2</name><scene>1</scene><nobndbox>1</nobndbox></object></annotation>"""


def flickr(folder: Path, sentence: str = SENTENCE, xml: str = XML) -> Path:
    for name in ("Sentences", "Annotations"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "Sentences/1.txt").write_text(f"{sentence}\nA caption .\n", encoding="utf-8")
    (folder / "Annotations/1.xml").write_text(xml)
    (folder / "val.txt").write_text("1\n")
    (folder / "test.txt").write_text("2\n")
    return folder


def test_flickr30k(tmp_path: Path) -> None:
    first, second = read(str(flickr(tmp_path)), "flickr30k")
    assert first["caption"] == "Two men and two men at night near it ."
    assert (first["image_id"], second["image_id"], first["width"], first["height"]) == (
        "1",
        "1@2",
        500,
        300,
    )
    found = [
        (one["text"], one["char_span"], one["status"], len(one["instances"]))
        for one in first["expressions"]
    ]
    assert found == [
        ("Two men", [0, 7], "grounded", 2),
        ("two men", [12, 19], "grounded", 2),
        ("night", [23, 28], "unsupported", 0),
        ("it", [34, 36], "unsupported", 0),
    ]
    assert first["expressions"][0]["instances"][0]["bbox"] == [1, 2, 500, 300]
    assert (first["expressions"][0]["chain"], first["expressions"][0]["kinds"]) == (
        "1",
        ["people", "other"],
    )
    assert second["expressions"] == []


def test_flickr30ks_options_on_the_command_line(tmp_path: Path) -> None:
    folder, out = flickr(tmp_path), tmp_path / "out"
    options = ("--set", "offset=1", "--set", "split=val")
    assert command("import", folder, "--format", "flickr30k", "-o", out, *options).code == 0
    row = json.loads((out / "annotations.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert row["expressions"][0]["instances"][0]["bbox"] == [0, 1, 499, 299]
    place = tmp_path / "odvg.jsonl"
    done = command(
        "convert",
        folder,
        "--from",
        "flickr30k",
        "--to",
        "odvg",
        "-o",
        place,
        "--images",
        "reference",
        *options,
    )
    assert done.code == 0, done.err
    assert "[0.0, 1.0, 499.0, 299.0]" in place.read_text(encoding="utf-8")
    for options, said in (
        (("offset=2",), "neither 0 nor 1"),
        (("split=test",), "2.xml"),
        (("colour=1",), "has no option 'colour'"),
        (("offset",), "should be an option"),
        (("path=x",), "should be an option"),
        (("split=a", "split=b"), "each once"),
    ):
        given = [part for option in options for part in ("--set", option)]
        done = command("import", folder, "--format", "flickr30k", "-o", tmp_path / "no", *given)
        assert (done.code, said in done.err) == (2, True), done.err
        assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("sentence", "xml", "said"),
    [
        ("[/EN#1/people Two men and a dog", XML, "1.txt, line 1: .*isn't whole"),
        (
            SENTENCE,
            XML.replace("<annotation>", '<!DOCTYPE a [<!ENTITY x "y">]><annotation>'),
            "1.xml.*DOCTYPE",
        ),
        (SENTENCE, XML.replace("<xmin>1<", "<xmin>one<"), "1.xml: "),
        (SENTENCE, XML.replace("<xmin>1<", "<xmin>501<"), "ends before it begins"),
        (SENTENCE, "<annotation/>", "1.xml: "),
    ],
)
def test_a_broken_flickr30k(tmp_path: Path, sentence: str, xml: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        list(read(str(flickr(tmp_path, sentence, xml)), "flickr30k"))


def test_a_folder_that_is_not_flickr30k(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name the folder with Sentences"):
        list(read(str(tmp_path), "flickr30k"))
    with pytest.raises(SpecError, match="neither 0 nor 1"):
        read(str(tmp_path), "flickr30k", offset="x")


def grit(folder: Path, found: list[list[float]], **more: Any) -> Path:
    row = {
        "key": "000001",
        "caption": "🐈 a red mug on a table",
        "width": 200,
        "height": 100,
        "noun_chunks": [[2, 11, 0, 0, 0.5, 1, 0.75]],
    }
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{**row, "ref_exps": found, **more}]), folder / "x.parquet"
    )
    return folder


def test_grit(tmp_path: Path) -> None:
    both = [[2.0, 22.0, 0.1, 0.2, 0.5, 1.0, 0.75], [2.0, 22.0, 0.5, 0.5, 1.0, 1.0, 0.5]]
    (row,) = read(str(grit(tmp_path, both)), "grit")
    assert (row["image_path"], row["width"], row["height"]) == ("000001.jpg", 200, 100)
    (one,) = row["expressions"]
    assert (one["text"], one["char_span"]) == ("a red mug on a table", [2, 22])
    assert one["instances"] == [
        {"bbox": [20, 20, 100, 100], "score": 0.75, "bbox_id": "000001#0.0"},
        {"bbox": [100, 50, 200, 100], "score": 0.5, "bbox_id": "000001#0.1"},
    ]
    (row,) = read(str(tmp_path / "x.parquet"), "grit", column="noun_chunks")
    assert [one["text"] for one in row["expressions"]] == ["a red mug"]


def test_a_broken_grit(tmp_path: Path) -> None:
    for found, said in (
        ([[90.0, 99.0, 0.0, 0.0, 1.0, 1.0, 0.5]], "no 'text'"),
        ([[2.0, 11.0, 0.5]], "entry 1: "),
    ):
        with pytest.raises(InputError, match=said):
            list(read(str(grit(tmp_path, found)), "grit"))
    with pytest.raises(InputError, match="no 'other' in it"):
        list(read(str(tmp_path), "grit", column="other"))
    (tmp_path / "x.parquet").unlink()
    with pytest.raises(InputError, match=str(tmp_path)):
        list(read(str(tmp_path), "grit"))


def genome(folder: Path, **more: Any) -> Path:
    regions = [
        {
            "region_id": 1,
            "image_id": 2,
            "x": 10,
            "y": -5,
            "width": 1000,
            "height": 50,
            "phrase": "the clock is green. ",
        },
        {
            "region_id": 2,
            "image_id": 2,
            "x": 10,
            "y": 20,
            "width": 0,
            "height": 5,
            "phrase": "a line",
            **more,
        },
    ]
    (folder / "region_descriptions.json").write_text(json.dumps([{"id": 2, "regions": regions}]))
    image = {
        "image_id": 2,
        "width": 800,
        "height": 600,
        "url": "https://example.org/VG_100K_2/2.jpg",
        "coco_id": 7,
    }
    (folder / "image_data.json").write_text(json.dumps([image]))
    return folder


def test_visual_genome(tmp_path: Path) -> None:
    (row,) = read(str(genome(tmp_path)), "visual-genome")
    assert (row["image_path"], row["width"], row["coco_id"]) == ("VG_100K_2/2.jpg", 800, 7)
    (one,) = row["expressions"]
    assert (one["text"], one["expression_id"], one["instances"][0]["bbox"]) == (
        "the clock is green.",
        "1",
        [10, 0, 800, 45],
    )
    with pytest.raises(InputError, match="entry 1: is not of this format"):
        list(read(str(genome(tmp_path, x="ten")), "visual-genome"))
    (tmp_path / "image_data.json").unlink()
    with pytest.raises(InputError, match=r"image_data\.json"):
        list(read(str(tmp_path), "visual-genome"))


def test_what_is_only_read_is_not_offered_for_writing(tmp_path: Path) -> None:
    only_read = set(FORMATS) - set(WRITTEN)
    assert only_read >= {"refcoco", "flickr30k", "grit", "visual-genome"}
    for name in only_read:
        with pytest.raises(InputError, match=f"{name} can be read, but not written"):
            write([], name, str(tmp_path / "out"))
        assert list(tmp_path.iterdir()) == []
    listed = " ".join(command("export", "--help").out.split())
    assert ("label-studio" in listed, "flickr30k" in listed) == (True, False)
    assert "flickr30k" in " ".join(command("import", "--help").out.split())
