"""What `data.input_jsonl` may name besides our own files, as rows: one reader per kind, chosen by
what the path is.

The rows become those of records: columns renamed, pictures that are no files made files. Which
column is which is told by the names that people use and by what the values look like.
"""

import glob
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from dataflow_grounding._util.errors import BrokenRow, InputError, needs_extra, told_as
from dataflow_grounding._util.paths import (
    absolute,
    is_elsewhere,
    is_web,
    joined,
    kind_of,
    open_file,
)
from dataflow_grounding._util.tables import load_table
from dataflow_grounding.data.dataframes import holds_bytes, parquet_rows, plain_row
from dataflow_grounding.data.json_lists import read_json
from dataflow_grounding.data.records import is_box, parse_line
from dataflow_grounding.data.rows import Row, file_type_of, read_rows
from dataflow_grounding.extras.formats.pictures import put_picture
from dataflow_grounding.extras.formats.reading import ENDINGS, files_under, tar_samples
from dataflow_grounding.extras.scale.elsewhere import names_in

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
BY_NAME = "datasets:"
AT_ONCE = 256  # rows whose addresses are fetched together
BATCH = 64  # rows with their pictures that are in memory at a time

Fetch = Callable[[Iterable[str]], Mapping[str, "str | BrokenRow"]]
"""Of addresses: the paths of their pictures, relative to `results_dir`, or what went wrong."""
NAMES: dict[str, list[str]] = load_table(__package__, "input_columns.yaml")
"""Role → what people call its column, the likeliest first."""


@dataclass(frozen=True)
class Input:
    """Rows from somewhere; a picture in a row is a path, an address, bytes, or
    `{"bytes": ..., "path": ...}`.

    Args:
        path: What is read, for people.
        read: Gives the rows, anew each time.
        folders: Where relative paths of pictures are looked for, in order.
        files: What tells, by size and time, that the rows are the same; none where nothing does.
        columns: Role to column, where the format itself says so.
        plain: A data file that can be read as it is.
        bare: Pictures and nothing else.
        remark: What is good to know of it.
    """

    path: str
    read: Callable[[], Iterator[Row]]
    folders: tuple[str, ...]
    files: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    plain: bool = False
    bare: bool = False
    remark: str = ""


def find_input(path: str, split: str = "", results_dir: str = "") -> Input:
    """The input that is at `path`.

    Args:
        path: As the spec states it.
        split: That of a `datasets` data set, where it has several.
        results_dir: Pictures in there are none of the input's.

    Raises:
        InputError: There is none, or it can't be read.
        MissingExtra: Its library isn't installed.
    """
    if path.startswith(BY_NAME):
        return _of_dataset(path, split)
    kind = kind_of(path)
    if kind == "folder":
        return _of_folder(path, split, results_dir)
    if glob.has_magic(path) and not kind:
        return _of_glob(path, results_dir)
    beside = (os.path.dirname(path) or ".", ".")
    if kind == "file" and path.endswith(".tar"):
        return _of_tars(path, [path])
    if kind == "file":
        if file_type_of(path) == "json" and (captions := _of_coco(path, beside)):
            return captions
        if file_type_of(path) == "parquet" and holds_bytes(path):
            return Input(path, lambda: _numbered(parquet_rows(path, BATCH)), beside, (path,))
    return Input(path, lambda: read_rows(path), beside, (path,), plain=True)


def _numbered(items: Iterable[dict[str, Any]]) -> Iterator[Row]:
    return (Row(number, item) for number, item in enumerate(items, 1))


def _of_folder(folder: str, split: str, results_dir: str) -> Input:
    """A `datasets` data set on disk, an image folder with metadata, or pictures."""
    if any(kind_of(joined(folder, name)) for name in ("state.json", "dataset_dict.json")):
        return _of_dataset(folder, split)
    path = next(
        (path for name in METADATA if kind_of(path := joined(folder, name)) == "file"), None
    )
    if path is not None:
        return Input(
            path, lambda: read_rows(path), (folder,), (path,), columns={"image": "file_name"}
        )

    below = sorted(glob.glob(os.path.join(glob.escape(folder), "*", "metadata.*")))
    hint = (
        f"; is it {os.path.dirname(below[0])}?"
        if below
        else f" ({', '.join(ENDINGS)}) and no metadata.jsonl"
    )
    none = f"{folder} has no pictures in it{hint}"
    return _of_pictures(
        folder, folder, files_under(folder, ENDINGS, "data.input_jsonl"), results_dir, none
    )


