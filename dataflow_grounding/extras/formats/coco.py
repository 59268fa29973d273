"""COCO files: one JSON file with `images`, `annotations` and `categories`.

A `bbox` is x, y, width, height in pixels. With captions, and the places of phrases in them as
`tokens_positive`, it is what MDETR and its descendants train on. Sources: pycocotools' coco.py and
cocoeval.py; mdetr's datasets/coco.py and scripts/pre-training/flickr_combined.py; ultralytics'
data/dataset.py (GroundingDataset); gRefCOCO's grefexp_coco_format.py.
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

# Words under which annotations are counted that are left out, or read in another way.
CROWDS = "crowd annotations"
STRAYS = "annotations of no image"
UNLISTED = f"annotations whose category isn't listed, which are read as {ONE!r}"
NO_CATEGORY = -1  # gRefCOCO's way to say that nothing is there
_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -16384;
CREATE TABLE images (id TEXT UNIQUE, name TEXT, item BLOB);
CREATE TABLE annotations (id TEXT UNIQUE, image TEXT, crowd INTEGER, item BLOB);
"""


class CocoFile:
    """A COCO file as it is read, one entry at a time.

    Its annotations are found by their image in a file of SQLite's, as they may be too many for the
    memory.

    Raises:
        InputError: It can't be read, or is not a COCO file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._category_names: dict[str, str] = {}
        # A database without a name is a temporary file of its own, which goes with it.
        self._rows = sqlite3.connect("", check_same_thread=False)
        self._rows.executescript(_TABLES)
        lists = set()
        try:
            for list_name, number, item in read_lists(path):
                lists.add(list_name)
                if number >= 0:
                    self._take(list_name, number, item if isinstance(item, dict) else {})
            self._rows.execute("CREATE INDEX of_image ON annotations (image)")
        except sqlite3.Error as error:
            raise InputError(f"can't sort what is in {path}: {error}") from None
        if not lists >= {"images", "annotations"}:
            raise InputError(
                f"{path} is not a COCO file: it has no lists 'images' and 'annotations'"
            )

    def _take(self, list_name: str, number: int, item: dict[str, Any]) -> None:
        """Store an item of a list, under its id, else its number. Raises InputError."""
        own_id = _id(item.get("id", number))
        try:
            if list_name == "images":
                self._take_image(own_id, item)
            elif list_name == "annotations":
                self._take_annotation(own_id, item)
            elif list_name == "categories":
                self._take_category(own_id, item)
        except sqlite3.IntegrityError:
            raise InputError(
                f"{self.path}: two {list_name} have the id {own_id}: whose boxes are whose?"
            ) from None
        except UnicodeEncodeError:
            why = "half of a surrogate pair, which UTF-8 can't hold"
            where = f"{self.path}: an id or file name among its {list_name}"
            raise InputError(f"{where} has {why}: {own_id!r:.100}") from None

    def _take_image(self, own_id: str, item: dict[str, Any]) -> None:
        name = item.get("file_name")
        if not isinstance(name, str) or not name or "id" not in item:
            raise InputError(f"{self.path}: an image without 'id' and 'file_name'")
        row = (own_id, name, marshal.dumps(item))
        self._rows.execute("INSERT INTO images VALUES (?, ?, ?)", row)

    def _take_annotation(self, own_id: str, item: dict[str, Any]) -> None:
        is_crowd = _id(item.get("iscrowd")).lower() in ("1", "true")
        unique_id = own_id if "id" in item else None  # a number in the list is no id to clash with
        packed = marshal.dumps({"id": own_id, **item})
        row = (unique_id, _id(item.get("image_id")), is_crowd, packed)
        self._rows.execute("INSERT INTO annotations VALUES (?, ?, ?, ?)", row)

    def _take_category(self, own_id: str, item: dict[str, Any]) -> None:
        if own_id in self._category_names:
            raise sqlite3.IntegrityError
        name = item.get("name")
        self._category_names[own_id] = "" if name is None else str(name)

    def left_out(self) -> Counter[str]:
        """How many annotations are left out as CROWDS and as STRAYS, of no image."""
        of_listed_image = "image IN (SELECT id FROM images)"
        return Counter(
            {
                CROWDS: self._count_annotations(f"crowd AND {of_listed_image}"),
                STRAYS: self._count_annotations(f"NOT {of_listed_image}"),
            }
        )

    def _count_annotations(self, condition: str) -> int:
        query = "SELECT count(*) FROM annotations WHERE " + condition
        count: int = self._rows.execute(query).fetchone()[0]
        return count

    def images(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Each image's id, file name and entry, in order."""
        for own_id, name, item in self._rows.execute("SELECT * FROM images ORDER BY rowid"):
            yield own_id, name, marshal.loads(item)

    def entries(self, image: str) -> list[dict[str, Any]]:
        """The annotations of the image of that id.

        Besides its own keys each has `category`, the category's name, and `crowd`: it is one.
        """
        query = "SELECT crowd, item FROM annotations WHERE image = ? ORDER BY rowid"
        entries = []
        for crowd, packed in self._rows.execute(query, (image,)):
            entry = {**marshal.loads(packed), "crowd": crowd}
            entry["category"] = self._category_names.get(_id(entry.get("category_id")), "")
            entries.append(entry)
        return entries

    def regions(self, image: str) -> list[Labelled]:
        """The regions of the image of that id, in pixels.

        Raises BrokenRow that names the file and the annotation.
        """
        regions: list[Labelled] = []
        for entry in self.entries(image):
            if entry["crowd"]:
                continue
            where = f"{self.path}, annotation {entry['id']}"
            bbox = _corners(entry, f"{where}: ")
            x1, y1, x2, y2 = bbox
            if x2 <= x1 or y2 <= y1:
                numbers = [float(value) for value in entry["bbox"]]
                raise BrokenRow(f"{where}: the box {numbers} has no area")
            regions.append({"bbox": bbox, "type": entry["category"]})
        return regions


