"""Expressions, their boxes, and regions, as typed values.

A record has them as JSON. `from_json` and `to_json` are the only places that know its keys: what
came in under keys that nobody here knows goes out as it came, and in its place.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.data.records import (
    NEGATIVE,
    Record,
    Update,
    annotated_column,
    as_json,
    has_id,
    is_box,
    is_number,
    type_name,
    without_numpy,
)
from dataflow_grounding.data.verification import Verification

Bbox: TypeAlias = tuple[float, float, float, float]
"""A box: x1, y1, x2, y2 in pixels of the upright picture, the origin at its top left."""
Span: TypeAlias = tuple[int, int]
"""The place of a text in a caption: its first character, and the one after its last."""
A = TypeVar("A", bound="Annotation")

SEED_ERROR = "seed_error"
"""The column of a record that says why the files that it was made from can't be read."""
OF_EARLIER_BOXES = frozenset(
    ["reason", "disagreement", "verified", "verification", "doubtful", "doubt"]
)
"""Keys of an expression that tell of its boxes, and don't hold for new ones."""
OF_A_SHAPE = ("zoomed", "area", "outline", "segmentation", "mask", "polygon", "keypoints")
"""Keys of a box that don't hold once its corners have changed."""


def _id(value: Any) -> str | None:
    return str(value) if has_id(value) else None


def _number(value: Any) -> float | None:
    if not is_number(value):
        value = without_numpy(value)
    return value if is_number(value) else None


def read_span(value: Any) -> Span | None:
    """Return a pair of whole numbers; None for what is none."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    start, end = value
    if type(start) is not int or type(end) is not int:
        return None
    return start, end


def read_bbox(value: Any) -> Bbox | None:
    """Return four finite numbers; None for what is none."""
    if not is_box(value):  # its numbers may be NumPy's
        value = without_numpy(value)
        if not is_box(value):
            return None
    x1, y1, x2, y2 = value
    return x1, y1, x2, y2


def _outline(value: Any) -> Sequence[Any] | None:
    return value if isinstance(value, (list, tuple)) else None


def _boxes(value: Any) -> "list[Instance] | None":
    """Return the boxes that were rejected, if all of a list are boxes."""
    if not isinstance(value, (list, tuple)):
        return None
    boxes = []
    for item in value:
        if not isinstance(item, dict) or read_bbox(item.get("bbox")) is None:
            return None
        boxes.append(Instance.from_json(item))
    return boxes


class Field(NamedTuple):
    """How a field is read: a value of the type `plain` as it is, others by `read`."""

    name: str
    plain: type[Any] | None = None
    read: Callable[[Any], Any] = lambda value: None


_PLAIN = frozenset([str, int, bool])
_NUMBERS = frozenset([int, float])
_AS_GIVEN = (_id, Verification.from_json)  # readers of what goes out as it came, if nobody sets it


@dataclass(kw_only=True)
class Annotation:
    """What expressions, instances and regions have in common.

    Attributes:
        extra: What came in that isn't one of the fields: other keys, and values of other types.
        keys: The keys of the JSON that it came from, in their order; empty for a new one. `to_json`
            keeps them, and has fields that were set since after them.
    """

    extra: dict[str, object] = field(default_factory=dict, repr=False)
    keys: tuple[str, ...] = field(default=(), compare=False, repr=False)

    # by key, in the order of new JSON
    FIELDS: ClassVar[Mapping[str, Field]] = {}
    # of new JSON, the keys that are there without a value, too
    NULLS: ClassVar[tuple[str, ...]] = ()

    _name_of: ClassVar[Mapping[str, str]] = {}  # key → its field
    # key, its field, and whether new JSON has it without a value, too
    _in_order: ClassVar[Sequence[tuple[str, str, bool]]] = ()

    def __init_subclass__(cls) -> None:
        cls._name_of = {key: known.name for key, known in cls.FIELDS.items()}
        cls._in_order = [(key, name, key in cls.NULLS) for key, name in cls._name_of.items()]

    @classmethod
    def _read(cls: type[A], item: Mapping[str, object]) -> A:
        # In a run each phrase passes here in each step: `__init__` would set all fields one by one.
        fields: dict[str, object] = {}
        extra: dict[str, object] = {}
        for key, value in item.items():
            known = cls.FIELDS.get(key)
            if known is None:
                extra[key] = value
                continue
            if type(value) is known.plain:
                fields[known.name] = value
                continue
            typed = known.read(value)
            if typed is not None:
                fields[known.name] = typed
            if typed is None or known.read in _AS_GIVEN:
                extra[key] = value  # given back as it came, unless the field is set to another
        fields["extra"], fields["keys"] = extra, tuple(item)
        read = object.__new__(cls)
        read.__dict__ = fields
        return read

    def copy(self: A) -> A:
        """Return a copy, of which fields can be set."""
        copied = object.__new__(type(self))
        copied.__dict__ = self.__dict__.copy()
        return copied

    def to_json(self) -> Update:
        """Return it as a record has it: JSON, with Python's numbers. Raises ValueError for NaN."""
        fields = self.__dict__
        extra = as_json(self.extra) if self.extra else self.extra
        row: Update = {}
        for key in self.keys:
            value = fields.get(self._name_of.get(key, ""))
            if value is None:
                row[key] = extra.get(key)
            elif key in extra and self.FIELDS[key].read(extra[key]) == value:
                row[key] = extra[key]
            else:
                row[key] = value if type(value) in _PLAIN else _json_of(value)
        # set since it came
        for key, name, is_null in self._in_order:
            value = fields.get(name)
            if value is not None:
                if key not in row:
                    row[key] = value if type(value) in _PLAIN else _json_of(value)
            elif is_null and not self.keys:
                row[key] = None
            elif key == "verified" and fields.get("verification") and "verification" not in row:
                row.setdefault(key, None)  # a check couldn't decide: not that none was made
        return row

    def stated(self, key: str) -> Any:
        """Return the JSON under a key, also where it is no value of the field's type."""
        if key in self.extra:
            return self.extra[key]
        return _json_of(self.__dict__.get(self._name_of.get(key, "")))

    def with_null(self: A, *keys: str) -> A:
        """Return a copy whose JSON has null under these keys."""
        bare = self.copy()
        fields = bare.__dict__
        for key in keys:
            name = self._name_of.get(key)
            if name in fields:
                fields[name] = None
            if key in bare.extra:
                bare.extra = {other: bare.extra[other] for other in bare.extra if other != key}
            if key not in bare.keys:
                bare.keys = (*bare.keys, key)
        return bare

    def without(self: A, *keys: str) -> A:
        """Return a copy whose JSON lacks these keys."""
        bare = self.with_null(*keys)
        bare.keys = tuple(key for key in bare.keys if key not in keys)
        return bare


