"""Formats that carry whole records and their pictures: Parquet for `datasets`, WebDataset's shards.

Sources: datasets' features/image.py and its webdataset builder; webdataset's tariterators.py.
"""

import json
import math
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from dataflow_grounding._util.errors import InputError, needs_extra
from dataflow_grounding._util.paths import kind_of
from dataflow_grounding.data.classes import CLASSES_FILE, classes_of
from dataflow_grounding.data.dataframes import encodable, parquet_rows
from dataflow_grounding.data.records import Update, dump_text, image_id_of
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.formats.export_pictures import FOLDER
from dataflow_grounding.formats.format import Format, Sample
from dataflow_grounding.formats.reading import entry_errors, files_under
from dataflow_grounding.formats.stated_twice import CountedPlaces
from dataflow_grounding.formats.tar_shards import tar_samples
from dataflow_grounding.images.picture_folder import put_picture

SHARD = 500 * 2**20  # bytes of a file, about: what `datasets` makes its own shards of
GROUP = 16 * 2**20  # bytes in memory at a time, for Parquet
BUFFER = 2**18  # bytes that are written at a time, for tar
_RECORD_BYTES = 2**14  # counted for each record in addition to its picture
_WITHOUT_PICTURE = "samples without a picture, whose records name one"
_BATCH = 100  # rows with their pictures that are read at a time
# Examples of each column's type: "" for a text, 0 for an int, 0.0 for a float, a list of one item.
_BOX = {"bbox_id": "", "bbox": [0.0], "score": 0.0, "evidence": "", "more": ""}
_EXPRESSION = {
    "expression_id": "",
    "text": "",
    "char_span": [0],
    "noun_chunk": "",
    "status": "",
    "verified": True,
    "caption_span": [0],
    "instances": [_BOX],
    "more": "",
}
ROW = {
    "image_id": "",
    "image_path": "",
    "caption": "",
    "cleaned_caption": "",
    "source": "",
    "model": "",
    "width": 0,
    "height": 0,
    "expressions": [_EXPRESSION],
    "more": "",
}
"""A record as these formats write it, with an example of each type; `more` is JSON of the rest."""


@dataclass
class Datasets(Format):
    """Parquet with the pictures in it, as `load_dataset` reads it from disk and from the hub."""

    packs = True
    pictures: str = ""
    class_list: Sequence[str] = ()

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        """Write Parquet files of about SHARD bytes, whose names say how many there are."""
        with needs_extra("Parquet", "parquet"):
            import pyarrow.parquet
        schema = _parquet_schema()
        paths: list[str] = []
        for shard in _split_by_bytes(samples, SHARD):
            path = out.place(f"{self.data_file}/{len(paths)}")  # 0, 1 and so on, until all are made
            paths.append(path)
            with pyarrow.parquet.ParquetWriter(path, schema) as writer:
                for group in _split_by_bytes(shard, GROUP):
                    rows = [_row_with_picture(sample) for sample in group]
                    writer.write_table(pyarrow.Table.from_pylist(rows, schema))
        for number, path in enumerate(paths):  # now that it is known how many there are
            name = f"train-{number:05}-of-{len(paths):05}.parquet"
            os.rename(path, out.place(f"{self.data_file}/{name}"))
        _write_classes(self.class_list, out)

    def read(self, path: str, image_root: str) -> Iterator[Update]:
        """Yield a record for each row; its picture is put into `pictures`, if that is set."""
        self.class_names = classes_of(path)
        for file in _files(path, ".parquet"):
            for number, row in enumerate(parquet_rows(file, _BATCH), 1):
                with entry_errors(f"{file}, row {number}", self.bad):
                    image = row.pop("image", None) or {}
                    yield _record(row, image.get("bytes"), self.pictures)


@dataclass
class WebDataset(Format):
    """Tar shards with each picture next to its record. Equal data makes equal bytes."""

    packs = True
    pictures: str = ""
    class_list: Sequence[str] = ()

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        keys = _FreeKeys()
        for number, shard in enumerate(_split_by_bytes(samples, SHARD)):
            with open(out.place(f"{self.data_file}/{number:06}.tar"), "wb", BUFFER) as tar:
                for sample in shard:
                    stem, ending = os.path.splitext(sample.file_name.removeprefix(f"{FOLDER}/"))
                    ending = ending.lower() or ".jpg"
                    key = keys.of(stem)
                    record = dump_text(_row(sample, key + ending)).encode()
                    tar.writelines(_tar_member(key + ending, sample.data))
                    tar.writelines(_tar_member(f"{key}.json", record))
                tar.write(bytes(tarfile.RECORDSIZE))  # zeros end a tar file
        _write_classes(self.class_list, out)

    def read(self, path: str, image_root: str) -> Iterator[Update]:
        """Yield a record for each sample that has a `.json`; others are passed over.

        Its picture is the sample's first file with a picture's ending. Without one, the record's
        own path stays.
        """
        self.class_names = classes_of(path)
        without_picture = CountedPlaces()
        for file in _files(path, ".tar"):
            for sample in tar_samples(file):
                with entry_errors(sample.where, self.bad):  # at an error the sample is left out
                    row = json.loads(sample.parts.get("json", b"null"))
                    if row is None:
                        what = "pictures" if sample.picture else "samples"
                        self.passed_over.add(f"{what} without a record", sample.where)
                        continue
                    if not sample.picture:
                        without_picture.add(_WITHOUT_PICTURE, sample.where)
                    picture = sample.parts.get(sample.picture)  # its bytes, or None
                    yield _record(row, picture, self.pictures)
        self.remarks += without_picture.remarks()


