"""Annotation formats: one module per format or family, between its files and records in pixels.

`write` and `read` are the doors; `FORMATS` is what can be read, `WRITTEN` what can be written too.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dataflow_grounding.errors import SpecError
from dataflow_grounding.lazy import public_name
from dataflow_grounding.tables import load_table

if TYPE_CHECKING:
    from dataflow_grounding.formats.base import Format
    from dataflow_grounding.formats.export import write as write

FORMATS: dict[str, dict[str, Any]] = load_table(__name__, "formats.yaml")
"""The table of formats.yaml, by name."""
WRITTEN = tuple(name for name, row in FORMATS.items() if not row.get("in_only"))
"""Those that can be written; the others are only read."""


def find_format(name: str, **options: Any) -> Format:
    """The format of that name, or the user's own as `module:Class`, with its options.

    Raises:
        SpecError: There is no such format, or it has no such option.
    """
    from dataflow_grounding.formats.base import Carries
    from dataflow_grounding.spec.user_code import in_one_line, named

    row = FORMATS.get(name)
    kind = named(f"{__name__}.{row['home']}" if row else name, "format", FORMATS, ["."])
    with in_one_line(f"format {name!r}"):
        unknown = [option for option in options if option not in getattr(kind, "__dataclass_fields__", ())]
        if unknown:
            raise SpecError(f"format {name!r} has no option {unknown[0]!r}")
        made: Format = kind(**options)
        made.passed_over = Counter()
        if row:
            made.name, made.about, made.data_file = name, row["about"], row["file"]
            made.carries = Carries(**dict.fromkeys(row["says"], True), numbers=row.get("numbers", ""))
    return made


def read(path: str, format: str | Format, *, image_root: str | None = None, **options: Any) -> Iterator[dict[str, Any]]:
    """The records of a file or folder of a format, one at a time, completed as this package's are.

    Args:
        path: The file, or the folder of an export.
        format: One of FORMATS, the user's own as `module:Class`, or what `find_format` made of one.
        image_root: Where relative paths of pictures start; beside the data unless given.
        options: Those of the format.

    Yields:
        Rows with `expressions`: status, ids, spans in `cleaned_caption`, boxes in pixels.

    Raises:
        SpecError: There is no such format, or it has no such option.
        InputError: The file can't be read, or is not of the format.
    """
    from dataflow_grounding.formats.imported import completed

    made = find_format(format, **options) if isinstance(format, str) else format
    return completed(made.read(path, image_root or folder_of(path)), path, made.passed_over)


def folder_of(path: str) -> str:
    """The folder that is there, or that the file is in."""
    return (path if os.path.isdir(path) else os.path.dirname(path)) or "."


def __getattr__(name: str) -> Any:
    return public_name(__name__, {"write": "export"}, name)
