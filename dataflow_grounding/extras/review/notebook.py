"""Records in a notebook: shown with their boxes, and reviewed in a cell."""

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
from dataflow_grounding.extras.review._record_view import picture_column, why_missing
from dataflow_grounding.extras.review.queues import Reviewable
from dataflow_grounding.extras.review.session import Session, page_files
from dataflow_grounding.images.display import ShownRecord
from dataflow_grounding.images.image import url_of

if TYPE_CHECKING:
    from pandas import DataFrame

# The Content-Security-Policy of the review's page in a cell, which loads nothing.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:;"
    " base-uri 'none'"
)


def show(record: Mapping[str, Any], image_root: str | None = None) -> ShownRecord:
    """Return a record as a notebook shows it: its picture with boxes, and a table.

    Nothing is read or checked yet.

    Args:
        record: A line of a file, a record of a pipeline, or a row of a DataFrame.
        image_root: Where a relative path of its picture is looked for, unless the record comes
            with folders of its own; None for the current folder.

    Example:
        >>> show({"image_path": "a.png", "expressions": ["a mug"]}).counts()
        (1, 0)
    """
    if not isinstance(record, Mapping):
        is_series = hasattr(record, "keys") and not hasattr(record, "columns")  # a DataFrame's row
        record = plain_row(dict(record) if is_series else record)
    folders = getattr(record, "folders", ())
    if not folders and image_root:
        folders = (image_root,)
    no_update: dict[str, Any] = {}
    return ShownRecord.of(Record(record, folders), picture_column(record), no_update)


def review(
    records: "str | os.PathLike[str] | Iterable[Mapping[str, Any]] | DataFrame",
    image_root: str | None = None,
    who: str = "notebook",
) -> Any:
    """Return the page of `dataflowgrounding review` as a widget of a cell.

    Each decision is on disk at once.

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
            """Return the records with all decisions so far, those of other reviewers too."""
            session.decisions.refresh()
            return [show(session.reviewed(index)) for index in range(len(session.reviewable.keys))]

    widget = Review()

    def reply(_: object, message: Mapping[str, Any], buffers: object) -> None:
        widget.send({"id": message["id"], "said": _answer(session, message)})

    widget.on_msg(reply)
    return widget


def _written(records: Any) -> str:
    """Write records into a new temporary folder and return the file's path.

    Raises InputError for what is no list and no DataFrame of records.
    """
    if isinstance(records, Mapping) or not isinstance(records, Iterable):
        raise InputError(
            "records should be a folder, a file, a list or a DataFrame, not"
            f" {type(records).__name__}"
        )
    path = os.path.join(tempfile.mkdtemp(prefix="review_"), "annotations.jsonl")
    if hasattr(records, "columns"):
        write_rows(path, from_dataframe(records))
    else:
        write_rows(path, map(plain_row, records))
    return path


def _answer(session: Session, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the server would answer the page, with pictures as data in it.

    Args:
        session: What is reviewed; decisions in the message are put on disk.
        message: What notebook.js sends in place of a request: its `path`, as `next?mode=grid`, and
            its `body`: decisions in JSON, or empty to ask for the next records.

    Returns:
        The answer in JSON; `{"error": why}` in place of it where the message can't be answered.
    """
    query = str(message["path"]).partition("?")[2]
    wanted = dict(parse_qsl(query))
    side = "small" if wanted.get("mode") == "grid" else "large"
    answer: dict[str, Any]
    try:
        if message["body"]:
            decisions = listed(parse_line(message["body"]), "decisions")
            answer = {"answers": session.decide(decisions)}
            views = [decided["view"] for decided in answer["answers"] if decided["view"]]
        else:
            answer = session.next(wanted)
            views = list(answer["records"].values())
        for view in views:
            _put_picture_in(view, session, side)
        return answer
    except GroundingError as error:
        return {"error": str(error)}


def _put_picture_in(view: dict[str, Any], session: Session, side: str) -> None:
    """Change a record's view in place: its picture's addresses become the picture itself.

    A picture that can't be read is taken out, and the view says that it is missing. `side` names
    the copy, `small` or `large`.
    """
    if not view["thumbnail"]:
        return
    try:
        picture = session.picture(view["place"], side)
    except RecordError as error:
        view.update(thumbnail="", full="", missing=why_missing(error))
        return
    address = url_of(picture, "image/jpeg").decode()
    view.update(thumbnail=address, full=address)


def _page() -> str:
    """Return the review's page in one text, with its styles and scripts in it."""
    files = page_files(_POLICY, "<!-- in frame -->")  # which notebook.js replaces by a script
    page = files["review.html"]
    page = re.sub(
        r'<link rel="stylesheet" href="(.*?)">',
        lambda match: f"<style>{files[match[1]]}</style>",
        page,
    )
    return re.sub(r'<script src="(.*?)">', lambda match: f"<script>{files[match[1]]}", page)