def _json_of(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, list):
        return [
            item.to_json() if isinstance(item, Annotation) else _json_of(item) for item in value
        ]
    if type(value) is tuple and _NUMBERS.issuperset(map(type, value)):
        if all(map(isfinite, value)):
            return list(value)
    elif type(value) is float and isfinite(value):
        return value
    return as_json({"value": value})["value"]


@dataclass
class Instance(Annotation):
    """A box of an expression.

    Attributes:
        bbox: x1, y1, x2, y2 in pixels of the upright picture.
        score: How sure it is, from 0 to 1; None where nothing says so.
        bbox_id: Its id, unique in the data set.
        region_id: The region of the record that it is, from 1.
        evidence: What the embedded grounder saw: `seen`, `inferred` or `region`.
        class_name: Its own class (`class`), where that isn't its expression's.
        outline: x and y in turn, around the thing.
        zoomed: Whether it was found in an enlarged part of the picture.
        found_by: The step that has found it, where that isn't the usual one.
        verified: What a person said of it alone.
        reviewed_by: Who that was.
        reason: Why it was rejected, in words.

    Example:
        >>> box = Instance.from_json({"bbox": [10, 20, 30, 40], "area": 400})
        >>> box.bbox, box.extra
        ((10, 20, 30, 40), {'area': 400})
        >>> Instance((10, 20, 30, 40)).to_json()
        {'bbox': [10, 20, 30, 40], 'score': None}
    """

    bbox: Bbox
    score: float | None = None
    bbox_id: str | None = None
    region_id: int | None = None
    evidence: str | None = None
    class_name: str | None = None
    outline: Sequence[Any] | None = None
    zoomed: bool | None = None
    found_by: str | None = None
    verified: bool | None = None
    reviewed_by: str | None = None
    reason: str | None = None

    FIELDS: ClassVar[Mapping[str, Field]] = {
        "bbox_id": Field("bbox_id", str, _id),
        "bbox": Field("bbox", None, read_bbox),
        "score": Field("score", float, _number),
        "region_id": Field("region_id", int),
        "evidence": Field("evidence", str),
        "class": Field("class_name", str),
        "outline": Field("outline", None, _outline),
        "zoomed": Field("zoomed", bool),
        "found_by": Field("found_by", str),
        "verified": Field("verified", bool),
        "reviewed_by": Field("reviewed_by", str),
        "reason": Field("reason", str),
    }
    NULLS: ClassVar[tuple[str, ...]] = ("bbox", "score")

    @classmethod
    def from_json(cls, item: Any, where: str = "a box") -> "Instance":
        """Read a box. Raises BrokenRow without four finite numbers in `bbox`."""
        read = cls._read(item) if isinstance(item, dict) else None
        if read is None or "bbox" not in read.__dict__:
            raise BrokenRow(f"{where}: an instance needs 'bbox': [x1, y1, x2, y2]")
        return read

    @property
    def states_verdict(self) -> bool:
        """Whether it says for itself if it is right, or that this isn't known."""
        return self.verified is not None or "verified" in self.keys

    def moved(self, bbox: Bbox) -> "Instance":
        """Return it with other corners, without what holds for its former ones alone."""
        if self.bbox == bbox:
            return self
        moved = self.without(*OF_A_SHAPE)
        moved.bbox = bbox
        return moved


