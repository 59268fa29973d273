"""Read as rows what `data.input_jsonl` may name besides our own files.

There is a function for each kind of input, chosen by what the path is. Each returns an Input; rows
are read only when they are asked for.
"""

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

from dataflow_grounding._util.errors import BrokenRow, InputError, errors_as, needs_extra
from dataflow_grounding._util.paths import absolute, joined, kind_of, names_like, open_input
from dataflow_grounding._util.terminal import counted
from dataflow_grounding.data.dataframes import holds_bytes, parquet_rows
from dataflow_grounding.data.inputs import DATASETS, Input
from dataflow_grounding.data.json_lists import read_json
from dataflow_grounding.data.records import JsonObject, Update, parse_line
from dataflow_grounding.data.rows import Row, file_type_of, read_rows
from dataflow_grounding.formats.reading import files_under
from dataflow_grounding.formats.tar_shards import TarSample, tar_samples
from dataflow_grounding.images.files import ENDINGS

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""Files of metadata, of which an image folder of Hugging Face's has one, sought in this order."""
_TO_CONVERT = (".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".nef", ".arw")
"""Endings of pictures that can't be opened here, in lower case: they are no part of ENDINGS."""
BATCH = 64  # rows with their pictures that are in memory at a time
_MAX_ENDINGS = 5  # endings of other files than pictures that are reported


def find_other_input(path: str, split: str, results_dir: str) -> Input | None:
    """Return the input at `path`; None for a plain file of rows, a pipe, or where nothing is."""
    if path.startswith(DATASETS):
        return _of_dataset(path, split)
    path_kind = kind_of(path)  # "" if nothing is there
    if path_kind == "folder":
        return _of_folder(path, split, results_dir)
    if path_kind == "file" and path.lower().endswith(ENDINGS):  # a data set of one picture
        folder, name = os.path.split(path)
        # Pictures in `results_dir` are left out of a folder. One that is named itself isn't, so ""
        # is given. `if_none` is the error where no picture is found: there is one.
        return _of_pictures(path, folder or ".", [name], results_dir="", if_none="")
    if path_kind == "file":
        folders_of_pictures = (os.path.dirname(path) or ".", ".")
        return _of_special_file(path, folders_of_pictures)
    if path_kind == "" and glob.has_magic(path):
        return _of_glob(path, results_dir)
    return None


def _of_special_file(path: str, folders: tuple[str, ...]) -> Input | None:
    """Return the input of tar samples, COCO captions or Parquet with pictures; None for rows."""
    if path.endswith(".tar"):
        return _of_tars(path, [path])
    file_type = file_type_of(path)
    if file_type == "json":
        return _of_coco(path, folders)
    if file_type == "parquet" and holds_bytes(path):
        return Input(
            path, lambda: _numbered(parquet_rows(path, BATCH)), folders=folders, files=(path,)
        )
    return None


def _numbered(items: Iterable[Update]) -> Iterator[Row]:
    return (Row(number, item) for number, item in enumerate(items, 1))


def _of_folder(folder: str, split: str, results_dir: str) -> Input:
    """Return a data set that `datasets` saved, pictures with metadata, or pictures alone."""
    if any(kind_of(joined(folder, name)) for name in ("state.json", "dataset_dict.json")):
        return _of_dataset(folder, split)
    for name in METADATA:
        path = joined(folder, name)
        if kind_of(path) == "file":
            read = partial(read_rows, path)
            columns = {"image": "file_name"}
            return Input(path, read, folders=(folder,), files=(path,), columns=columns)
    names = files_under(folder, ("",), "data.input_jsonl")  # all: every name ends in ""
    below = [name for name in names if os.path.basename(name) in METADATA]
    if below:  # their captions would be passed over, and a model asked for them again
        folder_of_rows = joined(folder, os.path.dirname(below[0]))
        raise InputError(
            f"{folder} has rows in {' and '.join(below[:2])}: is the input {folder_of_rows}? The"
            f" pattern {joined(folder, '**/*.jpg')} takes pictures without them"
        )
    if_none = f"{folder} has no pictures in it ({', '.join(ENDINGS)}) and no metadata.jsonl"
    return _of_pictures(folder, folder, names, results_dir, if_none)


def _of_glob(pattern: str, results_dir: str) -> Input:
    folder = os.path.dirname(pattern)
    while glob.has_magic(folder):  # up to the folder in which all matches are
        folder = os.path.dirname(folder)
    names = names_like(folder, pattern)
    shards = [joined(folder, name) for name in names if name.endswith(".tar")]
    if shards:
        return _of_tars(pattern, shards)
    if_none = f"no picture ({', '.join(ENDINGS)}) matches {pattern}"
    return _of_pictures(pattern, folder or ".", names, results_dir, if_none)


def _of_pictures(
    path: str, folder: str, names: Iterable[str], results_dir: str, if_none: str
) -> Input:
    """Return a row for each picture among `names`; `if_none` is the error where there is none."""
    pictures: list[str] = []
    others: list[str] = []
    for name in _without_own_files(folder, list(names), results_dir):
        if name.lower().endswith(ENDINGS):
            pictures.append(name)
        else:
            others.append(name)
    passed_over = _passed_over_in_words(others)
    if not pictures:
        raise InputError(f"{if_none}; {passed_over}" if passed_over else if_none)
    rows = [{"image": name} for name in pictures]
    return Input(
        path,
        lambda: _numbered(rows),
        folders=(folder,),
        columns={"image": "image"},
        bare=True,  # rows have no column but the one of pictures
        passed_over=passed_over,
    )


def _without_own_files(folder: str, names: Sequence[str], results_dir: str) -> Iterator[str]:
    """Yield the files that neither are in the run's results nor belong to a report."""
    results = ""
    if results_dir:
        results = os.path.join(absolute(results_dir), "")  # a "/" ends it: out2 isn't in out
    report_folders = _folders_of_reports(folder, names)
    for name in names:
        is_result = bool(results) and absolute(joined(folder, name)).startswith(results)
        if not is_result and not name.startswith(report_folders):
            yield name


def _folders_of_reports(folder: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the folders of pictures that reports show: `report_files/` next to `report.html`."""
    candidates: set[str] = set()
    for name in names:
        if "_files" not in name:  # of millions of names hardly one has it
            continue
        parents = name.replace(os.sep, "/").split("/")[:-1]
        for depth, parent in enumerate(parents, 1):
            if parent.endswith("_files"):
                candidates.add("/".join(parents[:depth]))
    report_folders = []
    for candidate in sorted(candidates):
        page = f"{candidate.removesuffix('_files')}.html"
        # They are looked for on disk: a pattern such as `**/*.jpg` leaves them out of `names`.
        signs = (page, f"{candidate}/README.txt")
        is_of_report = all(kind_of(joined(folder, path)) == "file" for path in signs)
        if is_of_report:
            report_folders.append(f"{candidate}/")
    return tuple(report_folders)


def _passed_over_in_words(others: Sequence[str]) -> str:
    if not others:
        return ""
    endings = Counter(os.path.splitext(name)[1].lower() or "without an ending" for name in others)
    most_common = endings.most_common(_MAX_ENDINGS)
    by_ending = ", ".join(f"{count:,} {ending}" for ending, count in most_common)
    if len(endings) > _MAX_ENDINGS:
        by_ending += ", …"
    hint = ""
    to_convert = [ending for ending in endings if ending in _TO_CONVERT]
    if to_convert:
        hint = f". Convert {' and '.join(to_convert)} to .jpg to have them annotated"
    return f"{counted(len(others), 'file')} passed over, by ending: {by_ending}{hint}"


def _of_tars(path: str, shards: Sequence[str]) -> Input:
    return Input(
        path,
        lambda: _rows_of_tars(shards),
        folders=(".",),
        files=tuple(shards),
        columns={"image": "image"},
    )


def _rows_of_tars(shards: Sequence[str]) -> Iterator[Row]:
    """Yield rows, numbered through all shards."""
    samples = chain.from_iterable(map(tar_samples, shards))
    for number, sample in enumerate(samples, 1):
        try:
            yield Row(number, _row_of_sample(sample))
        except (BrokenRow, UnicodeDecodeError) as error:
            yield Row(number, data=None, error=BrokenRow(f"{sample.where}: {error}"))


def _row_of_sample(sample: TarSample) -> Update:
    """The `.json` wins over the `.txt`, and the sample's picture over an `image` in the `.json`."""
    row: Update = {}
    if "txt" in sample.parts:
        row["caption"] = sample.parts["txt"].decode()
    if "json" in sample.parts:
        row |= parse_line(sample.parts["json"])
    ending = sample.picture
    if not ending:
        raise BrokenRow(f"no picture in it ({', '.join(sample.parts)})")
    row["image"] = {"bytes": sample.parts[ending], "path": f"{sample.key}.{ending}"}
    return row


def _of_coco(path: str, folders: tuple[str, ...]) -> Input | None:
    """Return the captions of a COCO file; None for other JSON, which may be a list of rows."""
    data = _object_in(path)
    images = data.get("images")
    annotations = data.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        return None
    if not any(isinstance(item, dict) and "caption" in item for item in annotations):
        raise InputError(
            f"{path} is a COCO file without captions: boxes go into the pipeline"
            " image_referring_expression, as data.coco_json; or into image_region_caption, as JSON"
            ' lines of {"image": FILE_NAME, "bbox": [[x, y, width, height], ...]}'
        )
    entries = [image for image in images if isinstance(image, dict)]
    file_names = {str(image.get("id")): image.get("file_name") for image in entries}
    counts = f"{len(annotations)} captions of {len(file_names)} pictures"
    return Input(
        path,
        lambda: _numbered(_coco_rows(annotations, file_names)),
        folders=folders,
        files=(path,),
        columns={"image": "file_name", "caption": "caption"},
        remark=f"{counts}: one record for each caption",
    )


def _object_in(path: str) -> Update:
    """Return the object in a JSON file; {} for any other, which may be a large list of rows."""
    with errors_as(InputError, f"can't read {path}"), open_input(path) as file:
        beginning = file.read(64).removeprefix(b"\xef\xbb\xbf")  # UTF-8's mark
        if not beginning.lstrip().startswith(b"{"):
            return {}
        data = read_json(path)
    return data if isinstance(data, dict) else {}


def _coco_rows(annotations: Iterable[Any], file_names: JsonObject) -> Iterator[Update]:
    for item in annotations:
        annotation = item if isinstance(item, dict) else {}
        image_id = annotation.get("image_id")
        yield {
            "file_name": file_names.get(str(image_id)),
            "caption": annotation.get("caption"),
            "coco_image_id": image_id,
            "coco_caption_id": annotation.get("id"),
        }


def _load(path: str) -> Any:
    """Return a dict of splits; or the split itself, where only one was saved in the folder."""
    with needs_extra("Reading a data set of Hugging Face's", "datasets"):
        import datasets
    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells each of its retries
    name, _, configuration = path.removeprefix(DATASETS).partition(":")
    try:
        if path.startswith(DATASETS):
            return datasets.load_dataset(name, configuration or None)
        return datasets.load_from_disk(path)
    except Exception as error:  # the library's own, the file formats' and the network's
        lines = str(error).splitlines() or [type(error).__name__]
        why = lines[0]
        if isinstance(error, ConnectionError):
            why += ": is the name right, and this machine online?"
        raise InputError(f"can't load {path}: {why}") from None


def _of_dataset(path: str, split: str) -> Input:
    folder = path if os.path.isdir(path) else "."
    # A saved data set counts as unchanged as long as these are. One of the hub's has none.
    states = glob.glob(os.path.join(glob.escape(path), "**", "state.json"), recursive=True)
    return Input(
        path,
        lambda: _numbered(_dataset_rows(path, split)),
        folders=(folder, "."),
        files=tuple(sorted(states)),
    )


def _dataset_rows(path: str, split: str) -> Iterator[Update]:
    loaded = _load(path)
    if isinstance(loaded, dict):
        loaded = _split_of(loaded, path, split)
    # As Arrow has them pictures are as they are stored, not decoded.
    for batch in loaded.with_format("arrow").iter(batch_size=BATCH):
        yield from batch.to_pylist()


def _split_of(splits: JsonObject, path: str, split: str) -> Any:
    """Return the split of that name; for "", the only one that there is."""
    if not split and len(splits) == 1:
        split = next(iter(splits))
    if split not in splits:
        what = f"has no split {split!r}" if split else "has several splits"
        raise InputError(f"{path} {what}: set data.split to one of {', '.join(splits)}")
    return splits[split]
