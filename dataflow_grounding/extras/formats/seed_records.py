"""Seed records: what `image_referring_expression` starts from, one record per image with its
regions.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import BrokenRow, InputError, SpecError, told_as
from dataflow_grounding._util.paths import joined, kind_of, open_file, state_of, system_errors
from dataflow_grounding._util.terminal import say
from dataflow_grounding._util.version import __version__
from dataflow_grounding.boxes.regions import SEED_ERROR
from dataflow_grounding.data.records import as_json, read_object
from dataflow_grounding.data.rows import read_rows, write_rows, write_text
from dataflow_grounding.engine.keyed_log import sealed, unsealed
from dataflow_grounding.extras.formats.label_seeds import (
    BEYOND,
    Seeds,
    beyond,
    from_coco,
    from_label_folder,
    sides,
    size_of,
)
from dataflow_grounding.extras.formats.tao_records import (
    COLUMN,
    SOURCE,
    from_tao,
    is_tao,
    with_status,
)
from dataflow_grounding.spec.schema import ReferringData

FLAT = "boxes without an area are left out"
GONE = "images can't be opened, give data.image_dir their folder"


class Made(NamedTuple):
    """What the steps make anew of given annotations, now or later."""

    columns: list[str]
    labels: list[str]  # of the steps, as `pipeline_steps` has them


def find_seeds(data: ReferringData, made: Made, boxless: bool) -> Seeds:
    """The seeds of a spec's `data`; `boxless` where the steps do without regions. Raises SpecError,
    InputError.
    """
    block = "image_referring_expression.data"
    labels = ("kitti_label_dir", "coco_json", "yolo_label_dir")
    given = {name: str(path) for name in labels if (path := getattr(data, name))}
    if data.input_annotations_jsonl:
        return AnnotationSeeds(data.input_annotations_jsonl, data.image_dir, made, boxless)
    if len(given) != 1:
        what = f"{' and '.join(given)} are given" if given else "none is given"
        raise SpecError(
            f"{block}: give one of {', '.join(labels)} or input_annotations_jsonl ({what})"
        )
    if not data.image_dir:
        raise SpecError(f"{block}.image_dir is missing: give it the folder of the images")
    [(name, path)] = given.items()
    if name == "coco_json":
        return from_coco(data.image_dir, path, boxless)
    key = f"{block}.{name}"
    names_file = None if name == "kitti_label_dir" else data.yolo_names or ""
    return from_label_folder(data.image_dir, path, key, names_file, boxless)


class AnnotationSeeds(Seeds):
    """From records: ours, with boxes in pixels, or TAO's. In their order, with their columns but
    those made anew.
    """

    def __init__(self, path: str, image_dir: str | None, made: Made, boxless: bool) -> None:
        if kind_of(path) != "file":
            raise InputError(f"no input file {path}: check data.input_annotations_jsonl")
        folders = tuple(filter(None, (image_dir, os.path.dirname(path) or ".", ".")))
        self._image_dir, self._made = image_dir, made
        nothing = f"{path} has none in 'regions', and none in TAO's {COLUMN!r}"
        super().__init__(path, [path], folders, boxless, nothing)

    def _forget(self) -> None:
        self.found = {FLAT: [], BEYOND: [], GONE: []}
        self._converted, self._broken = 0, list[str]()

    def _records(self) -> Iterator[dict[str, Any]]:
        for row in read_rows(self.origin):
            where = f"{self.origin}, line {row.line}"
            if row.data is None:
                self._broken.append(f"{where}: {row.error}")
                yield {"image_path": None, SEED_ERROR: self._broken[-1]}
                continue
            data, path = row.data, row.data.get("image_path")
            # TAO's path may be that of the container that it ran in
            if (
                self._image_dir
                and isinstance(path, str)
                and is_tao(data)
                and size_of(path, self.folders) is None
            ):
                name = os.path.basename(path)
                data = (
                    {**data, "image_path": name} if kind_of(joined(self._image_dir, name)) else data
                )
            try:
                yield self._record(data, where)
            except BrokenRow as error:
                yield {**self._kept(data), "regions": [], SEED_ERROR: f"{where}: {error}"}

    def _record(self, row: dict[str, Any], where: str) -> dict[str, Any]:
        size = size_of(row.get("image_path"), self.folders)
        if is_tao(row):
            if size is None:
                self.found[GONE].append(str(row.get("image_path")))
                raise BrokenRow(f"can't open the image {row.get('image_path')!r}")
            row, flat = from_tao(row, size)
            self._converted += 1
            self.found[FLAT] += [f"{where}: {box}" for box in flat]
            self.found[BEYOND] += beyond(row["regions"], size, where)
        record = {**self._kept(with_status(row)), **sides(size)}
        record.setdefault("source", SOURCE)
        if self._boxless:
            record.setdefault("regions", [])
        return record

    def _kept(self, row: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in row.items() if name not in self._made.columns}
        if isinstance(steps := row.get("pipeline_steps"), list):
            once = dict.fromkeys(step for step in steps if isinstance(step, str))
            kept["pipeline_steps"] = [step for step in once if step not in self._made.labels]
        return kept

    def fingerprint(self) -> str:
        depends_on = [__version__, self.reading, self.folders, self._made, self._boxless]
        digest = hashlib.sha256(json.dumps(depends_on).encode())
        with system_errors(self.origin), open_file(self.origin) as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def report(self) -> dict[str, Any]:
        return {"converted_from_tao": self._converted, "broken_lines": self._broken[: self.shown]}

    def remarks(self) -> list[str]:
        lines = (
            [f"TAO records taken over, with boxes in pixels: {self._converted}"]
            if self._converted
            else []
        )
        return [*lines, *super().remarks(), *self._broken[:5]]


def write_seeds(seeds: Seeds, path: str, state_path: str) -> dict[str, Any]:
    """Write the records to `path`, whole or not at all, if they changed; returns the report. Raises
    InputError.
    """
    fingerprint = seeds.fingerprint()
    known = unsealed(read_object(state_path))
    if known and (known["fingerprint"], known["written"]) == (fingerprint, state_of(path)):
        report: dict[str, Any] = known["report"]
    else:
        with told_as(InputError, f"can't write {path}"):
            write_rows(path, seeds.records())
        report = seeds.report()
        state = sealed(
            as_json({"fingerprint": fingerprint, "written": state_of(path), "report": report})
        )
        write_text(state_path, json.dumps(state) + "\n")
    for remark in seeds.remarks():
        say(f"Note: {remark}.")
    return report


def seed_file(
    folder: str,
    image_dir: str,
    *,
    kitti: str = "",
    coco: str = "",
    yolo: str = "",
    yolo_names: str = "",
) -> str:
    """Write seed records from images and one kind of labels; returns the path. Raises SpecError,
    InputError.
    """
    data = ReferringData(
        image_dir=image_dir,
        kitti_label_dir=kitti,
        coco_json=coco,
        yolo_label_dir=yolo,
        yolo_names=yolo_names,
    )
    seeds = find_seeds(data, Made([], []), boxless=False)
    path = os.path.join(folder, "seed_annotations.jsonl")
    write_seeds(seeds, path, os.path.join(folder, ".ckpt", "seeds.json"))
    return path
