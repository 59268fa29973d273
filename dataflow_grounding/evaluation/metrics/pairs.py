"""Which phrase of one file is which of another's, and which of their boxes make a pair.

One side is the gold; the other is called `found`: a run's predictions, or a second annotator's.
Phrases are matched by image, caption and their words.
"""

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from dataflow_grounding._util.errors import InputError, SpecError
from dataflow_grounding.boxes.geometry import Bbox, Size, around, box_of, iou
from dataflow_grounding.boxes.matching import each_thing_once, first_free
from dataflow_grounding.data.records import is_number, stated_size
from dataflow_grounding.data.spans import clean_caption
from dataflow_grounding.evaluation.metrics.annotations import (
    Annotations,
    by_score,
    names_of,
)

Row: TypeAlias = dict[str, Any]
Pair: TypeAlias = tuple[Row, Row | None]
Names: TypeAlias = tuple[str, str]  # of a picture: its path, else its id; and the id that it states
Place: TypeAlias = tuple[int, int]  # of a record: its picture's number, and its index in its file
# an id that only numbers a phrase, such as "7" or the end of "a.jpg#7": in another file it may be
# another phrase's
_NUMBERED_ID = re.compile(r"(?:^|#)[0-9]+$")
# By which key of a gold phrase and of a found one they are matched. In this order: a later pair of
# keys is for phrases that no earlier one has matched.
_WORDS = (("by_id", "by_id"), ("by_span", "by_span"), ("text", "text"))
# First a gold phrase "person" takes a found "a man" that states the class person; then the other
# way round.
_CLASSES = (("text", "of_class"), ("of_class", "text"))
_MOST_FOLDERS = 32  # that may be cut off a path to make it another file's
_MOST_PHRASE_PAIRS = 10**5  # of equal phrases in an image: more would take minutes
MOST_PAIRS = 10**6
"""Pairs of boxes of a phrase, or of spans of a caption, that are all compared: of 1000 each."""
THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""COCO's ten thresholds of IoU."""


@dataclass
class PairedRecord:
    """The records of an image and caption, all of a side made one; boxes are in the gold's size."""

    image: int
    gold: Row
    found: Row | None
    phrases: list[Pair]  # each gold phrase with the found one
    extra: list[Row]  # found phrases that the gold doesn't have
    by_class: int  # how many found phrases are matched by their class
    repeated: int  # boxes of these that are left out because another one is of their thing
    scaled: int = 0  # found records that stated another size


class Pairs:
    """The records of two files, matched by image and caption, and their phrases.

    - Images are matched by path. If the other file doesn't have the path, they are matched by id,
      if a single image of each file states it.
    - Records of an image are matched by caption. One without a caption, or with one that the other
      file doesn't have for the image, is matched by the image alone.
    - Phrases are matched by id, if it is stated, and unique in both files. If an id only numbers
      phrases, as `7` and `a#7` do, the texts have to be equal, too.
    - Other phrases are matched by text, up to case and spacing: those with the same span first,
      then those whose boxes overlap most.
    - A phrase that is the name of a class, as in detectors' gold, is matched with a phrase of other
      words that states this class. If several found phrases state the class of a single gold
      phrase, they become one, with the boxes of all.

    Only the records of one image are in memory: they are matched each time one iterates. The order
    of records makes no difference. Raises InputError where no picture is in both files.
    """

    def __init__(self, found: Annotations, gold: Annotations) -> None:
        self._gold = gold
        self._found = found
        gold_names, gold_ids = _names_and_ids(gold)
        found_names, found_ids = _names_and_ids(found)
        self._unique_ids = gold_ids & found_ids
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

    def __iter__(self) -> Iterator[PairedRecord]:
        last_picture, _ = self._gold_places[-1]
        for picture in range(last_picture + 1):
            gold = [self._gold[index] for index in _indices_of(picture, self._gold_places)]
            found = [self._found[index] for index in _indices_of(picture, self._found_places)]
            yield from self._of_image(picture, gold, found)

    def _of_image(self, image: int, gold: list[Row], found: list[Row]) -> Iterator[PairedRecord]:
        sizes = [size for size in map(stated_size, gold) if size]
        # All boxes are compared in one size. Where the gold's records of the picture state several,
        # it is the largest, so that the order of records makes no difference.
        size = max(sizes, default=None)
        for gold_pool, found_pool in _by_caption(gold, found):
            gold_record = _merged([_scaled(record, size) for record in gold_pool])
            rescaled = [_scaled(record, size) for record in found_pool]
            found_record = _merged(rescaled) if rescaled else None
            record = _match(image, gold_record, found_record, self._unique_ids)
            for before, after in zip(found_pool, rescaled, strict=True):
                if after is not before:  # `_scaled` returns the same object otherwise
                    record.scaled += 1
            yield record


