"""How records and `Grounded` show themselves: as a picture with its boxes (`Shown`).

In a notebook there is a table beneath it. All that comes from data is escaped by `page_text`.
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
from dataflow_grounding.data.expressions import Expression, read_any_expressions, read_expressions
from dataflow_grounding.data.records import Record
from dataflow_grounding.images.files import decode
from dataflow_grounding.images.image import find_file, url_of
from dataflow_grounding.images.in_memory import as_path

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

    from dataflow_grounding.images.drawing import Mark

IN_A_PAGE = 480  # pixels of the longer side of a picture in a notebook, at the most
ROWS_IN_A_PAGE = 200  # rows of a table, at the most
# Characters of a text in a page, at the most; record.js has the same. A text of a megabyte takes a
# browser 15 s.
MOST_TEXT = 2000
# What no page may have: control characters but tab and new line, halves of surrogate pairs, and
# what is no character.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
# What turns the direction of reading, such as U+202E.
_BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")


class Shown:
    """Base class of objects that show themselves as a picture with boxes."""

    __slots__ = ()

    @abstractmethod
    def shown_picture(self) -> "PillowImage":
        """Return the picture, upright, RGB. Raises RecordError."""

    @abstractmethod
    def shown_expressions(self) -> list[Expression]:
        """Return what is drawn: expressions with their boxes."""

    def draw(self) -> "PillowImage":
        """Return the upright picture, RGB, with its boxes and their labels drawn in.

        Raises GroundingError where the picture or the expressions can't be read.
        """
        from dataflow_grounding.images.drawing import draw_marks

        return draw_marks(self.shown_picture(), marks_of(self.shown_expressions()))

    def _repr_html_(self) -> str | None:
        """Return HTML of what can be made, the picture and a table; None has repr() shown."""
        parts = []
        with suppress(Exception):
            data = small_copy(self.draw(), IN_A_PAGE, "JPEG", quality=85)
            parts.append(f'<img alt="" src="{url_of(data, "image/jpeg").decode()}">')
        with suppress(Exception):
            parts.append(_table_of_boxes(self.shown_expressions()))
        return "".join(parts) or None


class ShownRecord(Shown, Record):
    """A record that an operator returns in Python: a dict that shows itself as a picture."""

    __slots__ = ("image_key",)
    image_key: str

    @classmethod
    def of(cls, record: Record, image_key: str, update: Mapping[str, Any]) -> "ShownRecord":
        shown = cls(
            {**record, **update}, record.folders, record.occurrence, record.image_id, record.place
        )
        shown.image_key = image_key
        return shown

    def shown_picture(self) -> "PillowImage":
        path = as_path(self.get(self.image_key), self.image_key)
        return decode(find_file(path, self.folders, self.image_key).path)

    def updated(self, update: Mapping[str, Any]) -> "ShownRecord":
        return self.of(self, self.image_key, update)

    def shown_expressions(self) -> list[Expression]:
        """Return the expressions of the column that was added last and is a list of such.

        Without one, they are made of region captions, of regions, or of texts without boxes.
        """
        for key in reversed(self):  # a dict keeps the order in which columns were added
            if _are_grounded(self[key]):
                return read_expressions(self, key)
        for key in ("region_captions", "regions"):
            if isinstance(self.get(key), list):
                # of the whole record, another column might be read
                only_this_column = Record({key: self[key]})
                return read_any_expressions(only_this_column)
        return read_any_expressions(self) if "expressions" in self else []

    def counts(self) -> tuple[int, int]:
        """Return how many expressions and boxes it has; 0 and 0 where they can't be read."""
        with suppress(RecordError):
            expressions = self.shown_expressions()
            return len(expressions), sum(len(item.instances) for item in expressions)
        return 0, 0


def _are_grounded(value: Any) -> bool:
    """Return whether a column is a list of expressions with boxes."""
    if not isinstance(value, list) or not value:  # an empty list may be one of anything
        return False
    return all(isinstance(item, dict) and "instances" in item for item in value)


def marks_of(expressions: Sequence[Expression]) -> "list[Mark]":
    """Return a mark for each instance; those of an expression share a colour."""
    from dataflow_grounding.images.drawing import Mark, palette_color

    # an expression without instances takes no colour
    boxed = [expression for expression in expressions if expression.instances]
    marks = []
    for number, expression in enumerate(boxed):
        color = palette_color(number)
        for instance in expression.instances:
            dashed = instance.evidence == "region"
            marks.append(Mark(ordered(instance.bbox), expression.text, color, dashed))
    return marks


def small_copy(picture: "PillowImage", side: int, format_name: str, **settings: Any) -> bytes:
    """Return an image file of at most `side` px a side; `picture` itself is made small, too."""
    picture.info.clear()  # else its color profile and other metadata are written, too
    picture.thumbnail((side, side), reducing_gap=2.0)
    file = io.BytesIO()
    picture.save(file, format_name, **settings)
    return file.getvalue()


def page_text(value: Any) -> str:
    """Return a value as text for HTML and SVG, attributes included. Data get into pages only so."""
    whole = str(value)
    more = f"… ({len(whole):,} characters)" if len(whole) > MOST_TEXT else ""
    text = _CONTROLS.sub("\ufffd", whole[:MOST_TEXT] + more)
    text = _BIDI_CONTROLS.sub(lambda match: f"[U+{ord(match[0]):04X}]", text)
    return html.escape(text, quote=True)  # noqa: TID251


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return an HTML table of the first ROWS_IN_A_PAGE rows, with everything in it escaped."""
    more = ""
    if len(rows) > ROWS_IN_A_PAGE:
        more = f"<p>… and {len(rows) - ROWS_IN_A_PAGE} more</p>"
    body = "".join(_table_row(row, "td") for row in rows[:ROWS_IN_A_PAGE])
    return f"<table>{_table_row(heads, 'th')}{body}</table>{more}"


def _table_of_boxes(expressions: Sequence[Expression]) -> str:
    rows = []
    for expression in expressions:
        status = ": ".join(filter(None, [expression.status, expression.reason]))
        if not expression.instances:
            rows.append((expression.text, status, "", ""))
        for instance in expression.instances:
            score_text = "" if instance.score is None else _numbers([instance.score])
            rows.append((expression.text, status, _numbers(instance.bbox), score_text))
    return table(("phrase", "status", "box (px)", "score"), rows)


def _table_row(cells: Sequence[Any], tag: str) -> str:
    in_tags = [f"<{tag}>{page_text(cell)}</{tag}>" for cell in cells]
    return f"<tr>{''.join(in_tags)}</tr>"


def _numbers(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
