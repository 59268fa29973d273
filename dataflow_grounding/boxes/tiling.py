"""Overlapping tiles of a picture, and what they show of one thing made one box.

Boxes and regions are in pixels of the whole picture.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dataflow_grounding.boxes.geometry import (
    LEAST_SIDE_SHARE,
    Bbox,
    Size,
    area,
    around,
    box_of,
    enlarged_to,
    intersection,
    median_box,
    nearest_pixels,
)
from dataflow_grounding.boxes.matching import match_boxes
from dataflow_grounding.data.expressions import Instance

# A box that ends this near to an edge of its tile may end there because the tile does. A share of
# the tile's longer side. It may be generous: the next tile shows what is near this one's edge.
NEAR_EDGE = 0.02
INSIDE = 0.8  # the share of a cut box's area that another box of its phrase covers, if it is of it


def tiles_of(size: Size, side: int, overlap: float) -> list[Bbox]:
    """Return tiles that cover a picture, row by row; none for a picture no larger than a tile.

    They are spread evenly, so that two neighbours share `overlap` of their side or more. A picture
    that is narrower than a tile has tiles of its own width.

    Example:
        >>> tiles_of((1800, 600), 1024, 0.2)
        [(0, 0, 1024, 600), (776, 0, 1800, 600)]
    """
    if max(size) <= side:
        return []
    columns, rows = (_spans(length, side, overlap) for length in size)
    return [(left, top, right, bottom) for top, bottom in rows for left, right in columns]


def _spans(length: int, side: int, overlap: float) -> list[tuple[int, int]]:
    """Where the tiles begin and end along one side of the picture."""
    if length <= side:
        return [(0, length)]
    last_start = length - side
    longest_step = side * (1 - overlap)
    steps = math.ceil(last_start / longest_step)
    starts = [round(number * last_start / steps) for number in range(steps + 1)]
    return [(start, start + side) for start in starts]


@dataclass(frozen=True)
class View:
    """A part of a picture that a model was shown, or all of it, and what it found there."""

    region: Bbox
    instances: Sequence[Instance]


@dataclass(frozen=True)
class _Sight:
    """A box in a view: of a tile, or of the whole picture."""

    bbox: Bbox
    instance: Instance
    # of its left, top, right and bottom edge, whether it may be the tile's and not the thing's
    cut: tuple[bool, bool, bool, bool]
    is_of_tile: bool


@dataclass(frozen=True)
class Thing:
    """What the views show of one thing."""

    instance: Instance
    is_cut: bool  # whether no view shows how far it reaches


def join_views(whole: View, tiles: Sequence[View]) -> list[Thing]:
    """Return the things of one phrase that a whole picture and its tiles show, each once."""
    views = [whole, *tiles]
    sights_of_view = [_sights_of(view, whole.region) for view in views]
    groups = _groups(sights_of_view, [view.region for view in views])
    things = [_thing_of(group) for group in groups]
    whole_things = []
    for thing in things:
        others = [other for other in things if other is not thing]
        # A part that lies in another thing's box is left out.
        is_part = thing.is_cut and any(_is_part(thing, other) for other in others)
        if not is_part:
            whole_things.append(thing)
    return whole_things


def _sights_of(view: View, picture: Bbox) -> list[_Sight]:
    """The boxes of a view, with the edges that the view may have cut."""
    left, top, right, bottom = view.region
    near = NEAR_EDGE * max(right - left, bottom - top)
    is_of_tile = view.region != picture
    sights = []
    for instance in view.instances:
        x1, y1, x2, y2 = instance.bbox
        # At the edges of the picture, a thing ends in every view.
        cut = (
            left > picture[0] and x1 <= left + near,
            top > picture[1] and y1 <= top + near,
            right < picture[2] and x2 >= right - near,
            bottom < picture[3] and y2 >= bottom - near,
        )
        sights.append(_Sight((x1, y1, x2, y2), instance, cut, is_of_tile))
    return sights


def _groups(
    sights_of_view: Sequence[Sequence[_Sight]], regions: Sequence[Bbox]
) -> list[list[_Sight]]:
    """The sights of each thing: groups are joined where two views show the same thing."""
    group_of: dict[int, list[_Sight]] = {}  # by the sight's id(): two sights may be equal
    for sights in sights_of_view:
        for sight in sights:
            group_of[id(sight)] = [sight]
    for a, b in itertools.combinations(range(len(regions)), 2):
        pairs = _same_in_both(sights_of_view[a], regions[a], sights_of_view[b], regions[b])
        for sight_a, sight_b in pairs:
            group_of_a = group_of[id(sight_a)]
            group_of_b = group_of[id(sight_b)]
            if group_of_a is group_of_b:  # other views have joined them
                continue
            group_of_a += group_of_b
            for sight in group_of_b:
                group_of[id(sight)] = group_of_a
    # A group is there once for each of its sights.
    distinct_groups = {id(group): group for group in group_of.values()}
    return list(distinct_groups.values())


def _same_in_both(
    sights_a: Sequence[_Sight], region_a: Bbox, sights_b: Sequence[_Sight], region_b: Bbox
) -> list[tuple[_Sight, _Sight]]:
    """The pairs of sights that are the same thing where both views show it."""
    shared = intersection(region_a, region_b)
    if area(shared) == 0:
        return []
    inside_a = [sight for sight in sights_a if area(intersection(sight.bbox, shared)) > 0]
    inside_b = [sight for sight in sights_b if area(intersection(sight.bbox, shared)) > 0]
    # Boxes are compared by what both views show of them. Small ones are enlarged for that, because
    # a model is off by a share of the view's side, however small a thing is.
    least_side = LEAST_SIDE_SHARE * max(_longer_side(region_a), _longer_side(region_b))
    boxes_a = [enlarged_to(intersection(sight.bbox, shared), least_side) for sight in inside_a]
    boxes_b = [enlarged_to(intersection(sight.bbox, shared), least_side) for sight in inside_b]
    pairs = []
    for index_b, match in match_boxes(boxes_a, boxes_b).items():
        pairs.append((inside_a[match.found_index], inside_b[index_b]))
    return pairs


def _longer_side(bbox: Bbox) -> float:
    return max(bbox[2] - bbox[0], bbox[3] - bbox[1])


def _thing_of(group: Sequence[_Sight]) -> Thing:
    """The thing that a group of sights shows: the best one's instance with another box."""
    in_tiles = [sight for sight in group if sight.is_of_tile]
    in_whole = [sight for sight in group if not sight.is_of_tile]
    entire = [sight for sight in in_tiles if not any(sight.cut)]
    is_cut = False
    if entire:  # tiles show more detail than the whole picture
        best = entire[0]
        bbox = median_box([sight.bbox for sight in entire])
    elif in_tiles:
        best = max(in_tiles, key=lambda sight: area(sight.bbox))
        bbox = _stitched(in_tiles, in_whole)
        has_cut_sides = bool(_cut_sides(in_tiles))
        is_seen_in_whole = bool(in_whole)  # which shows how far it reaches
        is_cut = has_cut_sides and not is_seen_in_whole
    else:
        best = group[0]
        bbox = best.bbox
    scores = [sight.instance.score for sight in group]
    highest_score = max((score for score in scores if score is not None), default=None)
    instance = replace(best.instance, bbox=nearest_pixels(bbox), score=highest_score)
    return Thing(instance, is_cut)