def _id(value: Any) -> str:
    """An id as it is told from others: 1, 1.0 and "1" are one."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


@dataclass
class Coco(Format):
    """COCO as detectors read it.

    Phrases, ids and scores stand in keys of annotations that detectors pass over. There is no
    caption: TAO's converter would take a file with one for a grounding file.
    """

    classes: str = "phrase"

    def __post_init__(self) -> None:
        self._classes = Classes(self.classes)
        self._pictures = Numbers()

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        annotation_ids = count(1)
        head = {"info": {"description": "dataflow-grounding"}, "licenses": []}
        lists = out.lists(self.data_file, "images", "annotations", "categories", **head)
        with lists as (put_image, put_annotation, put_category):

            def put_new_category(number: int, name: str) -> None:
                put_category({"id": number, "name": name, "supercategory": ONE})

            categories = Numbers(put_new_category)
            for name in self._classes.fixed:
                categories.of(name)
            for position, sample in enumerate(samples, 1):
                image_id, is_new = self.number(sample, position)
                if is_new:
                    put_image(self._image_entry(sample, image_id))
                for phrase in sample.phrases:
                    category_id, _ = categories.of(self._classes.of(phrase.text))
                    of_phrase = {"category_id": category_id, **self.of_phrase(phrase)}
                    for of_box in _box_entries(phrase):
                        own_id = next(annotation_ids)
                        put_annotation({"id": own_id, "image_id": image_id, **of_phrase, **of_box})

    def _image_entry(self, sample: Sample, number: int) -> dict[str, Any]:
        return {
            "id": number,
            "file_name": sample.file_name,
            "width": sample.size[0],
            "height": sample.size[1],
            **self.of_image(sample, number),
        }

    def number(self, sample: Sample, position: int) -> tuple[int, bool]:
        """The number of a sample's image entry, and whether the entry is new.

        `position` is that of the sample, from 1.
        """
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
        for image_key, name, image in coco.images():
            row = _known(image, "width", "height", "caption")
            image_id = image.get("original_id", image.get("original_img_id"))
            if image_id is not None:
                row["image_id"] = image_id
            entries = coco.entries(image_key)
            keyed: list[tuple[Any, dict[str, Any]]] = []
            for entry in entries:
                if not entry["crowd"]:
                    caption = image.get("caption")
                    keyed += _expressions(entry, caption, file, self.passed_over)
            if entries and not keyed:  # something is there, but nothing that is read: crowds, say
                row["background"] = False
            yield {"image_path": name, **row, "expressions": united(keyed)}


@dataclass
class CocoGrounding(Coco):
    """COCO with an image entry for each caption, and the places of its phrases.

    A picture may stand there often.
    """

    classes: str = "one"

    def number(self, sample: Sample, position: int) -> tuple[int, bool]:
        return position, True

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


def _box_entries(phrase: Phrase) -> Iterator[dict[str, Any]]:
    """What the annotations of a phrase say of its boxes, one each."""
    for box, instance in zip(phrase.boxes, phrase.expression["instances"], strict=True):
        x1, y1, x2, y2 = box
        width = _sum(x2, -x1)
        height = _sum(y2, -y1)
        facts = {**phrase.expression, **instance}
        yield {
            "bbox": [x1, y1, width, height],
            "area": width * height,
            "iscrowd": 0,
            **_known(facts, "expression_id", "verified", "bbox_id", "score"),
        }


def _known(item: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Those of the keys that the item has, with their values."""
    return {key: item[key] for key in keys if item.get(key) is not None}