def _of_glob(pattern: str, results_dir: str) -> Input:
    folder = os.path.dirname(pattern)
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    if is_elsewhere(pattern):
        found = names_in(folder, pattern)
    else:
        found = [
            os.path.relpath(path, folder or ".")
            for path in sorted(glob.glob(pattern, recursive=True))
        ]
    if shards := [joined(folder, name) for name in found if name.endswith(".tar")]:
        return _of_tars(pattern, shards)
    names = [name for name in found if name.lower().endswith(ENDINGS)]
    none = f"no picture ({', '.join(ENDINGS)}) matches {pattern}"
    return _of_pictures(pattern, folder or ".", names, results_dir, none)


def _of_pictures(
    path: str, folder: str, names: Iterable[str], results_dir: str, none: str
) -> Input:
    """Pictures in a folder that don't lie in the results folder. Raises InputError that says
    `none`.
    """
    results = os.path.join(absolute(results_dir), "") if results_dir else "\0"
    rows = [{"image": n} for n in names if not absolute(joined(folder, n)).startswith(results)]
    if not rows:
        raise InputError(none)
    return Input(path, lambda: _numbered(rows), (folder,), columns={"image": "image"}, bare=True)


def _of_tars(path: str, shards: Sequence[str]) -> Input:
    """WebDataset's shards: a row for each sample, of its `.json`, its `.txt` as the caption, and
    its picture.
    """

    def rows() -> Iterator[Row]:
        for number, sample in enumerate(chain.from_iterable(map(tar_samples, shards)), 1):
            parts = sample.parts
            try:
                if sample.error is not None:
                    raise sample.error
                row = {"caption": parts[".txt"].decode()} if ".txt" in parts else {}
                row |= parse_line(parts.get(".json", "{}"))
            except (BrokenRow, UnicodeDecodeError) as error:
                yield Row(number, None, BrokenRow(f"{sample.where}: {error}"))
                continue
            pictures = (
                {"bytes": parts[end], "path": sample.key + end}
                for end in parts
                if end.lower() in ENDINGS
            )
            yield Row(number, {**row, "image": next(pictures, None)})

    return Input(path, rows, (".",), tuple(shards), columns={"image": "image"})


def _of_coco(path: str, folders: tuple[str, ...]) -> Input | None:
    """A COCO file of captions; None for any other JSON file. Raises InputError for COCO's boxes."""
    with told_as(InputError, f"can't read {path}"), open_file(path) as file:
        if not file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
            return None
        data = read_json(path)
    if not (
        isinstance(data, dict)
        and all(isinstance(data.get(key), list) for key in ("images", "annotations"))
    ):
        return None
    if not any(isinstance(item, dict) and "caption" in item for item in data["annotations"]):
        use = "boxes go into the pipeline image_referring_expression, as data.coco_json"
        raise InputError(f"{path} is a COCO file without captions: {use}")
    names = {
        str(item.get("id")): item.get("file_name")
        for item in data["images"]
        if isinstance(item, dict)
    }

    def rows() -> Iterator[dict[str, Any]]:
        for item in data["annotations"]:
            known = item if isinstance(item, dict) else {}
            image = str(known.get("image_id"))
            ids = {"coco_image_id": known.get("image_id"), "coco_caption_id": known.get("id")}
            yield {"file_name": names.get(image), "caption": known.get("caption"), **ids}

    remark = (
        f"{len(data['annotations'])} captions of {len(names)} pictures: one record for each caption"
    )
    columns = {"image": "file_name", "caption": "caption"}
    return Input(path, lambda: _numbered(rows()), folders, (path,), columns=columns, remark=remark)


def _load(path: str) -> Any:
    """The data set in a folder, or of `datasets:NAME[:CONFIGURATION]`. Raises InputError,
    MissingExtra.
    """
    with needs_extra("Reading a data set of Hugging Face's", "datasets"):
        import datasets
    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells each of its retries
    name, _, configuration = path.removeprefix(BY_NAME).partition(":")
    try:
        if path.startswith(BY_NAME):
            return datasets.load_dataset(name, configuration or None)
        return datasets.load_from_disk(path)
    except Exception as error:  # of its own, of the file formats' and of the network's
        why = (str(error).splitlines() or [type(error).__name__])[0]
        asks = (
            ": is the name right, and this machine online?"
            if isinstance(error, ConnectionError)
            else ""
        )
        raise InputError(f"can't load {path}: {why}{asks}") from None


def _of_dataset(path: str, split: str) -> Input:
    def rows() -> Iterator[dict[str, Any]]:
        loaded = _load(path)
        if isinstance(loaded, dict):
            wanted = next(iter(loaded)) if len(loaded) == 1 and not split else split
            if wanted not in loaded:
                what = f"has no split {wanted!r}" if wanted else "has several splits"
                raise InputError(f"{path} {what}: set data.split to one of {', '.join(loaded)}")
            loaded = loaded[wanted]
        for batch in loaded.with_format("arrow").iter(batch_size=BATCH):
            # pictures as they are stored, not decoded
            yield from batch.to_pylist()

    folder = path if os.path.isdir(path) else "."
    states = glob.glob(os.path.join(glob.escape(path), "**", "state.json"), recursive=True)
    return Input(path, lambda: _numbered(rows()), (folder, "."), tuple(sorted(states)))