def _names_and_ids(side: Annotations) -> tuple[list[Names], set[int]]:
    """Return each record's picture, and the hashes of the ids that a single phrase has."""
    if not side:
        raise InputError(f"{side.name} has no records")
    names: list[Names] = []
    ids = set[int]()  # hashes, which are smaller: there may be millions
    repeated_ids = set[int]()
    for place, record in enumerate(side, 1):
        names.append(names_of(record, f"record {place} of {side.name}"))
        for phrase in record["expressions"]:
            own_id = str(phrase["expression_id"])
            if not own_id:
                continue
            id_hash = hash(own_id)
            if id_hash in ids:
                repeated_ids.add(id_hash)
            ids.add(id_hash)
    ids -= repeated_ids
    return names, ids


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


def _indices_of(picture: int, places: list[Place]) -> list[int]:
    begin = bisect_left(places, (picture, 0))
    end = bisect_left(places, (picture + 1, 0))
    return [index for _, index in places[begin:end]]


def _gold_paths_by_id(gold: list[Names], found: list[Names]) -> dict[str, str]:
    """Return the gold's paths of pictures whose id alone is in both files, by these ids."""
    found_paths = {path for path, _ in found}
    ids_to_pair = {own_id for path, own_id in gold if own_id and path not in found_paths}
    if not ids_to_pair:
        return {}
    gold_by_id = _paths_by_id(gold, ids_to_pair)
    found_by_id = _paths_by_id(found, ids_to_pair)
    path_of_id = {}
    for own_id, paths in gold_by_id.items():
        # An id that several pictures state doesn't say which one is meant.
        if len(paths) == 1 and len(found_by_id[own_id]) == 1:
            [path] = paths
            path_of_id[own_id] = path
    return path_of_id


def _paths_by_id(names: list[Names], ids: Collection[str]) -> defaultdict[str, set[str]]:
    paths = defaultdict[str, set[str]](set)
    for path, own_id in names:
        if own_id in ids:
            paths[own_id].add(path)
    return paths


def _by_caption(gold: list[Row], found: list[Row]) -> list[tuple[list[Row], list[Row]]]:
    """Return pools of gold and found records: one for each caption that both sides have."""
    # All other records are a pool, so that they are compared, too. Where nothing was found, each
    # caption of the gold has its own.
    gold_captions = [_caption_of(record) for record in gold]
    found_captions = [_caption_of(record) for record in found]
    captions_with_pool = set(gold_captions)
    if found:
        captions_with_pool &= set(found_captions)
    gold_pools = _pools_by_caption(gold, gold_captions, captions_with_pool)
    found_pools = _pools_by_caption(found, found_captions, captions_with_pool)
    pools = []
    for caption, gold_pool in sorted(gold_pools.items()):
        pools.append((gold_pool, found_pools.get(caption, [])))
    return pools


def _pools_by_caption(
    records: list[Row], captions: list[str], captions_with_pool: Collection[str]
) -> defaultdict[str, list[Row]]:
    """Return records by caption; under "" are those whose caption has no pool of its own."""
    pools = defaultdict[str, list[Row]](list)
    for record, caption in zip(records, captions, strict=True):
        pools[caption if caption in captions_with_pool else ""].append(record)
    return pools


def _caption_of(record: Row) -> str:
    return clean_caption(str(record["caption"] or ""))


def _scaled(record: Row, size: Size | None) -> Row:
    """Return a record with its boxes in another size, or the same object if nothing is to scale."""
    own_size = stated_size(record)
    if own_size is None or size is None or own_size == size:
        return record
    x_scale = size[0] / own_size[0]
    y_scale = size[1] / own_size[1]
    phrases = []
    for phrase in record["expressions"]:
        instances = []
        for instance in phrase["instances"]:
            x1, y1, x2, y2 = instance["bbox"]
            bbox = [x1 * x_scale, y1 * y_scale, x2 * x_scale, y2 * y_scale]
            instances.append({**instance, "bbox": bbox})
        phrases.append({**phrase, "instances": instances})
    return {**record, "width": size[0], "height": size[1], "expressions": phrases}


