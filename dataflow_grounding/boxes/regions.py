"""Boxes as rows state them.

Regions, and which expressions stand on which; and the user's own boxes, `[x, y, width, height]`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.boxes.coordinates import to_xyxy
from dataflow_grounding.boxes.geometry import Bbox, Size, area, box_of, clamp
from dataflow_grounding.data.records import Record, is_box, is_number

# column that says why the files that a record was made from can't be read
SEED_ERROR = "seed_error"
# how far out of the image a box measured loosely may reach, as a share of the longer side
SLACK = 0.02
REASONS = {
    "not_numbers": "is not four numbers",
    "not_finite": "has a number that is missing or not finite",
    "no_area": "has no area: width and height should be above 0",
    "outside": "lies outside of the image",
    "xyxy": "looks like [x1, y1, x2, y2]: give [x, y, width, height]",
    "too_small": "covers less than a pixel of the image",
}


def check_seed(record: Record) -> None:
    """Raises BrokenRow for a record whose labels can't be read."""
    if isinstance(record.get(SEED_ERROR), str):
        raise BrokenRow(record[SEED_ERROR])


def read_regions(record: Record, key: str) -> list[dict[str, Any]]:
    """The regions: `bbox` ([x1, y1, x2, y2] in pixels, numbers as given) and `type`.

    Raises BrokenRow.
    """
    check_seed(record)
    value = record.get(key)
    if not isinstance(value, (list, tuple)):
        raise BrokenRow(
            f"column {key!r} should be a list of regions, each with 'bbox': [x1, y1, x2, y2]"
        )
    regions = []
    for number, region in enumerate(value):
        bbox: Any = region.get("bbox") if isinstance(region, Mapping) else None
        if not is_box(bbox):
            raise BrokenRow(
                f"column {key!r}, region {number}: needs 'bbox': [x1, y1, x2, y2] in pixels"
            )
        if area(box_of(bbox)) <= 0:
            raise BrokenRow(f"column {key!r}, region {number}: the box {list(bbox)} has no area")
        type_name = region.get("type")
        if not isinstance(type_name, str):
            type_name = ""
        regions.append({**region, "type": type_name})
    return regions


def types_of(record: Mapping[str, Any], key: str = "regions") -> list[str]:
    """The types that a record's regions state; a region that can't be read states none.

    Example:
        >>> types_of({"regions": [{"type": "car"}, {"type": None}, 7]})
        ['car']
    """
    regions = record.get(key)
    if not isinstance(regions, list):
        return []
    types = []
    for region in regions:
        kind = region.get("type") if isinstance(region, Mapping) else None
        if isinstance(kind, str) and kind.strip():
            types.append(kind)
    return types


def instances_on(
    places: Sequence[int],
    regions: Sequence[Mapping[str, Any]],
    expression_id: str,
    known: int | None = None,
) -> list[dict[str, Any]]:
    """An instance for each region at `places` (from 0), numbers as given.

    The first `known` regions (None: all) are named.
    """
    instances = []
    for number, place in enumerate(places):
        instance: dict[str, Any] = {
            "bbox_id": f"{expression_id}.{number}",
            "bbox": list(regions[place]["bbox"]),
            "score": None,
        }
        if known is None or place < known:
            instance["region_id"] = place + 1
        instances.append(instance)
    return instances


def places_of(
    instances: Sequence[Mapping[str, Any]], regions: Sequence[Mapping[str, Any]]
) -> list[int] | None:
    """The places (from 0) of the regions with the very boxes of the instances.

    None when an instance has none.
    """
    boxes = [list(region["bbox"]) for region in regions]
    places = []
    for instance in instances:
        bbox = list(instance["bbox"])
        same = [place for place, box in enumerate(boxes) if box == bbox]
        if not same:
            return None
        # Of regions with one box, the one that is named.
        stated = instance.get("region_id")
        if isinstance(stated, int) and stated - 1 in same:
            places.append(stated - 1)
        else:
            places.append(same[0])
    return list(dict.fromkeys(places))


@dataclass
class GivenBoxes:
    """The boxes of a row.

    Attributes:
        boxes: Those that can be used: place in the row (from 0) and pixels, xyxy, inside the image.
        problems: Place, box and kind (a key of REASONS) of the others, with the reason in words.
        cut: How many of `boxes` reached out of the image by more than the slack and were cut at its
            edge.
    """

    boxes: list[tuple[int, Bbox]] = field(default_factory=list)
    problems: list[dict[str, Any]] = field(default_factory=list)
    cut: int = 0

    def report(self) -> str:
        """All problems in one line."""
        told = [f"box {problem['box']} {problem['reason']}" for problem in self.problems[:5]]
        more = len(self.problems) - len(told)
        if more:
            told.append(f"and {more} more")
        return "; ".join(told)


