"""Records in a notebook: shown with their boxes, and reviewed in a cell by the page that `review`
serves.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from dataflow_grounding._util.errors import GroundingError, InputError, RecordError, needs_extra
from dataflow_grounding.data.dataframes import from_dataframe, plain_row
from dataflow_grounding.data.records import Record, parse_line
from dataflow_grounding.data.rows import write_rows
from dataflow_grounding.extras.review._decisions import listed
from dataflow_grounding.extras.review._door_html import page_file
from dataflow_grounding.extras.review._record_view import why_missing
from dataflow_grounding.extras.review.queues import Reviewable
from dataflow_grounding.extras.review.session import Session, page_files
from dataflow_grounding.images.display import ShownRecord
from dataflow_grounding.images.image import url_of

if TYPE_CHECKING:
    from pandas import DataFrame

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:;"
    " base-uri 'none'"
)


def show(record: Mapping[str, Any], image_root: str | None = None) -> ShownRecord:
    """A record, such as a line of a file, as one that a notebook shows: its picture with boxes, and
    a table.

    Relative paths of pictures are looked for in the record's own folders, else in `image_root`,
    else here.

    Example:
        >>> show({"image_path": "a.png", "expressions": ["a mug"]}).counts()
        (1, 0)
    """
    if not isinstance(record, Mapping):  # a row of a DataFrame, say
        record = plain_row(
            dict(record) if hasattr(record, "keys") and not hasattr(record, "columns") else record
        )
    folders = getattr(record, "folders", ()) or ((image_root,) if image_root else ())
    return ShownRecord.of(
        Record(record, folders), "image_path" if "image_path" in record else "image", {}
    )


def review(
    records: "str | os.PathLike[str] | Iterable[Mapping[str, Any]] | DataFrame",
    image_root: str | None = None,
    who: str = "notebook",
) -> Any:
    """The page of `dataflowgrounding review` as a widget of a cell; each decision is on disk at
    once.

    Args:
        records: A results folder or a file of records; or records, as a list or a DataFrame, which
            are then written to a temporary folder.
        image_root: Where relative paths of pictures are looked for.
        who: The reviewer.

    Returns:
        The widget. `results` is the path of what is reviewed, `reviewed()` the records as they were
        reviewed so far.

    Raises:
        MissingExtra: anywidget is not installed: the extra `notebook`.
        InputError: The records can't be read.
    """
    with needs_extra("review() in a notebook", "notebook"):
        from anywidget import AnyWidget
        from traitlets import Unicode
    path = os.fspath(records) if isinstance(records, (str, os.PathLike)) else _written(records)
    session = Session(Reviewable(path, image_root), who)

    class Review(AnyWidget):
        _esm = page_file("notebook.js")
        page = Unicode(_page()).tag(sync=True)
        results = path

        def reviewed(self) -> list[ShownRecord]:
            session.decisions.refresh()
            return [show(session.reviewed(place)) for place in range(len(session.reviewable.keys))]

    widget = Review()
    widget.on_msg(
        lambda _, asked, buffers: widget.send({"id": asked["id"], "said": _answer(session, asked)})
    )
    return widget


def _written(records: Any) -> str:
    """The path of a file with these records. Raises InputError."""
    if isinstance(records, Mapping) or not isinstance(records, Iterable):
        raise InputError(
            "records should be a folder, a file, a list or a DataFrame, not"
            f" {type(records).__name__}"
        )
    path = os.path.join(tempfile.mkdtemp(prefix="review_"), "annotations.jsonl")
    write_rows(
        path, from_dataframe(records) if hasattr(records, "columns") else map(plain_row, records)
    )
    return path


def _answer(session: Session, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the server would answer, with pictures as data; `error` says what is wrong with what was
    asked.
    """
    wanted = dict(parse_qsl(str(asked["path"]).partition("?")[2]))
    try:
        if asked["body"]:
            said: dict[str, Any] = {
                "answers": session.decide(listed(parse_line(asked["body"]), "decisions"))
            }
        else:
            said = session.next(wanted)
        for view in [answer["view"] for answer in said.get("answers", ())] or said[
            "records"
        ].values():
            if view["thumbnail"]:
                try:
                    picture = session.picture(
                        view["place"], "small" if wanted.get("mode") == "grid" else "large"
                    )
                    view["thumbnail"] = view["full"] = url_of(picture, "image/jpeg").decode()
                except RecordError as error:
                    view |= {"thumbnail": "", "full": "", "missing": why_missing(error)}
        return said
    except GroundingError as error:
        return {"error": str(error)}


def _page() -> str:
    """The page with its styles and scripts in it."""
    files = page_files(_POLICY, "<!-- in frame -->")
    page = files["review.html"]
    page = re.sub(
        r'<link rel="stylesheet" href="(.*?)">', lambda of: f"<style>{files[of[1]]}</style>", page
    )
    return re.sub(r'<script src="(.*?)">', lambda of: f"<script>{files[of[1]]}", page)
