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
    picture: str
    data_set: str


class _Candidate(NamedTuple):
    """A picture that is alike to another one."""

    name: str
    data_set: int  # its index
    file: bytes  # what tells its file from others
    group: int


def alike_in(
    data_sets: Sequence[DataSet], files: Sequence[bytes]
) -> tuple[list[tuple[Place, ...]], list[tuple[Place, ...]]]:
    """Return which pictures of the data sets are the same file, within one and across them.

    `files` has for each picture, in the data sets' order, what tells its file from others. The
    first list has a pair for each picture that its data set has already: the earlier one, then
    itself. The second has groups that several data sets share: the first picture of each data set.
    """
    group_of = _first_same(files)  # a group is known by its first picture
    # Groups of several pictures. Most pictures are like no other: nothing is kept of those.
    shared_groups = {group for picture, group in enumerate(group_of) if group != picture}
    candidates: list[_Candidate] = []
    remaining = zip(files, group_of, strict=True)
    for number, data_set in enumerate(data_sets):
        for name in data_set.number_of:
            file, group = next(remaining)
            if group in shared_groups:
                candidates.append(_Candidate(name, number, file, group))
    # By name, so that the first of a group is the same in any order of the pictures.
    candidates.sort()
    # by the group and the data set's number, the first picture of the group in it
    first_places = dict[tuple[int, int], Place]()
    repeats: list[tuple[Place, ...]] = []
    listed = set[tuple[str, bytes]]()
    for name, number, file, group in candidates:
        place = Place(name, data_sets[number].name)
        earlier = first_places.setdefault((group, number), place)
        if earlier.picture == name:
            continue
        if len(data_sets) > 1:
            # The same file under the same name, in several data sets, is listed once.
            if (name, file) in listed:
                continue
            listed.add((name, file))
        repeats.append((earlier, place))
    # Of one data set, which may be large, there is nothing to sort.
    return repeats, _leaks(first_places) if len(data_sets) > 1 else []


def _leaks(first_places: dict[tuple[int, int], Place]) -> list[tuple[Place, ...]]:
    places_of_group = defaultdict[int, list[Place]](list)
    for (group, _), place in sorted(first_places.items(), key=itemgetter(0)):
        places_of_group[group].append(place)
    return [tuple(places) for places in places_of_group.values() if len(places) > 1]


def _first_same(files: Sequence[bytes]) -> Sequence[int]:
    first_index = dict[bytes, int]()
    # An array, as there may be millions of pictures.
    return array("q", (first_index.setdefault(file, n) for n, file in enumerate(files)))