def read_given_boxes(value: Any, size: Size) -> GivenBoxes | None:
    """The boxes in a column, for an image of `size`; None where the row has none.

    One box may stand without its list. Where some fit only as `[x1, y1, x2, y2]`, and all do, the
    row is taken to mean that, and no box is used.
    """
    items = _listed(value)
    if not items:
        return None
    given = GivenBoxes()
    for number, (item, problem) in enumerate(zip(items, _problems(items, size), strict=True)):
        if problem is not None:
            reason = REASONS[problem]
            given.problems.append({"box": number, "bbox": item, "kind": problem, "reason": reason})
            continue
        corners = to_xyxy(item, "xywh")
        given.boxes.append((number, _tidy(clamp(corners, size))))
        if not _is_within(corners, size):
            given.cut += 1
    return given


def _listed(value: Any) -> Sequence[Any]:
    """The boxes of a column's value, which may be one box without its list."""
    if value is None or value == "":
        return []
    if not isinstance(value, (list, tuple)):
        return [value]
    holds_lists = any(isinstance(item, (list, tuple)) for item in value)
    if len(value) == 4 and not holds_lists:
        return [value]
    return value


def _problems(items: Sequence[Any], size: Size) -> list[str | None]:
    """What is wrong with each, by its key in REASONS; None for what can be used.

    Whether they are corners is decided for the row as a whole.
    """
    problems = [_unreadable(item) or _wrong(item, size) for item in items]
    readable = []
    for item, problem in zip(items, problems, strict=True):
        if problem not in _UNREADABLE:
            readable.append(item)
    is_of_corners = "xyxy" in problems and all(_fits_as_corners(item, size) for item in readable)
    decided: list[str | None] = []
    for problem in problems:
        if is_of_corners and problem not in _UNREADABLE:
            decided.append("xyxy")
        elif problem == "xyxy":
            # Each on its own: one that reaches out, in a row of others that can't be corners, is
            # cut.
            decided.append(None)
        else:
            decided.append(problem)
    return decided


def _wrong(item: Sequence[float], size: Size) -> str | None:
    """What is wrong with four numbers, as x, y, width and height."""
    if min(item[2:]) <= 0:
        return "no_area"
    corners = to_xyxy(item, "xywh")
    if not _is_within(corners, size) and _fits_as_corners(item, size):
        return "xyxy"
    inside = clamp(corners, size)
    if area(inside) <= 0:
        return "outside"
    if min(inside[2] - inside[0], inside[3] - inside[1]) < 1:
        return "too_small"
    return None


def _unreadable(item: Any) -> str | None:
    """Why an item isn't four numbers; None if it is."""
    if not (isinstance(item, (list, tuple)) and len(item) == 4):
        return "not_numbers"
    if any(number is None for number in item):  # what NaN becomes in a table
        return "not_finite"
    for number in item:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            return "not_finite" if _names_no_number(item) else "not_numbers"
    if not all(map(is_number, item)):
        return "not_finite"
    return None


def _names_no_number(item: Sequence[Any]) -> bool:
    """Whether NaN or infinity stands among the four as a word."""
    words = [part.strip().lower() for part in item if isinstance(part, str)]
    return any(word in _NOT_FINITE for word in words)


_UNREADABLE = ("not_numbers", "not_finite")
_NOT_FINITE = ("nan", "inf", "-inf", "infinity", "-infinity")


def _is_within(corners: Sequence[float], size: Size) -> bool:
    """Whether a box is inside of the image, or nearly."""
    slack = SLACK * max(size)
    x1, y1, x2, y2 = corners
    return x1 >= -slack and y1 >= -slack and x2 <= size[0] + slack and y2 <= size[1] + slack


def _fits_as_corners(item: Sequence[float], size: Size) -> bool:
    return item[0] < item[2] and item[1] < item[3] and _is_within(item, size)


def _tidy(bbox: Bbox) -> Bbox:
    """The box with whole numbers as such."""
    x1, y1, x2, y2 = [int(edge) if float(edge).is_integer() else edge for edge in bbox]
    return x1, y1, x2, y2


def largest(boxes: Sequence[tuple[int, Bbox]], most: int | None) -> list[tuple[int, Bbox]]:
    """Return the largest of the boxes, at most `most`, in the row's order.

    Of equal ones the earlier comes first.
    """
    if most is None or len(boxes) <= most:
        return list(boxes)
    by_area = sorted(boxes, key=lambda box: (-area(box[1]), box[0]))
    return sorted(by_area[:most])


def normalized(bbox: Bbox, size: Size) -> list[float]:
    """`[x1, y1, x2, y2]` as parts of the image's sides, 3 decimals."""
    return [round(edge / side, 3) for edge, side in zip(bbox, (*size, *size), strict=True)]