def _merged(records: list[Row]) -> Row:
    """Return one record with the phrases of all."""
    phrases: list[Row] = []
    for record in records:
        phrases += record["expressions"]
    # The other columns are of the record whose `repr` sorts first: so the order of records makes
    # no difference.
    return {**min(records, key=repr), "expressions": phrases}


class _Keyed(NamedTuple):
    """A phrase with its keys, all texts comparable; None or "" where it hasn't such a key."""

    phrase: Row
    by_id: Hashable
    by_span: Hashable
    text: str
    of_class: str


def _keyed(phrase: Row, unique_ids: Collection[int]) -> _Keyed:
    """Return a phrase with its keys; `unique_ids` are hashes of ids that one phrase has."""
    own_id = str(phrase["expression_id"])
    text = _comparable(phrase["text"])
    by_id: Hashable = None
    if own_id and hash(own_id) in unique_ids:
        by_id = own_id
        if _NUMBERED_ID.search(own_id):  # then the text has to be the same, too
            by_id = (own_id, text)
    span = phrase.get("char_span")
    by_span = (text, *span) if span else None  # ("a dog", 0, 5)
    stated = phrase.get("class")
    of_class = _comparable(stated) if isinstance(stated, str) else ""
    return _Keyed(phrase, by_id, by_span, text, of_class)


def _comparable(text: str) -> str:
    return clean_caption(text).casefold()


def _match(
    image: int, gold_record: Row, found_record: Row | None, unique_ids: Collection[int]
) -> PairedRecord:
    found_phrases = found_record["expressions"] if found_record else []
    gold = [_keyed(phrase, unique_ids) for phrase in gold_record["expressions"]]
    found = [_keyed(phrase, unique_ids) for phrase in found_phrases]
    # Phrases are named by their indices: {0: 2} says that the first gold phrase is the third found
    # one. `further_of_gold` has a list of found ones.
    by_words = _match_by_keys(gold, found, _WORDS, {})
    found_of_gold = _match_by_keys(gold, found, _CLASSES, by_words)
    further_of_gold = _further_of_class(gold, found, found_of_gold)
    pairs: list[Pair] = []
    repeated = 0
    for index, keyed in enumerate(gold):
        if index not in found_of_gold:
            pairs.append((keyed.phrase, None))
            continue
        indices = [found_of_gold[index], *further_of_gold[index]]
        found_phrase, left_out = _as_one([found[found_index].phrase for found_index in indices])
        pairs.append((keyed.phrase, found_phrase))
        repeated += left_out
    matched = set(found_of_gold.values()).union(*further_of_gold.values())
    extra = [keyed.phrase for index, keyed in enumerate(found) if index not in matched]
    by_class = len(matched) - len(by_words)
    return PairedRecord(image, gold_record, found_record, pairs, extra, by_class, repeated)


def _match_by_keys(
    gold: Sequence[_Keyed],
    found: Sequence[_Keyed],
    pairs_of_keys: Sequence[tuple[str, str]],
    matched_before: Mapping[int, int],
) -> dict[int, int]:
    """Return `matched_before` with further matches: each pair of keys is for what is unmatched."""
    matched = dict(matched_before)
    for gold_key, found_key in pairs_of_keys:
        gold_by_key = _unmatched_by_key(gold, gold_key, matched)
        found_by_key = _unmatched_by_key(found, found_key, set(matched.values()))
        for key, gold_indices in gold_by_key.items():
            gold_phrases = {index: gold[index].phrase for index in gold_indices}
            found_phrases = {index: found[index].phrase for index in found_by_key.get(key, ())}
            matched |= _match_by_overlap(gold_phrases, found_phrases)
    return matched


def _unmatched_by_key(
    phrases: Sequence[_Keyed], key_name: str, matched: Collection[int]
) -> dict[Hashable, list[int]]:
    """Return the indices of the phrases with each key, without those in `matched`."""
    indices_of_key = defaultdict[Hashable, list[int]](list)
    for index, keyed in enumerate(phrases):
        key = getattr(keyed, key_name)
        if key and index not in matched:
            indices_of_key[key].append(index)
    return indices_of_key