@dataclass
class Region(Annotation):
    """A box that came with a picture, and what is in it.

    Attributes:
        bbox: x1, y1, x2, y2 in pixels of the upright picture.
        type: What it is, such as `Car`; "" where nothing says so.
        color: Its colour, as a model describes it.
        description: A phrase that singles it out.
        proposed_by: The model that has proposed it, or `opencv`; None for the user's own.

    Example:
        >>> Region((10, 20, 30, 40), type="Car").to_json()
        {'bbox': [10, 20, 30, 40], 'type': 'Car'}
    """

    bbox: Bbox
    type: str = ""
    color: str | None = None
    description: str | None = None
    proposed_by: str | None = None

    FIELDS: ClassVar[Mapping[str, Field]] = {
        "bbox": Field("bbox", None, read_bbox),
        "type": Field("type", str),
        "color": Field("color", str),
        "description": Field("description", str),
        "proposed_by": Field("proposed_by", str),
    }
    NULLS: ClassVar[tuple[str, ...]] = ("bbox", "type")

    @classmethod
    def from_json(cls, item: Any, where: str = "a region") -> "Region":
        """Read a region. Raises BrokenRow without a box that has an area."""
        read = cls._read(item) if isinstance(item, Mapping) else None
        if read is None or "bbox" not in read.__dict__:
            raise BrokenRow(f"{where}: needs 'bbox': [x1, y1, x2, y2] in pixels")
        x1, y1, x2, y2 = read.bbox
        if x2 <= x1 or y2 <= y1:
            raise BrokenRow(f"{where}: the box {list(read.bbox)} has no area")
        read.extra.pop("type", None)  # no text, which is none
        read.keys = tuple(dict.fromkeys([*item, "type"]))
        return read


