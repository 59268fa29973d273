"""Pictures that are the same, or nearly, and parts of a data set that have none in common.

A picture's look is two things. A dHash, 64 bits that say where the picture grows brighter to the
right, finds candidates; how bright its 12 x 12 parts are, in standard deviations from their mean,
says which of them are alike.
"""

import hashlib
import os
import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import accumulate

from dataflow_grounding._util.errors import InputError, RecordError, errors_as
from dataflow_grounding._util.files import within
from dataflow_grounding._util.paths import absolute
from dataflow_grounding._util.threads import side_by_side
from dataflow_grounding.data.classes import CLASSES_FILE, ClassList, classes_of
from dataflow_grounding.data.records import JsonObject, Update, dump_text, path_of
from dataflow_grounding.data.results import RecordsOf
from dataflow_grounding.data.results_folder import image_folders_of, run_of
from dataflow_grounding.data.rows import RowWriter, write_text
from dataflow_grounding.evaluation.figures.same_files import DataSet, short_digest
from dataflow_grounding.evaluation.metrics.annotations import names_of
from dataflow_grounding.images.files import decoding, read_file
from dataflow_grounding.images.image import find_file, waits

_MOST_BITS = 4  # in which the dHashes of pictures may differ that count as nearly the same
# A hash is cut into five bands of 13 bits: of two hashes that differ in 4 bits at most, one band is
# the same.
_BAND_BITS = 13
_BAND_STARTS = range(0, 64, _BAND_BITS)
_BUCKETS_OF_BAND = 1 << _BAND_BITS
_HASH_BYTES = 8
# a standard deviation in the bytes of a look, and the most by which any part may differ
_DEVIATION = 32
_LEAST_DEVIATION = 6  # levels of grey; in pictures with less, differences are noise
_FLAT = 8  # levels of grey: a thumbnail with fewer has no dHash that tells anything
# pixels that a picture is decoded to at least: a JPEG's decoder is faster for a part of its size
_DECODED_SIZE = (96, 96)
# Remote pictures are fetched by many threads; to decode more at once only takes memory.
_decoders = threading.BoundedSemaphore(os.cpu_count() or 1)


def looks_of(pictures: DataSet, folders: tuple[str, ...]) -> tuple[list[bytes], set[str]]:
    """Return a look for each picture, in order, and the names of those that can't be read.

    A look is 8 bytes of dHash and 144 of parts, by which `first_alike` compares. A flat picture has
    only 8 bytes, a digest of its pixels. One that can't be read has 8 bytes of a digest of its
    name. Looks of 8 bytes are alike to equal ones only.
    """

    def look(path: str) -> bytes | None:
        try:
            found = find_file(path, folders).path
            return _look_of(read_file(found), found)
        except RecordError:
            return None

    # Files here are decoded by a thread for each core; those that stores are asked for by more.
    looks = side_by_side(look, pictures.paths(), lambda path: waits(path, folders), cores=True)
    looks_or_digests: list[bytes] = []
    unread = set[str]()
    for name, own_look in zip(pictures.pictures, looks, strict=True):
        if own_look is None:
            unread.add(name)
            looks_or_digests.append(short_digest(name))
        else:
            looks_or_digests.append(own_look)
    return looks_or_digests, unread


def _look_of(data: bytes, path: str) -> bytes:
    """Return the look of a picture file. Raises RecordError where it can't be decoded."""
    import numpy as np
    from PIL.Image import Resampling

    with _decoders, decoding(data, path, at_least=_DECODED_SIZE) as picture:
        grey = picture.convert("L")
        small = np.asarray(grey.resize((9, 8)), int)  # 8 rows of 8 steps to the right
        parts = np.asarray(grey.resize((12, 12), Resampling.BOX), float)
    if np.ptp(small) < _FLAT:
        # Of all pixels, not of a JPEG decoded to a part of its size.
        with _decoders, decoding(data, path) as picture:
            pixels = hashlib.sha256(picture.convert("L").tobytes()).hexdigest()
            return short_digest(f"{picture.size} {pixels}")
    # a bit for each step: whether the picture grows brighter there
    brighter = small[:, 1:] > small[:, :-1]
    # a signed byte for each part: how much brighter than the mean it is
    deviations = (parts - parts.mean()) / max(parts.std(), _LEAST_DEVIATION)
    brightness = np.clip(np.rint(deviations * _DEVIATION), -127, 127).astype(np.int8)
    return bytes(np.packbits(brighter)) + bytes(brightness)


