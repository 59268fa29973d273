"""Seed records, one per image with its regions, from which `image_referring_expression` starts.

They are read from labels or from earlier records, and written as a file of records.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow_grounding._util.errors import BrokenRow, InputError, SpecError, errors_as
from dataflow_grounding._util.paths import joined, kind_of, state_of
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import say
from dataflow_grounding.data.expressions import SEED_ERROR
from dataflow_grounding.data.records import Update, stated_size
from dataflow_grounding.data.rows import read_rows, write_rows
from dataflow_grounding.engine.facts import fact, keep_fact
from dataflow_grounding.formats.label_seeds import (
    boxes_beyond,
    from_coco,
    from_label_folder,
    size_columns,
    upright_size,
)
from dataflow_grounding.formats.seeds import Found, Made, Seeds
from dataflow_grounding.formats.tao_records import (
    COLUMN,
    SOURCE,
    from_tao,
    is_tao,
    with_status,
)
from dataflow_grounding.spec.schema import ReferringData

_BLOCK = "image_referring_expression.data"  # of a spec
_LABEL_SOURCES = ("kitti_label_dir", "coco_json", "yolo_label_dir")  # keys of it


def find_seeds(data: ReferringData, made: Made, boxless: bool) -> Seeds:
    """Return the seeds that a spec's `data` names. No record is made yet.

    `made` is what the steps make again, so that it isn't taken over from given annotations.
    `boxless` says that the steps do without regions. Raises SpecError where `data` names no source,
    several, or no folder of images; InputError where a file or folder isn't there, or holds nothing
    that fits.
    """
    if data.input_annotations_jsonl:
        return _from_annotations(data.input_annotations_jsonl, data.image_dir, made, boxless)
    source = _only_source(data)
    if not data.image_dir:
        image_dir = setting(f"{_BLOCK}.image_dir")
        raise SpecError(f"{image_dir} is missing: give it the folder of the images")
    path = str(getattr(data, source))
    if source == "coco_json":
        return from_coco(data.image_dir, path, boxless)
    key = f"{_BLOCK}.{source}"
    names_file: str | None = None  # KITTI's labels name their classes themselves
    if source == "yolo_label_dir":
        names_file = data.yolo_names or ""  # "" for the classes.txt among the labels
    return from_label_folder(data.image_dir, path, key, names_file, boxless)


def _only_source(data: ReferringData) -> str:
    given = [source for source in _LABEL_SOURCES if getattr(data, source)]
    if len(given) == 1:
        return given[0]
    what = f"{' and '.join(given)} are given" if given else "none is given"
    raise SpecError(
        f"{_BLOCK}: give one of {', '.join(_LABEL_SOURCES)} or input_annotations_jsonl ({what})"
    )


def _from_annotations(path: str, image_dir: str | None, made: Made, boxless: bool) -> Seeds:
    if kind_of(path) != "file":
        raise InputError(f"no input file {path}: check data.input_annotations_jsonl")
    records = _Annotations(path, image_dir, made, boxless)
    return Seeds(
        origin=path,
        files=[path],
        folders=records.folders,
        boxless=boxless,
        without=f"{path} has none in 'regions', and none in TAO's {COLUMN!r}",
        read=records.read,
        depends_on=lambda: [records.folders, made, boxless, path, state_of(path)],
    )


@dataclass
class _Annotations:
    """A file of records: ours, with boxes in pixels, or TAO's, which are converted."""

    path: str
    image_dir: str | None
    made: Made
    boxless: bool

    @property
    def folders(self) -> tuple[str, ...]:
        """Return where images are looked for, in this order."""
        return tuple(filter(None, (self.image_dir, os.path.dirname(self.path) or ".", ".")))

    def read(self, found: Found) -> Iterator[Update]:
        """Yield a seed for each line; one that can't be read or converted fails in the run."""
        for row in read_rows(self.path):
            where = f"{self.path}, line {row.line}"
            if row.data is None:
                why = f"{where}: {row.error}"
                found.add("broken_lines", [why])
                yield {"image_path": None, SEED_ERROR: why}
                continue
            data = self._with_our_path(dict(row.data))
            try:
                record = self._record(data, where, found)
            except BrokenRow as error:
                why = f"{where}: {error}"
                record = {**self._without_remade(data), "regions": [], SEED_ERROR: why}
            yield record

    def _with_our_path(self, row: Update) -> Update:
        path = row.get("image_path")
        if not is_tao(row) or not isinstance(path, str) or not self.image_dir:
            return row
        is_at_path = upright_size(path, self.folders) is not None
        name = os.path.basename(path)
        if is_at_path or not kind_of(joined(self.image_dir, name)):
            return row
        # TAO ran in a container, which had the picture at another path.
        return {**row, "image_path": name}

    def _record(self, row: Update, where: str, found: Found) -> Update:
        size = upright_size(row.get("image_path"), self.folders)
        if is_tao(row):
            if size is None:  # which the conversion needs
                found.add("images_not_opened", [str(row.get("image_path"))])
                raise BrokenRow(f"can't open the image {row.get('image_path')!r}")
            row, without_area = from_tao(row, size)
            found.count("converted_from_tao")
            found.add("boxes_without_an_area", [f"{where}: {box}" for box in without_area])
            found.add("boxes_beyond_their_image", boxes_beyond(row["regions"], size, where))
        record = self._without_remade(with_status(row))
        # A record with boxes keeps the size that it states, and fails in the run if the image has
        # another one: `check_stated_size`.
        keeps_stated_size = bool(record.get("regions")) and stated_size(record) is not None
        if not keeps_stated_size:
            record |= size_columns(size)
        record.setdefault("source", SOURCE)
        if self.boxless:
            record.setdefault("regions", [])
        return record

    def _without_remade(self, row: Update) -> Update:
        given = {name: value for name, value in row.items() if name not in self.made.columns}
        steps = row.get("pipeline_steps")
        if isinstance(steps, list):
            names = [step for step in steps if isinstance(step, str)]
            each_once = dict.fromkeys(names)
            given["pipeline_steps"] = [name for name in each_once if name not in self.made.labels]
        return given


