"""Box formats: what the numbers of a box mean to a model, translated exactly to pixels of the original image and back."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Any, Literal, TypeAlias

from dataflow_grounding.errors import SpecError
from dataflow_grounding.frames import GRID, Order, cells_to_fractions, fractions_to_cells, frame_of, from_xyxy, to_xyxy
from dataflow_grounding.geometry import Bbox, Size
from dataflow_grounding.model_names import bare_names, check_row, is_of_family, squeezed

Scale: TypeAlias = int | Literal["px", "grid_32"]

ORDERS: tuple[Order, ...] = ("xyxy", "yxyx", "xywh", "cxcywh")
SCALES: tuple[Scale, ...] = ("px", 1, 100, 1000, 999, 1024)
"""The scales that models are known to use, and that are tried where it isn't known; any whole number can be stated."""

_ORDER_WORDS: dict[Order, str] = {
    "xyxy": "[x1, y1, x2, y2], the top left corner and the bottom right corner, x before y",
    "yxyx": "[y1, x1, y2, x2], the top left corner and the bottom right corner, y before x",
    "xywh": "[x, y, width, height], the top left corner, then the size",
    "cxcywh": "[x, y, width, height], the middle of the box, then the size",
}
_PLAIN = re.compile(rf"(?P<order>{'|'.join(ORDERS)})_(?P<scale>px|[1-9]\d{{0,5}})(?:@(?P<frame>\S+))?")


@dataclass(frozen=True)
class BoxFormat:
    """One box convention.

    `key` names a box in JSON. `order` is the order of the four numbers. `scale` says what stands for the whole side: `px`
    (the side in pixels), a number, or `grid_32` (two cell numbers of a 32 x 32 grid instead of four). `offset` is added to
    a number before it is divided by `scale`; `bins` says that the highest number is `scale - 1`. `frame` is the picture
    that the numbers refer to (see `frame_of`); it matters only for `px` and for padded frames, as fractions survive a
    resize. `verified` is false for a convention that nobody has confirmed for the model.
    """

    name: str
    key: str
    order: Order
    scale: Scale
    frame: str = "sent"
    offset: float = 0.0
    bins: bool = False
    words: str = ""
    verified: bool = True
    boxes: bool = True
    models: tuple[str, ...] = ()
    source: str = ""
    date: str = ""

    def instructions(self, sent: Size) -> str:
        """Return the sentences for a prompt that state the key, order, scale and frame; `sent` is the picture as sent."""
        if self.scale == "grid_32":
            form = (
                "the two numbers of the cells that hold its top left and its bottom right corner, in a grid of 32 x 32 cells "
                "laid over the picture and numbered from 0 row by row"
            )
            sentences = [f'Write a box under the key "{self.key}" as {form}.']
        else:
            sentences = [
                f'Write a box under the key "{self.key}" as {_ORDER_WORDS[self.order]}, {self._scale_words(sent)}.'
            ]
            sentences.append("x grows to the right and y downwards from the top left corner of the picture.")
        return " ".join([*sentences, self.words] if self.words else sentences)

    def _scale_words(self, sent: Size) -> str:
        if self.scale == "px":
            canvas = frame_of(self.frame, sent)
            return (
                f"in whole pixels of the picture, which is {canvas.width:.0f} px wide and {canvas.height:.0f} px high"
            )
        top = self.limits(sent)[0]
        usual = "numbers" if self._decimals else "whole numbers"
        numbers = "fractions" if self.scale == 1 else "per cent" if self.scale == 100 else usual
        return f"in {numbers} from 0 to {top:g}: x in parts of the picture's width, y in parts of its height, whatever its shape"

    @property
    def _decimals(self) -> int:
        """How many a model writes: 4 for fractions, 2 for per cent, none for more than a hundred steps."""
        return 5 - len(str(self.scale)) if isinstance(self.scale, int) and self.scale <= 100 else 0

    def limits(self, sent: Size) -> tuple[float, float]:
        """Return the highest number that x and y can take, for a picture sent in the size `sent`."""
        if self.scale == "px":
            canvas = frame_of(self.frame, sent)
            return canvas.width, canvas.height
        if self.scale == "grid_32":
            return GRID * GRID - 1, GRID * GRID - 1
        top = self.scale - 1 if self.bins else self.scale
        return top, top

    def to_pixels(self, numbers: Sequence[float], *, original: Size, sent: Size | None = None) -> Bbox:
        """Return the box that `numbers` mean, as float xyxy pixels of the original upright image, neither sorted nor clamped.

        `original` and `sent` are (width, height); `sent` defaults to `original`. Raises ValueError when there are not four
        numbers (two for a grid).
        """
        if self.scale == "grid_32":
            x1, y1, x2, y2 = cells_to_fractions(numbers)
            return x1 * original[0], y1 * original[1], x2 * original[0], y2 * original[1]
        sides = self._sides(original, sent)
        x1, y1, x2, y2 = (self._to_side(n, *sides[i % 2]) for i, n in enumerate(to_xyxy(numbers, self.order)))
        return x1, y1, x2, y2

    def point_to_pixels(
        self, point: Sequence[float], *, original: Size, sent: Size | None = None
    ) -> tuple[float, float]:
        """Return a point, written in this format's order of x and y, scale and frame, as x and y in pixels of the original."""
        x, y = point[::-1] if self.order == "yxyx" else point
        x1, y1, _, _ = replace(self, order="xyxy").to_pixels((x, y, x, y), original=original, sent=sent)
        return x1, y1

    def from_pixels(
        self, bbox: Bbox, *, original: Size, sent: Size | None = None, rounded: bool = True
    ) -> list[float | int]:
        """Return the numbers for a box given as xyxy pixels of the original upright image.

        Rounded as a model would write them (whole numbers; with decimals for scales up to 100) and kept inside the
        range, unless `rounded` is false. A grid has whole cells either way.
        """
        if self.scale == "grid_32":
            return list(fractions_to_cells(bbox, original))
        sides = self._sides(original, sent)
        corners = [self._from_side(value, *sides[i % 2]) for i, value in enumerate(bbox)]
        if not rounded:
            return list(from_xyxy(corners, self.order))
        decimals = self._decimals
        limits = self.limits(sent or original)
        kept = [round(min(max(value, 0.0), limits[i % 2]), decimals) for i, value in enumerate(corners)]
        _keep_apart(kept, limits, 10.0**-decimals)
        values = [round(value, decimals) for value in from_xyxy(kept, self.order)]
        return list(values) if decimals else [int(value) for value in values]

    def _sides(self, original: Size, sent: Size | None) -> tuple[tuple[float, float, float, int], ...]:
        """Of x and of y: the frame's side, where the image begins on it and how long it is there, and its original length."""
        canvas = frame_of(self.frame, sent or original)
        across = (canvas.width, canvas.left, canvas.image_width, original[0])
        return across, (canvas.height, canvas.top, canvas.image_height, original[1])

    def _to_side(self, value: float, side: float, start: float, image_side: float, original: int) -> float:
        if self.scale == "px":
            return (value + self.offset - start) * original / image_side
        assert isinstance(self.scale, int)
        if image_side == side:
            return (value + self.offset) * original / self.scale
        return ((value + self.offset) * side / self.scale - start) * original / image_side

    def _from_side(self, pixels: float, side: float, start: float, image_side: float, original: int) -> float:
        inside = pixels * image_side / original + start
        if self.scale == "px":
            return inside - self.offset
        assert isinstance(self.scale, int)
        return inside * self.scale / side - self.offset


