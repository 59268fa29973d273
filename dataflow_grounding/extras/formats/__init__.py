"""Annotation formats: one module per format or family, between its files and records in pixels.

`write` and `read` are the doors; `FORMATS` is what can be read, `WRITTEN` what can be written too.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataflow_grounding._util.errors import InputError, SpecError, told_as
from dataflow_grounding._util.tables import load_table

if TYPE_CHECKING:
    from dataflow_grounding.extras.formats.base import Format
    from dataflow_grounding.extras.formats.export import Exported, Selection
    from dataflow_grounding.extras.formats.export_pictures import Images

FORMATS: dict[str, dict[str, Any]] = load_table(__name__, "formats.yaml")
"""The table of formats.yaml, by name."""
WRITTEN = tuple(name for name, row in FORMATS.items() if not row.get("in_only"))
"""Those that can be written; the others are only read."""


def find_format(name: str, **options: Any) -> Format:
    """The format of that name, or the user's own as `module:Class`, with its options.

    Raises:
        SpecError: There is no such format, or it has no such option.
    """
    from dataflow_grounding.extras.formats.base import Carries
    from dataflow_grounding.spec.user_code import in_one_line, named

    row = FORMATS.get(name)
    target = f"{__name__}.{row['home']}" if row else name
    format_class = named(target, "format", FORMATS, ["."])
    with in_one_line(f"format {name!r}"):
        fields = getattr(format_class, "__dataclass_fields__", ())
        for option in options:
            if option not in fields:
                raise SpecError(f"format {name!r} has no option {option!r}")
        made: Format = format_class(**options)
        made.passed_over = Counter()
        if row:
            made.name = name
            made.about = row["about"]
            made.data_file = row["file"]
            abilities = dict.fromkeys(row["says"], True)
            made.carries = Carries(**abilities, numbers=row.get("numbers", ""))
    return made


def write(
    records: Iterable[Mapping[str, Any]],
    format: str,
    path: str,
    *,
    images: Images | None = None,
    folders: Sequence[str] = (),
    select: Selection | None = None,
    strict: bool = False,
    **options: Any,
) -> Exported:
    """Write records in a format that a trainer reads.

    What is written is a folder with the data, the pictures and a README, or the data file alone.

    Args:
        records: Read once, one at a time.
        format: One of FORMATS, or the user's own as `module:Class`.
        path: A folder; or a file, where its ending is that of the format's data file.
        images: `copy` (into a folder, upright), `link`, or `reference`, the only choice for a file
            alone.
        folders: Where relative paths of pictures are looked for, in this order.
        select: Which expressions are wanted; all unless given.
        strict: Refuse where anything is lost or left out.
        options: Those of the format.

    Returns:
        Counts of what was written, lost and left out.

    Raises:
        SpecError: There is no such format, or it has no such option.
        InputError: The place is taken or can't be written; with `strict`, something is lost.
            Nothing is left there.

    Example:
        >>> import tempfile
        >>> box = {"text": "a cat", "instances": [{"bbox": [1, 2, 30, 40]}]}
        >>> record = {"image_path": "a.jpg", "width": 64, "height": 48}
        >>> record |= {"caption": "A cat.", "expressions": [box]}
        >>> done = write([record], "odvg", tempfile.mkdtemp() + "/odvg.jsonl")
        >>> done.written["boxes"], done.losses()
        (1, 'spans (1)')
    """
    from dataflow_grounding.extras.formats.export import Selection, export

    return export(
        records,
        find_format(format, **options),
        path,
        images,
        folders,
        select or Selection(),
        strict,
    )


def read(
    path: str, format: str | Format, *, image_root: str | None = None, **options: Any
) -> Iterator[dict[str, Any]]:
    """The records of a file or folder of a format, one at a time, completed as this package's are.

    Args:
        path: The file, or the folder of an export.
        format: One of FORMATS, the user's own as `module:Class`, or what `find_format` made of one.
        image_root: Where relative paths of pictures start; beside the data unless given.
        options: Those of the format.

    Yields:
        Rows with `expressions`: status, ids, spans in `cleaned_caption`, boxes in pixels. A row has
            `background: true` where the file has its picture without any.

    Raises:
        SpecError: There is no such format, or it has no such option.
        InputError: The file can't be read, or is not of the format.
    """
    from dataflow_grounding.extras.formats.reading import completed

    made = find_format(format, **options) if isinstance(format, str) else format
    rows = _within_memory(path, made.read(path, image_root or folder_of(path)))
    return completed(rows, path, made.passed_over, made.carries.empty and not made.whole)


def _within_memory(path: str, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows; running out of memory becomes an InputError that names the path."""
    with told_as(InputError, f"can't read {path}"):
        yield from rows


def folder_of(path: str) -> str:
    """The path itself where it is a folder, else the folder that the file is in."""
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    return folder or "."