def first_alike(looks: Sequence[bytes]) -> list[int]:
    """Return for each look the index of the first that is the same, or nearly so: maybe its own.

    Two looks that are alike to a third one have the same first look, even if they aren't alike
    themselves.
    """
    hashes = [int.from_bytes(look[:_HASH_BYTES], "little") for look in looks]
    # There is a bucket for each band and value: it has the pictures whose hashes have this value in
    # this band. The list has all buckets of the first band, then all of the next. A dict's keys
    # would take more memory than the pictures.
    bucket_count = len(_BAND_STARTS) * _BUCKETS_OF_BAND
    buckets: list[list[int]] = [[] for _ in range(bucket_count)]
    first_equal = dict[bytes, int]()
    # Groups that can be joined (a union-find): of each picture an earlier one of its group, or
    # itself if it is the group's first.
    parent: list[int] = []

    def first_of(picture: int) -> int:
        while parent[picture] != picture:
            # The picture's grandparent becomes its parent: the next call has half the way.
            parent[picture] = parent[parent[picture]]
            picture = parent[picture]
        return picture

    for index, look in enumerate(looks):
        first_index = first_equal.setdefault(look, index)
        parent.append(first_index)
        # A further equal one needn't be compared, and one without parts is alike to equal ones
        # only.
        if first_index != index or len(look) <= _HASH_BYTES:
            continue
        near = set[int]()  # the pictures in the same buckets whose hashes differ in few bits
        for band, start in enumerate(_BAND_STARTS):
            value = (hashes[index] >> start) % _BUCKETS_OF_BAND
            bucket = buckets[band * _BUCKETS_OF_BAND + value]
            near.update(
                other
                for other in bucket
                if (hashes[index] ^ hashes[other]).bit_count() <= _MOST_BITS
            )
            bucket.append(index)  # for the pictures that follow
        for candidate in _with_near_parts(look, list(near), looks):
            earlier, later = sorted((first_of(index), first_of(candidate)))
            parent[later] = earlier
    return [first_of(picture) for picture in range(len(looks))]


def _with_near_parts(look: bytes, candidates: list[int], looks: Sequence[bytes]) -> list[int]:
    """Return the candidates of which no part differs by more than a standard deviation."""
    if not candidates:
        return []
    import numpy as np

    joined = b"".join(looks[candidate] for candidate in candidates)
    their_looks = np.frombuffer(joined, np.int8).reshape(-1, len(look))
    their_parts = their_looks[:, _HASH_BYTES:]
    own_parts = np.frombuffer(look, np.int8)[_HASH_BYTES:]
    # as int16, because int8 would overflow
    differences = np.abs(their_parts.astype(np.int16) - own_parts).max(axis=1, initial=0)
    return [candidates[place] for place in np.flatnonzero(differences <= _DEVIATION)]