def refuse_taos_results(results_dir: str, files: Sequence[str]) -> None:
    """Raise InputError if one of these files is TAO's: a run would write over what was paid for."""
    for path in filter(os.path.exists, files):
        rows = (row.data for row in read_rows(path) if row.data is not None)
        if not is_tao(next(rows, {})):  # the first row that can be read
            continue
        of_last_step = os.path.join(results_dir, "annotations.jsonl")
        to_go_on_from = of_last_step if os.path.exists(of_last_step) else path
        raise InputError(
            f"{results_dir} holds TAO's own results: to go on from them, choose another"
            f" results_dir and give data.input_annotations_jsonl={to_go_on_from}"
        )


def write_seeds(seeds: Seeds, path: str, folder: str) -> dict[str, Any]:
    """Write the seeds' records, whole or not at all; print remarks, return the report.

    If what they depend on and the file are as a fact in `folder` says, nothing is read or written:
    the remarks are only those that are known without reading. Raises InputError.
    """
    fingerprint = seeds.fingerprint()
    report = _report_if_written(folder, fingerprint, path)
    if report is None:
        with errors_as(InputError, f"can't write {path}"):
            write_rows(path, seeds.records())
        report = seeds.found.report()
        state = {"fingerprint": fingerprint, "written": state_of(path), "report": report}
        keep_fact(folder, "seeds", state)
    for remark in seeds.found.remarks():
        say(f"Note: {remark}.")
    return report


def _report_if_written(folder: str, fingerprint: str, path: str) -> dict[str, Any] | None:
    """Return the report of the last time, if the seeds and their file are as they were then."""
    state = fact(folder, "seeds")
    if not state:
        return None
    are_same_seeds = state["fingerprint"] == fingerprint
    if not are_same_seeds or state["written"] != state_of(path):
        return None
    report: dict[str, Any] = state["report"]
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
    """Write seed records from images and one kind of labels; return the path of their file.

    Args:
        folder: Where `seed_annotations.jsonl` goes.
        image_dir: The folder of images.
        kitti, coco, yolo: The folder of KITTI's labels, the COCO file, or the folder of YOLO's:
            one of them.
        yolo_names: The file with YOLO's class names; classes.txt among the labels unless given.

    Raises:
        SpecError: None or several kinds of labels are given.
        InputError: Less than half of them can be read, or no image has a box.
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
    write_seeds(seeds, path, os.path.join(folder, ".ckpt"))
    return path
