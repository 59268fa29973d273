"""A format of annotation files: this one has a line for each box, as spreadsheets read them.

dataflowgrounding export results --format export_format_of_your_own:BoxTable -o boxes
dataflowgrounding import boxes --format export_format_of_your_own:BoxTable -o results_again
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dataflow_grounding import Format, InputError
from dataflow_grounding.formats import Carries, ExportFolder, Sample

COLUMNS = ["image", "width", "height", "phrase", "x1", "y1", "x2", "y2"]


@dataclass
class BoxTable(Format):
    """A table of boxes in pixels of the upright picture. Its fields are options: --set digits=1."""

    digits: int = 2

    name = "box-table"
    about = "A table with a line for each box"
    data_file = "boxes.csv"  # what a trainer is pointed at
    # what a line can say of a phrase; an export counts what is lost
    carries = Carries(unplaced=True, several_boxes=True)

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        """Writes the samples, each of which is read once."""
        with out.file(self.data_file) as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            for sample in samples:
                for phrase in sample.phrases:
                    for box in phrase.boxes:
                        sides = [round(side, self.digits) for side in box]
                        table.writerow([sample.file_name, *sample.size, phrase.text, *sides])

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        """The records of a table, one for each picture; lines of one picture follow each other."""
        if os.path.isdir(path):
            path = os.path.join(path, self.data_file)
        record: dict[str, Any] = {}
        with open(path, encoding="utf-8", newline="") as file:
            for number, line in enumerate(csv.DictReader(file), 2):
                try:
                    box = [float(line[side]) for side in ("x1", "y1", "x2", "y2")]
                    size = {side: int(line[side]) for side in ("width", "height")}
                    image, phrase = line["image"], line["phrase"]
                except (KeyError, TypeError, ValueError):
                    raise InputError(f"{path}, line {number}: not a line of a box table") from None
                if image != record.get("image_path"):
                    if record:
                        yield record
                    record = {"image_path": image, **size, "expressions": []}
                known = {expression["text"]: expression for expression in record["expressions"]}
                if phrase not in known:
                    known[phrase] = {"text": phrase, "instances": []}
                    record["expressions"].append(known[phrase])
                known[phrase]["instances"].append({"bbox": box})
        if record:
            yield record