def _further_of_class(
    gold: Sequence[_Keyed], found: Sequence[_Keyed], found_of_gold: Mapping[int, int]
) -> defaultdict[int, list[int]]:
    """Return, by a gold phrase's index, further found phrases that state its class."""
    # If the gold's only "person" is matched with "a man", then "a woman", which states the class
    # person, is a further match of it.
    gold_by_text = _unmatched_by_key(gold, "text", ())
    taken = set(found_of_gold.values())
    further_of_gold = defaultdict[int, list[int]](list)
    for index, keyed in enumerate(found):
        if index in taken:
            continue
        gold_indices = gold_by_text.get(keyed.of_class, [])
        if len(gold_indices) != 1:  # of two "person", nothing says which one it is
            continue
        [gold_index] = gold_indices
        if gold_index in found_of_gold:
            further_of_gold[gold_index].append(index)
    return further_of_gold


def _as_one(phrases: Sequence[Row]) -> tuple[Row, int]:
    """Return a phrase with the boxes of several, each thing's once, and how many are left out."""
    if len(phrases) == 1:
        return phrases[0], 0
    boxes = boxes_of_things([phrase["instances"] for phrase in phrases])
    boxes.sort(key=by_score)
    first_with_boxes = next((phrase for phrase in phrases if phrase["instances"]), phrases[0])
    text = ", ".join(phrase["text"] for phrase in phrases)
    boxes_of_all = sum(len(phrase["instances"]) for phrase in phrases)
    return {**first_with_boxes, "text": text, "instances": boxes}, boxes_of_all - len(boxes)


def boxes_of_things(phrases: Sequence[Sequence[Row]]) -> list[Row]:
    """Return the boxes of all phrases of a class, each thing's once, as exports to detectors."""
    boxes: list[Row] = []
    for instances, indices_of_best in zip(phrases, each_thing_once(phrases), strict=True):
        boxes += [instances[index] for index in indices_of_best]
    return boxes


def _match_by_overlap(gold: Mapping[int, Row], found: Mapping[int, Row]) -> dict[int, int]:
    """Match phrases of an equal key, by their indices, those that overlap most first."""
    possible_pairs = len(gold) * len(found)
    if possible_pairs < 2:
        return dict(zip(gold, found, strict=False))  # the one pair, or none
    gold_areas = _areas_of(gold)
    found_areas = _areas_of(found)
    if possible_pairs > _MOST_PHRASE_PAIRS:
        # Too many to compare: first with first, second with second, in the order of `_areas_of`.
        return dict(zip(gold_areas, found_areas, strict=False))
    ranked = []
    for gold_index, gold_area in gold_areas.items():
        for found_index, found_area in found_areas.items():
            ranked.append((_distance(gold_area, found_area), gold_index, found_index))
    # The key is the distance alone. The sort is stable, so equal distances keep the areas' order.
    ranked.sort(key=lambda candidate: candidate[0])
    # Phrases that don't overlap are matched in the end, too.
    return first_free((gold_index, found_index) for _, gold_index, found_index in ranked)


def _areas_of(phrases: Mapping[int, Row]) -> dict[int, Bbox | None]:
    """Return the box around the boxes of each phrase, None without any, by the phrase's index."""
    # By the boxes, then the phrases' columns: so the file's order makes no difference.
    ordered = []
    for index, phrase in phrases.items():
        boxes = sorted(box_of(instance["bbox"]) for instance in phrase["instances"])
        ordered.append((boxes, repr(phrase), index))
    ordered.sort(key=lambda entry: (entry[0], entry[1]))
    areas: dict[int, Bbox | None] = {}
    for boxes, _, index in ordered:
        areas[index] = around(boxes) if boxes else None
    return areas


def _distance(a: Bbox | None, b: Bbox | None) -> float:
    """Return the negated IoU; 0 of two areas that are None, 1 where only one is."""
    if a and b:
        return -iou(a, b)
    return 1.0 if a or b else 0.0


