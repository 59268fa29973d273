"""Pictures that are the same, or nearly, and parts of a data set that have none in common.

By dHash: 64 bits that say where a picture grows brighter to the right.
"""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from dataflow_grounding.errors import InputError, RecordError
from dataflow_grounding.geometry import Size
from dataflow_grounding.image_files import decoding, read_file
from dataflow_grounding.images import find_image
from dataflow_grounding.records import Record, dump_text
from dataflow_grounding.results_folder import image_folders_of, records_of
from dataflow_grounding.rows import RowWriter, write_text

_NEAR = 4  # bits in which the dHashes of pictures may differ that count as nearly the same
_FLAT = 8  # levels of grey: a thumbnail with fewer has no dHash that tells anything
_AT_ONCE = 1024  # pictures that wait for threads


def hash_of(text: str) -> int:
    """64 bits that stand for the text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def path_of(record: Mapping[str, Any]) -> str:
    """The path of a record's picture, as the record has it; empty where it has none."""
    path = record.get("image_path" if "image_path" in record else "image")
    return path if isinstance(path, str) else ""


def stated_size(record: Mapping[str, Any]) -> Size | None:
    """The width and height that a record says its picture has, in pixels."""
    sides = [side for side in (record.get("width"), record.get("height")) if type(side) is int and side > 0]
    return (sides[0], sides[1]) if len(sides) == 2 else None


def known_id(path: str) -> str:
    """What lists of ids call a picture: COCO's number, where a name has its 12 digits, else the name without ending."""
    stem = os.path.splitext(os.path.basename(path.strip()))[0]
    coco = re.fullmatch(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})(?:_\d+)?", stem)
    return str(int(coco[1])) if coco else stem


def looks_of(paths: Iterable[str], folders: tuple[str, ...], read: bool = True) -> tuple[list[int], int]:
    """How the pictures look, read in threads, and how many can't be read: a dHash, or, where there is none, below 0.

    Without `read`, and for those that can't be read, it stands for the path.
    """
    left, looks, unread = iter(paths), list[int](), 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while some := list(islice(left, _AT_ONCE)):
            seen = [*pool.map(partial(_look, folders=folders), some)] if read else [None] * len(some)
            looks += [-hash_of(path) if look is None else look for path, look in zip(some, seen, strict=True)]
            unread += seen.count(None) if read else 0
    return looks, unread


def _look(path: str, folders: tuple[str, ...]) -> int | None:
    """A picture's dHash; of one that is flat, and so has none, what stands for its pixels; None if it can't be read."""
    try:
        path = find_image(Record({"image": path}, folders), "image").path
        with decoding(read_file(path), path) as picture:
            grey = np.asarray(picture.convert("L").resize((9, 8)), int)
            if np.ptp(grey) < _FLAT:
                return -hash_of(f"{picture.size} {hashlib.sha256(picture.tobytes()).hexdigest()}")
    except RecordError:
        return None
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "little")


def first_alike(looks: Iterable[int]) -> list[int]:
    """For each of these looks the place of the first that it is the same as, or nearly so."""
    first, alike = dict[int, int](), list[int]()
    buckets = defaultdict[tuple[int, int], list[int]](list)

    def root(place: int) -> int:
        while alike[place] != place:
            alike[place] = place = alike[alike[place]]
        return place

    for place, look in enumerate(looks):
        alike.append(first.setdefault(look, place))
        if first[look] == place and look >= 0:
            for band in range(0, 64, 13):  # in 4 bits at the most they differ, so that one of 5 bands is the same
                bucket = buckets[band, look >> band & 0x1FFF]
                for other in bucket:
                    if (look ^ other).bit_count() <= _NEAR:
                        one, second = sorted((root(place), root(first[other])))
                        alike[second] = one
                bucket.append(look)
    return [*map(root, range(len(alike)))]


def split(
    results: str, out: str, parts: dict[str, float], *, seed: int = 0, image_root: str | None = None, read: bool = True
) -> dict[str, Any]:
    """Write each record into `out`/NAME.jsonl of its part, and where pictures are found into `out`/run.json.

    A picture's part follows from the seed and its path; of pictures that are nearly the same, from the first one's. So
    the same seed gives the same parts, and records that are added at the end change none, unless they link two groups.

    Args:
        parts: Name → weight, above 0.
        image_root, read: Where pictures are, if not where the run found them; whether they are read and compared.

    Returns:
        Counts of `records` and `pictures` per part, of pictures `alike` an earlier one, and of `unread` ones.

    Raises:
        InputError: A record can't be read, `out` is there already, or a part would be empty.
    """
    if os.path.lexists(out):
        raise InputError(f"{out} is there already: remove it, or choose another folder")
    folders, places = image_folders_of(results, image_root), dict[str, int]()
    of_record = np.fromiter((places.setdefault(path_of(one), len(places)) for one in records_of(results)), int)
    looks, unread = looks_of(places, folders, read)
    first, paths = first_alike(looks), [*places]
    chance = np.fromiter((hash_of(f"{seed} {paths[place]}") for place in first), float)
    bounds = np.cumsum([*parts.values()]) / sum(parts.values()) * 2.0**64
    of_picture = np.searchsorted(bounds[:-1], chance, "right")
    of_record = of_picture[of_record]
    sizes = (np.bincount(one, minlength=len(parts)).tolist() for one in (of_record, of_picture))
    counts = {name: {"records": n, "pictures": m} for name, n, m in zip(parts, *sizes, strict=True)}
    if empty := [name for name, count in counts.items() if not count["records"]]:
        raise InputError(f"{empty[0]} would be empty, of {len({*first})} groups: choose another --seed or --ratios")
    try:
        _write(results, [os.path.join(out, f"{name}.jsonl") for name in parts], of_record.tolist())
    except OSError as error:
        raise InputError(f"can't write {out}: {error.strerror or error}") from None
    run = {"split": {"seed": seed, "parts": parts}, "image_folders": [*map(os.path.abspath, folders)]}
    write_text(os.path.join(out, "run.json"), dump_text(run, 2) + "\n")
    return {"parts": counts, "alike": len(first) - len({*first}), "unread": unread}


def _write(results: str, paths: Sequence[str], of_record: Sequence[int]) -> None:
    with ExitStack() as undo:
        writers = [RowWriter(path) for path in paths]
        for writer in writers:
            undo.callback(writer.discard)
        for record, part in zip(records_of(results), of_record, strict=True):
            writers[part].write(record)
        for writer in writers:
            writer.commit()