def _stitched(parts: Sequence[_Sight], in_whole: Sequence[_Sight]) -> Bbox:
    """The box that the parts cover together."""
    bbox = list(around([part.bbox for part in parts]))
    # On sides where tiles cut them all, the whole picture's box says where it ends.
    for side in _cut_sides(parts):
        farther = min if side < 2 else max  # left and top, or right and bottom
        bbox[side] = farther([bbox[side], *(sight.bbox[side] for sight in in_whole)])
    return box_of(bbox)


def _cut_sides(parts: Sequence[_Sight]) -> list[int]:
    """The sides, from 0 for the left to 3, on which no part shows where the thing ends."""
    covered = around([part.bbox for part in parts])
    cut_sides = []
    for side in range(4):
        # Only the parts that reach furthest could show it.
        furthest = [part for part in parts if part.bbox[side] == covered[side]]
        if all(part.cut[side] for part in furthest):
            cut_sides.append(side)
    return cut_sides


def _is_part(thing: Thing, other: Thing) -> bool:
    """Whether a thing that is cut is a piece of the other, larger one."""
    bbox = thing.instance.bbox
    other_box = other.instance.bbox
    covered = area(intersection(bbox, other_box))
    return area(other_box) > area(bbox) and covered >= INSIDE * area(bbox)
