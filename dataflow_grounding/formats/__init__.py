"""Annotation formats: one module per format or family, between its files and records in pixels.

`write` and `read` are the doors; `FORMATS` has all formats, `WRITTEN` and `READ` which of them can
be written and read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import lazy_loader

from dataflow_grounding._util.errors import InputError, SpecError, errors_as
from dataflow_grounding._util.lazy import load_table
from dataflow_grounding._util.paths import kind_of
from dataflow_grounding.data.bad_entries import BadEntries, PassedOver
from dataflow_grounding.data.records import JsonObject, Update

if TYPE_CHECKING:
    from dataflow_grounding.formats.export_folder import ExportFolder as ExportFolder
    from dataflow_grounding.formats.export_pictures import Images
    from dataflow_grounding.formats.format import Carries as Carries
    from dataflow_grounding.formats.format import Format
    from dataflow_grounding.formats.format import Sample as Sample
    from dataflow_grounding.formats.samples import Exported
    from dataflow_grounding.formats.selection import Selection

# What a format of the user's own is written with; it is imported when it is used.
__getattr__, _, _ = lazy_loader.attach(
    __name__, submod_attrs={"export_folder": ["ExportFolder"], "format": ["Carries", "Sample"]}
)

FORMATS: dict[str, dict[str, Any]] = load_table(__name__, "formats.yaml")
"""The table of formats.yaml: by a format's name, what it is and can say."""
WRITTEN = tuple(name for name, row in FORMATS.items() if not row.get("in_only"))
"""Those that can be written; the others are only read."""
READ = tuple(name for name, row in FORMATS.items() if not row.get("out_only"))
"""Those that can be read; the others are only written."""


def find_format(name: str, **options: Any) -> Format:
    """Return a new object of the format of that name, or of the user's own, `module:Class`.

    Raises SpecError: there is no such format or option, or the user's own lacks a part.
    """
    from dataflow_grounding.formats.format import Carries
    from dataflow_grounding.formats.stated_twice import StatedTwice
    from dataflow_grounding.spec.user_code import in_one_line

    format_class = _class_named(name)
    if name not in FORMATS:
        _check_own_class(format_class, name)
    with in_one_line(f"format {name!r}"):  # what the user's own class raises
        fields = getattr(format_class, "__dataclass_fields__", ())
        for option in options:
            if option not in fields:
                raise SpecError(f"format {name!r} has no option {option!r}")
        new_format: Format = format_class(**options)
        # Its `read` and `write` fill these.
        new_format.passed_over = PassedOver(lambda: new_format.bad.place)
        new_format.remarks = []
        new_format.class_names = []
        new_format.bad = BadEntries(stops=True)
        new_format.stated_twice = StatedTwice()
        if name in FORMATS:  # a user's own class states the rest itself
            row = FORMATS[name]
            new_format.name = name
            new_format.about = row["about"]
            new_format.data_file = row["file"]
            abilities = dict.fromkeys(row["says"], True)
            new_format.carries = Carries(**abilities, numbers=row.get("numbers", ""))
    return new_format


def format_to_read(name: str, **options: Any) -> Format:
    """Return what `find_format` does. Raises SpecError also for a format that is only written."""
    if name in FORMATS and name not in READ:
        raise SpecError(f"{name} is written, not read. These are read: {', '.join(READ)}")
    return find_format(name, **options)


def _class_named(name: str) -> Any:
    """Return the class of a format of ours, or what the user's own `module:Class` is."""
    from dataflow_grounding.spec.user_code import named

    row = FORMATS.get(name)
    target = f"{__name__}.{row['home']}" if row else name
    return named(target, "format", FORMATS, ["."], group="formats")


def _check_own_class(format_class: Any, name: str) -> None:
    from dataflow_grounding.formats.format import Format

    if not (isinstance(format_class, type) and issubclass(format_class, Format)):
        raise SpecError(
            f"format {name!r} is no format: derive a class from dataflow_grounding.Format, as"
            " docs/extending.md shows"
        )
    missing = []
    if format_class.write is Format.write and format_class.read is Format.read:
        missing.append("write() or read()")
    missing += [part for part in ("name", "about", "data_file") if not hasattr(format_class, part)]
    if missing:
        raise SpecError(f"format {name!r} lacks {', '.join(missing)}: docs/extending.md shows one")


