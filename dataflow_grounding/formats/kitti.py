"""KITTI label files: one text file per image, one line per object.

Fields (devkit of the KITTI object benchmark, cvlibs.net/datasets/kitti): type, truncated, occluded, alpha, x1, y1, x2,
y2 in pixels, then size, place and angle in space (7 numbers), and in detections a score. What stands
after the box is not used: lines that end with it, or with a number more, are read too.
"""

from dataflow_grounding.errors import BrokenRow
from dataflow_grounding.formats.label_lines import NOT_UTF8, Labelled, label_lines, number_of, score_of

FIELDS = range(8, 18)
SCORED = 16
LEFT_OUT = "dontcare"


def read_kitti(path: str) -> tuple[list[Labelled], list[str]]:
    """A label file's regions with its own numbers, without DontCare lines, and why each bad line is left out.

    Raises:
        OSError: It can't be read.
    """
    regions, left_out = [], []
    for where, fields in label_lines(path):
        try:
            if fields[0].lower() != LEFT_OUT:
                regions.append(_region(fields, where))
        except BrokenRow as error:
            left_out.append(str(error))
    return regions, left_out


def _region(fields: list[str], where: str) -> Labelled:
    if fields == [NOT_UTF8]:
        raise BrokenRow(f"{where}: is not UTF-8")
    if len(fields) not in FIELDS:
        raise BrokenRow(f"{where}: has {len(fields)} fields, a KITTI label has 8 to 17")
    numbers = [number_of(text, where) for text in fields[1:]]
    x1, y1, x2, y2 = bbox = numbers[3:7]
    if x2 <= x1 or y2 <= y1:
        raise BrokenRow(f"{where}: the box {' '.join(fields[4:8])} has no area (x1 y1 x2 y2 is expected)")
    return {"bbox": bbox, "type": fields[0], **score_of(fields, SCORED, where)}