def _keep_apart(corners: list[float], limits: tuple[float, float], unit: float) -> None:
    """Widen a box that rounding has left without width or height by one unit, inside the range."""
    for i in (0, 1):
        if corners[i + 2] <= corners[i]:
            corners[i] = min(corners[i], limits[i] - unit)
            corners[i + 2] = corners[i] + unit


@lru_cache(maxsize=1)
def known_formats() -> Mapping[str, BoxFormat]:
    """Return the contract table: family name → its format, as written in box_formats.yaml."""
    import yaml

    text = resources.files(__package__).joinpath("box_formats.yaml").read_text(encoding="utf-8")
    families: dict[str, dict[str, Any]] = yaml.safe_load(text)["families"]
    return {name: _format_from_row(name, row) for name, row in families.items()}


def find_box_format(name: str, model: str, rows: Sequence[Mapping[str, Any]] = ()) -> BoxFormat:
    """Return the box format that a spec's `vlm.box_format` names.

    `name` is `auto` (by the model's name, also behind router prefixes and with dates or quantisation after it), a plain
    format such as `xyxy_px`, `yxyx_1000`, `xyxy_512` or `xyxy_px@smart_resize_28`, or a family of the contract table. `rows`
    are the user's own rows, looked at first: mappings with `models`, `order`, `scale`, and optionally `name`, `key`, `frame`,
    `offset`, `bins`, `words`. Raises SpecError when the name or, for `auto`, the model is not known: never a guess.
    """
    own = [_format_from_row(str(row.get("name", f"row {i}")), row) for i, row in enumerate(rows, start=1)]
    wanted = name.strip().lower()
    if wanted == "calibrated":
        raise SpecError(
            f"vlm.box_format is 'calibrated', but no calibration is stored for {model!r}; state a format instead"
        )
    if wanted == "auto":
        found = _by_model(model, own) or format_of_model(model)
        if found is None or not found.verified:
            raise SpecError(_unknown_model(model, found))
        return _with_boxes(found)
    for candidate in own:
        if candidate.name.lower() == wanted:
            return candidate
    if wanted in known_formats():
        return _with_boxes(known_formats()[wanted])
    plain = _plain_format(wanted)
    if plain is None:
        raise SpecError(_unknown_name(name))
    return plain


