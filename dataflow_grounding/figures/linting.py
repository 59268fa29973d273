"""A data set held against the rules of lint_rules.yaml, record by record."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from dataflow_grounding.engine.number_table import NumberTable
from dataflow_grounding.errors import BrokenRow, RecordError
from dataflow_grounding.figures.duplicates import Pictures, first_alike, hash_of, known_id, path_of, stated_size
from dataflow_grounding.figures.lint_rules import RULES, found_in, mended
from dataflow_grounding.geometry import Size
from dataflow_grounding.image_files import read_header
from dataflow_grounding.images import find_image
from dataflow_grounding.records import Record, has_id
from dataflow_grounding.results_folder import annotations_of, image_folders_of, records_of
from dataflow_grounding.rows import broken_row, read_rows


class Finding(NamedTuple):
    """What a rule found in a line of a file (or a row, from 1); `fixed` where it is gone from the row that is given."""

    line: int
    rule: str
    message: str
    fixed: bool = False


def lint(
    data: str, rules: Collection[str] = tuple(RULES), *, image_root: str | None = None, read: bool = True,
    against: str | None = None, test_ids: Sequence[Collection[str]] = (), fix: bool = False,
) -> Iterator[tuple[dict[str, Any], list[Finding]]]:  # fmt: skip
    """Each row of a results folder or a file of records, and what these rules find in it.

    Args:
        image_root, read: Where pictures are, if not where the run found them; whether they are read.
        against: Results whose pictures should not be in `data`: told at the end, with an empty row.
        test_ids: Of pictures that are tested on elsewhere, as `known_id` gives them.
        fix: Give the rows with what is fixable fixed.
    """
    folders, ids, lines = image_folders_of(data, image_root), NumberTable(), list[int]()
    tested = frozenset().union(*test_ids)
    with Pictures(folders, read and bool(against)) as pictures:
        for row in read_rows(annotations_of(data)):
            if row.data is None:
                error = row.error or BrokenRow("can't be read")
                yield broken_row(error), [Finding(row.line, "DG001", str(error))][: "DG001" in rules]
                continue
            if pictures.place(row.data) == len(lines):
                lines.append(row.line)
            size, found = _size(row.data, folders) if read else (stated_size(row.data), [])
            found += _known(row.data, ids, tested)
            made, left, gone = _mended(row.data, size, rules) if fix else (row.data, [*found_in(row.data, size)], [])
            told = [(*one, False) for one in (*found, *left)] + [(*one, True) for one in gone]
            yield made, [Finding(row.line, *one) for one in told if one[0] in rules]
    if against and "DG403" in rules:
        where = f"its picture is in {against}, or nearly"
        yield {}, [Finding(line, "DG403", where) for line in _leaks(against, read, pictures, lines)]


def _mended(
    record: dict[str, Any], size: Size | None, rules: Collection[str]
) -> tuple[dict[str, Any], list[tuple[str, str]], list[tuple[str, str]]]:
    """The record with what is fixable fixed, what is left to find in it, and what is gone."""
    before = [*found_in(record, size)]
    made = mended(record, size, {rule for rule, _ in before}.intersection(rules))
    left = [*found_in(made, size)]
    return made, left, [one for one in before if one not in left and "fix" in RULES[one[0]]]


def _leaks(against: str, read: bool, pictures: Pictures, lines: Sequence[int]) -> list[int]:
    """The lines whose pictures are in other results too, or nearly."""
    with Pictures(image_folders_of(against), read) as theirs:
        for record in records_of(against):
            theirs.place(record)
    first = first_alike(theirs, pictures)[len(theirs.keys) :].tolist()
    return [line for line, place in zip(lines, first, strict=True) if place < len(theirs.keys)]


def _size(record: Mapping[str, Any], folders: tuple[str, ...]) -> tuple[Size | None, list[tuple[str, str]]]:
    """The size of a record's picture, and what is wrong with it."""
    read, stated = _read_size(path_of(record), folders), stated_size(record)
    if isinstance(read, str):
        return stated, [("DG401", read)]
    wrong = f"the picture is {read[0]}x{read[1]}, and the record says {record.get('width')}x{record.get('height')}"
    return read, [] if stated in (None, read) else [("DG402", wrong)]


@lru_cache(maxsize=4096)
def _read_size(path: str, folders: tuple[str, ...]) -> Size | str:
    try:
        return read_header(find_image(Record({"image": path}, folders), "image").path).size
    except RecordError as error:
        return str(error)


def _known(record: Mapping[str, Any], ids: NumberTable, test_ids: Collection[str]) -> list[tuple[str, str]]:
    """What is in earlier lines too, or in a list of ids."""
    found = [("DG404", f"{path_of(record)!r} is one of --test-ids")] if known_id(path_of(record)) in test_ids else []
    expressions = record.get("expressions")
    for one in expressions if isinstance(expressions, list) else []:
        if isinstance(one, dict) and has_id(given := one.get("expression_id")):
            count = ids.count
            ids.set(hash_of(repr(given).encode()), 1)
            found += [("DG003", f"expression_id {given!r} is there already")] if ids.count == count else []
    return found
