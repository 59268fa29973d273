"""How records and `Grounded` show themselves: a picture with its boxes.

In a notebook there is a table beneath it.
"""

import html
import io
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.boxes.geometry import ordered
from dataflow_grounding.data.records import Record, is_number, read_annotations, read_expressions
from dataflow_grounding.images.files import decode
from dataflow_grounding.images.image import find_image, url_of
from dataflow_grounding.images.in_memory import as_path

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

    from dataflow_grounding.images.drawing import Mark

IN_A_PAGE = 480  # pixels: most that a picture in a notebook has each way
ROWS_IN_A_PAGE = 200
MOST_TEXT = 2000  # characters of a text in a page, as in record.js: a megabyte takes a browser 15 s
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")


class Shown:
    """What shows itself as a picture with boxes."""

    __slots__ = ()

    @abstractmethod
    def shown_picture(self) -> "PillowImage":
        """The picture, upright, RGB. Raises RecordError."""

    @abstractmethod
    def shown_expressions(self) -> list[dict[str, Any]]:
        """What is drawn: `text`, and `instances` with a `bbox` in pixels each. Raises BrokenRow."""

    def draw(self) -> "PillowImage":
        """The picture with its boxes and their labels drawn in.

        Returns:
            A PIL image of the upright picture's size, RGB.

        Raises:
            GroundingError: The picture is not there or can't be read, or boxes are not of four
                numbers.
        """
        from dataflow_grounding.images.drawing import draw_marks

        return draw_marks(self.shown_picture(), marks_of(self.shown_expressions()))

    def _repr_html_(self) -> str | None:
        parts = []
        with suppress(Exception):  # a notebook shows what there is; None leaves it to repr()
            data = small_copy(self.draw(), IN_A_PAGE, "JPEG", quality=85)
            parts.append(f'<img alt="" src="{url_of(data, "image/jpeg").decode()}">')
        with suppress(Exception):
            rows = []
            for e in self.shown_expressions():
                status = ": ".join(str(e[name]) for name in ("status", "reason") if e.get(name))
                for i in e["instances"] or [{"bbox": ()}]:
                    score = [i["score"]] if is_number(i.get("score")) else []
                    rows.append((e["text"], status, _numbers(i["bbox"]), _numbers(score)))
            parts.append(table(("phrase", "status", "box (px)", "score"), rows))
        return "".join(parts) or None


class ShownRecord(Shown, Record):
    """A record that an operator gives back in Python: a dict that shows itself.

    Its `image_key` is its picture's column.
    """

    __slots__ = ("image_key",)
    image_key: str

    @classmethod
    def of(cls, record: Record, image_key: str, update: Mapping[str, Any]) -> "ShownRecord":
        """The record with the columns of `update` set."""
        shown = cls(
            {**record, **update}, record.folders, record.occurrence, record.image_id, record.place
        )
        shown.image_key = image_key
        return shown

    def shown_picture(self) -> "PillowImage":
        """The picture of its column, a file or in memory."""
        path = as_path(self.get(self.image_key), self.image_key)
        return decode(find_image(super().updated({self.image_key: path}), self.image_key).path)

    def updated(self, update: Mapping[str, Any]) -> "ShownRecord":
        """A copy with the columns of `update` set."""
        return self.of(self, self.image_key, update)

    def shown_expressions(self) -> list[dict[str, Any]]:
        """Its expressions, in whichever column they were put last.

        Without any, its regions with their texts.
        """
        for key in reversed(self):
            value = self[key]
            if not isinstance(value, list) or not value:
                continue
            if all(isinstance(item, dict) and "instances" in item for item in value):
                return read_expressions(self, key)
        for key in ("region_captions", "regions"):
            if isinstance(self.get(key), list):
                return read_annotations(Record({key: self[key]}))
        return read_annotations(self) if "expressions" in self else []

    def counts(self) -> tuple[int, int]:
        """How many expressions and boxes it has; none where they can't be read."""
        with suppress(RecordError):
            expressions = self.shown_expressions()
            return len(expressions), sum(len(row["instances"]) for row in expressions)
        return 0, 0


def marks_of(expressions: Sequence[Mapping[str, Any]]) -> "list[Mark]":
    """One mark per instance, labelled with its expression, whose instances share a color."""
    from dataflow_grounding.images.drawing import Mark, palette_color

    boxed = [expression for expression in expressions if expression["instances"]]
    marks = []
    for number, expression in enumerate(boxed):
        color = palette_color(number)
        for instance in expression["instances"]:
            dashed = instance.get("evidence") == "region"
            marks.append(Mark(ordered(instance["bbox"]), expression["text"], color, dashed))
    return marks


def small_copy(picture: "PillowImage", side: int, kind: str, **how: Any) -> bytes:
    """A copy without metadata, at most so many pixels wide and high.

    The picture itself is then as small, too.
    """
    picture.info.clear()
    picture.thumbnail((side, side), reducing_gap=2.0)
    out = io.BytesIO()
    picture.save(out, kind, **how)
    return out.getvalue()


def page_text(value: Any) -> str:
    r"""The one way of data into HTML and SVG, also inside attributes: `value` as text.

    These are its first 2,000 characters.
    Characters that no page may have are replaced, and those that turn the reading direction spelt
    out.

    Example:
        >>> page_text("<b>\u202egnp")
        '&lt;b&gt;[U+202E]gnp'
    """
    whole = str(value)
    more = f"… ({len(whole):,} characters)" if len(whole) > MOST_TEXT else ""
    text = _CONTROLS.sub("\ufffd", whole[:MOST_TEXT] + more)
    text = _BIDI_CONTROLS.sub(lambda match: f"[U+{ord(match[0]):04X}]", text)
    return html.escape(text, quote=True)  # noqa: TID251


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """An HTML table, everything in it escaped; of a long one the beginning."""

    def line(cells: Sequence[Any], kind: str) -> str:
        return f"<tr>{''.join(f'<{kind}>{page_text(cell)}</{kind}>' for cell in cells)}</tr>"

    more = f"<p>… and {len(rows) - ROWS_IN_A_PAGE} more</p>" if len(rows) > ROWS_IN_A_PAGE else ""
    body = "".join(line(row, "td") for row in rows[:ROWS_IN_A_PAGE])
    return f"<table>{line(heads, 'th')}{body}</table>{more}"


def _numbers(box: Sequence[float]) -> str:
    return ", ".join(f"{n:g}" if is_number(n) else str(n) for n in box)
