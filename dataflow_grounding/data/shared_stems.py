"""Pictures whose names differ in nothing but their ending."""

import os

from dataflow_grounding._util.terminal import counted_items


class SharedStems:
    """Finds pictures that would share a label file: `a.jpg` and `a.png` both have `a.txt`. Only
    hashes are kept, as there may be a million pictures.
    """

    def __init__(self) -> None:
        self._endings: dict[int, str] = {}  # of the first picture of a stem, by the stem's hash
        self._told: set[int] = set()  # hashes of stem and ending of the later pictures in `_pairs`
        self._pairs: list[str] = []  # the first picture of a stem and a later one, in words

    def add(self, path: str) -> None:
        """Take in the path of a picture; an empty one, and one that came before, change nothing."""
        if not path:
            return
        stem, ending = os.path.splitext(os.path.normpath(path))
        key = hash(stem)
        first = self._endings.setdefault(key, ending)
        if ending != first and hash((stem, ending)) not in self._told:
            self._told.add(hash((stem, ending)))
            self._pairs.append(f"{stem}{first} and {stem}{ending}")

    def remarks(self) -> list[str]:
        return counted_items(
            "pictures that would share a label file in YOLO and KITTI, to be renamed before export",
            self._pairs,
        )