@dataclass
class Expression(Annotation):
    """A referring expression, and its boxes.

    Attributes:
        text: What it says.
        expression_id: Its id, unique in the data set.
        instances: Its boxes.
        status: What was found of it: `grounded`, `none`, `ambiguous` or `unsupported`; None where
            nobody has looked.
        char_span: Its place in the cleaned caption.
        caption_span: Its place in the caption as given.
        noun_chunk: Its noun and what belongs to it.
        class_name: Its class (`class`), where classes are looked for.
        source: `negative` of one that was made up to be absent.
        change: What of another expression was changed to make it.
        changed_from: The id of that one.
        rejected: Boxes that a check has rejected, each with the `reason`.
        disagreement: Whether several answers about it differ; None for a single answer.
        reason: Why it has no box, in words, or why it was left out.
        verified: Whether a check or a person says that it is right; None where none does.
        verification: What a check said of it.
        doubtful: Whether somebody should look at it.
        doubt: Why, in words, where a reply gave reason to it.
        reviewed_by: The person who has confirmed or changed it.

    Example:
        >>> cup = Expression("the red cup", expression_id="7#0")
        >>> cup.instances.append(Instance((10, 20, 30, 40)))
        >>> [box.bbox for box in cup.instances]
        [(10, 20, 30, 40)]
    """

    text: str
    expression_id: str = ""
    instances: list[Instance] = field(default_factory=list)
    status: str | None = None
    char_span: Span | None = None
    caption_span: Span | None = None
    noun_chunk: str | None = None
    class_name: str | None = None
    source: str | None = None
    change: str | None = None
    changed_from: str | None = None
    rejected: list[Instance] | None = None
    disagreement: bool | None = None
    reason: str | None = None
    verified: bool | None = None
    verification: Verification | None = None
    doubtful: bool | None = None
    doubt: str | None = None
    reviewed_by: str | None = None

    FIELDS: ClassVar[Mapping[str, Field]] = {
        "expression_id": Field("expression_id", str, _id),
        "source": Field("source", str),
        "text": Field("text", str),
        "change": Field("change", str),
        "changed_from": Field("changed_from", str),
        "class": Field("class_name", str),
        "char_span": Field("char_span", None, read_span),
        "caption_span": Field("caption_span", None, read_span),
        "noun_chunk": Field("noun_chunk", str),
        "instances": Field("instances", list),
        "rejected": Field("rejected", None, _boxes),
        "status": Field("status", str),
        "disagreement": Field("disagreement", bool),
        "reason": Field("reason", str),
        "verified": Field("verified", bool),
        "verification": Field("verification", None, Verification.from_json),
        "doubtful": Field("doubtful", bool),
        "doubt": Field("doubt", str),
        "reviewed_by": Field("reviewed_by", str),
    }
    NULLS: ClassVar[tuple[str, ...]] = ("expression_id", "text", "char_span", "instances")

    @classmethod
    def from_json(cls, item: Any, where: str = "an expression", own_id: str = "") -> "Expression":
        """Read an expression, which may be its text alone.

        Args:
            item: The JSON.
            where: Its place, for errors.
            own_id: Its id, if it states none.

        Raises:
            BrokenRow: It has no text, or a box that is none.
        """
        if isinstance(item, str):
            item = {"text": item}
        text = item.get("text") if isinstance(item, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise BrokenRow(f"{where}: no 'text' in it")
        instances = item.get("instances") or []
        if not isinstance(instances, (list, tuple)):
            raise BrokenRow(f"{where}: 'instances' should be a list, not {type_name(instances)}")
        read = cls._read(item)
        read.instances = [_instance(instance, where) for instance in instances]
        read.extra.pop("instances", None)
        if not read.expression_id:
            read.expression_id = own_id
            read.extra.pop("expression_id", None)
        for key in ("expression_id", "instances"):
            if key not in item:
                read.keys = (*read.keys, key)
        return read

    @property
    def is_settled(self) -> bool:
        """Whether a person confirmed its boxes, or that its thing isn't there. No later step or run
        changes it.
        """
        if not self.reviewed_by or self.verified is not True:
            return False
        return bool(self.instances) or self.status == "none"

    @property
    def was_checked(self) -> bool:
        """Whether a check or a person looked at it, with a verdict or without."""
        return self.verified is not None or self.verification is not None

    @property
    def verdict(self) -> str:
        """What a check said of it, one of VERDICTS."""
        if self.verified is not None:
            return "verified" if self.verified else "not verified"
        # A judge lists the boxes that it was asked about, also where its answers differ. One that
        # couldn't be asked lists none.
        was_judged = self.verification is not None and self.verification.boxes is not None
        return "undecided" if was_judged else "not checked"

    @property
    def shown_status(self) -> str:
        """Its status; where it states none, `grounded` with boxes, else `pending`."""
        return self.status or ("grounded" if self.instances else "pending")

    @property
    def stated_class(self) -> str:
        """The class that it states, single-spaced; "" where it states none."""
        return " ".join((self.class_name or "").split())

    @property
    def is_negative(self) -> bool:
        """Whether it was made up to be absent from its image."""
        return self.source == NEGATIVE

    def with_new_boxes(self, instances: Sequence[Instance]) -> "Expression":
        """Return it with other boxes, without what it tells of its former ones."""
        has_earlier = not OF_EARLIER_BOXES.isdisjoint([*self.__dict__, *self.keys])
        new = self.without(*OF_EARLIER_BOXES) if has_earlier else self.copy()
        new.instances = list(instances)
        return new


def _instance(item: Any, where: str) -> Instance:
    """Read a box of an expression; `bbox_score`, as TAO's format calls it, is its score."""
    if isinstance(item, Mapping) and "bbox_score" in item:
        item = {**item}
        score = item.pop("bbox_score")
        if item.get("score") is None:
            item["score"] = score
    instance = Instance.from_json(item, where)
    if "score" not in instance.keys:
        instance.keys = (*instance.keys, "score")
    return instance


def read_expressions(record: Record, key: str) -> list[Expression]:
    """Return the expressions in a record's column; each may be a text alone there.

    One that states no id gets one of its number. Raises BrokenRow for what can't be read.

    Example:
        >>> from dataflow_grounding import Record
        >>> [cup] = read_expressions(Record({"expressions": ["the red cup"]}), "expressions")
        >>> cup.text, cup.expression_id, cup.instances
        ('the red cup', 'record#0', [])
    """
    value = record.get(key)
    if not isinstance(value, (list, tuple)):
        raise BrokenRow(f"column {key!r} should be a list of expressions, not {type_name(value)}")
    expressions = []
    id_of_record = record.unique_id
    place = f"column {key!r}, expression "
    for number, item in enumerate(value):
        own_id = f"{id_of_record}#{number}"
        expressions.append(Expression.from_json(item, f"{place}{number}", own_id))
    return expressions


def read_reviewed(record: Record, key: str) -> list[Expression]:
    """Return the expressions in a record's column that a person has confirmed or changed."""
    items = record.get(key)
    if not isinstance(items, list):
        return []
    if not any(isinstance(item, dict) and item.get("reviewed_by") for item in items):
        return []  # as of most records, which needn't be read for this
    return [each for each in read_expressions(record, key) if each.reviewed_by]


def read_any_expressions(record: Record) -> list[Expression]:
    """Return the record's expressions, else its region captions or regions as such."""
    key = annotated_column(record)
    if not key:
        raise BrokenRow("no column 'expressions', 'region_captions' or 'regions'")
    items = record[key]
    if key == "expressions" or not isinstance(items, (list, tuple)):
        return read_expressions(record, key)
    rows: list[Any] = []
    for number, item in enumerate(items, 1):
        if isinstance(item, Mapping):
            text = item.get("text") or item.get("description") or item.get("type")
            boxes = [{"bbox": item.get("bbox")}]
            rows.append({"text": text or f"region {number}", "instances": boxes})
        else:
            rows.append(item)  # `read_expressions` says what is wrong with it
    return read_expressions(Record({**record, key: rows}), key)


def read_regions(record: Record, key: str) -> list[Region]:
    """Return the regions in a record's column.

    Raises BrokenRow for what can't be read, also where the label files of the record couldn't be.
    """
    check_labels_were_read(record)  # its error says more than that there are no regions
    value = record.get(key)
    if not isinstance(value, (list, tuple)):
        raise BrokenRow(
            f"column {key!r} should be a list of regions, each with 'bbox': [x1, y1, x2, y2]"
        )
    return [
        Region.from_json(item, f"column {key!r}, region {number}")
        for number, item in enumerate(value)
    ]


def update_as_json(update: Update) -> Update:
    """Return a copy of an operator's update as it reads back from a file."""
    rows: Update = {}
    others: Update = {}
    for column, value in update.items():
        if isinstance(value, list) and value and isinstance(value[0], Annotation):
            rows[column] = _json_of(value)
        else:
            others[column] = value
    others = as_json(others)
    return {column: rows.get(column, others.get(column)) for column in update}


def check_labels_were_read(record: Record) -> None:
    """Raise BrokenRow with the reason why the label files of a record couldn't be read, if so."""
    if isinstance(record.get(SEED_ERROR), str):
        raise BrokenRow(record[SEED_ERROR])
