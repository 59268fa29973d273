"""Records of TAO's image_referring_expression, whose boxes are in 0-1000, as records in pixels.

They are recognised by source and column `kitti_bboxes` ([x1, y1, x2, y2, type] in pixels), which ours don't have. A box
that is one of those in 0-1000 gets its exact numbers back; others are converted if what 1000 stands for is certain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dataflow_grounding.errors import BrokenRow
from dataflow_grounding.geometry import Size
from dataflow_grounding.records import is_number

SOURCE = "image_referring_expression"
COLUMN = "kitti_bboxes"
SIDE = 1000
ROUNDING = 1.0  # most that a number written in 0-1000 may be off, rounded or cut


def is_tao(row: Mapping[str, Any]) -> bool:
    """Whether a row is a record of TAO's."""
    return row.get("source") == SOURCE and isinstance(row.get(COLUMN), list)


def from_tao(row: Mapping[str, Any], size: Size) -> dict[str, Any]:
    """The record in pixels of an image of `size` (width, height). Raises BrokenRow for unclear numbers."""
    exact = [_kitti(item) for item in row[COLUMN]]
    given = row.get("regions") or []
    written = [_four(region, "a region") for region in given]
    best, matches = _best_matches(written, exact, [size, *_stated(row)])
    regions = []
    for region, box, match in zip(given, written, matches, strict=True):
        bbox, kind = exact[match] if match is not None else (_converted(box, best), "")
        regions.append({**region, "bbox": list(bbox), "type": region.get("type") or kind})
    record = {name: value for name, value in row.items() if name != COLUMN}
    record |= {"width": size[0], "height": size[1], "regions": regions}
    if row.get("expressions"):
        pixels, sure = [region["bbox"] for region in regions], best == size
        record["expressions"] = [_expression(e, written, pixels, best, sure) for e in row["expressions"]]
    return record


def _stated(row: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """The size that the row states: TAO assumes 1920 x 1080 where it isn't told one, and may have converted by that."""
    stated: tuple[Any, Any] = (row.get("width"), row.get("height"))
    return [stated] if all(is_number(n) and n > 0 for n in stated) else []


def _best_matches(
    written: list[list[float]], exact: list[tuple[list[float], str]], sizes: Sequence[tuple[Any, Any]]
) -> tuple[tuple[Any, Any], list[int | None]]:
    """The size by which most boxes match an exact one, the first of equals, and those matches. Raises BrokenRow."""
    tried = [(size, _matches(written, exact, size)) for size in sizes]
    best, matches = max(tried, key=lambda one: sum(match is not None for match in one[1]))
    if written and exact and all(match is None for match in matches):
        raise BrokenRow(f"no region matches one of its {COLUMN} in 0-{SIDE}: can't tell which coordinates they are in")
    return best, matches


def _expression(
    expression: Any, written: list[list[float]], pixels: list[list[float]], size: Sequence[Any], sure: bool
) -> Any:
    if not isinstance(expression, Mapping):
        return expression
    instances = []
    for instance in expression.get("instances") or []:
        box = _four(instance, "an instance")
        near = [n for n, other in enumerate(written) if _close(box, other)]
        if not near and not sure:
            why = "is not a region, and the record's size is not the image's"
            raise BrokenRow(f"the instance {box} {why}: not converted")
        bbox = pixels[near[0]] if near else _converted(box, size)
        instances.append({**instance, "bbox": list(bbox), **({"region_id": near[0] + 1} if near else {})})
    return {**expression, "instances": instances}


def _kitti(item: Any) -> tuple[list[float], str]:
    numbers = list(item[:4]) if isinstance(item, list) else []
    if len(numbers) != 4 or not all(is_number(n) for n in numbers):
        raise BrokenRow(f"column {COLUMN!r} should have lists [x1, y1, x2, y2, type]")
    return numbers, str(item[4]) if len(item) > 4 else ""


def _four(item: Any, what: str) -> list[float]:
    bbox = item.get("bbox") if isinstance(item, Mapping) else None
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(is_number(n) for n in bbox)):
        raise BrokenRow(f"{what} needs 'bbox': [x1, y1, x2, y2]")
    return bbox


def _matches(written: list[list[float]], exact: list[tuple[list[float], str]], size: Sequence[Any]) -> list[int | None]:
    """For each written box the place of the exact one that it is, each taken once."""
    left = list(range(len(exact)))
    found: list[int | None] = []
    for box in written:
        fits = [n for n in left if _close(box, [v * SIDE / size[i % 2] for i, v in enumerate(exact[n][0])])]
        found.append(fits[0] if fits else None)
        if fits:
            left.remove(fits[0])
    return found


def _close(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(a - b) <= ROUNDING for a, b in zip(one, other, strict=True))


def _converted(box: Sequence[float], size: Sequence[Any]) -> list[float]:
    return [round(value * size[i % 2] / SIDE, 4) for i, value in enumerate(box)]
