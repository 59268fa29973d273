"""Pictures of data sets that are another one again: within a data set, and in several of them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dataflow_grounding.extras.evaluation.figures.same_files import DataSet


class Place(NamedTuple):
    """Where a picture is: what it is called, and what its data set is called."""

    picture: str
    data_set: str


@dataclass(frozen=True)
class Alike:
    """Pictures that are the same, or nearly.

    Attributes:
        again: Each picture that is another one of its data set again: that one, then itself.
        leaks: Pictures that several data sets have: the first of each data set.
    """

    again: list[tuple[Place, ...]]
    leaks: list[tuple[Place, ...]]


def alike_in(data_sets: Sequence[DataSet], files: Sequence[bytes], first: Sequence[int]) -> Alike:
    """Which pictures are alike.

    Args:
        data_sets: Their pictures, which `files` and `first` go through in order.
        files: What tells each picture from others of its name.
        first: For each picture the place of the first that it is the same as, or nearly.
    """
    pictures = [(name, home) for home, one in enumerate(data_sets) for name in one.paths]
    # of pictures that are alike (by their first) in a data set
    first_of = dict[tuple[int, int], str]()
    again, told = list[tuple[Place, ...]](), set[tuple[str, bytes]]()
    for (name, home), file, group in sorted(zip(pictures, files, first, strict=True)):
        earlier = first_of.setdefault((group, home), name)
        if earlier != name and (name, file) not in told:
            told.add((name, file))
            again.append((Place(earlier, data_sets[home].name), Place(name, data_sets[home].name)))
    homes_of = defaultdict[int, list[Place]](list)
    for (group, home), name in sorted(first_of.items()) if len(data_sets) > 1 else ():
        homes_of[group].append(Place(name, data_sets[home].name))
    return Alike(again, [tuple(places) for places in homes_of.values() if len(places) > 1])


def first_same(files: Sequence[bytes]) -> list[int]:
    """For each of these the place of the first that is equal to it."""
    seen = dict[bytes, int]()
    return [seen.setdefault(file, place) for place, file in enumerate(files)]
