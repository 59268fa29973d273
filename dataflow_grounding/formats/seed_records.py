"""Seed records: what `image_referring_expression` starts from, one record per image with its regions."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

from dataflow_grounding.boxes.regions import SEED_ERROR
from dataflow_grounding.errors import BrokenRow, InputError, MachineBusy, RecordError, SpecError
from dataflow_grounding.formats.label_sources import (
    LabelSource,
    beyond,
    counted_items,
    from_coco,
    from_label_folder,
    states,
)
from dataflow_grounding.formats.tao_records import COLUMN, SOURCE, from_tao, is_tao, with_status
from dataflow_grounding.geometry import Size
from dataflow_grounding.images import find_image, known_facts, read_facts, remember_facts
from dataflow_grounding.records import Record, as_json, read_object, sealed, unsealed
from dataflow_grounding.rows import read_rows, write_rows, write_text
from dataflow_grounding.spec import ReferringData
from dataflow_grounding.terminal import say
from dataflow_grounding.version import __version__

READERS = 8  # threads that read image headers
BATCH = 512
READING = 2  # changes where the same files give other records: seeds that were written before are then written anew


class Made(NamedTuple):
    """What the steps make anew of given annotations, now or later."""

    columns: list[str]
    labels: list[str]  # of the steps, as `pipeline_steps` has them


def find_seeds(data: ReferringData, made: Made, boxless: bool) -> Seeds:
    """The seeds of a spec's `data`; `boxless` where the steps do without regions. Raises SpecError, InputError."""
    block = "image_referring_expression.data"
    labels = {name: getattr(data, name) for name in ("kitti_label_dir", "coco_json", "yolo_label_dir")}
    given = {name: str(path) for name, path in labels.items() if path}
    if data.input_annotations_jsonl:
        return AnnotationSeeds(data.input_annotations_jsonl, data.image_dir or None, made, boxless)
    if len(given) != 1:
        what = f"{' and '.join(given)} are given" if given else "none is given"
        raise SpecError(f"{block}: give one of {', '.join(labels)} or input_annotations_jsonl ({what})")
    if not data.image_dir:
        raise SpecError(f"{block}.image_dir is missing: give it the folder of the images")
    [(name, path)] = given.items()
    if name == "coco_json":
        return LabelSeeds(from_coco(data.image_dir, path), path, boxless)
    key = f"{block}.{name}"
    names_file = None if name == "kitti_label_dir" else data.yolo_names or ""
    return LabelSeeds(from_label_folder(data.image_dir, path, key, names_file), path, boxless)


def _with_boxes(records: Iterator[dict[str, Any]], why: Callable[[], str]) -> Iterator[dict[str, Any]]:
    """The records. Raises InputError at their end if none had a box; those that fail for another reason tell that."""
    some, count = False, 0
    for count, record in enumerate(records, 1):  # noqa: B007
        fails = SEED_ERROR in record or "width" not in record  # it, or its image, can't be read
        some = some or fails or bool(record.get("regions"))
        yield record
    if count and not some:
        raise InputError(f"none of the {count} images has a box: {why()}")


class LabelSeeds:
    """From images and their labels: sorted by image path, `image_path` relative to the folder of images."""

    def __init__(self, source: LabelSource, origin: str, boxless: bool) -> None:
        self.source, self._boxless = source, boxless
        self.folders: tuple[str, ...] = (source.image_dir,)
        self.files = [] if os.path.isdir(origin) else [origin]
        self.origin = f"{source.image_dir} with {origin}"

    def records(self) -> Iterator[dict[str, Any]]:
        """One record per image; without a size if it can't be opened, with the reason if its labels can't be read.

        Raises:
            InputError: At the end, if there was no box at all and the steps need some.
        """
        if self._boxless:
            return self._records()
        return _with_boxes(self._records(), lambda: "; ".join([self.origin, *self.source.left_out[:1]]))

    def _records(self) -> Iterator[dict[str, Any]]:
        self.source.left_out, self.source.beyond = [], []
        numbers = iter(range(len(self.source.images)))
        with ThreadPoolExecutor(READERS) as pool:
            while batch := list(itertools.islice(numbers, BATCH)):
                for record, left_out, outside in pool.map(self._record, batch):
                    self.source.left_out += left_out
                    self.source.beyond += outside
                    yield record

    def _record(self, number: int) -> tuple[dict[str, Any], list[str], list[str]]:
        """An image's record, which of its labels are left out, and which of its boxes reach beyond it."""
        path = self.source.images[number]
        record: dict[str, Any] = {"image_id": os.path.splitext(path)[0], "image_path": path}
        size = _size_of(path, self.folders)
        if size is not None:
            record |= {"width": size[0], "height": size[1]}
        record["source"] = SOURCE
        try:
            record["regions"], left_out = self.source.read(path, size)
        except BrokenRow as error:
            return {**record, "regions": [], SEED_ERROR: str(error)}, [], []
        return record, left_out, beyond(record["regions"], size, path) if size is not None else []

    def fingerprint(self) -> str:
        """Digest of paths, sizes and times of images and labels."""
        digest = hashlib.sha256(f"{__version__} {READING}".encode())
        for state in states(self.source):
            digest.update(json.dumps(state).encode())
        return digest.hexdigest()

    def report(self) -> dict[str, Any]:
        """Counts, and first names of what doesn't fit together."""
        return self.source.report()

    def remarks(self) -> list[str]:
        """The same in words."""
        return self.source.remarks()


