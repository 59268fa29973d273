"""Formats that carry whole records and their pictures: Parquet for `datasets`, WebDataset's shards.

Sources: datasets' features/image.py and its webdataset builder; webdataset's tariterators.py.
"""

import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from dataflow_grounding._util.errors import InputError, needs_extra
from dataflow_grounding.data.dataframes import encodable, parquet_rows
from dataflow_grounding.data.records import dump_text, image_id_of
from dataflow_grounding.extras.formats._classes import Numbers
from dataflow_grounding.extras.formats.base import Format, Sample
from dataflow_grounding.extras.formats.export_folder import ExportFolder
from dataflow_grounding.extras.formats.export_pictures import FOLDER
from dataflow_grounding.extras.formats.pictures import put_picture
from dataflow_grounding.extras.formats.reading import ENDINGS, broken, files_under, tar_samples

# bytes of a file, of what is in memory, of what is written
SHARD, GROUP, BUFFER = 500 * 2**20, 16 * 2**20, 2**18
_RECORD = 2**14  # bytes that are counted for a record besides its picture
_HEAD = tarfile.TarInfo().tobuf()  # of a file without a name: what is the same in all, and where
_SAME, _SUM = _HEAD[156:], sum(_HEAD[156:]) + 8 * ord(" ")
_BOX = {"bbox_id": "", "bbox": [0.0], "score": 0.0, "evidence": "", "more": ""}
_EXPRESSION = {
    "expression_id": "",
    "text": "",
    "char_span": [0],
    "noun_chunk": "",
    "status": "",
    "verified": True,
}
_TEXTS = {
    "image_id": "",
    "image_path": "",
    "caption": "",
    "cleaned_caption": "",
    "source": "",
    "model": "",
}
_EXPRESSIONS = [{**_EXPRESSION, "caption_span": [0], "instances": [_BOX], "more": ""}]
ROW = {**_TEXTS, "width": 0, "height": 0, "expressions": _EXPRESSIONS, "more": ""}
"""A record as these formats write it, with an example of each type; `more` is JSON with what has no
column.
"""


@dataclass
class Datasets(Format):
    """Parquet with the pictures in it, as `load_dataset` reads it from disk and from the hub."""

    packs = whole = True
    pictures: str = ""

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        with needs_extra("Parquet", "parquet"):
            import pyarrow.parquet
        schema = pyarrow.Table.from_pylist([{"image": {"bytes": b"", "path": ""}, **ROW}]).schema
        out.line = {"image": b"", **ROW}
        shards: list[str] = []
        for shard in _parts(samples, SHARD):
            shards.append(out.place(f"{self.data_file}/{len(shards)}"))
            with pyarrow.parquet.ParquetWriter(shards[-1], schema) as writer:
                for group in _parts(shard, GROUP):
                    named = ((one, one.file_name.removeprefix(f"{FOLDER}/")) for one in group)
                    rows = [
                        {"image": {"bytes": one.data, "path": name}, **_row(one, name)}
                        for one, name in named
                    ]
                    writer.write_table(pyarrow.Table.from_pylist(rows, schema))
        for number, path in enumerate(shards):
            os.rename(
                path, out.place(f"{self.data_file}/train-{number:05}-of-{len(shards):05}.parquet")
            )

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        for file in _files(path, ".parquet"):
            for number, row in enumerate(parquet_rows(file, 100), 1):
                with broken(f"{file}, row {number}"):
                    image = row.pop("image", None) or {}
                    yield _record(row, image.get("bytes"), self.pictures)


