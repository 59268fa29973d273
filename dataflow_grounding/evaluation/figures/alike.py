"""Pictures that occur several times: within a data set, and in several of them."""

from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from dataflow_grounding.evaluation.figures.same_files import DataSet


@dataclass(frozen=True, slots=True)
class Place:
    """A picture's name, and the name of the data set that it is in."""

    picture: str
    data_set: str


class _Candidate(NamedTuple):
    """A picture whose file another picture has, too. All pictures of a file are a group."""

    name: str
    data_set: int  # its index
    file: bytes  # what tells its file from others
    group: int  # the index of the group's first picture


def alike_in(
    data_sets: Sequence[DataSet], files: Sequence[bytes]
) -> tuple[list[tuple[Place, ...]], list[tuple[Place, ...]]]:
    """Return which pictures of the data sets are the same file, within one and across them.

    `files` has for each picture, in the data sets' order, what tells its file from others.

    - The first list is of repeats within a data set. Each is a pair: the first picture of the file
      in that data set, then the repeated one.
    - The second list is of files that several data sets have. Each is a tuple with the first
      picture of the file in each of these.
    """
    # By name, so that the first of a group is the same in any order of the pictures.
    candidates = sorted(_candidates(data_sets, files))
    # by the group and the data set's number, the first picture of the group in it
    first_places = dict[tuple[int, int], Place]()
    repeats: list[tuple[Place, ...]] = []
    listed = set[tuple[str, bytes]]()  # names and files of those in `repeats`
    for name, number, file, group in candidates:
        place = Place(name, data_sets[number].name)
        earlier = first_places.setdefault((group, number), place)
        is_first = earlier is place
        if is_first:
            continue
        # The same file under the same name, in several data sets, is listed once.
        if (name, file) not in listed:
            listed.add((name, file))
            repeats.append((earlier, place))
    if len(data_sets) == 1:  # it has none to share with, and its groups may be many
        return repeats, []
    return repeats, _leaks(first_places)


def _candidates(data_sets: Sequence[DataSet], files: Sequence[bytes]) -> list[_Candidate]:
    # The pictures whose file another one has, too: most pictures aren't kept.
    group_of = _first_same(files)
    # A group's number is the index of its first picture. A picture with another index is a further
    # one of its group, so that group has several.
    shared_groups = {group for picture, group in enumerate(group_of) if group != picture}
    candidates: list[_Candidate] = []
    files_and_groups = zip(files, group_of, strict=True)  # of all data sets, one after the other
    for number, data_set in enumerate(data_sets):
        for name in data_set.number_of:
            file, group = next(files_and_groups)
            if group in shared_groups:
                candidates.append(_Candidate(name, number, file, group))
    return candidates


def _leaks(first_places: dict[tuple[int, int], Place]) -> list[tuple[Place, ...]]:
    # The groups that several data sets share.
    places_of_group = defaultdict[int, list[Place]](list)
    for (group, _), place in sorted(first_places.items(), key=itemgetter(0)):
        places_of_group[group].append(place)
    return [tuple(places) for places in places_of_group.values() if len(places) > 1]


def _first_same(files: Sequence[bytes]) -> Sequence[int]:
    # For each picture the index of the first with the same file. In an array, because there may be
    # millions of pictures.
    first_index = dict[bytes, int]()
    return array("q", (first_index.setdefault(file, index) for index, file in enumerate(files)))
