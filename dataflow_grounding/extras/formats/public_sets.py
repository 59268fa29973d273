"""Formats of published data sets, which can only be read.

These are RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO; Flickr30k Entities; GRIT; Visual Genome.

Sources: lichengunc/refer (README, refer.py) and henghuiding/gRefCOCO (grefer.py);
BryanPlummer/flickr30k_entities (README, flickr30k_entities_utils.py) and mdetr's
flickr_combined.py; the card of zzliang/GRIT; visualgenome.org's api.
"""

import glob
import math
import os
import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from dataflow_grounding._util.errors import BrokenRow, InputError, SpecError
from dataflow_grounding._util.files import within
from dataflow_grounding._util.secrets import words_of
from dataflow_grounding.boxes.geometry import Size, box_of, clamp
from dataflow_grounding.extras.formats.base import EXACT, Format
from dataflow_grounding.extras.formats.reading import (
    entry_errors,
    file_of,
    read_lines,
    read_whole,
    read_xml,
    unite,
)

Boxes = dict[str, list[list[float]]]
"""By the id of a chain of phrases: the boxes of what they are about, corners in pixels."""
_DECIMALS = 4  # of a pixel
_NO_OBJECT = -1  # in the place of an object's id: the sentence is about something that isn't there
# A phrase in a caption of Flickr30k Entities, [/EN#283585/people/other two men]: the number of its
# chain, its kinds, its words.
_MARKED_PHRASE = re.compile(r"\[/EN#(\d+)/(\S+) ([^\]]+)\]")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")  # of a box in Flickr30k's XML