def _parquet_schema() -> Any:
    """Return the types of the columns; to `datasets` it says which one is a picture."""
    import pyarrow  # of the extra `parquet`, which `write` has asked for

    example = {"image": {"bytes": b"", "path": ""}, **ROW}
    stated_types = {"huggingface": '{"info": {"features": {"image": {"_type": "Image"}}}}'}
    return pyarrow.Table.from_pylist([example]).schema.with_metadata(stated_types)


class _FreeKeys:
    """Gives each picture of a data set a key of its own."""

    def __init__(self) -> None:
        self._last_number_of: dict[str, int] = {}  # by a key that is taken, what was put after it

    def of(self, stem: str) -> str:
        """Return a free key for a path without its ending: `a/x_1` for `a/x.1`, then `a/x_1~2`."""
        folder, base = os.path.split(stem)
        # the first dot of a name would end its key
        plain_key = os.path.join(folder, base.replace(".", "_"))
        key = plain_key
        number = self._last_number_of.get(plain_key, 1)  # 1 is the key without a number
        while key in self._last_number_of:
            number += 1
            key = f"{plain_key}~{number}"
        self._last_number_of[key] = 1
        self._last_number_of[plain_key] = number
        return key


def _write_classes(names: Sequence[str], out: ExportFolder) -> None:
    if names:
        with out.file(CLASSES_FILE) as file:
            file.write("".join(f"{name}\n" for name in names))


def _tar_member(name: str, content: bytes) -> tuple[bytes, bytes, bytes]:
    info = tarfile.TarInfo(name)  # no time and no owner, so that equal data makes equal bytes
    info.size = len(content)
    padding = bytes(-len(content) % tarfile.BLOCKSIZE)
    return info.tobuf(), content, padding


def _row_with_picture(sample: Sample) -> Update:
    path = sample.file_name.removeprefix(f"{FOLDER}/")
    return {"image": {"bytes": sample.data, "path": path}, **_row(sample, path)}


def _row(sample: Sample, path: str) -> Any:
    """Return a record in the form of ROW. It keeps its own `image_path`, by default `path`."""
    facts = {
        "width": sample.size[0],
        "height": sample.size[1],
        "expressions": [phrase.expression.to_json() for phrase in sample.phrases],
    }
    return _converted({"image_path": path, **sample.record, **facts}, ROW)


def _converted(value: Any, example: Any) -> Any:
    """Return a value of the example's type: "5" of 5 for a text. Raises TypeError, ValueError.

    Of an object, `more` is JSON of the keys without an example: for {"text": "", "more": ""},
    {"text": 5, "size": 2} becomes {"text": "5", "more": '{"size": 2}'}.
    """
    if value is None:
        return None
    if isinstance(example, list):
        return [_converted(item, example[0]) for item in value]
    if isinstance(example, str):
        return encodable(str(value))
    if not isinstance(example, dict):
        return type(example)(value)  # int, float or bool
    stated = [key for key in example if key != "more"]
    row = {key: _converted(value.get(key), example[key]) for key in stated}
    others = {key: value[key] for key in value if key not in row}
    return {**row, "more": dump_text(others) if others else "{}"}


def _record(row: Update, picture: bytes | None, folder: str) -> Update:
    """Return the record of a row, and put its picture into the folder, if there are both."""
    for column in ("image_path", "expressions"):  # ours have both
        if column not in row:
            raise KeyError(column)
    record: Update = _restored(row)
    if not folder or not picture:
        return record
    # The id is set before the path changes: an import would make it of the picture's new name.
    image_id = image_id_of(record, "image_path")
    return {**record, "image_id": image_id, "image_path": put_picture(picture, folder)}


def _restored(value: Any) -> Any:
    """Return a value as it was before `_converted`, which wrote None for missing keys."""
    if isinstance(value, list):
        return [_restored(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # other writers of Parquet have NaN for it
    if not isinstance(value, dict):
        return value
    stated = {}
    for key, item in value.items():
        restored = _restored(item)
        if restored is not None or key in ("char_span", "score"):  # these two may be None
            stated[key] = restored
    more = json.loads(stated.pop("more", "{}"))  # the keys that ROW doesn't have
    return {**more, **stated}


def _split_by_bytes(samples: Iterator[Sample], size: int) -> Iterator[Iterator[Sample]]:
    """Yield the samples in parts of about `size` bytes.

    All parts take their samples from the one iterator: a part has to be gone through before the
    next is asked for.
    """
    for first in samples:
        yield _up_to_bytes(chain([first], samples), size)


def _up_to_bytes(samples: Iterator[Sample], size: int) -> Iterator[Sample]:
    """Yield samples until they have `size` bytes or more: one at the least."""
    bytes_left = size
    for sample in samples:
        yield sample
        bytes_left -= len(sample.data) + _RECORD_BYTES
        if bytes_left <= 0:
            return


def _files(path: str, ending: str) -> list[str]:
    if kind_of(path) == "file":
        return [path]
    files = [os.path.join(path, name) for name in files_under(path, (ending,), path)]
    if not files:
        raise InputError(f"{path} has no files that end in {ending}")
    return files
