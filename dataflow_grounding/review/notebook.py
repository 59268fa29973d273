"""Records in a notebook, shown with their boxes."""

from collections.abc import Mapping
from typing import Any

from dataflow_grounding.data.dataframes import plain_row
from dataflow_grounding.data.records import Record
from dataflow_grounding.images.display import ShownRecord
from dataflow_grounding.review._record_view import picture_column


def show(record: Mapping[str, Any], image_root: str | None = None) -> ShownRecord:
    """Return a record as a notebook shows it: its picture with boxes, and a table.

    Nothing is read or checked yet.

    Args:
        record: A line of a file, a record of a pipeline, or a row of a DataFrame.
        image_root: Where a relative path of its picture is looked for, unless the record has its
            own folders; None for the current folder.

    Example:
        >>> show({"image_path": "a.png", "expressions": ["a mug"]}).counts()
        (1, 0)
    """
    if not isinstance(record, Mapping):
        # A row of a DataFrame is a Series: it has keys, and no columns.
        is_series = hasattr(record, "keys") and not hasattr(record, "columns")
        if is_series:
            record = dict(record)
        # It refuses what is no record at all, such as a whole DataFrame.
        record = plain_row(record)
    folders = getattr(record, "folders", ())
    if not folders and image_root:
        folders = (image_root,)
    shown = Record(record, folders)
    return ShownRecord.of(shown, picture_column(shown), {})
