"""What the embedded grounder finds on photographs of well-known packages, and how often it boxes
what is not there.

    python -m benchmarks.embedded_photos [FOLDER ...]

embedded_photos.json has, for each picture, its package, boxes drawn by hand and what is `there`;
`licenses` names the packages' licenses. The pictures are read from the packages, where they are
installed or unpacked: FOLDERs hold unpacked wheels or source distributions. A false phrase is one
whose noun is not among what is there; each is asked alone. The `first` pictures were looked at
while the thresholds were set, the `second` and the `third` only after the code had been finished,
and what was wrong on them was mended then.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataflow_grounding.boxes.geometry import iou
from dataflow_grounding.extras.embedded._grounder import ground_phrases

GOLD: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
_RIGHT = 0.5  # IoU with a gold box


def main() -> None:
    """Measure each set on the pictures that are there, and name the packages of those
    that are not.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", metavar="FOLDER", nargs="*", type=Path)
    folders = [folder for folder in parser.parse_args().folders if folder.is_dir()]
    roots = [
        *map(Path, sys.path),
        Path(sys.prefix, "share"),
        *folders,
        *(p for f in folders for p in f.iterdir()),
    ]
    counts: dict[str, Counter[str]] = {"first": Counter(), "second": Counter(), "third": Counter()}
    missing: Counter[str] = Counter()
    for row in GOLD["pictures"]:
        path = next((root / row["path"] for root in roots if (root / row["path"]).is_file()), None)
        if path is None:
            missing[row["package"]] += 1
        else:
            counts[row["set"]] += measure(row, read(path))
    for name, c in counts.items():
        print(
            f"{name}: {c['pictures']} pictures, {c['phrases']} phrases, {c['grounded']} grounded,"
            f" {c['boxes']} boxes, {c['right']} right, {c['found']} of {c['gold']} gold boxes"
            f" found; {c['false boxes']} boxes on {c['false phrases']} false phrases"
        )
    for package, number in missing.items():
        print(f"missing: {number} pictures of {package}")


def read(path: Path) -> Any:
    """The picture as uint8 rows x columns x (blue, green, red)."""
    with warnings.catch_warnings(), Image.open(path) as image:
        warnings.simplefilter("ignore")  # some are malformed on purpose
        return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])


def measure(row: dict[str, Any], pixels: Any) -> Counter[str]:
    """The counts of one picture; wrong and false boxes are printed."""
    there = set(row["there"].split())
    seen: Counter[str] = Counter(pictures=1)
    boxes = ask(pixels, list(row["phrases"]))
    for (text, gold), found in zip(row["phrases"].items(), boxes, strict=True):
        right = [box for box in found if any(iou(box, one) >= _RIGHT for one in gold)]
        seen.update(
            phrases=1, grounded=bool(found), boxes=len(found), right=len(right), gold=len(gold)
        )
        seen["found"] += sum(any(iou(box, one) >= _RIGHT for box in found) for one in gold)
        if len(right) < len(found):
            print(f"wrong: {row['path']}: {text!r} {found}")
    for text, noun in GOLD["false_phrases"].items():
        if noun not in there:
            [found] = ask(pixels, [text])
            seen.update({"false phrases": 1, "false boxes": len(found)})
            if found:
                print(f"false: {row['path']}: {text!r} {found}")
    return seen


def ask(pixels: Any, phrases: list[str]) -> list[list[Any]]:
    """The boxes of each phrase."""
    objects = ground_phrases(pixels, [{"id": i, "text": text} for i, text in enumerate(phrases)])[
        "objects"
    ]
    return [[thing["bbox"] for thing in objects if thing["id"] == i] for i in range(len(phrases))]


if __name__ == "__main__":
    main()
