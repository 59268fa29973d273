"""Boxes that rows of the input bring along.

There are two kinds. Regions are `{"bbox": [x1, y1, x2, y2], "type": …}`, in a list; expressions
name the regions that they are on. Given boxes are the user's own, `[x, y, width, height]`, which
are looked through for mistakes (`read_given_boxes`). All are in pixels of the image.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataflow_grounding._util.errors import SizeDiffers
from dataflow_grounding._util.paths import absolute
from dataflow_grounding.boxes.coordinates import to_xyxy
from dataflow_grounding.boxes.geometry import Bbox, Size, area, clamp
from dataflow_grounding.data.expressions import Instance, Region
from dataflow_grounding.data.records import is_number, stated_size

# How far a box may reach out of the image and count as measured loosely, as a share of the longer
# side.
SLACK = 0.02
# Why a given box can't be used, in words, by its kind of problem.
REASONS = {
    "not_numbers": "is not four numbers",
    "not_finite": "has a number that is missing or not finite",
    "no_area": "has no area: width and height should be above 0",
    "outside": "lies outside of the image",
    "xyxy": "looks like [x1, y1, x2, y2]: give [x, y, width, height]",
    "too_small": "covers less than a pixel of the image",
}
_UNREADABLE = ("not_numbers", "not_finite")  # kinds of problems without four numbers
_NOT_FINITE = ("nan", "inf", "-inf", "infinity", "-infinity")  # as texts that files may have


def check_stated_size(record: Mapping[str, object], size: Size, file: str) -> None:
    """Raise SizeDiffers where a record states another size than the upright image's in `file`."""
    stated = stated_size(record)
    if stated is None or stated == size:
        return
    # The boxes were drawn in another picture, and would be wrong in this one.
    differs = (
        f"the boxes are in a picture of {stated[0]} x {stated[1]} px, the file is"
        f" {size[0]} x {size[1]} px"
    )
    if stated == size[::-1]:  # as of a picture that EXIF turns by 90 degrees
        raise SizeDiffers(f"{differs}: if its EXIF orientation turns it, {without_tag(file)}")
    raise SizeDiffers(
        f"{differs}: give the picture that they were drawn in, or its own width and height if they"
        " fit it"
    )


def without_tag(file: str) -> str:
    """Return what to do about boxes of a picture as it is stored, without its EXIF orientation."""
    command = "exiftool -Orientation= "
    if file.isprintable():  # else no line can hold it as it is
        command += shlex.quote(absolute(file))
    return f"remove that tag, and don't turn the picture: {command}"


def labels_as_stored(path: str, size: Size) -> str:
    """Return what is wrong with labels that state the size of a picture as it is stored."""
    return f"the boxes are of {path!r} without its EXIF orientation, {size[0]} x {size[1]} px"


def boxes_reach_out(boxes: Iterable[Sequence[float]], size: Size) -> float:
    """Return by how many pixels boxes reach out of an image; 0 if by no more than SLACK."""
    reach: float = 0
    for x1, y1, x2, y2 in boxes:
        if not _is_within((x1, y1, x2, y2), size):
            reach = max(reach, -x1, -y1, x2 - size[0], y2 - size[1])
    return reach


def types_of(record: Mapping[str, object], key: str = "regions") -> list[str]:
    """Return the regions' types in their order, with repeated ones; blank ones are left out."""
    regions = record.get(key)
    if not isinstance(regions, list):
        return []
    types = []
    for region in regions:
        type_name = region.get("type") if isinstance(region, Mapping) else None
        if isinstance(type_name, str) and type_name.strip():
            types.append(type_name)
    return types


def instances_on(
    indices: Sequence[int],
    regions: Sequence[Region],
    expression_id: str,
    count_of_own: int | None = None,
) -> list[Instance]:
    """Return an expression's instances on the regions of these indices, from 0.

    Only the first `count_of_own` regions, or all for None, are the record's and have an id.
    """
    if count_of_own is None:
        count_of_own = len(regions)
    instances = []
    for number, index in enumerate(indices):
        region_id = index + 1 if index < count_of_own else None  # counted from 1
        instances.append(
            Instance(regions[index].bbox, bbox_id=f"{expression_id}.{number}", region_id=region_id)
        )
    return instances


def places_of(instances: Sequence[Instance], regions: Sequence[Region]) -> list[int] | None:
    """Return the indices of the regions with the instances' very boxes; None if one has none."""
    indices = []
    for instance in instances:
        with_this_box = [
            index for index, region in enumerate(regions) if region.bbox == instance.bbox
        ]
        if not with_this_box:
            return None
        # Where several regions have the box, `region_id` tells which it is.
        index = with_this_box[0]
        region_id = instance.region_id  # counted from 1
        if region_id is not None and region_id - 1 in with_this_box:
            index = region_id - 1
        indices.append(index)
    return list(dict.fromkeys(indices))  # each once