class AnnotationSeeds:
    """From records: ours, with boxes in pixels, or TAO's. In their order, with their columns but those made anew."""

    def __init__(self, path: str, image_dir: str | None, made: Made, boxless: bool) -> None:
        if not os.path.isfile(path):
            raise InputError(f"no input file {path}: check data.input_annotations_jsonl")
        self.path = path
        self.files = [path]
        self.origin = path
        beside = os.path.dirname(path) or "."
        self.folders: tuple[str, ...] = (image_dir, beside, ".") if image_dir else (beside, ".")
        self._image_dir, self._made, self._boxless = image_dir, made, boxless
        self._forget()

    def records(self) -> Iterator[dict[str, Any]]:
        """The records; a broken row becomes a record that says why, and fails.

        Raises:
            InputError: At the end, if there was no box at all and the steps need some.
        """
        why = f"{self.path} has none in 'regions', and none in TAO's {COLUMN!r}"
        return self._records() if self._boxless else _with_boxes(self._records(), lambda: why)

    def _records(self) -> Iterator[dict[str, Any]]:
        self._forget()
        for row in read_rows(self.path):
            where = f"{self.path}, line {row.line}"
            if row.data is None:
                self._broken.append(f"{where}: {row.error}")
                yield {"image_path": None, SEED_ERROR: self._broken[-1]}
                continue
            data = self._at_hand(row.data)
            try:
                yield self._record(data, where)
            except BrokenRow as error:
                yield {**self._kept(data), "regions": [], SEED_ERROR: f"{where}: {error}"}

    def _forget(self) -> None:
        self._converted = 0
        self._broken: list[str] = []
        self._without_area: list[str] = []
        self._beyond: list[str] = []
        self._not_here: list[str] = []

    def _record(self, row: dict[str, Any], where: str) -> dict[str, Any]:
        size = _size_of(row.get("image_path"), self.folders)
        if is_tao(row):
            if size is None:
                self._not_here.append(str(row.get("image_path")))
                raise BrokenRow(f"can't open the image {row.get('image_path')!r}")
            row, without_area = from_tao(row, size)
            self._converted += 1
            self._without_area += [f"{where}: {box}" for box in without_area]
            self._beyond += beyond(row["regions"], size, where)
        record = self._kept(with_status(row))
        if size is not None:
            record |= {"width": size[0], "height": size[1]}
        record.setdefault("source", SOURCE)
        if self._boxless:
            record.setdefault("regions", [])
        return record

    def _at_hand(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row; one of TAO's with its image's name alone, if the path is that of the container that TAO ran in."""
        path = row.get("image_path")
        if self._image_dir and isinstance(path, str) and is_tao(row) and _size_of(path, self.folders) is None:
            name = os.path.basename(path)
            return {**row, "image_path": name} if os.path.exists(os.path.join(self._image_dir, name)) else row
        return row

    def _kept(self, row: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in row.items() if name not in self._made.columns}
        if isinstance(steps := row.get("pipeline_steps"), list):
            once = dict.fromkeys(step for step in steps if isinstance(step, str))
            kept["pipeline_steps"] = [step for step in once if step not in self._made.labels]
        return kept

    def fingerprint(self) -> str:
        """Digest of the file and of what is left out."""
        depends_on = [__version__, READING, self.folders, self._made, self._boxless]
        digest = hashlib.sha256(json.dumps(depends_on).encode())
        with open(self.path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def report(self) -> dict[str, Any]:
        """What was converted, what is broken."""
        return {"converted_from_tao": self._converted, "broken_lines": self._broken[:20]}

    def remarks(self) -> list[str]:
        """The same in words."""
        lines = [f"TAO records taken over, with boxes in pixels: {self._converted}"] if self._converted else []
        lines += counted_items("boxes without an area are left out", self._without_area)
        lines += counted_items("boxes reach beyond their image and are kept as they are", self._beyond)
        lines += counted_items("images can't be opened, give data.image_dir their folder", self._not_here)
        return [*lines, *self._broken[:5]]


Seeds: TypeAlias = LabelSeeds | AnnotationSeeds  # `files`: of the user; `origin`: what is read, for people


def _size_of(path: Any, folders: tuple[str, ...]) -> Size | None:
    """Width and height of the upright image; None if it can't be opened: its record will fail. Raises MachineBusy."""
    try:
        file = find_image(Record({"image_path": path}, folders), "image_path")
        facts = known_facts(file) or remember_facts(file, read_facts(file.path))
        return facts.size
    except MachineBusy:
        raise
    except RecordError:
        return None


def write_seeds(seeds: Seeds, path: str, state_path: str) -> dict[str, Any]:
    """Write the records to `path`, whole or not at all, if they changed; returns the report. Raises InputError."""
    fingerprint = seeds.fingerprint()
    known = unsealed(read_object(state_path))
    if known and os.path.exists(path) and known["fingerprint"] == fingerprint and known["written"] == _written(path):
        report: dict[str, Any] = known["report"]
    else:
        try:
            write_rows(path, seeds.records())
        except OSError as error:
            raise InputError(f"can't write {path}: {error.strerror or error}") from None
        report = seeds.report()
        state = sealed(as_json({"fingerprint": fingerprint, "written": _written(path), "report": report}))
        write_text(state_path, json.dumps(state) + "\n")
    for remark in seeds.remarks():
        say(f"Note: {remark}.")
    return report


def _written(path: str) -> list[int]:
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns]


def seed_file(
    folder: str, image_dir: str, *, kitti: str = "", coco: str = "", yolo: str = "", yolo_names: str = ""
) -> str:
    """Write seed records from images and one kind of labels; returns the path. Raises SpecError, InputError."""
    data = ReferringData(
        image_dir=image_dir, kitti_label_dir=kitti, coco_json=coco, yolo_label_dir=yolo, yolo_names=yolo_names
    )
    seeds = find_seeds(data, Made([], []), boxless=False)
    path = os.path.join(folder, "seed_annotations.jsonl")
    write_seeds(seeds, path, os.path.join(folder, ".ckpt", "seeds.json"))
    return path
