"""Seed records: what `image_referring_expression` starts from, one record per image with its regions."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

from dataflow_grounding.boxes.regions import SEED_ERROR
from dataflow_grounding.errors import BrokenRow, InputError, MachineBusy, RecordError, SpecError
from dataflow_grounding.formats.label_sources import LabelSource, from_coco, from_label_folder, states
from dataflow_grounding.formats.tao_records import SOURCE, from_tao, is_tao
from dataflow_grounding.geometry import Size, area, box_of, clamp
from dataflow_grounding.images import find_image, known_facts, read_facts, remember_facts
from dataflow_grounding.records import Record, as_json, read_object, sealed, unsealed
from dataflow_grounding.rows import read_rows, write_rows, write_text
from dataflow_grounding.spec import ReferringData
from dataflow_grounding.terminal import say
from dataflow_grounding.version import __version__

READERS = 8  # threads that read image headers
BATCH = 512


def find_seeds(data: ReferringData, left_out: Sequence[str], boxless: bool) -> Seeds:
    """The seeds of a spec's `data`; `left_out` are columns that steps will make. Raises SpecError, InputError."""
    block = "image_referring_expression.data"
    labels = {name: getattr(data, name) for name in ("kitti_label_dir", "coco_json", "yolo_label_dir")}
    given = {name: str(path) for name, path in labels.items() if path}
    if data.input_annotations_jsonl:
        return AnnotationSeeds(data.input_annotations_jsonl, data.image_dir or None, left_out, boxless)
    if len(given) != 1:
        what = f"{' and '.join(given)} are given" if given else "none is given"
        raise SpecError(f"{block}: give one of {', '.join(labels)} or input_annotations_jsonl ({what})")
    if not data.image_dir:
        raise SpecError(f"{block}.image_dir is missing: give it the folder of the images")
    [(name, path)] = given.items()
    if name == "coco_json":
        return LabelSeeds(from_coco(data.image_dir, path), path)
    key = f"{block}.{name}"
    names_file = None if name == "kitti_label_dir" else data.yolo_names or ""
    return LabelSeeds(from_label_folder(data.image_dir, path, key, names_file), path)


class LabelSeeds:
    """From images and their labels: sorted by image path, `image_path` relative to the folder of images."""

    def __init__(self, source: LabelSource, origin: str) -> None:
        self.source = source
        self.folders: tuple[str, ...] = (source.image_dir,)
        self.files = [] if os.path.isdir(origin) else [origin]
        self.origin = f"{source.image_dir} with {origin}"

    def records(self) -> Iterator[dict[str, Any]]:
        """One record per image; without a size if it can't be opened, with the reason if its labels can't be read."""
        numbers = iter(range(len(self.source.images)))
        with ThreadPoolExecutor(READERS) as pool:
            while batch := list(itertools.islice(numbers, BATCH)):
                yield from pool.map(self._record, batch)

    def _record(self, number: int) -> dict[str, Any]:
        path = self.source.images[number]
        record: dict[str, Any] = {"image_id": os.path.splitext(path)[0], "image_path": path}
        size = _size_of(path, self.folders)
        if size is not None:
            record |= {"width": size[0], "height": size[1]}
        record["source"] = SOURCE
        try:
            regions = self.source.read(path, size)
            for region in regions:
                if size is not None and area(clamp(box_of(region["bbox"]), size)) <= 0:
                    outside = f"lies outside the image of {size[0]} x {size[1]} px"
                    raise BrokenRow(f"{path}: the box {region['bbox']} {outside}")
            record["regions"] = regions
        except BrokenRow as error:
            record |= {"regions": [], SEED_ERROR: str(error)}
        return record

    def fingerprint(self) -> str:
        """Digest of paths, sizes and times of images and labels."""
        digest = hashlib.sha256(__version__.encode())
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
    """From records: ours, with boxes in pixels, or TAO's. In their order, with all their columns but `left_out`."""

    def __init__(self, path: str, image_dir: str | None, left_out: Sequence[str], boxless: bool) -> None:
        if not os.path.isfile(path):
            raise InputError(f"no input file {path}: check data.input_annotations_jsonl")
        self.path = path
        self.files = [path]
        self.origin = path
        beside = os.path.dirname(path) or "."
        self.folders: tuple[str, ...] = (image_dir, beside, ".") if image_dir else (beside, ".")
        self._left_out, self._boxless = left_out, boxless
        self._broken: list[str] = []
        self._converted = 0

    def records(self) -> Iterator[dict[str, Any]]:
        """The records; a broken row becomes a record that says why, and fails."""
        self._broken, self._converted = [], 0
        for row in read_rows(self.path):
            where = f"{self.path}, line {row.line}"
            if row.data is None:
                self._broken.append(f"{where}: {row.error}")
                yield {"image_path": None, SEED_ERROR: self._broken[-1]}
                continue
            try:
                yield self._record(row.data)
            except BrokenRow as error:
                yield {**self._kept(row.data), "regions": [], SEED_ERROR: f"{where}: {error}"}

    def _record(self, row: dict[str, Any]) -> dict[str, Any]:
        size = _size_of(row.get("image_path"), self.folders)
        if size is not None and is_tao(row):
            row = from_tao(row, size)
            self._converted += 1
        record = self._kept(row)
        if size is not None:
            record |= {"width": size[0], "height": size[1]}
        record.setdefault("source", SOURCE)
        if self._boxless:
            record.setdefault("regions", [])
        return record

    def _kept(self, row: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in row.items() if name not in self._left_out}

    def fingerprint(self) -> str:
        """Digest of the file and of what is left out."""
        digest = hashlib.sha256(json.dumps([__version__, self.folders, self._left_out, self._boxless]).encode())
        with open(self.path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def report(self) -> dict[str, Any]:
        """What was converted, what is broken."""
        return {"converted_from_tao": self._converted, "broken_lines": self._broken[:20]}

    def remarks(self) -> list[str]:
        """The same in words."""
        lines = [f"{self._converted} TAO records were converted from 0-1000 to pixels"] if self._converted else []
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
    seeds = find_seeds(data, (), boxless=False)
    path = os.path.join(folder, "seed_annotations.jsonl")
    write_seeds(seeds, path, os.path.join(folder, ".ckpt", "seeds.json"))
    return path