def split(
    results: str,
    out: str,
    parts: dict[str, float],
    *,
    seed: int = 0,
    image_root: str | None = None,
    read: bool = True,
) -> Update:
    """Split records by picture into a file for each part, `out`/NAME.jsonl, next to run.json.

    Pictures that are nearly the same are a group, and in one part. Which it is follows from a
    digest of the seed and of the path of the group's first picture alone. So pictures that are
    added later move none of the others, but where they join two groups; and a share is met as by
    chance, to about 1 / sqrt(n) of n groups.

    `parts` has each part's weight by its name. Without `read` pictures aren't compared. Returns how
    many records and pictures each part has; how many pictures are nearly the same as an earlier one
    (`alike`) or can't be read (`unread`); and how many `rejected` boxes are left out. Raises
    InputError where a record can't be read, there is none, or `out` is there already.
    """
    if os.path.lexists(out):
        raise InputError(f"{out} is there already: remove it, or choose another folder")
    folders = image_folders_of(results, image_root)
    pictures = DataSet()
    for record in RecordsOf(results):
        name, _ = names_of(record, f"record {record.place + 1} of {results}")
        pictures.add(name, path_of(record)).count += 1
    names = list(pictures.pictures)
    if not names:
        raise InputError(f"{results} has no picture to split")
    first_of_group: Sequence[int] = range(len(names))  # each picture is a group of its own
    unread = set[str]()
    if read:
        looks, unread = looks_of(pictures, folders)
        first_of_group = first_alike(looks)
    part_of_picture = _parts_by_digest(names, first_of_group, parts, seed)
    with errors_as(InputError, f"can't write {out}"):
        rejected = _write_parts(results, out, list(parts), part_of_picture)
    _write_run_json(results, out, {"seed": seed, "parts": parts}, folders)
    counts = {part: {"records": 0, "pictures": 0} for part in parts}
    for name, part in part_of_picture.items():
        counts[part]["records"] += pictures.pictures[name].count
        counts[part]["pictures"] += 1
    group_count = len(set(first_of_group))
    return {
        "parts": counts,
        "alike": len(names) - group_count,  # all but the first of each group
        "unread": len(unread),
        "rejected": rejected,
    }


def _write_run_json(
    results: str, out: str, split_settings: JsonObject, folders: Iterable[str]
) -> None:
    """Write for commands that read the parts where their pictures are, and how they were made."""
    run: Update = {
        "split": split_settings,
        "image_folders": [absolute(folder) for folder in folders],
    }
    imported = run_of(results).get("imported")
    if imported:  # what a file said of all pictures, which an export to its format gives back
        run["imported"] = imported
    write_text(os.path.join(out, "run.json"), dump_text(run, 2) + "\n")


def _parts_by_digest(
    pictures: Sequence[str],
    first_of_group: Sequence[int],
    weight_of_part: Mapping[str, float],
    seed: int,
) -> dict[str, str]:
    """Return the name of each picture's part; pictures of a group have the same first index."""
    total = sum(weight_of_part.values())
    ends = [end / total for end in accumulate(weight_of_part.values())]
    names = list(weight_of_part)
    part_of_picture: dict[str, str] = {}
    for picture, first in zip(pictures, first_of_group, strict=True):
        digest = int.from_bytes(short_digest(f"{seed} {pictures[first]}"), "little")
        chance = digest / 2**64  # from 0 to 1, the same in every run
        place = min(bisect_right(ends, chance), len(names) - 1)
        part_of_picture[picture] = names[place]
    return part_of_picture


def _write_parts(
    results: str,
    out: str,
    part_names: Sequence[str],
    part_of_picture: Mapping[str, str],
) -> int:
    """Write the parts' files; return how many rejected boxes are left out."""
    # If a record can't be read, no file is left: a writer closed without `commit` leaves none.
    records = RecordsOf(results)
    writers: dict[str, RowWriter] = {}
    classes = ClassList(classes_of(results))
    with ExitStack() as stack:
        for name in part_names:
            writer = RowWriter(within(out, f"{name}.jsonl"))
            writers[name] = stack.enter_context(closing(writer))
        for record in records:
            picture, _ = names_of(record, results)
            writers[part_of_picture[picture]].write(record)
            classes.add(record)
        for writer in writers.values():
            writer.commit()
    write_text(os.path.join(out, CLASSES_FILE), "".join(f"{name}\n" for name in classes.names))
    return records.rejected
