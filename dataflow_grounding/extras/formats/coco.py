"""COCO files: one JSON file with `images`, `annotations` (`bbox` as x, y, width, height in pixels),
`categories`.

With captions, and the places of phrases in them as `tokens_positive`, it is what MDETR and its
descendants train on. Sources: pycocotools' coco.py and cocoeval.py; mdetr's datasets/coco.py and
scripts/pre-training/flickr_combined.py; ultralytics' data/dataset.py (GroundingDataset); gRefCOCO's
grefexp_coco_format.py.
"""

import marshal
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import count
from typing import Any

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding.data.records import is_box, is_number, is_score
from dataflow_grounding.extras.formats._classes import ONE, Classes, Numbers
from dataflow_grounding.extras.formats.base import Format, Phrase, Sample
from dataflow_grounding.extras.formats.export_folder import ExportFolder
from dataflow_grounding.extras.formats.label_files import Labelled
from dataflow_grounding.extras.formats.reading import broken, file_of, read_lists, united

CROWDS, STRAYS = "crowd annotations", "annotations of no image"
UNLISTED = f"annotations whose category isn't listed, which are read as {ONE!r}"
_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -16384;
CREATE TABLE images (id TEXT UNIQUE, name TEXT, item BLOB);
CREATE TABLE annotations (id TEXT UNIQUE, image TEXT, crowd INTEGER, item BLOB);
"""


class CocoFile:
    """A COCO file as it is read, one entry at a time: its annotations are found by their image in a
    file of SQLite's.

    Raises:
        InputError: It can't be read, or is not a COCO file.
    """

    def __init__(self, path: str) -> None:
        self.path, self._names = path, dict[str, str]()
        # a file of its own, which goes with it
        self._rows = sqlite3.connect("", check_same_thread=False)
        self._rows.executescript(_TABLES)
        there = set()
        try:
            for name, number, item in read_lists(path):
                there.add(name)
                if number >= 0:
                    given = item if isinstance(item, dict) else {}
                    self._take(name, _id(given.get("id", number)), given)
            self._rows.execute("CREATE INDEX of_image ON annotations (image)")
        except sqlite3.Error as error:
            raise InputError(f"can't sort what is in {path}: {error}") from None
        if not there >= {"images", "annotations"}:
            raise InputError(
                f"{path} is not a COCO file: it has no lists 'images' and 'annotations'"
            )

    def _take(self, what: str, own: str, item: dict[str, Any]) -> None:
        try:
            if what == "images":
                name = item.get("file_name")
                if not isinstance(name, str) or not name or "id" not in item:
                    raise InputError(f"{self.path}: an image without 'id' and 'file_name'")
                self._rows.execute(
                    "INSERT INTO images VALUES (?, ?, ?)", (own, name, marshal.dumps(item))
                )
            elif what == "annotations":
                crowd = _id(item.get("iscrowd")).lower() in ("1", "true")
                row = (own if "id" in item else None, _id(item.get("image_id")), crowd)
                packed = marshal.dumps({"id": own, **item})
                self._rows.execute("INSERT INTO annotations VALUES (?, ?, ?, ?)", (*row, packed))
            elif what == "categories":
                if own in self._names:
                    raise sqlite3.IntegrityError
                self._names[own] = "" if (name := item.get("name")) is None else str(name)
        except sqlite3.IntegrityError:
            raise InputError(
                f"{self.path}: two {what} have the id {own}: whose boxes are whose?"
            ) from None
        except UnicodeEncodeError:
            why = "half of a surrogate pair, which UTF-8 can't hold"
            raise InputError(
                f"{self.path}: an id or file name among its {what} has {why}: {own!r:.100}"
            ) from None

    def left_out(self) -> Counter[str]:
        """How many annotations are left out as CROWDS and as STRAYS, of no image."""
        known = "image IN (SELECT id FROM images)"
        of = {CROWDS: f"crowd AND {known}", STRAYS: f"NOT {known}"}
        query = "SELECT count(*) FROM annotations WHERE "
        return Counter(
            {what: self._rows.execute(query + which).fetchone()[0] for what, which in of.items()}
        )

    def images(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Each image's id, file name and entry, in order."""
        for own, name, item in self._rows.execute("SELECT * FROM images ORDER BY rowid"):
            yield own, name, marshal.loads(item)

    def entries(self, image: str) -> list[dict[str, Any]]:
        """The annotations of the image of that id, with the name of the category as `category`;
        `crowd`: it is one.
        """
        found = self._rows.execute(
            "SELECT crowd, item FROM annotations WHERE image = ? ORDER BY rowid", (image,)
        )
        items = [{**marshal.loads(item), "crowd": crowd} for crowd, item in found]
        return [
            {**item, "category": self._names.get(_id(item.get("category_id")), "")}
            for item in items
        ]

    def regions(self, image: str) -> list[Labelled]:
        """The regions of the image of that id in pixels. Raises BrokenRow that names the file and
        the annotation.
        """
        regions: list[Labelled] = []
        for entry in self.entries(image):
            if entry["crowd"]:
                continue
            where = f"{self.path}, annotation {entry['id']}"
            x1, y1, x2, y2 = bbox = _corners(entry, f"{where}: ")
            if x2 <= x1 or y2 <= y1:
                raise BrokenRow(
                    f"{where}: the box {[float(value) for value in entry['bbox']]} has no area"
                )
            regions.append({"bbox": bbox, "type": entry["category"]})
        return regions


