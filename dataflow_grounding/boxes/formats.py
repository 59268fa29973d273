"""Which box format a model writes, by its name or by that of the format.

The formats are the rows of box_formats.yaml (the contract table, one row for each family of
models), rows of the user's own, and plain names such as `xyxy_1000` or `xyxy_px@smart_resize_28`:
an order, a scale and perhaps a frame.
"""

import difflib
import fnmatch
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.lazy import load_table
from dataflow_grounding._util.settings import setting
from dataflow_grounding.boxes._model_names import bare_names, is_of_family, squeezed
from dataflow_grounding.boxes.coordinates import ORDERS, SCALES, BoxFormat, FrameMap, frame_of
from dataflow_grounding.data.records import JsonObject

# The name of a plain format: an order, a scale and perhaps a frame, as in xyxy_1000, yxyx_1 or
# xyxy_px@smart_resize_28.
_PLAIN = re.compile(
    rf"(?P<order>{'|'.join(ORDERS)})_(?P<scale>px|[1-9]\d{{0,5}})(?:@(?P<frame>\S+))?"
)


MOST_NUMBER = 1e9  # that a map may have for an edge


@lru_cache(maxsize=1)
def known_formats() -> Mapping[str, BoxFormat]:
    """Return the formats of the contract table, box_formats.yaml, by family."""
    families: Mapping[str, JsonObject] = load_table(__package__, "box_formats.yaml")["families"]
    return {name: _format_from_row(name, row) for name, row in families.items()}


def find_box_format(name: str, model: str, rows: Sequence[JsonObject] = ()) -> BoxFormat:
    """Return the format of a name: `auto`, a plain format, or a family; the user's `rows` go first.

    Raises SpecError for an unknown name, and with `auto` for an unknown model: it never guesses.
    """
    lower_name = name.strip().lower()
    if lower_name == "calibrated":
        raise SpecError(
            f"{setting('vlm.box_format')} is 'calibrated', but no calibration is stored for"
            f" {model!r}; state a format instead"
        )
    if lower_name == "auto":
        return _usable(_by_model_name(model, rows))
    format_of_name = dict(known_formats())
    # The user's rows replace the table's. Of two rows with one name the first counts: in reversed
    # order, it replaces the second.
    for own in reversed(_own_formats(rows)):
        format_of_name[own.name.lower()] = own
    if lower_name in format_of_name:
        return _usable(format_of_name[lower_name])
    match = _PLAIN.fullmatch(lower_name)
    if match is None:
        raise _unknown(name, list(format_of_name))
    scale = match["scale"] if match["scale"] == "px" else int(match["scale"])
    frame = match["frame"] or "sent"
    return _format_from_row(lower_name, {"order": match["order"], "scale": scale, "frame": frame})


def _by_model_name(model: str, rows: Sequence[JsonObject]) -> BoxFormat:
    box_format = format_of_model(model, rows)
    if box_format is not None and box_format.verified:
        return box_format
    candidate = ""
    if box_format is not None:
        candidate = f" (candidate: {box_format.name}, which nobody has confirmed)"
    raise SpecError(
        f"it is not known how the model {model!r} writes boxes{candidate}: state it, as in"
        f" {setting('vlm.box_format', 'xyxy_1000')} (or yxyx_1000, xyxy_px, xyxy_1, or a family"
        " such as gemini, qwen2.5-vl or qwen3-vl)"
    )


def _usable(box_format: BoxFormat) -> BoxFormat:
    if not box_format.boxes:
        raise SpecError(
            f"models of the family {box_format.name!r} answer with {box_format.key}s, not boxes:"
            " use another model"
        )
    return box_format


def _unknown(name: str, families: Sequence[str]) -> SpecError:
    plain = [f"{order}_{scale}" for order, scale in product(ORDERS, SCALES)]
    known = [*families, *plain, "auto", "calibrated"]
    close = difflib.get_close_matches(name.strip().lower(), known, n=1, cutoff=0.5)
    nearest = f": did you mean {close[0]!r}?" if close else "."
    return SpecError(
        f"unknown {setting('vlm.box_format')} {name!r}{nearest} Use auto, a plain format"
        f" ({', '.join(ORDERS)} with px or a whole number, as in xyxy_1000), or a family such as"
        " gemini or qwen2.5-vl"
    )