def write(
    records: Iterable[JsonObject] | Mapping[str, Iterable[JsonObject]],
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

    What is written is a folder with the data, the pictures and a README, or the data file alone. An
    earlier export in the folder is replaced. Of a split, each part goes into a folder of its name;
    what the parts share is written once for all: the README, and YOLO's `data.yaml`.

    Args:
        records: They are read one at a time. For detectors (`yolo`, `yolo-obb`, `dota`, `coco`,
            `kitti`, `voc`) they are read twice, so that an iterator is taken into a list first. Of
            a split, they are given by the part's name: `train`, `val`, `test`. Categories have the
            same numbers in all parts of YOLO, and of COCO where `class_list` names all of them.
        format: One of FORMATS, or the user's own as `module:Class`.
        path: A folder; or a file, where its ending is that of the format's data file, which can't
            have parts.
        images: `copy` (into a folder, upright), `link`, or `reference`. Unless given, pictures are
            copied into a folder, and referenced from a file alone, which allows nothing else.
        folders: Where relative paths of pictures are looked for, in this order.
        select: Which expressions are wanted; all unless given.
        strict: Refuse where anything is lost or left out.
        options: Those of the format.

    Returns:
        Counts of what was written, lost and left out; under `parts` what was written of each part.

    Raises:
        SpecError: There is no such format, or it has no such option.
        InputError: The place is taken or can't be written; there are records, but none that can be
            written, or no record of a part is; with `strict`, something is lost. Nothing is left
            there.

    Example:
        >>> import tempfile
        >>> box = {"text": "a cat", "instances": [{"bbox": [1, 2, 30, 40]}]}
        >>> record = {"image_path": "a.jpg", "width": 64, "height": 48}
        >>> record |= {"caption": "A cat.", "expressions": [box]}
        >>> done = write([record], "odvg", tempfile.mkdtemp() + "/odvg.jsonl")
        >>> done.written["boxes"], done.losses()
        (1, 'spans (1)')
        >>> parts = {"train": [record], "val": [{**record, "image_path": "b.jpg"}]}
        >>> out = tempfile.mkdtemp() + "/out"
        >>> write(parts, "yolo", out, images="reference").parts["val"]["boxes"]
        1
        >>> sorted(os.listdir(out))
        ['README.md', 'data.yaml', 'train', 'val']
    """
    from dataflow_grounding.formats.export import export
    from dataflow_grounding.formats.selection import Selection

    return export(
        records,
        find_format(format, **options),
        path,
        images,
        folders,
        select or Selection(),
        strict,
    )


def has_option(format: str, option: str) -> bool:
    return option in getattr(_class_named(format), "__dataclass_fields__", ())


def read(
    path: str,
    format: str | Format,
    *,
    image_root: str | None = None,
    **options: Any,
) -> Iterator[Update]:
    """Yield the records of a file or folder of a format, completed as this package's are.

    Args:
        path: The file, or the folder of an export.
        format: One of READ, the user's own as `module:Class`, or what `find_format` made of one.
        image_root: Where relative paths of pictures start; by default the data's folder.
        options: Those of the format; only of use where it is given by its name.

    Yields:
        Rows with `expressions`: status, ids, spans in `cleaned_caption`, boxes in pixels. A row
        without any has `background: true` where the format can say that nothing is there.

    Raises:
        SpecError: There is no such format, or it has no such option.
        InputError: The file can't be read, or is not of the format.
    """
    from dataflow_grounding.formats.found_pictures import with_found_pictures
    from dataflow_grounding.formats.reading import complete_rows

    source = format_to_read(format, **options) if isinstance(format, str) else format
    folder = image_root or folder_of(path)
    rows = _with_input_errors(path, source.read(path, folder))
    if not source.packs:  # else the pictures are in the data itself
        rows = with_found_pictures(rows, folder, source.remarks)
    return complete_rows(rows, path, source, folder)


def _with_input_errors(path: str, rows: Iterator[Update]) -> Iterator[Update]:
    """Raise InputError for a file that can't be opened, or is too large for the memory."""
    with errors_as(InputError, f"can't read {path}"):
        yield from rows


def folder_of(path: str) -> str:
    folder = path if kind_of(path) == "folder" else os.path.dirname(path)
    return folder or "."
