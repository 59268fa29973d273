"""The files of a folder, and the entries of a format's file, each with its place, for errors that name it."""

import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any
from xml.etree import ElementTree

from dataflow_grounding.elsewhere import is_elsewhere, kind_of, names_in, open_file, system_errors
from dataflow_grounding.errors import BrokenRow, InputError, RecordError, UnreadableReply, told_as
from dataflow_grounding.formats.pictures_ahead import Pictures
from dataflow_grounding.geometry import Size
from dataflow_grounding.json_lists import json_file, lists_in, read_json
from dataflow_grounding.rows import file_type_of, read_whole_rows

_KEY = re.compile(r"(?:.*/)?[^./]*")
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
NO_AREA = "boxes without an area"


def files_under(folder: str, endings: tuple[str, ...], key: str) -> list[str]:
    """The files under a folder with these endings, relative to it, sorted. Raises InputError if it is not a folder."""
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
        wanted = (name for name in files if name.lower().endswith(endings) and not name.startswith("."))
        found += [os.path.relpath(os.path.join(top, name), folder).replace(os.sep, "/") for name in wanted]
    return sorted(found)


def file_of(path: str, name: str) -> str:
    """The format's file, where `path` is the folder that holds it; else `path`. Raises InputError."""
    if not os.path.isdir(path):
        return path
    inside = os.path.join(path, name)
    if not os.path.exists(inside):
        raise InputError(f"{path} has no {name}: name the file itself")
    return inside


def read_lines(path: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file of JSON lines, or one JSON list, and where each is. Raises InputError."""
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
    """Expressions, each behind what tells it from others: those that are the same are one with the boxes of all.
    Of several with one `expression_id` the first keeps it, the others get `~2` and so on behind it."""
    found: dict[Any, dict[str, Any]] = {}
    for same, one in said:
        found.setdefault(same, {**one, "instances": []})["instances"] += one["instances"]
    seen: Counter[Any] = Counter()
    for one in found.values():
        seen[own := one.get("expression_id")] += 1
        one |= {"expression_id": f"{own}~{seen[own]}"} if own is not None and seen[own] > 1 else {}
    return list(found.values())


def read_xml(path: str) -> Iterator[ElementTree.Element]:
    """The elements in the root of an XML file, one at a time. Raises InputError."""
    within: list[ElementTree.Element] = []
    try:
        with told_as(InputError, f"can't read {path}"), open(path, "rb") as file:
            if b"<!DOCTYPE" in file.read(2**16):  # elsewhere expat itself ends what would fill the memory
                raise ValueError("it has a DOCTYPE, with which 1 KB can fill the memory: take it out")
            file.seek(0)
            for event, element in ElementTree.iterparse(file, ("start", "end")):
                if event == "start":
                    within.append(element)
                elif within.pop() is element and len(within) == 1:
                    yield element
                    within[0].clear()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path} is not XML that can be read: {error}") from None


def tar_samples(path: str) -> Iterator[tuple[str, str, dict[str, bytes]]]:
    """The samples of a WebDataset shard: where each is, its key, and what is in its members, by their endings.

    Raises InputError.
    """
    reading = told_as(InputError, f"can't read {path}")
    try:
        with reading, system_errors(path), open_file(path) as file, tarfile.open(fileobj=file) as tar:
            inside = ((member.name, tar.extractfile(member)) for member in tar if member.isfile())
            for key, members in groupby(inside, lambda one: _KEY.match(one[0])[0]):  # type: ignore[index]
                yield f"{path}, {key}", key, {name[len(key) :]: content.read() for name, content in members if content}
    except tarfile.TarError as error:
        raise InputError(f"{path} is not a tar file: {str(error).splitlines()[0]}") from None


def picture_size(pictures: Pictures, name: Any, where: str) -> Size:
    """Upright width and height in pixels of a picture. Raises InputError that says where it is named."""
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
    except (BrokenRow, UnreadableReply, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise InputError(f"{where}: is not of this format ({error})") from None
