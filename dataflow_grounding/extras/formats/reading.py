"""What formats are read with: files and entries, each with its place, for errors that name it; rows
made records.
"""

import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from typing import IO, Any
from xml.etree import ElementTree

from dataflow_grounding._util.errors import (
    BrokenRow,
    InputError,
    RecordError,
    UnreadableReply,
    told_as,
)
from dataflow_grounding._util.paths import is_elsewhere, kind_of, open_file, system_errors
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.json_lists import json_file, lists_in, read_json
from dataflow_grounding.data.records import (
    Record,
    image_id_of,
    is_score,
    read_expressions,
    stated_size,
    whole_number,
)
from dataflow_grounding.data.rows import file_type_of, read_whole_rows
from dataflow_grounding.data.spans import clean_caption, find_spans
from dataflow_grounding.extras.formats._pictures_ahead import Pictures
from dataflow_grounding.extras.formats.base import stands
from dataflow_grounding.extras.scale.elsewhere import names_in
from dataflow_grounding.images.files import MAX_FILE_BYTES

_KEY = re.compile(r"(?:.*/)?[^./]*")
_NOTES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_MOST_NOTES = 2**20  # bytes of a member's long name, or of what else is noted on it
# bytes of XML without the beginning of a tag, which the parser keeps as a whole
_MOST_UNSPLIT = 8 * 2**20
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


def files_under(folder: str, endings: tuple[str, ...], key: str) -> list[str]:
    """The files under a folder with these endings, relative to it, sorted. Raises InputError if it
    is not a folder.
    """
    if kind_of(folder) != "folder":
        raise InputError(f"{key}: no folder {folder}")
    if is_elsewhere(folder):
        return [n for n in names_in(folder) if n.lower().endswith(endings) and "/." not in f"/{n}"]
    found, seen = [], set[str]()
    for top, names, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(top)
        names[:] = [] if real in seen else [name for name in names if not name.startswith(".")]
        if real in seen:  # a link that leads back
            continue
        seen.add(real)
        wanted = (
            name for name in files if name.lower().endswith(endings) and not name.startswith(".")
        )
        found += [
            os.path.relpath(os.path.join(top, name), folder).replace(os.sep, "/") for name in wanted
        ]
    return sorted(found)


def file_of(path: str, name: str) -> str:
    """The format's file, where `path` is the folder that holds it; else `path`.
    Raises InputError.
    """
    if not os.path.isdir(path):
        return path
    inside = os.path.join(path, name)
    if not os.path.exists(inside):
        raise InputError(f"{path} has no {name}: name the file itself")
    return inside


