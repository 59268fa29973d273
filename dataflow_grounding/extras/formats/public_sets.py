"""Published data sets, to be read: RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO; Flickr30k Entities; GRIT;
Visual Genome.

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
from dataflow_grounding.boxes.geometry import Size, box_of, clamp
from dataflow_grounding.extras.formats.base import EXACT, Format
from dataflow_grounding.extras.formats.reading import (
    broken,
    read_lines,
    read_whole,
    read_xml,
    united,
)
from dataflow_grounding.extras.scale.elsewhere import said

Boxes = dict[str, list[list[float]]]
_DECIMALS = 4  # of a pixel
_MARKED = re.compile(r"\[/EN#(\d+)/(\S+) ([^\]]+)\]")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def _picture(name: str, of: Mapping[str, Any]) -> dict[str, Any]:
    return {"image_path": name, "width": of["width"], "height": of["height"], "caption": None}


class _Plain(pickle._Unpickler):  # type: ignore[name-defined, unused-ignore]
    """Reads lists, dicts, texts, numbers: a pickle that holds anything else can run whatever it
    wants.

    It is the one that Python has in Python: the one in C makes a table of 2 GB for 9 bytes that
    name a far place in it. All of RefCOCO takes some seconds longer.
    """

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it wants to run {module}.{name}")


@dataclass
class RefCoco(Format):
    """`refs(unc).p`, sentences about the objects of `instances.json` beside; gRefCOCO's too, where
    `-1` is nothing.

    A record for each picture, an expression for each sentence. `split`: train, val, test, testA,
    testB; all if empty.
    """

    split: str = ""

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        file, *more = sorted(glob.glob(os.path.join(glob.escape(path), "*refs(*).*"))) or [path]
        if more or os.path.isdir(file):
            raise InputError(
                f"{path} has {len(more) + bool(more)} files refs(...).p: name the one that is"
                " wanted"
            )
        instances, data = read_whole(os.path.join(os.path.dirname(file), self.data_file), "")
        with broken(instances):
            objects = {one["id"]: one["bbox"] for one in data["annotations"]}
            images = {one["id"]: one for one in data["images"]}
        with broken(file):
            of_image: dict[Any, list[Any]] = {}
            for ref in _plain(file):
                if self.split in ("", ref["split"]):
                    of_image.setdefault(ref["image_id"], []).extend(_sentences(ref, objects))
            found = [(images[image_id], said) for image_id, said in of_image.items()]
            records = [
                _picture(image["file_name"], image) | {"expressions": said} for image, said in found
            ]
        if not records:
            raise InputError(f"{file} has nothing of split {self.split!r}")
        yield from records


def _plain(file: str) -> Any:
    if file.endswith(".json"):
        return read_whole(file, "")[1]
    try:
        with open(file, "rb") as opened:
            return _Plain(opened, encoding="latin1").load()  # Python 2 wrote it
    except Exception as error:  # a broken pickle raises all kinds
        raise InputError(f"can't read {file} as a pickle of plain data: {said(error)}") from None


def _sentences(
    ref: Mapping[str, Any], objects: Mapping[Any, list[float]]
) -> Iterator[dict[str, Any]]:
    given = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
    corners = [
        (x, y, x + width, y + height)
        for x, y, width, height in (objects[n] for n in given if n != -1)
    ]
    for sentence in ref["sentences"]:
        own = {
            "expression_id": str(sentence["sent_id"]),
            "ref_id": str(ref.get("ref_id")),
            "split": str(ref["split"]),
        }
        if text := (sentence.get("sent") or sentence["raw"]).strip():
            yield {"text": text, **own, "instances": [{"bbox": list(box)} for box in corners]}


@dataclass
class Flickr30k(Format):
    """`Sentences/1.txt`, captions with marked phrases, and `Annotations/1.xml`, the boxes. A record
    for each caption.

    Phrases that have no box, as they can't be seen or are all of the scene, are `unsupported`.
    `split`: a list of ids in the folder, as train.txt; all if empty. `offset`: taken off all four
    numbers of a box, in pixels. They count from 1; the data set's own reader takes 1 off, most
    published figures are of 0.
    """

    split: str = ""
    offset: int = 0

    def __post_init__(self) -> None:
        if self.offset not in (0, 1):
            raise SpecError(f"offset {self.offset!r} is neither 0 nor 1")

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        listed = within(path, f"{self.split}.txt")
        files = sorted(glob.glob(os.path.join(glob.escape(path), self.data_file, "*.txt")))
        names = _lines(listed) if self.split else [os.path.basename(file)[:-4] for file in files]
        if not names:
            raise InputError(
                f"{path} has no captions: name the folder with {self.data_file} and Annotations"
            )
        for name in names:
            boxes, size = self._boxes(within(os.path.join(path, "Annotations"), f"{name}.xml"))
            file = within(os.path.join(path, self.data_file), f"{name}.txt")
            for number, line in enumerate(_lines(file), 1):
                with broken(f"{file}, line {number}"):
                    yield {
                        "image_path": f"{name}.jpg",
                        "width": size[0],
                        "height": size[1],
                        **_caption(line, boxes),
                    }

    def _boxes(self, file: str) -> tuple[Boxes, Size]:
        """The boxes of each chain of phrases about one thing, and the picture's size."""
        found: Boxes = {}
        root = Element("annotation")
        root.extend([*read_xml(file)])
        with broken(file):
            for thing in root.iter("object"):
                for box in thing.iter("bndbox"):
                    corners = [float(box.findtext(name, "")) - self.offset for name in _CORNERS]
                    for chain in thing.iter("name"):
                        found.setdefault(str(chain.text), []).append(corners)
            return found, (
                int(root.findtext("size/width", "")),
                int(root.findtext("size/height", "")),
            )