def _id(value: Any) -> str:
    """An id as it is told from others: 1, 1.0 and "1" are one."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


@dataclass
class Coco(Format):
    """COCO as detectors read it. Phrases, ids and scores stand in keys of annotations that they
    pass over.

    There is no caption: TAO's converter would take a file with one for a grounding file.
    """

    classes: str = "phrase"

    def __post_init__(self) -> None:
        self._classes, self._pictures = Classes(self.classes), Numbers()

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        ids = count(1)
        head = {"info": {"description": "dataflow-grounding"}, "licenses": []}
        with out.lists(self.data_file, "images", "annotations", "categories", **head) as put:
            categories = Numbers(
                lambda number, name: put[2]({"id": number, "name": name, "supercategory": ONE})
            )
            for name in self._classes.fixed:
                categories.of(name)
            for place, sample in enumerate(samples, 1):
                number, new = self.number(sample, place)
                if new:
                    size = {"width": sample.size[0], "height": sample.size[1]}
                    put[0](
                        {
                            "id": number,
                            "file_name": sample.file_name,
                            **size,
                            **self.of_image(sample, number),
                        }
                    )
                for phrase in sample.phrases:
                    category, _ = categories.of(self._classes.of(phrase.text))
                    of_phrase = {"category_id": category, **self.of_phrase(phrase)}
                    for box in _annotations(phrase):
                        put[1]({"id": next(ids), "image_id": number, **of_phrase, **box})

    def number(self, sample: Sample, place: int) -> tuple[int, bool]:
        """The number of the image entry of the sample at `place`, from 1, and whether it is new."""
        return self._pictures.of(sample.file_name)

    def of_image(self, sample: Sample, number: int) -> dict[str, Any]:
        """What an image entry says besides the picture."""
        return {"original_id": sample.record.get("image_id")}

    def of_phrase(self, phrase: Phrase) -> dict[str, Any]:
        """What each annotation of a phrase says of it."""
        return {"phrase": phrase.text}

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        file = file_of(path, self.data_file)
        coco = CocoFile(file)
        self.passed_over.update(coco.left_out())
        for image, name, item in coco.images():
            row = _known(item, "width", "height", "caption")
            own = item.get("original_id", item.get("original_img_id"))
            row |= {} if own is None else {"image_id": own}
            caption, entries = item.get("caption"), coco.entries(image)
            single = (entry for entry in entries if not entry["crowd"])
            said = [
                one
                for entry in single
                for one in _expressions(entry, caption, file, self.passed_over)
            ]
            row |= {"background": False} if entries and not said else {}  # crowds, say
            yield {"image_path": name, **row, "expressions": united(said)}


@dataclass
class CocoGrounding(Coco):
    """COCO with an image entry for each caption, and the places of its phrases: a picture may stand
    there often.
    """

    classes: str = "one"

    def number(self, sample: Sample, place: int) -> tuple[int, bool]:
        return place, True

    def of_image(self, sample: Sample, number: int) -> dict[str, Any]:
        return {
            "caption": sample.caption,
            "dataset_name": "dataflow-grounding",
            "tokens_negative": [[0, len(sample.caption)]],
            "tokens_positive_eval": [[phrase.span] for phrase in sample.phrases],
            "original_img_id": sample.record.get("image_id"),
            "sentence_id": number,
        }

    def of_phrase(self, phrase: Phrase) -> dict[str, Any]:
        return {"phrase": phrase.text, "tokens_positive": [phrase.span]}


def _annotations(phrase: Phrase) -> Iterator[dict[str, Any]]:
    for box, instance in zip(phrase.boxes, phrase.expression["instances"], strict=True):
        width, height = _sum(box[2], -box[0]), _sum(box[3], -box[1])
        known = _known(
            {**phrase.expression, **instance}, "expression_id", "verified", "bbox_id", "score"
        )
        yield {
            "bbox": [box[0], box[1], width, height],
            "area": width * height,
            "iscrowd": 0,
            **known,
        }


def _known(item: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: item[key] for key in keys if item.get(key) is not None}


def _expressions(
    item: Any, caption: Any, file: str, passed_over: Counter[str]
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The expression of an annotation, behind what tells it, if the annotation says anything."""
    # gRefCOCO's way to say that nothing is there
    box, nothing = item.get("bbox"), item.get("category_id") == -1
    with broken(f"{file}, annotation {item['id']}"):
        one = {**_said(item, caption), **_known(item, "expression_id", "verified")}
        if not isinstance(one["text"], str) or isinstance(one.get("expression_id"), (list, dict)):
            raise BrokenRow("'phrase' should be a text, and 'expression_id' an id")
        if box or nothing:
            instances = []
            if box and not (nothing and 0 in box[2:]):
                x1, y1, x2, y2 = bbox = _corners(item)
                if x2 < x1 or y2 < y1:
                    raise BrokenRow("the box has a side of less than nothing")
                instances = [{"bbox": bbox, **_known(item, "bbox_id", "score")}]
                if is_number(item.get("score")) and not is_score(item["score"]):
                    passed_over["scores outside of 0 to 1"] += 1
                    del instances[0]["score"]
            # a phrase may be corrected, with its id as it was
            same = one.get("expression_id", repr(one)), one["text"]
            yield same, {**one, "instances": instances}
        passed_over["annotations without a box"] += not (box or nothing)
        passed_over[UNLISTED] += not item["category"] and one["text"] == ONE


def _said(item: Mapping[str, Any], caption: str | None) -> dict[str, Any]:
    spans = item.get("tokens_positive")
    if caption is None or not isinstance(spans, list):
        return {"text": item.get("phrase") or item["category"] or ONE}
    text = " ".join(caption[start:end] for start, end in spans) or caption
    return {"text": item.get("phrase") or text, "char_span": spans[0] if len(spans) == 1 else None}


def _corners(item: Mapping[str, Any], where: str = "") -> list[float]:
    """The box of an annotation as x1, y1, x2, y2. Raises BrokenRow."""
    box: Any = item.get("bbox")
    if not is_box(box):
        raise BrokenRow(f"{where}'bbox' should be [x, y, width, height]")
    x, y, width, height = box
    return [x, y, _sum(x, width), _sum(y, height)]


def _sum(one: float, other: float) -> float:
    """The sum of two numbers as they are written: 0.1 + 0.2 is 0.3."""
    if one % 1 == 0 and other % 1 == 0:
        return one + other
    return float(Decimal(repr(one)) + Decimal(repr(other)))