def read_lines(path: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file of JSON lines, or one JSON list, and where each is.
    Raises InputError.
    """
    file = file_of(path, name)
    unit = "line" if file_type_of(file) == "jsonl" else "entry"
    for number, data in read_whole_rows(file, unit):
        yield f"{file}, {unit} {number}", data


def read_whole(path: str, name: str) -> tuple[str, Any]:
    """A JSON file's path and what it holds. Raises InputError."""
    file = file_of(path, name)
    with told_as(InputError, f"can't read {file}"):
        data = read_json(file)
    if data is None:
        raise InputError(f"{file} holds JSON lines, and should be one JSON value")
    return file, data


def read_lists(path: str) -> Iterator[tuple[str, int, Any]]:
    """The lists in the object of a JSON file, as `lists_in` gives them. Raises InputError."""
    try:
        with told_as(InputError, f"can't read {path}"), json_file(path) as file:
            yield from lists_in(file)
    except (ValueError, RecursionError):
        read_whole(path, "")  # which says where it isn't JSON


def united(said: Iterable[tuple[Any, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Expressions, each behind what tells it from others: those that are the same are one with the
    boxes of all. Of several with one `expression_id` the first keeps it, the others get `~2` and so
    on behind it.
    """
    found: dict[Any, dict[str, Any]] = {}
    for same, one in said:
        found.setdefault(same, {**one, "instances": []})["instances"] += one["instances"]
    seen: Counter[Any] = Counter()
    for one in found.values():
        seen[own := one.get("expression_id")] += 1
        one |= {"expression_id": f"{own}~{seen[own]}"} if own is not None and seen[own] > 1 else {}
    return list(found.values())


class _Tags:
    """A file of XML, read as long as tags begin often enough: of an attribute of 200 MB the parser
    makes several.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._since = file, 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        begins = data.rfind(b"<")
        self._since = len(data) - begins if begins >= 0 else self._since + len(data)
        if self._since > _MOST_UNSPLIT:
            raise ValueError(f"over {_MOST_UNSPLIT >> 20} MiB of it are one text or attribute")
        return data


def read_xml(path: str) -> Iterator[ElementTree.Element]:
    """The elements in the root of an XML file, one at a time. Raises InputError."""
    within: list[ElementTree.Element] = []
    try:
        with told_as(InputError, f"can't read {path}"), open(path, "rb") as file:
            if b"<!DOCTYPE" in file.read(2**16):
                # elsewhere expat itself ends what would fill the memory
                raise ValueError(
                    "it has a DOCTYPE, with which 1 KB can fill the memory: take it out"
                )
            file.seek(0)
            for event, element in ElementTree.iterparse(_Tags(file), ("start", "end")):
                if event == "start":
                    within.append(element)
                elif within.pop() is element and len(within) == 1:
                    yield element
                    within[0].clear()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path} is not XML that can be read: {error}") from None


@dataclass
class TarSample:
    """A sample of a WebDataset shard: `where` it is, for people, its key, and what is in its
    members, by their endings.

    `error`: why it can't be read, if so.
    """

    where: str
    key: str
    parts: dict[str, bytes]
    error: BrokenRow | None = None


class _Member(tarfile.TarInfo):
    """A member whose long name and other notes on it, which are read at once, are of a size that
    they can have.
    """

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _NOTES and self.size > _MOST_NOTES:
            raise tarfile.TarError(f"it has notes of {self.size:,} bytes on {self.name[:40]!r}")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]


def tar_samples(path: str) -> Iterator[TarSample]:
    """The samples of a WebDataset shard. Raises InputError."""
    reading = told_as(InputError, f"can't read {path}")
    try:
        with (
            reading,
            system_errors(path),
            open_file(path) as file,
            tarfile.open(fileobj=file, tarinfo=_Member) as tar,
        ):
            inside = (member for member in tar if member.isfile())
            for key, members in groupby(inside, lambda member: _KEY.match(member.name)[0]):  # type: ignore[index]
                yield _tar_sample(tar, path, key, members)
    except tarfile.TarError as error:
        raise InputError(
            f"{path} is not a tar file that can be read: {str(error).splitlines()[0]}"
        ) from None


def _tar_sample(
    tar: tarfile.TarFile, path: str, key: str, members: Iterable[tarfile.TarInfo]
) -> TarSample:
    """The sample, without what is in its members where they say that they have too much."""
    sample, size = TarSample(f"{path}, {key}", key, {}), 0
    for member in members:
        size += member.size
        if size > MAX_FILE_BYTES:
            sample.parts = {}
            sample.error = BrokenRow(
                f"{member.name!r} makes it larger than {MAX_FILE_BYTES >> 20} MiB"
            )
        elif content := tar.extractfile(member):
            sample.parts[member.name[len(key) :]] = content.read()
    return sample


def picture_size(pictures: Pictures, name: Any, where: str) -> Size:
    """Upright width and height in pixels of a picture. Raises InputError that says where it is
    named.
    """
    try:
        return pictures.find(name, "image")[1].size
    except RecordError as error:
        raise InputError(f"{where}: {error}") from None


@contextmanager
def broken(where: str) -> Iterator[None]:
    """What an entry lacks, or has of another kind, is an InputError that names the place."""
    try:
        yield
    except KeyError as error:
        raise InputError(f"{where}: no {error.args[0]!r} in it") from None
    except (
        BrokenRow,
        UnreadableReply,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        ArithmeticError,
    ) as error:
        raise InputError(f"{where}: is not of this format ({error})") from None


def completed(
    rows: Iterable[dict[str, Any]], path: str, passed_over: Counter[str], backgrounds: bool
) -> Iterator[dict[str, Any]]:
    """The rows with ids, status, scores, and spans: those of the format if all are right, else
    those that are found.

    Boxes without an area are left out, and expressions that lose all of theirs so; `passed_over`
    counts both. With `backgrounds`, a row without expressions says that nothing is there,
    `background: true`, unless it states the contrary. Raises InputError that names `path` for an
    expression without text, a box that isn't x1, y1, x2, y2, a score out of [0, 1].
    """
    seen: Counter[str] = Counter()
    for number, row in enumerate(rows, 1):
        image_id = image_id_of(row, "image_path") or "record"
        record = Record(row, occurrence=seen[image_id], image_id=image_id)
        seen[image_id] += 1
        with broken(f"{path}, record {number}"):
            sides = {
                side: whole_number(record[side])
                for side in ("width", "height")
                if record.get(side) is not None
            }
            if None in sides.values():
                raise BrokenRow("width and height should be whole numbers of pixels")
            given = record.get("cleaned_caption") or record.get("caption")
            expressions = list(_with_area(read_expressions(record, "expressions"), passed_over))
            caption = _with_spans(expressions, given if isinstance(given, str) else "")
            for item in expressions:
                item.setdefault("status", "grounded" if item["instances"] else "none")
            own: dict[str, Any] = (
                {"image_id": record.unique_id} if record.get("image_id") is None else {}
            )
            empty = backgrounds and not record["expressions"] and "background" not in record
            own |= {"background": True} if empty else {}
            yield {
                "image_id": None,
                **record,
                **sides,
                **own,
                "cleaned_caption": caption,
                "expressions": expressions,
            }


def _with_spans(expressions: list[dict[str, Any]], caption: str) -> str:
    """Gives the expressions spans, where not all have right ones in the caption as it is, and
    returns their caption.
    """
    texts, spans = (
        [item["text"] for item in expressions],
        [item.get("char_span", ()) for item in expressions],
    )
    if not all(
        span is None or stands(text, span, caption) for text, span in zip(texts, spans, strict=True)
    ):
        caption = clean_caption(caption)
        spans = find_spans(texts, caption)
    for item, span in zip(expressions, spans, strict=True):
        item["char_span"] = list(span) if span else None
    return caption


def _with_area(
    expressions: Iterable[dict[str, Any]], passed_over: Counter[str]
) -> Iterator[dict[str, Any]]:
    for item in expressions:
        kept = []
        for instance in item["instances"]:
            (x1, y1, x2, y2), score = instance["bbox"], instance["score"]
            if x1 > x2 or y1 > y2:
                raise BrokenRow(f"the box {[x1, y1, x2, y2]} ends before it begins")
            if not is_score(score):
                raise BrokenRow(f"the score {score!r} is not between 0 and 1")
            kept += [instance] if x1 < x2 and y1 < y2 else []
        passed_over["boxes without an area"] += len(item["instances"]) - len(kept)
        if kept or not item["instances"]:
            yield {**item, "instances": kept}
        else:
            passed_over["phrases left without a box"] += 1


def with_sizes(records: Iterable[dict[str, Any]], folder: str) -> Iterator[dict[str, Any]]:
    """The records with the width and height of their pictures, in pixels, upright, where these are
    in `folder`.

    What the data says stays: boxes are of that size, and a picture of another is found out when it
    is used.
    """
    pictures = Pictures((folder,))
    for record in pictures.ahead(
        records, lambda record: None if stated_size(record) else record["image_path"]
    ):
        if not stated_size(record):
            with suppress(InputError):
                size = picture_size(pictures, record["image_path"], "")
                record |= {"width": size[0], "height": size[1]}
        yield record
