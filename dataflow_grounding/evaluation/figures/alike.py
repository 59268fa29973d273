"""Pictures that occur several times: within a data set, and in several of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dataflow_grounding.evaluation.figures.same_files import DataSet


@dataclass(frozen=True, slots=True)
class Place:
    """A picture's name, and the name of the data set that it is in."""

    picture: str
    data_set: str


def alike_in(
    data_sets: Sequence[DataSet],
) -> tuple[list[tuple[Place, ...]], list[tuple[Place, ...]]]:
    """Return which pictures of the data sets are the same file, within one and across them.

    - The first list is of repeats within a data set. Each is a pair: the first picture of the file
      in that data set, then the repeated one.
    - The second list is of files that several data sets have. Each is a tuple with the first
      picture of the file in each of these.
    """
    counts = Counter(
        picture.file for data_set in data_sets for picture in data_set.pictures.values()
    )
    # by the file, and by the data set's number: the first picture of the file in it
    first_places: dict[bytes, dict[int, Place]] = {}
    for file, count in counts.items():
        if count > 1:
            first_places[file] = {}
    candidates: list[tuple[str, int, bytes]] = []  # most pictures have a file of their own
    for number, data_set in enumerate(data_sets):
        for name, picture in data_set.pictures.items():
            if picture.file in first_places:
                candidates.append((name, number, picture.file))
    repeats: list[tuple[Place, ...]] = []
    listed = set[tuple[str, bytes]]()  # names and files of those in `repeats`
    # By name, so that the first of a file is the same in any order of the pictures.
    for name, number, file in sorted(candidates):
        place = Place(name, data_sets[number].name)
        first = first_places[file].setdefault(number, place)
        # The same file under the same name, in several data sets, is listed once.
        if first is not place and (name, file) not in listed:
            listed.add((name, file))
            repeats.append((first, place))
    leaks: list[tuple[Place, ...]] = []
    for place_by_number in first_places.values():
        if len(place_by_number) > 1:
            leaks.append(tuple(place_by_number[number] for number in sorted(place_by_number)))
    return repeats, leaks
