"""The regions of a record, read; and which expressions stand on which of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from dataflow_grounding.errors import BrokenRow
from dataflow_grounding.geometry import area, box_of
from dataflow_grounding.records import Record, is_number

SEED_ERROR = "seed_error"  # column that says why the files that a record was made from can't be read


def check_seed(record: Record) -> None:
    """Raises BrokenRow for a record whose labels can't be read."""
    if isinstance(record.get(SEED_ERROR), str):
        raise BrokenRow(record[SEED_ERROR])


def read_regions(record: Record, key: str) -> list[dict[str, Any]]:
    """The regions: `bbox` ([x1, y1, x2, y2] in pixels, numbers as given) and `type`. Raises BrokenRow."""
    check_seed(record)
    value = record.get(key)
    if not isinstance(value, (list, tuple)):
        raise BrokenRow(f"column {key!r} should be a list of regions, each with 'bbox': [x1, y1, x2, y2]")
    regions = []
    for number, region in enumerate(value):
        bbox = region.get("bbox") if isinstance(region, Mapping) else None
        if not (isinstance(bbox, (list, tuple)) and len(bbox) == 4 and all(is_number(n) for n in bbox)):
            raise BrokenRow(f"column {key!r}, region {number}: needs 'bbox': [x1, y1, x2, y2] in pixels")
        if area(box_of(bbox)) <= 0:
            raise BrokenRow(f"column {key!r}, region {number}: the box {list(bbox)} has no area")
        kind = region.get("type")
        regions.append({**region, "type": kind if isinstance(kind, str) else ""})
    return regions


def instances_on(
    places: Sequence[int], regions: Sequence[Mapping[str, Any]], expression_id: str, known: int | None = None
) -> list[dict[str, Any]]:
    """An instance for each region at `places` (from 0), numbers as given; the first `known` (None: all) are named."""
    instances = []
    for number, place in enumerate(places):
        bbox = list(regions[place]["bbox"])
        named = {"region_id": place + 1} if known is None or place < known else {}
        instances.append({"bbox_id": f"{expression_id}.{number}", "bbox": bbox, "score": None, **named})
    return instances


def places_of(instances: Sequence[Mapping[str, Any]], regions: Sequence[Mapping[str, Any]]) -> list[int] | None:
    """The places (from 0) of the regions with the very boxes of the instances; None when an instance has none."""
    places = []
    for instance in instances:
        stated = instance.get("region_id")
        same = [n for n, region in enumerate(regions) if list(region["bbox"]) == list(instance["bbox"])]
        if not same:
            return None
        places.append(stated - 1 if isinstance(stated, int) and stated - 1 in same else same[0])
    return list(dict.fromkeys(places))
