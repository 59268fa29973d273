"""Pictures whose names differ in nothing but their ending."""

import os

from dataflow_grounding._util.terminal import counted_items


class SharedStems:
    """Finds pictures that would share a label file, a.jpg and a.png; it keeps hashes alone."""

    def __init__(self) -> None:
        self._first_endings: dict[int, str] = {}  # by the hash of the stem
        self._later_pictures: set[int] = set()  # hashes of their paths
        self._pairs: list[str] = []  # "a.jpg and a.png"

    def add(self, path: str) -> None:
        if not path:
            return
        stem, ending = os.path.splitext(os.path.normpath(path))
        hash_of_picture = hash((stem, ending))
        first_ending = self._first_endings.setdefault(hash(stem), ending)
        shares_stem = ending != first_ending
        # a picture may be in many rows, but is told of once
        if shares_stem and hash_of_picture not in self._later_pictures:
            self._later_pictures.add(hash_of_picture)
            self._pairs.append(f"{stem}{first_ending} and {stem}{ending}")

    def remarks(self) -> list[str]:
        return counted_items(
            "pictures that would share a label file in YOLO and KITTI, to be renamed before export",
            self._pairs,
        )
