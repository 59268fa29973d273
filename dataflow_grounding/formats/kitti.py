"""KITTI label files: one text file per image, one line per object.

Fields (devkit of the KITTI object benchmark, cvlibs.net/datasets/kitti): type, truncated, occluded, alpha, x1, y1, x2,
y2 in pixels, then size, place and angle in space (7 numbers), and in detections a score.
"""

from __future__ import annotations

from dataflow_grounding.errors import BrokenRow
from dataflow_grounding.formats.label_lines import Labelled, label_lines, number_of

FIELDS = (15, 16)
LEFT_OUT = "dontcare"


def read_kitti(path: str) -> list[Labelled]:
    """Read a label file's regions with its own numbers, without DontCare lines. Raises BrokenRow, OSError."""
    regions = []
    for where, fields in label_lines(path):
        if fields[0].lower() == LEFT_OUT:
            continue
        if len(fields) not in FIELDS:
            raise BrokenRow(f"{where}: has {len(fields)} fields, a KITTI label has 15 or 16")
        for text in fields[1:]:
            number_of(text, where)
        x1, y1, x2, y2 = bbox = [number_of(text, where) for text in fields[4:8]]
        if x2 <= x1 or y2 <= y1:
            raise BrokenRow(f"{where}: the box {' '.join(fields[4:8])} has no area (x1 y1 x2 y2 is expected)")
        regions.append({"bbox": bbox, "type": fields[0]})
    return regions
