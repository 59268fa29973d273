"""Proposals: boxes that something else made, in a format that `import` reads, as a run's input."""

import itertools
from collections.abc import Iterable, Iterator, Mapping

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding._util.paths import kind_of
from dataflow_grounding._util.settings import setting
from dataflow_grounding.data.bad_entries import BadEntries
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.inputs import Input
from dataflow_grounding.data.records import Update
from dataflow_grounding.data.rows import Row
from dataflow_grounding.formats import folder_of, format_to_read, read
from dataflow_grounding.formats.reading import with_sizes


def find_proposals(
    path: str, format: str, image_root: str, classes: Mapping[str, str], unpacked: str
) -> Input:
    """Return the input of the records of a file or folder, with a broken row for a bad entry.

    `classes` are phrases with their classes, which every picture is to have, with boxes or without.
    Pictures that the data hold themselves go into the folder `unpacked`.
    """
    kind = kind_of(path)
    if not kind:
        raise InputError(f"no input file {path}: check {setting('data.input_jsonl')}")
    format_to_read(format)  # raises before any row is read
    folder = image_root or folder_of(path)

    def rows() -> Iterator[Row]:
        unread: list[str] = []  # why entries can't be read: reading adds to it
        source = format_to_read(format)
        source.bad = BadEntries(take=unread.append)
        source.pictures = source.pictures or unpacked
        records = with_sizes(read(path, source, image_root=image_root or None), folder)
        yield from _numbered_rows(_with_classes(records, classes), unread)

    files = (path,) if kind == "file" else ()
    return Input(path, rows, folders=(folder, unpacked, "."), files=files)


def _numbered_rows(records: Iterable[Update], unread: list[str]) -> Iterator[Row]:
    numbers = itertools.count(1)
    # Each step of this loop reads on to the next record, which adds the bad entries on the way to
    # `unread`. A last step, with None for a record, is for those after the last record.
    for record in itertools.chain(records, [None]):
        if record is not None:
            yield Row(next(numbers), record)
        while unread:
            yield Row(next(numbers), data=None, error=BrokenRow(unread.pop(0)))


def _with_classes(
    records: Iterable[Update], class_of_phrase: Mapping[str, str]
) -> Iterator[Update]:
    """Give phrases their classes, and each record the phrases that it doesn't have, boxless."""
    class_of_words = {class_key(name): name for name in class_of_phrase.values()}
    # Phrases win over names of classes: with {"cup": "mug", "bowl": "cup"}, "cup" is a mug.
    class_of_words |= {class_key(phrase): name for phrase, name in class_of_phrase.items()}
    for record in records:
        expressions = []
        for expression in record["expressions"]:
            class_name = class_of_words.get(class_key(expression["text"]))
            class_column = {} if class_name is None else {"class": class_name}
            expressions.append({**class_column, **expression})  # a class that it states stays
        texts = {expression["text"] for expression in expressions}
        for phrase, class_name in class_of_phrase.items():
            if phrase not in texts:
                expressions.append({"text": phrase, "class": class_name, "instances": []})
        yield {**record, "expressions": expressions}