def renamed(row: Mapping[str, Any], sources: Mapping[str, str]) -> dict[str, Any]:
    """The row with the columns of `sources` (name wanted → name that it has) renamed.

    A column that stands in the way of a new name keeps its values, as `original_` and its name.

    Example:
        >>> columns = {"image_path": "file_name", "caption": "text"}
        >>> renamed({"file_name": "a.jpg", "text": "A cat.", "id": 7}, columns)
        {'image_path': 'a.jpg', 'caption': 'A cat.', 'id': 7}
        >>> renamed({"caption": "cat", "recaption": "A black cat."}, {"caption": "recaption"})
        {'original_caption': 'cat', 'caption': 'A black cat.'}
    """
    found: dict[str, Any] = {}
    for column, value in row.items():
        own = f"original_{column}" if sources.get(column) in row else column
        found |= dict.fromkeys(
            [name for name, source in sources.items() if source == column] or [own], value
        )
    return found


def record_rows(
    rows: Iterator[Row],
    sources: Mapping[str, str],
    image: str,
    results_dir: str,
    fetch: Fetch | None,
) -> Iterator[Row]:
    """The rows as the record has them, a few at a time; those that can't be had come with their
    error.

    Args:
        rows: As an input gives them.
        sources: Column of the record → column of the rows, where that is another.
        image: The record's column of the picture.
        results_dir: Where pictures are put.
        fetch: Gets pictures from addresses; None where that is not allowed.
    """
    while some := list(islice(rows, AT_ONCE if fetch else 1)):
        mapped = [
            row if row.data is None else row._replace(data=renamed(row.data, sources))
            for row in some
        ]
        addresses = (row.data[image] for row in mapped if row.data and is_web(row.data.get(image)))
        fetched = fetch(dict.fromkeys(addresses)) if fetch else {}
        yield from (_with_file(row, image, results_dir, fetched) for row in mapped)


def _with_file(
    row: Row, image: str, results_dir: str, fetched: Mapping[str, str | BrokenRow]
) -> Row:
    if row.data is None:
        return row
    given = row.data.get(image)
    added: dict[str, Any] = {}
    if isinstance(given, str) and given in fetched:
        added = {"image_url": given}
        given = fetched[given]
        if isinstance(given, BrokenRow):
            return Row(row.line, None, given)
    if isinstance(given, dict) and given.keys() <= {"bytes", "path"}:
        added = {"image_file": given["path"]} if given.get("path") else {}
        given = given.get("bytes") or given.get("path")
    if isinstance(given, bytes):
        given = put_picture(given, results_dir)
    data = {name: given if name == image else value for name, value in row.data.items()}
    return Row(row.line, plain_row({**added, **data}))


def guessed(role: str, rows: Sequence[Mapping[str, Any]], taken: Sequence[str] = ()) -> str | None:
    """The column of `rows` that most likely is the one for `role`; None where none looks like it.

    Example:
        >>> rows = [{"id": 7, "file_name": "a.jpg", "text": "A cat on a rug."}]
        >>> guessed("image", rows), guessed("caption", rows), guessed("bbox", rows)
        ('file_name', 'text', None)
    """
    if role not in LOOKS:
        return None
    columns = [name for name in dict.fromkeys(chain.from_iterable(rows)) if name not in taken]
    given = {
        name: [row[name] for row in rows if row.get(name) not in (None, "")] for name in columns
    }
    likely = [
        name for name, values in given.items() if sum(map(LOOKS[role], values)) > len(values) / 2
    ]

    def later(name: str) -> tuple[int, int]:
        known = NAMES[role].index(name.lower()) if name.lower() in NAMES[role] else len(NAMES[role])
        # the longest texts
        return known, -sum(len(str(row.get(name))) for row in rows) if role == "caption" else 0

    return min(likely, key=later, default=None)


def _is_picture(value: Any) -> bool:
    if isinstance(value, dict):
        return "bytes" in value
    return isinstance(value, bytes) or is_web(value) or str(value).lower().endswith(ENDINGS)


LOOKS: dict[str, Callable[[Any], bool]] = {
    "image": _is_picture,
    "caption": lambda value: (
        isinstance(value, str) and len(value.split()) > 1 and not _is_picture(value)
    ),
    "bbox": lambda value: isinstance(value, list) and bool(value) and all(map(is_box, value)),
}