@dataclass
class WebDataset(Format):
    """Tar shards in which a picture and its record stand side by side. Equal data makes equal
    bytes.
    """

    packs = whole = True
    pictures: str = ""

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        keys, kinds = Numbers(), set()
        for number, shard in enumerate(_parts(samples, SHARD)):
            with open(out.place(f"{self.data_file}/{number:06}.tar"), "wb", BUFFER) as tar:
                for sample in shard:
                    stem, ending = os.path.splitext(sample.file_name.removeprefix(f"{FOLDER}/"))
                    folder, base = os.path.split(stem)
                    # the first dot of a name ends it
                    key = os.path.join(folder, base.replace(".", "_"))
                    while not keys.of(key)[1]:
                        key += "~"
                    kinds.add(ending := ending.lower() or ".jpg")
                    record = dump_text(_row(sample, key + ending)).encode()
                    for inside, content in ((ending, sample.data), (".json", record)):
                        padding = bytes(-len(content) % tarfile.BLOCKSIZE)
                        tar.writelines((_tar_head(key + inside, len(content)), content, padding))
                tar.write(bytes(tarfile.RECORDSIZE))  # zeros are its end
        if len(kinds) == 1:  # `datasets` reads no others
            out.line = {"__key__": "", "__url__": "", kinds.pop()[1:]: b"", "json": ROW}

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        for file in _files(path, ".tar"):
            for sample in tar_samples(file):
                parts = sample.parts
                with broken(sample.where):
                    if sample.error is not None:
                        raise sample.error
                    row = json.loads(parts.pop(".json", "null"))
                    if row is not None:
                        picture = next(
                            (parts[end] for end in parts if end.lower() in ENDINGS), None
                        )
                        yield _record(row, picture, self.pictures)


def _tar_head(name: str, size: int) -> bytes:
    """The header of a file of so many bytes, as tarfile makes it in four times the time, where the
    name is plain.
    """
    if not name.isascii() or len(name) > tarfile.LENGTH_NAME:
        info = tarfile.TarInfo(name)
        info.size = size
        return info.tobuf()
    start = b"%b%b%011o%b" % (name.encode().ljust(100, b"\0"), _HEAD[100:124], size, _HEAD[135:148])
    return b"%b%06o\0 %b" % (start, sum(start) + _SUM, _SAME)


def _row(sample: Sample, path: str) -> Any:
    """The row of a sample, whose picture is called `path` where its record doesn't name it."""
    expressions = [phrase.expression for phrase in sample.phrases]
    said = {"width": sample.size[0], "height": sample.size[1], "expressions": expressions}
    return _AS_ROW({"image_path": path, **sample.record, **said})


def _typed_as(example: Any) -> Callable[[Any], Any]:
    """What makes a value as the example is, with every key; what an object has besides is in
    `more`.
    """
    if isinstance(example, dict):
        columns = {key: _typed_as(inner) for key, inner in example.items() if key != "more"}

        def of_object(value: Any) -> Any:
            row = {
                key: None if (item := value.get(key)) is None else typed(item)
                for key, typed in columns.items()
            }
            more = value.keys() - columns.keys() and {
                key: value[key] for key in value if key not in columns
            }
            return {**row, "more": dump_text(more) if more else "{}"}

        return of_object
    if isinstance(example, list):
        typed = _typed_as(example[0])
        return lambda value: [None if item is None else typed(item) for item in value]
    return (lambda value: encodable(str(value))) if isinstance(example, str) else type(example)


_AS_ROW = _typed_as(ROW)


def _record(row: dict[str, Any], picture: bytes | None, folder: str) -> dict[str, Any]:
    """What a row was made of, its picture in `folder` if that is given. Raises KeyError where it is
    another's.
    """
    row["image_path"], row["expressions"]
    record: dict[str, Any] = _untyped(row)
    if not (folder and picture):
        return record
    return {
        **record,
        "image_id": image_id_of(record, "image_path"),
        "image_path": put_picture(picture, folder),
    }


def _untyped(value: Any) -> Any:
    if isinstance(value, list):
        return [_untyped(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {
        key: _untyped(item)
        for key, item in value.items()
        if item is not None or key in ("char_span", "score")
    }
    return {**json.loads(kept.pop("more", "{}")), **kept}


def _parts(samples: Iterator[Sample], most: int) -> Iterator[Iterator[Sample]]:
    """In parts of so many bytes, each to be used up before the next."""

    def part(first: Sample) -> Iterator[Sample]:
        left = most
        for one in chain([first], samples):
            yield one
            left -= len(one.data) + _RECORD
            if left <= 0:
                return

    return map(part, samples)


def _files(path: str, ending: str) -> list[str]:
    """The one file, or those of a data set. Raises InputError."""
    files = (
        [path]
        if os.path.isfile(path)
        else [os.path.join(path, n) for n in files_under(path, (ending,), path)]
    )
    if not files:
        raise InputError(f"{path} has no files that end in {ending}")
    return files