@dataclass(frozen=True)
class Rules:
    """When a box is right."""

    threshold: float = 0.5
    """The IoU that makes a box right, in [0, 1], for measures without a fixed one."""
    score_cut: float | None = None
    """The score below which a box doesn't count where boxes are counted, not ranked; None counts
    all. Boxes without score count.
    """

    def __post_init__(self) -> None:
        limits = {"threshold": self.threshold, "score_cut": self.score_cut or 0}  # 0 for None
        for name, value in limits.items():
            if not (is_number(value) and 0 <= value <= 1):
                raise SpecError(f"{name} should be a number from 0 to 1, not {value!r}")

    def counted_boxes(self, phrase: Mapping[str, Any] | None) -> set[int]:
        """Return the indices of the phrase's boxes that the score cut leaves; none of None."""
        if not phrase:
            return set()
        lowest = self.score_cut or 0
        indices = set()
        for index, instance in enumerate(phrase["instances"]):
            score = instance["score"]
            if score is None or score >= lowest:
                indices.add(index)
        return indices


class Overlap(NamedTuple):
    """A found and a gold box, by their indices in their phrases, with their IoU, above 0."""

    iou: float
    found: int
    gold: int


def boxes_of(phrase: Mapping[str, Any] | None) -> list[Bbox]:
    return [box_of(instance["bbox"]) for instance in phrase["instances"]] if phrase else []


def overlaps_of(found: Sequence[Bbox], gold: Sequence[Bbox]) -> list[Overlap]:
    """Return all pairs of a found and a gold box that overlap, in the found ones' order."""
    if len(found) * len(gold) > MOST_PAIRS:
        return _overlaps_of_nearest(found, gold)  # to compare all would take minutes
    overlaps = []
    for found_index, found_box in enumerate(found):
        for gold_index, gold_box in enumerate(gold):
            shared = iou(found_box, gold_box)
            if shared:
                overlaps.append(Overlap(shared, found_index, gold_index))
    return overlaps


def _overlaps_of_nearest(found: Sequence[Bbox], gold: Sequence[Bbox]) -> list[Overlap]:
    """Return the overlaps of each found box with the gold boxes that begin nearest to it."""
    indices_of = defaultdict[Bbox, list[int]](list)  # by a distinct gold box: where it occurs
    for index, box in enumerate(gold):
        indices_of[box].append(index)
    # Boxes sort by their left sides first, so those nearest in the order begin nearest.
    distinct_boxes = sorted(indices_of)
    most_compared = max(MOST_PAIRS // len(found), 1)  # gold boxes, for each found one
    # Equal found boxes take the equal gold boxes in turn, so that each may be matched with its own:
    # of three found boxes on two gold ones, the first takes gold 0, the second 1, the third 0.
    turns = Counter[Bbox]()  # by a found box: how many equal ones came before
    overlaps = []
    for found_index, found_box in enumerate(found):
        turn = turns[found_box]
        turns[found_box] += 1
        for place in nearest(distinct_boxes, found_box, most_compared):
            gold_box = distinct_boxes[place]
            shared = iou(found_box, gold_box)
            if shared:
                equal_gold_boxes = indices_of[gold_box]
                gold_index = equal_gold_boxes[turn % len(equal_gold_boxes)]
                overlaps.append(Overlap(shared, found_index, gold_index))
    return overlaps


def nearest(ordered: Sequence[Any], value: Any, most: int) -> range:
    """Return the places in a sorted list that are nearest to a value, `most` at the most."""
    count = min(most, len(ordered))
    own_place = bisect_left(ordered, value)
    # Half of them are before the value. Near an end of the list, they are the `count` places at
    # that end.
    last_possible = len(ordered) - count
    first_place = min(max(own_place - most // 2, 0), last_possible)
    return range(first_place, first_place + count)


def one_to_one(overlaps: Iterable[Overlap], rules: Rules) -> list[Overlap]:
    """Return which box is which: greedily, the largest overlap first, no box twice."""
    # Overlaps that no measure counts are left out. The lowest of the fixed thresholds is 0.5; the
    # rules' may be lower.
    lowest = min(rules.threshold, 0.5)
    ranked = sorted(overlaps, key=lambda overlap: (-overlap.iou, overlap.gold, overlap.found))
    overlap_of_pair: dict[tuple[int, int], Overlap] = {}  # by indices of the found and gold box
    for overlap in ranked:
        if overlap.iou >= lowest:
            overlap_of_pair[overlap.found, overlap.gold] = overlap
    gold_of_found = first_free(overlap_of_pair)  # tries the pairs in their order
    return [overlap_of_pair[pair] for pair in gold_of_found.items()]