@dataclass
class GivenBoxes:
    """The user's own boxes of a row, looked through."""

    # index in the row, and x1, y1, x2, y2 in pixels, inside the image
    boxes: list[tuple[int, Bbox]] = field(default_factory=list)
    # `box` (index), `bbox` as given, `kind` of REASONS, `reason`
    problems: list[dict[str, object]] = field(default_factory=list)
    cut: int = 0  # how many of `boxes` were cut at the image's edge

    def report(self) -> str:
        """Return the first five problems in words, then how many more there are."""
        parts = [f"box {problem['box']} {problem['reason']}" for problem in self.problems[:5]]
        more = len(self.problems) - len(parts)
        if more:
            parts.append(f"and {more} more")
        return "; ".join(parts)


def read_given_boxes(value: Any, size: Size) -> GivenBoxes | None:
    """Look through a row's boxes, `[x, y, width, height]` in pixels; None where there are none."""
    items = _as_list(value)
    if not items:
        return None
    given = GivenBoxes()
    problems = _problems(items, size)
    for number, (item, problem) in enumerate(zip(items, problems, strict=True)):
        if problem is not None:
            reason = REASONS[problem]
            given.problems.append({"box": number, "bbox": item, "kind": problem, "reason": reason})
            continue
        corners = to_xyxy(item, "xywh")
        # 30 for 30.0, as a user has probably written it
        x1, y1, x2, y2 = [
            int(edge) if float(edge).is_integer() else edge for edge in clamp(corners, size)
        ]
        given.boxes.append((number, (x1, y1, x2, y2)))
        if not _is_within(corners, size):
            given.cut += 1
    return given


def _as_list(value: Any) -> Sequence[Any]:
    """Put a single box, such as [1, 2, 3, 4] or a wrong 7, into a list."""
    if value is None or value == "":
        return []
    if not isinstance(value, (list, tuple)):
        return [value]
    holds_lists = any(isinstance(item, (list, tuple)) for item in value)
    if len(value) == 4 and not holds_lists:
        return [value]
    return value


def _problems(items: Sequence[Any], size: Size) -> list[str | None]:
    """For each box the kind of its problem, a key of REASONS; None if it has none."""
    problems: list[str | None] = []
    readable = []
    for item in items:
        problem = _why_unreadable(item)
        if problem is None:
            problem = _problem_of(item, size)
            readable.append(item)
        problems.append(problem)
    # The whole row may be written as [x1, y1, x2, y2] by mistake.
    are_all_corners = "xyxy" in problems and all(_fits_as_corners(item, size) for item in readable)
    if are_all_corners:
        return [problem if problem in _UNREADABLE else "xyxy" for problem in problems]
    # Others in the row can't be corners. So one that looks like corners is x, y, width and height,
    # too, and reaches out of the image: it is cut.
    return [None if problem == "xyxy" else problem for problem in problems]


def _problem_of(item: Sequence[float], size: Size) -> str | None:
    """The kind of problem of a box of four numbers, a key of REASONS; None if it has none."""
    width, height = item[2:]
    if min(width, height) <= 0:
        return "no_area"
    corners = to_xyxy(item, "xywh")
    fits_only_as_corners = not _is_within(corners, size) and _fits_as_corners(item, size)
    if fits_only_as_corners:
        return "xyxy"
    inside = clamp(corners, size)  # of a box that reaches out, this part is judged
    if area(inside) <= 0:
        return "outside"
    x1, y1, x2, y2 = inside
    if x2 - x1 < 1 or y2 - y1 < 1:
        return "too_small"
    return None


def _why_unreadable(item: Any) -> str | None:
    """A kind of _UNREADABLE; None for four numbers."""
    if not isinstance(item, (list, tuple)) or len(item) != 4:
        return "not_numbers"
    if all(map(is_number, item)):
        return None
    if any(part is None for part in item):  # what NaN becomes in a table
        return "not_finite"
    texts = [part.strip().lower() for part in item if isinstance(part, str)]
    if any(text in _NOT_FINITE for text in texts):
        return "not_finite"
    # Four numbers come here if one is NaN, infinite, or an integer too large for a float.
    are_python_numbers = all(
        isinstance(part, (int, float)) and not isinstance(part, bool) for part in item
    )
    return "not_finite" if are_python_numbers else "not_numbers"


def _is_within(corners: Sequence[float], size: Size) -> bool:
    slack = SLACK * max(size)
    x1, y1, x2, y2 = corners
    return x1 >= -slack and y1 >= -slack and x2 <= size[0] + slack and y2 <= size[1] + slack


def _fits_as_corners(item: Sequence[float], size: Size) -> bool:
    return item[0] < item[2] and item[1] < item[3] and _is_within(item, size)


def largest(boxes: Sequence[tuple[int, Bbox]], most: int | None) -> list[tuple[int, Bbox]]:
    """Return the `most` largest boxes in the row's order, of equal ones the first; all for None."""
    if most is None or len(boxes) <= most:
        return list(boxes)
    largest_first = sorted(boxes, key=lambda box: (-area(box[1]), box[0]))
    return sorted(largest_first[:most])  # by their index in the row


def normalized(bbox: Bbox, size: Size) -> list[float]:
    """Return a box in parts of the image's sides, with 3 decimals."""
    return [round(edge / side, 3) for edge, side in zip(bbox, (*size, *size), strict=True)]