def _with_boxes(found: BoxFormat) -> BoxFormat:
    if not found.boxes:
        raise SpecError(f"models of the family {found.name!r} answer with points, not boxes: use another model")
    return found


def _unknown_model(model: str, candidate: BoxFormat | None) -> str:
    hint = f" (candidate: {candidate.name}, which nobody has confirmed)" if candidate is not None else ""
    return (
        f"it is not known how the model {model!r} writes boxes{hint}: state it as vlm.box_format, for example xyxy_1000, "
        "yxyx_1000, xyxy_px, xyxy_1, or a family such as gemini, qwen2.5-vl or qwen3-vl"
    )


def _unknown_name(name: str) -> str:
    plain = [f"{order}_{scale}" for order in ORDERS for scale in SCALES]
    close = difflib.get_close_matches(
        name.strip().lower(), [*known_formats(), *plain, "auto", "calibrated"], n=1, cutoff=0.5
    )
    nearest = f": did you mean {close[0]!r}?" if close else "."
    return (
        f"unknown vlm.box_format {name!r}{nearest} Use auto, a plain format ({', '.join(ORDERS)} with px or a whole number, as "
        "in xyxy_1000), or a family such as gemini or qwen2.5-vl"
    )


def _plain_format(name: str) -> BoxFormat | None:
    match = _PLAIN.fullmatch(name)
    if match is None:
        return None
    order = next(known for known in ORDERS if known == match["order"])
    scale: Scale = "px" if match["scale"] == "px" else int(match["scale"])
    frame = match["frame"] or "sent"
    frame_of(frame, (1, 1))
    return BoxFormat(name, "box_2d" if order == "yxyx" else "bbox_2d", order, scale, frame)


def format_of_model(model: str, rows: Sequence[Mapping[str, Any]] = ()) -> BoxFormat | None:
    """Return the format of the user's own row, or else of the contract table's, that the model's name falls under.

    It may be a candidate that nobody has confirmed (`verified`), or one of points (`boxes`). Raises SpecError for a bad row.
    """
    own = [_format_from_row(str(row.get("name", f"row {i}")), row) for i, row in enumerate(rows, start=1)]
    return _by_model(model, own) or _family_of(model)


def _by_model(model: str, formats: Iterable[BoxFormat]) -> BoxFormat | None:
    names = bare_names(model)
    best: tuple[int, BoxFormat] | None = None
    for candidate in formats:
        for pattern in map(squeezed, candidate.models):
            if any(fnmatch.fnmatchcase(name, pattern) for name in names) and (best is None or len(pattern) > best[0]):
                best = len(pattern), candidate
    return best[1] if best else None


def _family_of(model: str) -> BoxFormat | None:
    # The longest beginning wins: "gpt-5.2" is none of the "gpt-5".
    families = known_formats().values()
    found = [(len(squeezed(name)), row) for row in families for name in row.models if is_of_family(model, name)]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _format_from_row(name: str, row: Mapping[str, Any]) -> BoxFormat:
    try:
        models = row.get("models", ())
        order: Any = row.get("order", "xyxy")
        scale: Any = row.get("scale")
        if order not in ORDERS or not (scale in ("px", "grid_32") or (type(scale) is int and 0 < scale < 10**6)):
            raise ValueError(f"order must be one of {', '.join(ORDERS)} and scale px, grid_32 or a whole number from 1")
        check_row(row, BoxFormat.__dataclass_fields__)
        frame_of(frame := str(row.get("frame", "sent")), (1, 1))
        return BoxFormat(
            name=name,
            key=str(row.get("key") or ("box_2d" if order == "yxyx" else "bbox_2d")),
            order=order,
            scale=scale,
            frame=frame,
            offset=float(row.get("offset", 0.0)),
            bins=bool(row.get("bins", False)),
            words=str(row.get("words", "")),
            verified=bool(row.get("verified", True)),
            boxes=bool(row.get("boxes", True)),
            models=(models,) if isinstance(models, str) else tuple(str(pattern) for pattern in models),
            source=str(row.get("source", "")),
            date=str(row.get("date", "")),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise SpecError(f"box format {name!r}: {error}") from None
