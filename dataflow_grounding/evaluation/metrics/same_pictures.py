"""Which picture of one file is which of another's: by path, else by id, else by how paths end."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import stated_size
from dataflow_grounding.evaluation.metrics.annotations import Annotated, Annotations

Names: TypeAlias = tuple[str, str]  # of a picture: its path, else its id; and the id that it states
Place: TypeAlias = tuple[int, int]  # of a record: its picture's number, and its index in its file
_MOST_FOLDERS = 32  # that may be cut off a path to make it another file's


class SamePictures:
    """The records of the gold's pictures, each with those that another file has of it.

    Pictures are matched by path. If the other file doesn't have the path, they are matched by id,
    if a single picture of each file states it. Where no path and no id is in both files, pictures
    are the same whose paths end alike. Only the records of one picture are in memory: they are read
    each time one iterates. Raises InputError where no picture is in both files.
    """

    def __init__(self, found: Annotations, gold: Annotations) -> None:
        self._gold = gold
        self._found = found
        self.scaled = 0  # found records of another size than the gold's, once all were read
        gold_names = _names_in(gold)
        found_names = _names_in(found)
        self._gold_places, self._found_places = _by_picture(gold_names, found_names)
        # Without a path or an id that both files have, their pictures may lie in different folders,
        # such as those that an export adds.
        self.other_folders = not self._found_places
        if self.other_folders:
            # Either file may have the longer paths: each one's are cut to those of the other.
            gold_names = _without_folders(gold_names, found_names)
            found_names = _without_folders(found_names, gold_names)
            self._gold_places, self._found_places = _by_picture(gold_names, found_names)
        if not self._found_places:
            raise InputError(
                f"{found.name} and {gold.name} have no record of the same image: give both the"
                " same `image_path`, or `image_id`"
            )
        last_picture, _ = self._gold_places[-1]
        self.count = last_picture + 1

    def __iter__(self) -> Iterator[tuple[list[Annotated], list[Annotated]]]:
        """Yield the gold's and the found records of each picture, with all boxes in one size."""
        self.scaled = 0
        for picture in range(self.count):
            gold = [self._gold[index] for index in _indices_of(picture, self._gold_places)]
            found = [self._found[index] for index in _indices_of(picture, self._found_places)]
            # Where the gold's records of the picture state several sizes, the largest counts, so
            # that the order of records makes no difference.
            size = max(filter(None, (stated_size(record.columns) for record in gold)), default=None)
            scaled = [_scaled(record, size) for record in found]
            for before, after in zip(found, scaled, strict=True):
                self.scaled += after is not before
            yield [_scaled(record, size) for record in gold], scaled


def _names_in(side: Annotations) -> list[Names]:
    if not side:
        raise InputError(f"{side.name} has no records")
    return list(side.names())


def _tails_of(path: str) -> Iterator[str]:
    """Yield "x/train/a.jpg", "train/a.jpg", "a.jpg"."""
    folders = path.split("/", _MOST_FOLDERS)
    for begin in range(len(folders)):
        yield "/".join(folders[begin:])


def _without_folders(names: list[Names], others: list[Names]) -> list[Names]:
    """Cut first folders off paths, as "train/a.jpg" to "a.jpg", to make them paths of `others`."""
    other_paths = {path for path, _ in others}
    names_with_tails: list[Names] = []
    whole_path_of: dict[str, str] = {}  # by the path that it was cut to
    for path, own_id in names:
        shortened = path
        for tail in _tails_of(path):
            if tail in other_paths:
                shortened = tail
                break
        first_path = whole_path_of.setdefault(shortened, path)
        if first_path != path:
            return names  # "a/1.jpg" and "b/1.jpg" would both be "1.jpg": no path is cut
        names_with_tails.append((shortened, own_id))
    return names_with_tails


def _by_picture(
    gold_names: list[Names], found_names: list[Names]
) -> tuple[list[Place], list[Place]]:
    """Return the places of the gold's records, and of the found ones, sorted by their pictures."""
    paths = sorted({path for path, _ in gold_names})
    number_of_path = {path: number for number, path in enumerate(paths)}
    path_of_id = _gold_paths_by_id(gold_names, found_names)
    gold_places = [(number_of_path[path], index) for index, (path, _) in enumerate(gold_names)]
    found_places = []
    for index, (path, own_id) in enumerate(found_names):
        if path not in number_of_path:
            path = path_of_id.get(own_id, path)
        if path in number_of_path:  # else the gold doesn't have the picture
            found_places.append((number_of_path[path], index))
    return sorted(gold_places), sorted(found_places)


def _indices_of(picture: int, places: Sequence[Place]) -> list[int]:
    begin = bisect_left(places, (picture, 0))
    end = bisect_left(places, (picture + 1, 0))
    return [index for _, index in places[begin:end]]


def _gold_paths_by_id(gold: list[Names], found: list[Names]) -> dict[str, str]:
    """Return the gold's paths of pictures whose id alone is in both files, by these ids."""
    found_paths = {path for path, _ in found}
    ids = {own_id for path, own_id in gold if own_id and path not in found_paths}
    if not ids:
        return {}
    paths_of_id = [defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)]
    for paths, names in zip(paths_of_id, (gold, found), strict=True):
        for path, own_id in names:
            if own_id in ids:
                paths[own_id].add(path)
    of_gold, of_found = paths_of_id
    # An id that several pictures state doesn't say which one is meant.
    sole = [own_id for own_id in of_gold if len(of_gold[own_id]) == len(of_found[own_id]) == 1]
    return {own_id: of_gold[own_id].pop() for own_id in sole}


def _scaled(record: Annotated, size: Size | None) -> Annotated:
    """Return a record with its boxes in another size, or the same object if nothing is to scale."""
    own_size = stated_size(record.columns)
    if own_size is None or size is None or own_size == size:
        return record
    x_scale = size[0] / own_size[0]
    y_scale = size[1] / own_size[1]
    phrases = []
    for phrase in record.phrases:
        scaled = phrase.copy()
        scaled.instances = []
        for instance in phrase.instances:
            box = instance.copy()
            x1, y1, x2, y2 = instance.bbox
            box.bbox = (x1 * x_scale, y1 * y_scale, x2 * x_scale, y2 * y_scale)
            scaled.instances.append(box)
        phrases.append(scaled)
    return Annotated({**record.columns, "width": size[0], "height": size[1]}, phrases)