def _expressions(
    item: Any, caption: Any, file: str, passed_over: Counter[str]
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The expression of an annotation, behind what tells it, if the annotation says anything."""
    box = item.get("bbox")
    nothing_there = item.get("category_id") == NO_CATEGORY
    with broken(f"{file}, annotation {item['id']}"):
        expression = {**_phrase_of(item, caption), **_known(item, "expression_id", "verified")}
        text = expression["text"]
        if not isinstance(text, str) or isinstance(expression.get("expression_id"), (list, dict)):
            raise BrokenRow("'phrase' should be a text, and 'expression_id' an id")
        if box or nothing_there:
            instances = []
            if box and not (nothing_there and 0 in box[2:]):
                instances = [_instance(item, passed_over)]
            # A phrase may be corrected, with its id as it was: both tell it.
            key = (expression.get("expression_id", repr(expression)), text)
            yield key, {**expression, "instances": instances}
        passed_over["annotations without a box"] += int(not box and not nothing_there)
        passed_over[UNLISTED] += int(not item["category"] and text == ONE)


def _instance(item: Mapping[str, Any], passed_over: Counter[str]) -> dict[str, Any]:
    """The box of an annotation with its id and score; a number that is no score is left out."""
    bbox = _corners(item)
    x1, y1, x2, y2 = bbox
    if x2 < x1 or y2 < y1:
        raise BrokenRow("the box has a side of less than nothing")
    instance = {"bbox": bbox, **_known(item, "bbox_id", "score")}
    score = item.get("score")
    if is_number(score) and not is_score(score):
        passed_over["scores outside of 0 to 1"] += 1
        del instance["score"]
    return instance


def _phrase_of(item: Mapping[str, Any], caption: str | None) -> dict[str, Any]:
    """The phrase of an annotation, with its place in the caption where it states one."""
    spans = item.get("tokens_positive")
    if caption is None or not isinstance(spans, list):
        return {"text": item.get("phrase") or item["category"] or ONE}
    words = " ".join(caption[start:end] for start, end in spans) or caption
    char_span = spans[0] if len(spans) == 1 else None
    return {"text": item.get("phrase") or words, "char_span": char_span}


def _corners(item: Mapping[str, Any], where: str = "") -> list[float]:
    """The box of an annotation as x1, y1, x2, y2. Raises BrokenRow."""
    box: Any = item.get("bbox")
    if not is_box(box):
        raise BrokenRow(f"{where}'bbox' should be [x, y, width, height]")
    x, y, width, height = box
    return [x, y, _sum(x, width), _sum(y, height)]


def _sum(a: float, b: float) -> float:
    """The sum of two numbers as they are written: 0.1 + 0.2 is 0.3."""
    if a % 1 == 0 and b % 1 == 0:
        return a + b
    return float(Decimal(repr(a)) + Decimal(repr(b)))