def format_of_model(model: str, rows: Sequence[JsonObject] = ()) -> BoxFormat | None:
    """Return the format of a model by the longest name or pattern that it falls under.

    The user's rows go before the table. The format may be one that nobody has confirmed, or one of
    points instead of boxes.
    """
    names = bare_names(model)
    of_own_rows: list[_Match] = []
    for own in _own_formats(rows):
        for pattern in map(squeezed, own.models):  # "myqwen*" for "My-Qwen*"
            if fnmatch.filter(names, pattern):
                of_own_rows.append(_Match(pattern, own))
    if of_own_rows:
        return _longest(of_own_rows)
    of_table: list[_Match] = []
    for family in known_formats().values():
        for name in family.models:
            if is_of_family(model, name):
                of_table.append(_Match(squeezed(name), family))
    return _longest(of_table) if of_table else None


class _Match(NamedTuple):
    """A name or pattern of a row that a model's name falls under, and the row's format."""

    name: str
    format: BoxFormat


def _longest(matches: Sequence[_Match]) -> BoxFormat:
    longest = max(matches, key=lambda match: len(match.name))  # of equally long ones, the first
    return longest.format


def _own_formats(rows: Sequence[JsonObject]) -> list[BoxFormat]:
    formats = []
    for number, row in enumerate(rows, start=1):
        name = str(row.get("name", f"row {number}"))
        formats.append(_format_from_row(name, row))
    return formats


def _format_from_row(name: str, row: JsonObject) -> BoxFormat:
    try:
        _check_row(row)
        order = row.get("order", "xyxy")
        values = dict(row)
        values["name"] = name
        values["order"] = order
        for key in ("frame", "words", "source", "date"):
            if row.get(key):
                values[key] = str(row[key])  # YAML reads some of them as dates or numbers
        usual_key = "box_2d" if order == "yxyx" else "bbox_2d"  # Gemini's, and Qwen's
        values["key"] = str(row.get("key") or usual_key)
        values["offset"] = float(row.get("offset", 0.0))
        models = row.get("models") or ()  # a list, or one name
        values["models"] = (models,) if isinstance(models, str) else tuple(map(str, models))
        values["maps"] = tuple(map(map_of, row.get("maps") or ()))
        box_format = BoxFormat(**values)
        frame_of(box_format.frame, (1, 1))  # raises where the frame isn't known
        return box_format
    except (TypeError, ValueError, AttributeError) as error:
        raise SpecError(f"box format {name!r}: {error}") from None


def map_of(row: JsonObject) -> FrameMap:
    """Return the numbers that a model writes for a picture's edges, by a row of `maps`."""
    if set(row) != {"size", "first", "last", "error"}:
        raise ValueError("a map has size, first, last and error")
    # {"size": [1024, 768], "first": [0, 0], "last": [1000, 1000], "error": 0.002}
    width, height = row["size"]
    left, top, right, bottom = map(float, (*row["first"], *row["last"]))
    error = float(row["error"])
    if type(width) is not int or type(height) is not int or min(width, height) < 1:
        raise ValueError("the size of a map is two whole numbers above 0")
    if not all(abs(number) <= MOST_NUMBER for number in (left, top, right, bottom, error)):
        raise ValueError(f"a number of a map is beyond {MOST_NUMBER:g}")
    if left >= right or top >= bottom or not 0 <= error <= 1:
        raise ValueError(
            "the numbers of a map grow to the right and downwards, and its error is from 0 to 1"
        )
    return FrameMap((width, height), (left, top), (right, bottom), error)


def _check_row(row: JsonObject) -> None:
    _check_order_and_scale(row)
    # A key `ordr` that nobody notices would leave the usual order, and every box would be wrong.
    for key in row:
        if key not in BoxFormat.__dataclass_fields__:
            raise ValueError(
                f"{key!r} is not a key of a row; the keys are"
                f" {', '.join(BoxFormat.__dataclass_fields__)}"
            )
    for key in ("bins", "verified", "boxes"):
        if not isinstance(row.get(key, False), bool):
            raise ValueError(f"{key} must be true or false, not {row[key]!r}")
    if not math.isfinite(float(row.get("offset", 0.0))):
        raise ValueError("offset must be a finite number")
    if row.get("maps") and row["scale"] != "px":
        raise ValueError("maps are of pixels: scale has to be px")
    if row.get("bins") and row["scale"] == 1:  # the highest number would be 0
        raise ValueError("with bins, scale must be above 1")


def _check_order_and_scale(row: JsonObject) -> None:
    scale = row.get("scale")
    is_whole_number = type(scale) is int and 0 < scale < 10**6  # `type`: True is no scale
    is_scale = is_whole_number or scale in ("px", "grid_32")
    is_order = row.get("order", "xyxy") in ORDERS
    if not is_order or not is_scale:
        raise ValueError(
            f"order must be one of {', '.join(ORDERS)}; scale px, grid_32 or a whole number from 1"
            " to 999999"
        )
