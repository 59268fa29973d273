"""COCO files: one JSON file with `images`, `annotations` and `categories`.

An annotation is a box of one image, and names its category by id. The columns of an image's record
say what its entry and its annotations said: an export to COCO gives them back. A `Mark` is the box
that an annotation has then, a `Source` all that is known of the image (see imported.py).
A `bbox` is x, y, width, height in pixels. With captions, and the places of phrases in them as
`tokens_positive`, it is what MDETR and its descendants train on. CVAT has a rotated box as it was
before its turn about the middle, with degrees as an attribute. Sources: pycocotools' coco.py and
cocoeval.py; mdetr's datasets/coco.py and scripts/pre-training/flickr_combined.py; ultralytics'
data/dataset.py (GroundingDataset); gRefCOCO's grefexp_coco_format.py; cvat issues 4745 and 6785.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain, islice
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding._util.terminal import counted_items
from dataflow_grounding.boxes.geometry import Bbox, Size, area, around, box_of, clamp
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.expressions import Expression
from dataflow_grounding.data.json_lists import lists_in
from dataflow_grounding.data.records import (
    JsonObject,
    Update,
    is_box,
    is_number,
    is_score,
    stated_size,
)
from dataflow_grounding.english.spans import Span, whole_words
from dataflow_grounding.formats import outlines
from dataflow_grounding.formats.class_tables import ONE, Classes, remarks_on_shared_names
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.formats.format import Format, Phrase, Sample, place_of_parts
from dataflow_grounding.formats.imported import (
    Mark,
    ReturningFormat,
    Source,
    column,
    kept_of,
    with_item_number,
)
from dataflow_grounding.formats.label_files import Label, Labelled
from dataflow_grounding.formats.reading import (
    KeyedExpression,
    check_expression,
    entry_errors,
    file_of,
    unite,
)
from dataflow_grounding.formats.rotated import degrees_in, rotated_box_of, turned
from dataflow_grounding.formats.stated_twice import Comparison, CountedPlaces

# Reports on annotations that are left out or read in another way; keys of counts.
CROWDS = "crowd annotations"
STRAYS = "annotations of no image"
WITHOUT_BOX = "annotations without a box"
NO_LISTED_CATEGORY = f"annotations whose category isn't listed, which are read as {ONE!r}"
SHARED_NAMES = "file names of several images, which stay records of their own"
_CUT_WORDS = "offsets of places in captions that were off, taken to the edges of words"
_ALL_OF_CAPTION = "annotations without places in their caption, whose phrase is all of it"
_OTHER_KEYS = "keys of the file that aren't COCO's, which are left out"
_REPEATED_IDS = "annotations with the id of an earlier one, which get new ones"
_KEYS = ("info", "licenses", "images", "annotations", "categories")
_LIST_BEGINS = -1  # in place of an item's number; see `lists_in`
NO_CATEGORY = -1  # gRefCOCO's way to say that nothing is there
_SEGMENTATION = "segmentation"
_SAME_AREA = 0.001  # of an area, by which tools may round another one
_CORNERS_BY_AREA = "boxes whose sides are corners, x2 and y2, by their area"
_ELSEWHERE = "boxes that are elsewhere than their outline"
_NO_OUTLINE = "segmentations that are no single polygon of their box"
_BYTES_OF = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Annotation(NamedTuple):
    """An annotation of a CocoFile: `item` is the annotation as it is there."""

    id: str  # by default its number in the list
    item: JsonObject
    category: str  # the category's name; "" if it isn't listed
    polygons: list[Bbox]  # the box around each polygon of its segmentation

    @property
    def is_crowd(self) -> bool:
        return _is_crowd(self.item)

    @property
    def says_nothing_is_there(self) -> bool:
        return bool(self.item.get("category_id") == NO_CATEGORY)

    def comparisons(self) -> Iterator[Comparison]:
        """Yield how the box agrees with the area and the outline that are stated, too."""
        where = f"annotation {self.id}"
        bbox: Any = self.item.get("bbox")
        if not is_box(bbox):
            return
        x, y, width, height = bbox
        stated_area: Any = self.item.get("area")
        if is_number(stated_area):
            # Any other area is that of a mask, or 1, and says nothing against the box. A few masks
            # have that of corners by chance, so all boxes with an area are compared.
            is_of_sides = math.isclose(stated_area, width * height, rel_tol=_SAME_AREA)
            may_be_corners = 0 <= x < width and 0 <= y < height
            of_corners = (width - x) * (height - y)
            is_of_corners = may_be_corners and math.isclose(
                stated_area, of_corners, rel_tol=_SAME_AREA
            )
            yield Comparison(_CORNERS_BY_AREA, where, is_of_sides or not is_of_corners)
        if self.polygons and not _degrees_of(self.item):
            x1, y1, x2, y2 = around(self.polygons)
            middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2
            is_inside = x <= middle_x <= x + width and y <= middle_y <= y + height
            yield Comparison(_ELSEWHERE, where, is_inside)


class CocoFile:
    """A COCO file, read as a whole when it is made, to be asked for each image's annotations.

    Entries are kept as the bytes of their JSON, which objects take six times of. Ids are compared
    as texts. Raises InputError for what is no COCO file, and where two images or two categories
    have one id, so that it isn't known whose boxes are whose.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.of_no_image: list[str] = []  # why entries of images can't be read
        self.category_names: dict[str, str] = {}  # by id; empty for a category without a name
        self.other_keys: list[str] = []  # that aren't COCO's
        self._images: dict[str, tuple[str, bytes]] = {}  # file name and entry, by id
        # by an image's id, what is between the brackets of a list of [number, annotation]
        self._annotations: dict[str, bytearray] = {}
        self._crowds = Counter[str]()  # by their image's id
        self._categories: dict[str, JsonObject] = {}  # by id, as they are there
        # the largest id of each list, among those that are numbers
        self._largest = {"images": 0, "annotations": 0, "categories": 0}
        self._facts: dict[str, Any] = {}  # `info` and `licenses`
        self._read()

    def _read(self) -> None:
        list_names = set()
        # `number` is that of an item in the list `key`, _LIST_BEGINS before the first item, or
        # another negative number where `key` has no list, but the value `item`.
        for key, number, item in lists_in(self.path):
            if number >= 0:
                # What is no object is taken as one without keys, and refused as that.
                self._take(key, number, item if isinstance(item, dict) else {})
                continue
            # Each key comes here once.
            if number == _LIST_BEGINS:
                list_names.add(key)
            if key not in _KEYS:
                self.other_keys.append(key)
            if key == "info":
                self._facts["info"] = item
        if not list_names >= {"images", "annotations"}:
            raise InputError(
                f"{self.path} is not a COCO file: it has no lists 'images' and 'annotations'"
            )

    def _take(self, list_name: str, number: int, item: JsonObject) -> None:
        """Take one item of a list; other lists than COCO's are passed over."""
        own_id = _as_text(item.get("id", number))
        if list_name in self._largest and type(item.get("id")) is int:
            # New entries of an export get ids above the largest.
            self._largest[list_name] = max(self._largest[list_name], item["id"])
        if list_name == "images":
            name = item.get("file_name")
            if not isinstance(name, str) or not name or "id" not in item:
                where = f"{self.path}, entry {number + 1} of images"
                self.of_no_image.append(f"{where}: an image without 'id' and 'file_name'")
                return
            if own_id in self._images:
                raise InputError(self._why_clashing("images", own_id))
            self._images[own_id] = (name, _BYTES_OF(item).encode())
        elif list_name == "annotations":
            image_id = _as_text(item.get("image_id"))
            self._crowds[image_id] += _is_crowd(item)
            kept = self._annotations.setdefault(image_id, bytearray())
            kept += b"," * bool(kept) + _BYTES_OF([number, item]).encode()
        elif list_name == "categories" and "id" in item:  # without an id, no annotation means it
            if own_id in self._categories:
                raise InputError(self._why_clashing("categories", own_id))
            name = item.get("name")
            self.category_names[own_id] = "" if name is None else str(name)
            self._categories[own_id] = item
        elif list_name == "licenses":
            self._facts.setdefault("licenses", []).append(item)

    def _why_clashing(self, list_name: str, own_id: str) -> str:
        return f"{self.path}: two {list_name} have the id {own_id}: whose boxes are whose?"

    def preamble(self) -> JsonObject:
        """Return what the file says of all images: `info`, `licenses`, `categories`."""
        return {**self._facts, "categories": list(self._categories.values())}

    def column_of(self, format: str, image: JsonObject, items: Sequence[JsonObject]) -> Update:
        """Return what a record keeps of an image and of its annotations, as they are there."""
        used_ids = dict.fromkeys(_as_text(item.get("category_id")) for item in items)
        categories = [self._categories[key] for key in used_ids if key in self._categories]
        return column(format, items, image=image, categories=categories, largest=self._largest)

    def class_names(self) -> list[str]:
        """Return the categories' names, each once, by their ids if these are numbers."""
        ids = list(self.category_names)
        if all(own_id.isdecimal() for own_id in ids):
            ids.sort(key=int)
        all_names = [self.category_names[own_id] for own_id in ids]
        names = [name for name in dict.fromkeys(all_names) if name.strip()]
        # an export without classes calls everything ONE
        return [] if names == [ONE] else names

    def left_out(self) -> Counter[str]:
        """Return how many annotations are CROWDS; and how many STRAYS, whose image isn't listed."""
        counts = Counter({CROWDS: 0, STRAYS: 0})
        for image_id, kept in self._annotations.items():
            if image_id in self._images:
                counts[CROWDS] += self._crowds[image_id]
            else:
                counts[STRAYS] += len(json.loads(b"[%b]" % bytes(kept)))
        return counts

    def images(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield each image's id, file name and entry, in the order of the file."""
        for own_id, (name, entry) in self._images.items():
            yield own_id, name, json.loads(entry)

    def shared_names(self) -> list[str]:
        """Return each file name that several images have, with their ids, in words."""
        ids_of_name: dict[str, list[str]] = {}
        for own_id, (name, _) in self._images.items():
            ids_of_name.setdefault(name, []).append(own_id)
        shared = []
        for name, ids in ids_of_name.items():
            if len(ids) > 1:
                shared.append(f"{name}, of the ids {' and '.join(ids):.80}")
        return shared

    def annotations(self, image_id: str) -> Iterator[Annotation]:
        """Yield an image's annotations in the file's order."""
        for number, item in json.loads(b"[%b]" % bytes(self._annotations.get(image_id, b""))):
            category = self.category_names.get(_as_text(item.get("category_id")), "")
            polygons = _bounds_of_polygons(item.get(_SEGMENTATION))
            yield Annotation(_as_text(item.get("id", number)), item, category, polygons)

    def take_annotations(self, image_id: str) -> list[Annotation]:
        """Return an image's annotations for the last time: their memory is given back."""
        annotations = [*self.annotations(image_id)]
        self._annotations.pop(image_id, None)
        return annotations

    def label(self, image_id: str, size: Size | None) -> Label:
        """Return an image's boxes with their categories, read as an import does."""
        compared: list[Comparison] = []
        label = Label(regions=[], left_out=Counter(), compared=compared)
        for annotation in self.annotations(image_id):
            if annotation.is_crowd:
                continue
            compared.extend(annotation.comparisons())
            try:
                with entry_errors(f"{self.path}, annotation {annotation.id}"):
                    instance = _instance(annotation, size, label.left_out)
            except InputError as error:
                raise BrokenRow(str(error)) from None
            label.left_out[NO_LISTED_CATEGORY] += int(not annotation.category)
            if instance is not None:  # the annotation has a box
                label.regions.append(Labelled(annotation.category, instance["bbox"]))
        return label


def _as_text(value: Any) -> str:
    """An id as it is compared: 7, 7.0 and "7" are the same."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _is_crowd(item: JsonObject) -> bool:
    return _as_text(item.get("iscrowd")).lower() in ("1", "true")


class _ReadsCoco(Format):
    """COCO files as they are read."""

    def read(self, path: str, image_root: str) -> Iterator[Update]:
        """Yield a record for each image entry; annotations with one id and phrase are united."""
        file = file_of(path, self.data_file)
        coco = CocoFile(file)
        self.class_names = coco.class_names()
        self.preamble = coco.preamble()
        self.passed_over.add_all(coco.left_out())
        self.remarks += self._remarks_on(coco)
        for image_key, name, image in coco.images():  # its key is its id in the file
            annotations = coco.take_annotations(image_key)
            with entry_errors(f"{file}, image {image_key}", self.bad):
                yield {"image_path": name, **self._columns_of(coco, image, annotations)}
        for why in coco.of_no_image:
            self.bad.note(why)

    def _remarks_on(self, coco: CocoFile) -> list[str]:
        remarks = [*remarks_on_shared_names(coco.category_names.items(), self.name)]
        remarks += counted_items(_OTHER_KEYS, coco.other_keys)
        if self.detects:  # in a file with captions a picture has an entry for each: that is usual
            remarks += counted_items(SHARED_NAMES, coco.shared_names())
        return remarks

    def _columns_of(
        self, coco: CocoFile, image: JsonObject, annotations: Sequence[Annotation]
    ) -> Update:
        """Return the columns of an image's record but for the path."""
        # The sides are taken as they are: `complete_rows` reports one that is no number.
        row = _stated(image, "width", "height", "caption")
        # Our own exports and MDETR's files have the picture's id here. `id` is that of the entry.
        image_id = image.get("original_id", image.get("original_img_id"))
        if image_id is not None:
            row["image_id"] = image_id
        keyed_expressions = self._read_annotations(annotations, image, coco.path)
        if annotations and not keyed_expressions:  # something is there, such as crowds
            row["background"] = False
        if self.detects:  # an export to such a format gives the annotations back
            row |= coco.column_of(self.name, image, [each.item for each in annotations])
        return {**row, "expressions": unite(keyed_expressions)}

    def _read_annotations(
        self, annotations: Sequence[Annotation], image: JsonObject, file: str
    ) -> list[KeyedExpression]:
        keyed_expressions: list[KeyedExpression] = []
        for number, annotation in enumerate(annotations):
            if annotation.is_crowd:  # it isn't read, but an export gives it back
                continue
            with entry_errors(f"{file}, annotation {annotation.id}"):
                for comparison in annotation.comparisons():
                    self.stated_twice.add(comparison)
                keyed = _keyed_expression(annotation, number, image, self.passed_over)
                if keyed is not None:
                    check_expression(keyed[1])
                    keyed_expressions.append(keyed)
        return keyed_expressions


@dataclass
class Coco(_ReadsCoco, ReturningFormat):
    """COCO as detectors read it: phrases, ids and scores are in keys that they ignore.

    There is no caption: TAO's converter would take a file with one for a grounding file.
    """

    # as class_tables.Classes takes them
    classes: str = "class"
    class_list: Sequence[str] = ()
    preamble: JsonObject = field(default_factory=dict)

    detects = True

    def __post_init__(self) -> None:
        self._classes = Classes(self.classes, listed=self.class_list)

    def class_of(self, expression: Expression) -> str:
        return class_key(self._classes.written_class_of(expression))

    def thing(self, phrase: Phrase) -> str:
        """Return the phrase's category, which is all that detectors tell boxes apart by."""
        return self._classes.written_class_of(phrase.expression)

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        """Write the samples; categories with a fixed order come first, others as they appear."""
        # These ids, and the categories below, are of the file that is written now.
        self._image_ids = _NamedIds()
        self._annotation_ids = _OwnIds()
        facts = {"info": {"description": "dataflow-grounding"}, "licenses": []}
        facts |= {key: value for key, value in self.preamble.items() if key != "categories"}
        lists = out.lists(self.data_file, "images", "annotations", "categories", **facts)
        with lists as (put_image, put_annotation, put_category):
            self._categories = _Categories(put_category)
            first_sample = [*islice(samples, 1)]  # it tells whether all came from COCO
            came_from_coco = any(kept_of(sample.record, self.name) for sample in first_sample)
            self._write_first_categories(came_from_coco)
            count_before_samples = self._categories.count_of_new
            for sample in chain(first_sample, samples):
                self._write_sample(sample, put_image, put_annotation)
            # Classes that aren't in the fixed list get their categories when a sample has them.
            unlisted_count = self._categories.count_of_new - count_before_samples
            class_count = len(self._classes.fixed) + unlisted_count
            self.remarks += self._classes.remarks_on_numbers(class_count)
        self.remarks += self._annotation_ids.repeated.remarks()

    def _write_sample(
        self,
        sample: Sample,
        put_image: Callable[[Any], object],
        put_annotation: Callable[[Any], object],
    ) -> None:
        source = self.source_of(sample)
        # New entries get higher ids than any in the source's file. So entries of the source that
        # are written later still get their own ids back.
        largest = source.own.get("largest", {})
        self._annotation_ids.reserve_up_to(largest.get("annotations", 0))
        self._categories.reserve_up_to(largest.get("categories", 0))
        self._image_ids.reserve_up_to(largest.get("images", 0))
        for entry in source.own.get("categories", ()):
            self._categories.add(entry)
        image_id, is_new = self._image_id(source)
        if is_new:
            put_image(self._image_entry(source, image_id))
        for item in self.items_of(source):
            own_id = self._annotation_ids.id_of(item.get("id"))
            ids = {"id": own_id, "image_id": image_id}
            # The ids come first in the entry, and replace those that the item had.
            put_annotation({**ids, **item, **ids})

    def _write_first_categories(self, came_from_coco: bool) -> None:
        """Write the categories of the imported file, then the classes with a fixed order."""
        for entry in self.preamble.get("categories", ()):
            self._categories.add(entry)
        # Without the results folder of the import, what its file says of all images isn't known.
        if came_from_coco and not self.preamble:
            # Then each sample brings the categories that its annotations use. They should get their
            # ids back, so fixed classes aren't written now: these would take the same ids.
            self.remarks.append(
                "info, licenses and unused categories of the imported file aren't in it: export"
                " the results folder of the import to have them"
            )
            return
        for name in self._classes.fixed:
            self._categories.id_of(name)

    def _image_id(self, source: Source) -> tuple[Any, bool]:
        """Return the id of the picture's entry, and whether that entry is still to be written."""
        own_id = source.own.get("image", {}).get("id")  # None where no COCO file had it
        file_name = source.sample.file_name
        image_id, is_new = self._image_ids.id_of(file_name, own_id)
        if is_new or own_id in (None, image_id):
            return image_id, is_new
        # An earlier entry has the same file name, and another id: the source had two entries of
        # it, and gets both back. `_image_ids` has one id for a name, so this entry's name is made
        # different by its id.
        return self._image_ids.id_of(f"{own_id} {file_name}", own_id)

    def _image_entry(self, source: Source, image_id: Any) -> JsonObject:
        sample = source.sample
        facts = {
            "id": image_id,
            "file_name": sample.file_name,
            "width": sample.size[0],
            "height": sample.size[1],
        }
        own = source.own.get("image")
        if own:
            return {**own, **facts}
        return {**facts, "original_id": sample.record.get("image_id")}

    def item_back(self, item: JsonObject, mark: Mark, source: Source) -> JsonObject:
        """Return an annotation with its category, its words and its box as they are now."""
        annotation = {**item}
        phrase = mark.phrase
        name = self._classes.written_class_of(phrase.expression)
        has_category = self._categories.is_called(item.get("category_id"), name)
        if not has_category:
            annotation["category_id"] = self._categories.id_of(name)
        if mark.is_renamed or not has_category:
            is_of_our_export = "phrase" in item or "class" in item  # no other tool has these keys
            if is_of_our_export:
                annotation |= _phrase_keys(phrase)
            else:
                annotation |= _phrase_keys_unless_said(phrase, name)
        box_keys = _keys_of_box(phrase, mark.number)
        with_box = _with_box(annotation, mark, box_keys)
        return {**with_box, **_stated(box_keys, "verified", "score")}

    def new_items(self, mark: Mark, source: Source) -> Iterator[JsonObject]:
        """Yield the annotation of a new box."""
        phrase = mark.phrase
        name = self._classes.written_class_of(phrase.expression)
        box_keys = _keys_of_box(phrase, mark.number)
        category = {"category_id": self._categories.id_of(name)}
        if source.own and not any("expression_id" in item for item in source.items):
            # The source's annotations state no `expression_id`, and an import makes ids for them,
            # such as a#0. The new box's own id may be one of these, so it isn't written.
            phrase_keys = _phrase_keys_unless_said(phrase, name)
            for key in ("expression_id", "bbox_id"):
                box_keys.pop(key, None)
            yield {**category, **phrase_keys, **box_keys}
        else:
            yield {**category, **_phrase_keys(phrase), **box_keys}


class CocoGrounding(_ReadsCoco):
    """COCO with an image entry for each caption, and the places of its phrases."""


class _OwnIds:
    """Gives ids of imported files back where they are free, and others above the largest."""

    def __init__(self) -> None:
        self._taken: set[Any] = set()
        self._last = 0  # the number that was given last to what is new
        self.repeated = CountedPlaces()  # as where ids begin again with each image

    def reserve_up_to(self, largest: int) -> None:
        """Leave numbers up to `largest`, the largest of a source, to that source."""
        self._last = max(self._last, largest)

    def id_of(self, own_id: Any = None) -> Any:
        """Return `own_id` where it is an id that no other has, else a new number."""
        is_id = isinstance(own_id, (int, float, str))
        given_id = own_id
        if is_id and own_id in self._taken:
            self.repeated.add(_REPEATED_IDS, f"{own_id!s:.80}")
        if not is_id or own_id in self._taken:
            given_id = self._last + 1
            while given_id in self._taken:
                given_id += 1
            self._last = given_id
        self._taken.add(given_id)
        return given_id


class _NamedIds:
    """Gives names ids: those of their source, or numbers from 1 in the order of the names."""

    def __init__(self) -> None:
        self._ids = _OwnIds()
        self._id_of_name: dict[str, Any] = {}
        self.reserve_up_to = self._ids.reserve_up_to

    def id_of(self, name: str, own_id: Any = None) -> tuple[Any, bool]:
        """Return a name's id, and whether the name is new: it gets `own_id` if that is free."""
        is_new = name not in self._id_of_name
        if is_new:
            self._id_of_name[name] = self._ids.id_of(own_id)
        return self._id_of_name[name], is_new

    def claim(self, name: str, own_id: Any) -> bool:
        """Take an id for a name; return whether it was free and can be an id.

        A source may have two categories called "cup": both ids are taken, and `id_of` returns the
        first.
        """
        got_id = self._ids.id_of(own_id)
        if got_id != own_id:  # it is taken, or no id, and `got_id` is a new number
            return False
        self._id_of_name.setdefault(name, own_id)
        return True


class _Categories:
    """The categories of a file that is written: those of imported files, then new ones."""

    def __init__(self, put: Callable[[Any], object]) -> None:
        self._put = put
        self._ids = _NamedIds()
        self._key_of_id: dict[str, str] = {}  # class_key by id, of a source's categories
        self.reserve_up_to = self._ids.reserve_up_to
        self.count_of_new = 0  # that no imported file has

    def add(self, entry: JsonObject) -> None:
        """Write an entry of an imported file, unless its id is there already."""
        own_id = entry.get("id")
        if _as_text(own_id) in self._key_of_id:  # an earlier sample has brought it
            return
        name = " ".join(str(entry.get("name", "")).split())
        is_free = self._ids.claim(name, own_id)
        if not is_free:  # a new category has it, or it is no id
            return
        if type(own_id) is int:
            self.reserve_up_to(own_id)  # new categories get higher ids
        self._key_of_id[_as_text(own_id)] = class_key(name)
        self._put(entry)

    def is_called(self, own_id: Any, name: str) -> bool:
        """Whether the imported category of that id has this name; one that isn't listed is ONE."""
        return self._key_of_id.get(_as_text(own_id), ONE) == class_key(name)

    def id_of(self, name: str) -> Any:
        """Return the id of a category, whose entry is written where it is new."""
        own_id, is_new = self._ids.id_of(name)
        if is_new:
            self.count_of_new += 1
            self._put({"id": own_id, "name": name, "supercategory": ONE})
        return own_id


def _phrase_keys(phrase: Phrase) -> JsonObject:
    class_name = phrase.expression.class_name
    return {"phrase": phrase.text, **({} if class_name is None else {"class": class_name})}


def _phrase_keys_unless_said(phrase: Phrase, category: str) -> JsonObject:
    """Return no keys where the category says the phrase: another tool's item stays as it is."""
    return {} if class_key(phrase.text) == class_key(category) else _phrase_keys(phrase)


def _keys_of_box(phrase: Phrase, number: int) -> dict[str, Any]:
    x1, y1, x2, y2 = phrase.boxes[number]
    width = _sum(x2, -x1)
    height = _sum(y2, -y1)
    expression = phrase.expression
    instance = expression.instances[number]
    outline = phrase.outline(number)
    area = width * height if outline is None else outlines.square_pixels(outline)
    keys: dict[str, Any] = {"bbox": [x1, y1, width, height], "area": area, "iscrowd": 0}
    if outline is not None:
        keys[_SEGMENTATION] = [outline]
    # An id goes out as it came, also a number.
    keys["expression_id"] = expression.extra.get("expression_id", expression.expression_id)
    verified = instance.verified if instance.states_verdict else expression.verified
    bbox_id = instance.extra.get("bbox_id", instance.bbox_id)
    facts = {"verified": verified, "bbox_id": bbox_id, "score": instance.score}
    return keys | {key: value for key, value in facts.items() if value is not None}


def _with_box(item: JsonObject, mark: Mark, box_keys: JsonObject) -> JsonObject:
    """Return an annotation with its box and outline as they are now; `box_keys` has both."""
    is_turned = bool(_degrees_of(item))
    if not mark.is_moved:
        came_with_outline = bool(item.get(_SEGMENTATION)) or is_turned
        if came_with_outline:  # it stays as it came: a segmentation may have several polygons
            return item
        return {**item, **_stated(box_keys, _SEGMENTATION)}  # somebody may have drawn one since
    moved = {key: item[key] for key in item if key != _SEGMENTATION}  # it is that of the old box
    moved |= _stated(box_keys, "bbox", "area", _SEGMENTATION)
    if is_turned:
        moved |= _turned_keys(moved, mark.outline)
    return moved


def _degrees_of(annotation: JsonObject) -> float:
    """Return the degrees by which an annotation's box is turned; 0 where it isn't."""
    return degrees_in(annotation, annotation.get("attributes"))


def _turned_keys(annotation: JsonObject, outline: Sequence[float] | None) -> JsonObject:
    """Return the keys of a moved turned box of CVAT's, whose `bbox` is the box before its turn."""
    attributes = annotation.get("attributes") or {}
    rotated = rotated_box_of(outline or ())
    if rotated is None:  # the new outline is no rectangle: the box isn't turned any more
        return {"attributes": {**attributes, "rotation": 0.0}}
    x1, y1, _, _ = rotated.before_turn(about_middle=True)
    return {
        "bbox": [x1, y1, rotated.width, rotated.height],
        "attributes": {**attributes, "rotation": rotated.degrees},
        _SEGMENTATION: [],  # as CVAT writes it: the degrees say the outline
    }


def _stated(item: JsonObject, *keys: str) -> dict[str, Any]:
    return {key: item[key] for key in keys if item.get(key) is not None}


def _keyed_expression(
    annotation: Annotation, number: int, image: JsonObject, passed_over: Counter[str]
) -> KeyedExpression | None:
    """Return an annotation's expression after its key for `unite`; None for one without a box.

    `number` is the annotation's among those that the record keeps for an export. An annotation that
    says that nothing is there gives an expression without boxes.
    """
    item = annotation.item
    expression = _phrase_of(annotation, image.get("caption"), passed_over)
    expression |= _stated(item, "expression_id", "verified")
    if isinstance(item.get("class"), str):  # our exports have it next to the phrase
        expression["class"] = item["class"]
    text = expression["text"]
    if not isinstance(text, str) or isinstance(expression.get("expression_id"), (list, dict)):
        raise BrokenRow("'phrase' should be a text, and 'expression_id' an id")
    instance = _instance(annotation, stated_size(image), passed_over)
    is_read_as_one = not annotation.category and text == ONE
    # A count of 0 is added, too: reports come in the order of their first mention.
    passed_over[NO_LISTED_CATEGORY] += int(is_read_as_one)
    if instance is None and not annotation.says_nothing_is_there:
        return None
    instances = [] if instance is None else [with_item_number(instance, number, text)]
    # The text is in the key because somebody may have corrected a phrase whose id stayed. Without
    # an id, annotations are of one phrase if all that they say of it is the same.
    key = (expression.get("expression_id", repr(expression)), text)
    return key, {**expression, "instances": instances}


def _box_and_outline(
    annotation: Annotation, size: Size | None, passed_over: Counter[str]
) -> tuple[Any, list[float] | None]:
    """Return an annotation's `bbox`, by default the box around its polygons, and its outline."""
    bbox = annotation.item.get("bbox")
    segmentation = annotation.item.get(_SEGMENTATION)
    if not segmentation:
        return bbox, None
    polygons = annotation.polygons
    if size is not None and any(area(clamp(polygon, size)) <= 0 for polygon in polygons):
        polygons = []  # it is of no use
    if polygons and not bbox:
        x1, y1, x2, y2 = around(polygons)
        bbox = [x1, y1, _sum(x2, -x1), _sum(y2, -y1)]
    if len(polygons) == 1 and is_box(bbox):
        box = box_of(_corners(bbox))
        if outlines.may_be_around(polygons[0], box, size):
            return bbox, segmentation[0]
    # A record has no place for several polygons or runs of pixels; a COCO export gives them back.
    passed_over[_NO_OUTLINE] += 1
    return bbox, None


def _bounds_of_polygons(segmentation: Any) -> list[Bbox]:
    """Return the box around each polygon; none for runs of pixels, or where a polygon is broken."""
    if not isinstance(segmentation, list):
        return []
    try:
        return [outlines.bounds(outlines.checked(polygon, None)) for polygon in segmentation]
    except BrokenRow:
        return []


def _instance(
    annotation: Annotation, size: Size | None, passed_over: Counter[str]
) -> dict[str, Any] | None:
    """Return the box as an instance; None for an annotation without one."""
    item = annotation.item
    stated_box, outline = _box_and_outline(annotation, size, passed_over)
    box = _checked_box(stated_box, annotation, passed_over)
    if box is None:
        return None
    score = item.get("score")
    is_odd_score = is_number(score) and not is_score(score)
    instance: dict[str, Any] = {"bbox": [*box]}
    if score is not None and not is_odd_score:
        instance["score"] = score
    if outline is not None:
        instance[outlines.KEY] = outline
    instance |= _stated(item, "bbox_id")
    degrees = _degrees_of(item)
    if degrees and outline is None:
        # CVAT's `bbox` is the box before its turn: this puts the box around the turned one there.
        instance |= turned(box, degrees, passed_over, about_middle=True)
    if is_odd_score:
        passed_over["scores outside of 0 to 1"] += 1
    return instance


def _checked_box(stated_box: Any, annotation: Annotation, passed_over: Counter[str]) -> Bbox | None:
    """Return the corners of an annotation's box, or None.

    An annotation without a box is counted, unless it says that nothing is there.
    """
    is_without_box = not stated_box and not annotation.says_nothing_is_there
    passed_over[WITHOUT_BOX] += int(is_without_box)  # 0, too, for the order of reports
    if not stated_box:
        return None
    if annotation.says_nothing_is_there and 0 in stated_box[2:]:  # gRefCOCO's box of zeros
        return None
    x1, y1, x2, y2 = _corners(stated_box)
    if x2 < x1 or y2 < y1:
        raise BrokenRow("the box has a side of less than nothing")
    return x1, y1, x2, y2


def _phrase_of(annotation: Annotation, caption: Any, passed_over: Counter[str]) -> dict[str, Any]:
    """Return the annotation's `text`, and its `char_span` where `tokens_positive` is a list."""
    spans = annotation.item.get("tokens_positive")
    phrase = annotation.item.get("phrase")
    if caption is None or not isinstance(spans, list):
        return {"text": phrase or annotation.category or ONE}
    if phrase:
        place = None  # of an empty list
        if spans:
            place = place_of_parts(phrase, spans, caption)
        return {"text": phrase, "char_span": place}
    if not spans:
        # Of an annotation that says that nothing is there, gRefCOCO always leaves the list empty.
        passed_over[_ALL_OF_CAPTION] += int(not annotation.says_nothing_is_there)
        return {"text": caption, "char_span": [0, len(caption)]}
    places = [_place_of_words(span, caption, passed_over) for span in spans]
    words = " ".join(caption[start:end] for start, end in places)
    return {"text": words, "char_span": place_of_parts(words, places, caption)}


def _place_of_words(span: Any, caption: str, passed_over: Counter[str]) -> Span:
    """Return the place of the words at a span; "he do" of "the dog" is widened to "the dog"."""
    start, end = span
    place = whole_words((start, end), caption)
    if place[0] == place[1]:
        raise BrokenRow(f"no words of its caption are at {span} (tokens_positive)")
    if place != (start, end):
        passed_over[_CUT_WORDS] += 1
    return place


def _corners(bbox: Any) -> list[float]:
    """Return x1, y1, x2, y2."""
    if not is_box(bbox):
        raise BrokenRow("'bbox' should be [x, y, width, height]")
    x, y, width, height = bbox
    return [x, y, _sum(x, width), _sum(y, height)]


def _sum(a: float, b: float) -> float:
    """Add without the noise of binary fractions: 0.1 and 0.2 make 0.3; two ints make an int."""
    if a % 1 == 0 and b % 1 == 0:
        return a + b
    return float(Decimal(repr(a)) + Decimal(repr(b)))
