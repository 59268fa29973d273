"""Points of a picture as it is stored, and of the same picture turned upright by its EXIF.

An orientation is EXIF's: 1 is upright, 2 and 4 are mirrored, 3 is upside down, 5 to 8 lie on a
side. Points are in pixels, the origin at the top left corner.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.boxes.rle import check_rle, pixels, rle_of
from dataflow_grounding.data.records import is_box, is_number

Frame: TypeAlias = Literal["upright", "stored"]
"""What labels were drawn on: the upright picture, or its pixels as they are stored."""
Point: TypeAlias = tuple[float, float]

AS_STORED = "as_stored"
"""The key of a turned box with the numbers that turning back would miss in the last digit."""
_ON_ITS_SIDE = 5  # from this orientation on, width and height change places
_COLUMNS_MIRRORED = (2, 3, 7, 8)  # the right edge comes to the left, or to the top
_ROWS_MIRRORED = (3, 4, 6, 7)
_BACK: Mapping[int, int] = MappingProxyType({6: 8, 8: 6})  # the others turn back by themselves
_OUTLINES = ("segmentation", "polygon", "quad")


def turned_size(size: Size, orientation: int) -> Size:
    """Return the size of the upright picture from that of the stored one, or the other way round.

    Example:
        >>> turned_size((640, 480), 6), turned_size((640, 480), 3)
        ((480, 640), (640, 480))
    """
    return size[::-1] if orientation >= _ON_ITS_SIDE else size


def upright_point(x: float, y: float, size: Size, orientation: int) -> Point:
    """Return where a point of the stored picture is in the upright one.

    Args:
        x, y: The point in the stored picture.
        size: Width and height of the stored picture.
        orientation: EXIF's, from 1 to 8.

    Example:
        >>> upright_point(10, 20, (640, 480), 6)
        (460, 10)
    """
    width, height = size
    if orientation in _COLUMNS_MIRRORED:
        x = _difference(width, x)
    if orientation in _ROWS_MIRRORED:
        y = _difference(height, y)
    return (y, x) if orientation >= _ON_ITS_SIDE else (x, y)


def back(size: Size, orientation: int) -> tuple[Size, int]:
    """Return the size and orientation that turn the upright picture into the stored one again.

    Args:
        size: Width and height of the stored picture.
        orientation: EXIF's, from 1 to 8.

    Example:
        >>> upright_point(460, 10, *back((640, 480), 6))
        (10, 20)
    """
    return turned_size(size, orientation), _BACK.get(orientation, orientation)


def _difference(side: int, number: float) -> float:
    # In decimals 640 - 0.1 is 639.9, and 640 - 639.9 is 0.1 again; in binary it is
    # 0.10000000000002274.
    if number % 1 == 0:
        return side - number
    return float(side - Decimal(repr(number)))


def upright_record(record: Mapping[str, Any], size: Size, orientation: int) -> dict[str, Any]:
    """Return a copy of a record whose labels are in the stored picture, turned upright.

    Boxes (`bbox`) and outlines of its expressions' instances and of its regions are turned, and so
    are `width` and `height`. A box that turning back would miss in a last digit keeps its numbers
    in AS_STORED.

    Args:
        record: The record.
        size: Width and height of the stored picture.
        orientation: EXIF's, from 1 to 8.

    Raises:
        BrokenRow: An outline is neither a list of points nor a mask of the picture.
    """

    def turned(holder: Mapping[str, Any]) -> dict[str, Any]:
        upright = _shapes_turned(holder, size, orientation)
        again = _shapes_turned(upright, *back(size, orientation))
        missed = {name: holder[name] for name in upright if again[name] != _plain(holder[name])}
        if missed:
            upright[AS_STORED] = missed
        return {**holder, **upright}

    sides = turned_size(size, orientation)
    return {**_with_each_box(record, turned), "width": sides[0], "height": sides[1]}


def stored_record(record: Mapping[str, Any], size: Size, orientation: int) -> dict[str, Any]:
    """Return a copy of an upright record with its labels in the stored picture.

    What `upright_record` has turned gets the very numbers that it had. For arguments and errors see
    there.
    """

    def turned(holder: Mapping[str, Any]) -> dict[str, Any]:
        stored = _shapes_turned(holder, *back(size, orientation))
        written = holder.get(AS_STORED)
        if isinstance(written, Mapping):
            upright = _shapes_turned(written, size, orientation)
            for name in stored.keys() & upright.keys():
                if upright[name] == _plain(holder[name]):  # nobody has moved it since
                    stored[name] = written[name]
        changed = {**holder, **stored}
        changed.pop(AS_STORED, None)
        return changed

    return {**_with_each_box(record, turned), "width": size[0], "height": size[1]}


def _with_each_box(
    record: Mapping[str, Any], turned: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    # Malformed values stay: what reads the record later says what is wrong with them.
    def each(items: Any, change: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Any:
        if not isinstance(items, (list, tuple)):
            return items
        return [change(item) if isinstance(item, Mapping) else item for item in items]

    def with_instances(expression: Mapping[str, Any]) -> dict[str, Any]:
        if "instances" not in expression:
            return dict(expression)
        return {**expression, "instances": each(expression["instances"], turned)}

    changed = dict(record)
    if "expressions" in changed:
        changed["expressions"] = each(changed["expressions"], with_instances)
    if "regions" in changed:
        changed["regions"] = each(changed["regions"], turned)
    return changed


def _shapes_turned(holder: Mapping[str, Any], size: Size, orientation: int) -> dict[str, Any]:
    shapes: dict[str, Any] = {}
    box: Any = holder.get("bbox")
    if is_box(box):
        shapes["bbox"] = _box_turned(box, size, orientation)
    for name in _OUTLINES:
        outline = holder.get(name)
        if isinstance(outline, Mapping):
            shapes[name] = _mask_turned(outline, size, orientation)
        elif outline is not None:
            shapes[name] = _outline_turned(name, outline, size, orientation)
    return shapes


def _box_turned(box: Sequence[float], size: Size, orientation: int) -> list[float]:
    # Of each side the smaller number comes first. A box that ends before it begins still does.
    x1, y1 = upright_point(box[0], box[1], size, orientation)
    x2, y2 = upright_point(box[2], box[3], size, orientation)
    xs, ys = [x1, x2], [y1, y2]
    if box[0] <= box[2] and box[1] <= box[3]:
        xs.sort()
        ys.sort()
    return [xs[0], ys[0], xs[1], ys[1]]


def _mask_turned(mask: Mapping[str, Any], size: Size, orientation: int) -> dict[str, Any]:
    check_rle(mask, size)
    inside = pixels(mask)
    # the same steps as of a point
    if orientation in _COLUMNS_MIRRORED:
        inside = inside[:, ::-1]
    if orientation in _ROWS_MIRRORED:
        inside = inside[::-1]
    return {**mask, **rle_of(inside.T if orientation >= _ON_ITS_SIDE else inside)}


def _outline_turned(name: str, outline: Any, size: Size, orientation: int) -> list[Any]:
    # An outline is x, y, x, y, … in one list, or a list of such, or of points.
    if not isinstance(outline, (list, tuple)):
        raise BrokenRow(f"{name!r} should be a list of points, or a mask with counts and size")
    if not all(map(is_number, outline)):
        return [_outline_turned(name, part, size, orientation) for part in outline]
    if len(outline) % 2:
        raise BrokenRow(f"{name!r} has {len(outline)} numbers in a row: x and y are two of each")
    numbers: list[float] = []
    for place in range(0, len(outline), 2):
        numbers += upright_point(outline[place], outline[place + 1], size, orientation)
    return numbers


def _plain(shape: Any) -> Any:
    # Tuples as lists, so that equal shapes compare equal.
    return [_plain(part) for part in shape] if isinstance(shape, (list, tuple)) else shape
