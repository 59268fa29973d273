"""Label files, one text file per image with a line per object, and the files under a folder.

KITTI (devkit of the KITTI object benchmark, cvlibs.net/datasets/kitti): type, truncated, occluded, alpha, x1, y1, x2,
y2 in pixels, then size, place and angle in space (7 numbers), and in detections a score. What stands after the box is
not used: lines that end with it, or with a number more, are read too. YOLO: class, cx, cy, width, height in parts of
the image's sides, perhaps a score; or class and an outline, x and y of three corners or more, which is read as the box
around it, as ultralytics does; or, where the data set's YAML has `kpt_shape`, a box and keypoints, which are not used.
"""

import codecs
import os
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from dataflow_grounding.elsewhere import is_elsewhere, kind_of, names_in, open_file
from dataflow_grounding.errors import BrokenRow, InputError
from dataflow_grounding.geometry import Size
from dataflow_grounding.records import is_number

Labelled: TypeAlias = dict[str, Any]  # A region: `bbox` ([x1, y1, x2, y2] in pixels), `type`, perhaps `score`
Names: TypeAlias = tuple[list[str], int]  # Those of YOLO's classes, and how many numbers of keypoints follow a box
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
LEFT_OUT = "dontcare"
# 1/10,000 px: far below what six decimals of a side can tell, so that they come out again.
DECIMALS = 4
SLACK = 1e-3  # of a side: rounding may push a box this far over the edge


def read_kitti(path: str, left_out: list[str] | None = None) -> list[Labelled]:
    """A KITTI file's regions with its own numbers, without DontCare lines; why lines are bad goes to `left_out`.

    Raises OSError; BrokenRow for a bad line, where there is no `left_out`.
    """
    return _regions(path, _of_kitti, left_out)


def read_yolo(path: str, names: Names, size: Size) -> list[Labelled]:
    """The regions of a YOLO file, of an image of `size` (width, height) in px. Raises BrokenRow, OSError."""
    return _regions(path, partial(_of_yolo, *names, size), None)


def _regions(path: str, of_line: Callable[[list[str]], list[Labelled]], left_out: list[str] | None) -> list[Labelled]:
    """What `of_line` makes of the fields of each line."""
    regions: list[Labelled] = []
    with open_file(path) as file:
        data = file.read().removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            if fields := line.decode().split():
                regions += of_line(fields)
        except (BrokenRow, UnicodeDecodeError) as error:
            why = error if isinstance(error, BrokenRow) else "is not UTF-8"
            broken = BrokenRow(f"{path}, line {number}: {why}")
            if left_out is None:
                raise broken from None
            left_out.append(str(broken))
    return regions


def _of_kitti(fields: list[str]) -> list[Labelled]:
    if fields[0].lower() == LEFT_OUT:
        return []
    if not 8 <= len(fields) <= 17:
        raise BrokenRow(f"has {len(fields)} fields, a KITTI label has 8 to 17")
    numbers = [*map(_number, fields[1:])]
    x1, y1, x2, y2 = bbox = numbers[3:7]
    if x2 < x1 or y2 < y1:
        raise BrokenRow(f"the box {' '.join(fields[4:8])} ends before it begins (x1 y1 x2 y2 is expected)")
    return [{"bbox": bbox, "type": fields[0], **_score(numbers[14:])}]


def _of_yolo(names: list[str], keypoints: int, size: Size, fields: list[str]) -> list[Labelled]:
    if keypoints and len(fields) != 5 + keypoints:
        raise BrokenRow(f"has {len(fields)} fields, a YOLO label of this kpt_shape has {5 + keypoints}")
    fields = fields[:5] if keypoints else fields
    outline = len(fields) > 6 and len(fields) % 2 == 1
    if len(fields) not in (5, 6) and not outline:
        raise BrokenRow(f"has {len(fields)} fields, a YOLO label has 5 or 6 (class cx cy width height)")
    number, *numbers = map(_number, fields)
    if number not in range(len(names)):  # 0.0, as NumPy writes it, is
        raise BrokenRow(f"class {fields[0][:40]!r} is not one of the {len(names)} names")
    cx, cy, width, height, *_ = parts = numbers if outline else numbers[:4]
    if min(parts) < -SLACK or max(parts) > 1 + SLACK:
        raise BrokenRow(f"{' '.join(fields[1:5])} should be parts of the image's sides, from 0 to 1")
    corners = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
    if outline:
        corners = (min(parts[::2]), min(parts[1::2]), max(parts[::2]), max(parts[1::2]))
    bbox = [round(corner * size[n % 2], DECIMALS) for n, corner in enumerate(corners)]
    return [{"bbox": bbox, "type": names[int(number)], **_score([] if outline else numbers[4:])}]


def _number(text: str) -> float:
    """A finite number, whole ones as int, so that it is written back as it was. Raises BrokenRow."""
    try:
        value = int(text) if text.lstrip("+-").isdecimal() else float(text)
    except ValueError:
        value = float("nan")
    if not is_number(value) or "_" in text:
        raise BrokenRow(f"{text[:40]!r} is not a number")
    return value


def _score(last: list[float]) -> dict[str, float]:
    """What stands alone behind a label's other numbers, if it is a score."""
    return {"score": last[0]} if len(last) == 1 and 0 <= last[0] <= 1 else {}


def read_names(path: str) -> Names:
    """One name per line, or a data set's YAML with `names` (list or mapping), and `kpt_shape`. Raises InputError."""
    try:
        with open_file(path) as file:
            text = file.read().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't read the class names in {path}: {error}") from None
    if os.path.splitext(path)[1].lower() not in (".yaml", ".yml"):
        return [line.strip() for line in text.splitlines() if line.strip()], 0
    import yaml

    try:
        data = yaml.safe_load(text)
        names, (count, numbers) = data["names"], data.get("kpt_shape") or (0, 0)
        return [str(names[key]) for key in range(len(names))], int(count) * int(numbers)
    except Exception:  # PyYAML lets through what its constructors raise
        raise InputError(f"{path} has no 'names' of classes 0, 1, 2 ..., or no kpt_shape such as [17, 3]") from None


def files_under(folder: str, endings: tuple[str, ...], key: str) -> list[str]:
    """The files under a folder with these endings, relative to it, sorted. Raises InputError if it is not a folder."""
    if kind_of(folder) != "folder":
        raise InputError(f"{key}: no folder {folder}")
    if is_elsewhere(folder):
        return [n for n in names_in(folder) if n.lower().endswith(endings) and "/." not in f"/{n}"]
    found, seen = [], set[str]()
    for top, names, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(top)
        names[:] = [] if real in seen else [name for name in names if not name.startswith(".")]
        if real in seen:  # a link that leads back
            continue
        seen.add(real)
        wanted = (name for name in files if name.lower().endswith(endings) and not name.startswith("."))
        found += [os.path.relpath(os.path.join(top, name), folder).replace(os.sep, "/") for name in wanted]
    return sorted(found)
