"""Boxes as rows state them: regions, and which expressions stand on which; `[x, y, width, height]`
of the user's.
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
    """The regions: `bbox` ([x1, y1, x2, y2] in pixels, numbers as given) and `type`. Raises
    BrokenRow.
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
        kind = region.get("type")
        regions.append({**region, "type": kind if isinstance(kind, str) else ""})
    return regions


def instances_on(
    places: Sequence[int],
    regions: Sequence[Mapping[str, Any]],
    expression_id: str,
    known: int | None = None,
) -> list[dict[str, Any]]:
    """An instance for each region at `places` (from 0), numbers as given; the first `known` (None:
    all) are named.
    """
    return [
        {
            "bbox_id": f"{expression_id}.{number}",
            "bbox": list(regions[place]["bbox"]),
            "score": None,
        }
        | ({"region_id": place + 1} if known is None or place < known else {})
        for number, place in enumerate(places)
    ]


def places_of(
    instances: Sequence[Mapping[str, Any]], regions: Sequence[Mapping[str, Any]]
) -> list[int] | None:
    """The places (from 0) of the regions with the very boxes of the instances; None when an
    instance has none.
    """
    places = []
    for instance in instances:
        stated = instance.get("region_id")
        same = [
            n for n, region in enumerate(regions) if list(region["bbox"]) == list(instance["bbox"])
        ]
        if not same:
            return None
        places.append(stated - 1 if isinstance(stated, int) and stated - 1 in same else same[0])
    return list(dict.fromkeys(places))


@dataclass
class GivenBoxes:
    """`boxes` are those that can be used: place in the row (from 0) and pixels, xyxy, inside the
    image.
    """

    boxes: list[tuple[int, Bbox]] = field(default_factory=list)
    problems: list[dict[str, Any]] = field(default_factory=list)
    """Place, box and kind (a key of REASONS) of the others, with the reason in words."""
    # how many of `boxes` reached out of the image by more than the slack and were cut at its edge
    cut: int = 0

    def report(self) -> str:
        """All problems in one line."""
        told = [f"box {problem['box']} {problem['reason']}" for problem in self.problems[:5]]
        more = len(self.problems) - len(told)
        return "; ".join(told) + (f"; and {more} more" if more else "")


def read_given_boxes(value: Any, size: Size) -> GivenBoxes | None:
    """The boxes in a column, for an image of `size`; None where the row has none. One box may stand
    without its list.

    Where some fit only as `[x1, y1, x2, y2]`, and all do, the row is taken to mean that, and no box
    is used.
    """
    items = _listed(value)
    if not items:
        return None
    found = GivenBoxes()
    for place, (item, kind) in enumerate(zip(items, _kinds(items, size), strict=True)):
        if kind is None:
            found.boxes.append((place, _tidy(clamp(to_xyxy(item, "xywh"), size))))
            found.cut += not _is_within(to_xyxy(item, "xywh"), size)
        else:
            found.problems.append(
                {"box": place, "bbox": item, "kind": kind, "reason": REASONS[kind]}
            )
    return found


def _listed(value: Any) -> Sequence[Any]:
    if value is None or value == "":
        return []
    items = value if isinstance(value, (list, tuple)) else [value]
    is_one_box = len(items) == 4 and not any(isinstance(item, (list, tuple)) for item in items)
    return [items] if is_one_box else items


def _kinds(items: Sequence[Any], size: Size) -> list[str | None]:
    """What is wrong with each; whether they are corners is decided for the row as a whole."""
    kinds = [_unreadable(item) or _wrong(item, size) for item in items]
    numbers = [item for item, kind in zip(items, kinds, strict=True) if kind not in _UNREADABLE]
    if "xyxy" in kinds and all(_fits_as_corners(item, size) for item in numbers):
        return [kind if kind in _UNREADABLE else "xyxy" for kind in kinds]
    # Each on its own: one that reaches out, in a row of others that can't be corners, is cut.
    return [None if kind == "xyxy" else kind for kind in kinds]


def _wrong(item: Sequence[float], size: Size) -> str | None:
    if min(item[2:]) <= 0:
        return "no_area"
    if not _is_within(to_xyxy(item, "xywh"), size) and _fits_as_corners(item, size):
        return "xyxy"
    inside = clamp(to_xyxy(item, "xywh"), size)
    if area(inside) <= 0:
        return "outside"
    return "too_small" if min(inside[2] - inside[0], inside[3] - inside[1]) < 1 else None


def _unreadable(item: Any) -> str | None:
    if not (isinstance(item, (list, tuple)) and len(item) == 4):
        return "not_numbers"
    if any(n is None for n in item):  # what NaN becomes in a table
        return "not_finite"
    if not all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in item):
        spelt_out = any(isinstance(n, str) and n.strip().lower() in _NOT_FINITE for n in item)
        return "not_finite" if spelt_out else "not_numbers"
    return None if all(map(is_number, item)) else "not_finite"


_UNREADABLE = ("not_numbers", "not_finite")
_NOT_FINITE = ("nan", "inf", "-inf", "infinity", "-infinity")


def _is_within(corners: Sequence[float], size: Size) -> bool:
    slack = SLACK * max(size)
    return (
        min(corners[:2]) >= -slack
        and corners[2] <= size[0] + slack
        and corners[3] <= size[1] + slack
    )


def _fits_as_corners(item: Sequence[float], size: Size) -> bool:
    return item[0] < item[2] and item[1] < item[3] and _is_within(item, size)


def _tidy(bbox: Bbox) -> Bbox:
    x1, y1, x2, y2 = (int(edge) if float(edge).is_integer() else edge for edge in bbox)
    return x1, y1, x2, y2


def largest(boxes: Sequence[tuple[int, Bbox]], most: int | None) -> list[tuple[int, Bbox]]:
    """At most `most` of the boxes, the largest, in the row's order; of equal ones the earlier."""
    if most is None or len(boxes) <= most:
        return list(boxes)
    return sorted(sorted(boxes, key=lambda box: (-area(box[1]), box[0]))[:most])


def normalized(bbox: Bbox, size: Size) -> list[float]:
    """`[x1, y1, x2, y2]` as parts of the image's sides, 3 decimals."""
    return [round(edge / side, 3) for edge, side in zip(bbox, (*size, *size), strict=True)]