def _picture_columns(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's columns for its picture: its name, its sides out of `facts`, no caption.

    Raises KeyError where `facts` lack a side.
    """
    return {
        "image_path": name,
        "width": facts["width"],
        "height": facts["height"],
        "caption": None,
    }


class _PlainUnpickler(pickle._Unpickler):  # type: ignore[name-defined, unused-ignore]
    """Reads pickles of lists, dicts, texts and numbers; raises UnpicklingError for others.

    A pickle that holds anything else can run whatever it wants.

    It is built on the unpickler that Python has in Python: the one in C makes a table of 2 GB for 9
    bytes that name a far place in it. All of RefCOCO takes some seconds longer.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Raise UnpicklingError: whatever is asked for here isn't plain data."""
        raise pickle.UnpicklingError(f"it wants to run {module}.{name}")


@dataclass
class RefCoco(Format):
    """`refs(unc).p`, sentences about the objects of `instances.json` beside.

    gRefCOCO's too, where `-1` is nothing. There is a record for each picture, an expression for
    each sentence. `split`: train, val, test, testA, testB; all if empty.
    """

    split: str = ""

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        """Yield a record for each picture, in the order in which sentences name them first.

        All are read before the first is yielded. Raises InputError where the split has none.
        """
        file = _refs_file(path)
        instances_file = os.path.join(os.path.dirname(file), self.data_file)
        data = read_whole(instances_file)
        with entry_errors(instances_file):
            box_of_object = {each["id"]: each["bbox"] for each in data["annotations"]}
            images = {image["id"]: image for image in data["images"]}
        with entry_errors(file):
            by_image: dict[Any, list[Any]] = {}
            for ref in _load_refs(file):
                if self.split in ("", ref["split"]):
                    expressions = by_image.setdefault(ref["image_id"], [])
                    expressions.extend(_expressions_of(ref, box_of_object))
            records = []
            for image_id, expressions in by_image.items():
                image = images[image_id]
                columns = _picture_columns(image["file_name"], image)
                records.append({**columns, "expressions": expressions})
        if not records:
            raise InputError(f"{file} has nothing of split {self.split!r}")
        yield from records


def _refs_file(path: str) -> str:
    """Return the file of sentences: `path` itself, or the only one in that folder.

    In a folder it is called `refs(unc).p`, `grefs(unc).json` or the like. Raises InputError where
    the folder has none or several.
    """
    if not os.path.isdir(path):
        return path
    files = sorted(glob.glob(os.path.join(glob.escape(path), "*refs(*).*")))
    if len(files) == 1 and not os.path.isdir(files[0]):
        return files[0]
    count = len(files) if len(files) > 1 else 0  # 0 also where the only one is a folder
    raise InputError(f"{path} has {count} files refs(...).p: name the one that is wanted")


def _load_refs(file: str) -> Any:
    """Return what a file of sentences holds: JSON, if it ends in .json; else a pickle of Python 2.

    Raises InputError, also for a pickle with anything but plain data in it.
    """
    if file.endswith(".json"):
        return read_whole(file)
    try:
        with open(file, "rb") as opened:
            return _PlainUnpickler(opened, encoding="latin1").load()  # as Python 2 wrote texts
    except Exception as error:  # a broken pickle raises all kinds
        raise InputError(
            f"can't read {file} as a pickle of plain data: {words_of(error)}"
        ) from None


def _expressions_of(
    ref: Mapping[str, Any], box_of_object: Mapping[Any, list[float]]
) -> Iterator[dict[str, Any]]:
    """Yield the expressions of a reference: one for each sentence, all with the same boxes.

    These are of its objects, none where nothing is there. Empty sentences are left out.
    `box_of_object` has x, y, width and height. Raises KeyError.
    """
    object_ids = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
    corners = []
    for object_id in object_ids:
        if object_id != _NO_OBJECT:
            x, y, width, height = box_of_object[object_id]
            corners.append((x, y, x + width, y + height))
    for sentence in ref["sentences"]:
        facts = {
            "expression_id": str(sentence["sent_id"]),
            "ref_id": str(ref.get("ref_id")),
            "split": str(ref["split"]),
        }
        text = (sentence.get("sent") or sentence["raw"]).strip()
        if text:
            yield {"text": text, **facts, "instances": [{"bbox": list(box)} for box in corners]}


@dataclass
class Flickr30k(Format):
    """`Sentences/1.txt`, captions with marked phrases, and `Annotations/1.xml`, the boxes.

    There is a record for each caption. Phrases that have no box, as they can't be seen or are all
    of the scene, are `unsupported`.

    Args:
        split: The name of a list of pictures in the folder, `train` for train.txt; all if empty.
        offset: Is taken off all four numbers of a box, in pixels: 0 or 1. The numbers count from 1;
            the data set's own reader takes 1 off, most published figures are of 0.

    Raises:
        SpecError: `offset` is something else.
    """

    split: str = ""
    offset: int = 0

    def __post_init__(self) -> None:
        if self.offset not in (0, 1):
            raise SpecError(f"offset {self.offset!r} is neither 0 nor 1")

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        """Yield a record for each caption of the pictures of the split, in its order."""
        split_file = within(path, f"{self.split}.txt")
        if self.split:
            names = _lines(split_file)
        else:
            files = sorted(glob.glob(os.path.join(glob.escape(path), self.data_file, "*.txt")))
            names = [os.path.basename(file).removesuffix(".txt") for file in files]
        if not names:
            raise InputError(
                f"{path} has no captions: name the folder with {self.data_file} and Annotations"
            )
        for name in names:
            boxes, size = self._boxes(within(os.path.join(path, "Annotations"), f"{name}.xml"))
            file = within(os.path.join(path, self.data_file), f"{name}.txt")
            for number, line in enumerate(_lines(file), 1):
                with entry_errors(f"{file}, line {number}"):
                    yield {
                        "image_path": f"{name}.jpg",
                        "width": size[0],
                        "height": size[1],
                        **_caption_columns(line, boxes),
                    }

    def _boxes(self, file: str) -> tuple[Boxes, Size]:
        """Return the boxes of each chain of phrases about one thing, and the picture's size.

        A chain without a box is left out. Raises InputError.
        """
        boxes: Boxes = {}
        root = Element("annotation")  # read_xml gives the children of the file's root
        root.extend([*read_xml(file)])
        with entry_errors(file):
            for thing in root.iter("object"):
                for box in thing.iter("bndbox"):
                    corners = [float(box.findtext(name, "")) - self.offset for name in _CORNERS]
                    for chain in thing.iter("name"):
                        boxes.setdefault(str(chain.text), []).append(corners)
            width = int(root.findtext("size/width", ""))
            height = int(root.findtext("size/height", ""))
            return boxes, (width, height)


def _lines(file: str) -> list[str]:
    """Return the lines of a text file, stripped, without empty ones. Raises InputError."""
    try:
        with open(file, encoding="utf-8") as opened:
            return [line.strip() for line in opened if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"can't read {file}: {why}") from None


def _caption_columns(line: str, boxes: Boxes) -> dict[str, Any]:
    """Return the `caption` of a line, without its marks, and the `expressions` that they mark.

    One whose chain has no boxes is `unsupported`. Raises BrokenRow where a mark isn't whole.
    """
    caption = ""
    end = 0  # of the last mark in the line
    expressions = []
    for mark in _MARKED_PHRASE.finditer(line):
        chain, kinds, text = mark.groups()
        caption += line[end : mark.start()]
        end = mark.end()
        its_boxes = boxes.get(chain, [])
        expressions.append(
            {
                "text": text,
                "char_span": [len(caption), len(caption) + len(text)],
                "chain": chain,
                "kinds": kinds.split("/"),
                "status": "grounded" if its_boxes else "unsupported",
                "instances": [{"bbox": list(box)} for box in its_boxes],
            }
        )
        caption += text
    caption += line[end:]
    if "[/EN#" in caption:
        raise BrokenRow("the mark of a phrase isn't whole")
    return {"caption": caption, "expressions": expressions}


_GRIT_COLUMNS = ("ref_exps", "noun_chunks")  # columns with phrases, of which one is read


@dataclass
class Grit(Format):
    """Parquet files of captions; pictures are `<key>.jpg`.

    A box is `[start, end, x1, y1, x2, y2, score]`: characters of the caption, parts of the sides.

    Args:
        column: `ref_exps`, whole expressions, or `noun_chunks`.
    """

    column: str = "ref_exps"

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        """Yield a record for each row of all Parquet files of a folder; or of the file `path`."""
        for file in sorted(glob.glob(os.path.join(glob.escape(path), self.data_file))) or [path]:
            for where, row in read_lines(file, ""):
                with entry_errors(where):
                    yield self._record(row)

    def _record(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record of a row; its boxes are cut to the picture, which is counted.

        Phrases of the other column are counted, too. Boxes at one place in the caption are one
        expression's. Raises KeyError, ValueError, TypeError where the row isn't GRIT's.
        """
        for column in {*_GRIT_COLUMNS} - {self.column}:
            what = f"phrases of the other column, for `--set column={column}`"
            self.passed_over[what] += len(row.get(column) or ())
        size = (row["width"], row["height"])
        keyed = []
        for start, end, *parts, score in row[self.column]:
            span = (int(start), int(end))
            numbers = [round(part * size[i % 2], _DECIMALS) for i, part in enumerate(parts)]
            stated = box_of(numbers)
            box = [*clamp(stated, size)]
            is_cut = math.dist(box, stated) > EXACT
            self.passed_over["parts of boxes outside of their picture"] += int(is_cut)
            expression = {
                "text": row["caption"][slice(*span)],
                "char_span": span,
                "instances": [{"bbox": box, "score": score}],
            }
            keyed.append((span, expression))
        columns = _picture_columns(f"{row['key']}.jpg", row)
        return {**columns, "caption": row["caption"], "expressions": unite(keyed)}


class VisualGenome(Format):
    """`region_descriptions.json`, phrases with a box each; `image_data.json` beside has the sizes.

    Boxes that reach out of their picture are cut; `formats.read` leaves out those without an area,
    as of all formats.
    """

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        """Yield a record for each picture, in the file's order; both files are read as a whole."""
        file = file_of(path, self.data_file)
        data = read_whole(file)
        images_file = os.path.join(os.path.dirname(file), "image_data.json")
        images = read_whole(images_file)
        with entry_errors(images_file):
            image_of_id = {image["image_id"]: image for image in images}
        for number, entry in enumerate(data, 1):
            with entry_errors(f"{file}, entry {number}"):
                image = image_of_id[entry.get("image_id", entry.get("id"))]
                yield self._record(entry, image)

    def _record(self, entry: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record of a picture's regions, an expression each.

        Regions without a phrase are left out, which is counted; boxes are cut to the picture,
        which is not.
        """
        size = (image["width"], image["height"])
        regions = entry["regions"]
        expressions = []
        for region in regions:
            x, y, width, height = (region[key] for key in ("x", "y", "width", "height"))
            text = region["phrase"].strip()
            own_id = str(region["region_id"])
            box = [*clamp((x, y, x + width, y + height), size)]
            if text:
                instances = [{"bbox": box}]
                expressions.append({"text": text, "expression_id": own_id, "instances": instances})
        self.passed_over["regions without a phrase"] += len(regions) - len(expressions)
        # As the data set's archives lay pictures out: VG_100K/1.jpg, the end of their address.
        record = _picture_columns("/".join(image["url"].split("/")[-2:]), image)
        if image.get("coco_id"):
            record["coco_id"] = int(image["coco_id"])
        return {**record, "expressions": expressions}