def _lines(file: str) -> list[str]:
    try:
        with open(file, encoding="utf-8") as opened:
            return [line.strip() for line in opened if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"can't read {file}: {getattr(error, 'strerror', None) or error}"
        ) from None


def _caption(line: str, boxes: Boxes) -> dict[str, Any]:
    caption, end, said = "", 0, []
    for match in _MARKED.finditer(line):
        caption += line[end : match.start()]
        end = match.end()
        text, found = match[3], boxes.get(match[1], [])
        own = {
            "char_span": [len(caption), len(caption) + len(text)],
            "chain": match[1],
            "kinds": match[2].split("/"),
        }
        status = {"status": "grounded" if found else "unsupported"}
        said.append(
            {"text": text, **own, **status, "instances": [{"bbox": list(box)} for box in found]}
        )
        caption += text
    caption += line[end:]
    if "[/EN#" in caption:
        raise BrokenRow("the mark of a phrase isn't whole")
    return {"caption": caption, "expressions": said}


@dataclass
class Grit(Format):
    """Parquet files of captions; pictures are `<key>.jpg`. `column`: ref_exps, whole expressions,
    or noun_chunks.

    A box is `[start, end, x1, y1, x2, y2, score]`, characters of the caption and parts of the
    sides.
    """

    column: str = "ref_exps"

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        for file in sorted(glob.glob(os.path.join(glob.escape(path), self.data_file))) or [path]:
            for where, row in read_lines(file, ""):
                with broken(where):
                    sides, said = (row["width"], row["height"]), []
                    for start, end, *parts, score in row[self.column]:
                        span = int(start), int(end)
                        given = box_of(
                            [round(n * sides[i % 2], _DECIMALS) for i, n in enumerate(parts)]
                        )
                        box = [*clamp(given, sides)]
                        self.passed_over["parts of boxes outside of their picture"] += (
                            math.dist(box, given) > EXACT
                        )
                        one = {"text": row["caption"][slice(*span)], "char_span": span}
                        said.append((span, {**one, "instances": [{"bbox": box, "score": score}]}))
                    picture = _picture(f"{row['key']}.jpg", row)
                    yield {**picture, "caption": row["caption"], "expressions": united(said)}


class VisualGenome(Format):
    """`region_descriptions.json`, phrases with a box each, and `image_data.json` beside, for paths
    and sizes.

    Boxes that reach out of their picture are cut, and those without an area left out.
    """

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        file, data = read_whole(path, self.data_file)
        pictures, images = read_whole(os.path.join(os.path.dirname(file), "image_data.json"), "")
        with broken(pictures):
            known = {one["image_id"]: one for one in images}
        for number, entry in enumerate(data, 1):
            with broken(f"{file}, entry {number}"):
                image = known[entry.get("image_id", entry.get("id"))]
                size = (image["width"], image["height"])
                said = []
                for region in entry["regions"]:
                    x, y, width, height = (region[key] for key in ("x", "y", "width", "height"))
                    own = {
                        "text": region["phrase"].strip(),
                        "expression_id": str(region["region_id"]),
                    }
                    box = [*clamp((x, y, x + width, y + height), size)]
                    said += [{**own, "instances": [{"bbox": box}]}] if own["text"] else []
                self.passed_over["regions without a phrase"] += len(entry["regions"]) - len(said)
                picture = _picture("/".join(image["url"].split("/")[-2:]), image)
                coco = {"coco_id": int(image["coco_id"])} if image.get("coco_id") else {}
                yield {**picture, **coco, "expressions": said}
