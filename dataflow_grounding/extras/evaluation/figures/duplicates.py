"""Pictures that are the same, or nearly, and parts of a data set that have none in common.

By two looks: a dHash, 64 bits that say where a picture grows brighter to the right, finds
candidates; how bright its 12 x 12 parts are, in standard deviations from their mean, says which of
them are alike.
"""

import hashlib
import os
import re
import threading
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import compress, islice
from multiprocessing.pool import ThreadPool
from typing import Any

from dataflow_grounding._util.errors import InputError, RecordError, told_as
from dataflow_grounding._util.files import within
from dataflow_grounding._util.paths import absolute, is_elsewhere
from dataflow_grounding._util.threads import at_once
from dataflow_grounding.data.records import Record, dump_text, path_of
from dataflow_grounding.data.results_folder import image_folders_of, records_of
from dataflow_grounding.data.rows import RowWriter, write_text
from dataflow_grounding.extras.evaluation.figures.same_files import short_digest
from dataflow_grounding.extras.evaluation.metrics.annotations import names_of
from dataflow_grounding.images.files import decoding, read_file
from dataflow_grounding.images.image import find_image

_NEAR = 4  # bits in which the dHashes of pictures may differ that count as nearly the same
_ONE = 32  # a standard deviation: the most by which any of their parts may differ
_LEAST = 6  # levels of grey that count as a deviation in pictures that have less: so much is noise
_FLAT = 8  # levels of grey: a thumbnail with fewer has no dHash that tells anything
# pixels, at least, of what is looked at: a JPEG's decoder gives a part of its size for less
_LOOKED_AT = (96, 96)
_AT_ONCE = 256  # pictures whose looks are waited for together
_CORES = os.cpu_count() or 1
# more threads, which fetch, would only take more memory
_decoders = threading.BoundedSemaphore(_CORES)
_ENDING = re.compile(r"\.(?:avif|bmp|gif|heic|jfif|jpe|jpeg|jpg|png|tif|tiff|webp)$", re.IGNORECASE)


def known_id(path: str) -> str:
    """What lists of ids call a picture: COCO's number, where a name has its 12 digits, else the
    name without ending.
    """
    stem = _ENDING.sub("", re.split(r"[/\\]", path.strip())[-1])
    coco = re.fullmatch(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})(?:_\d+)?", stem)
    return str(int(coco[1])) if coco else stem


def looks_of(paths: Mapping[str, str], folders: tuple[str, ...]) -> tuple[list[bytes], set[str]]:
    """How pictures look, by name → path, and which can't be read: 8 bytes of dHash, 144 of parts.

    Of a flat picture the 8 bytes stand for its pixels and are all; of one that can't be read, for
    its name.
    """
    look, seen = partial(_look, folders=folders), list[bytes | None]()
    far_folders, left = any(map(is_elsewhere, folders)), iter(paths.values())
    with ThreadPool(_CORES) as cores:
        while some := list(islice(left, _AT_ONCE)):
            seen += (
                at_once(look, some)
                if far_folders or any(map(is_elsewhere, some))
                else cores.map(look, some, 1)
            )
    looks = [found or short_digest(name) for name, found in zip(paths, seen, strict=True)]
    return looks, {name for name, found in zip(paths, seen, strict=True) if found is None}


def names_alone(paths: Mapping[str, str]) -> tuple[list[bytes], set[str]]:
    """As `looks_of`, where no picture is read: each is told by its name."""
    return [*map(short_digest, paths)], set()


def _look(path: str, folders: tuple[str, ...]) -> bytes | None:
    import numpy as np
    from PIL.Image import Resampling

    try:
        path = find_image(Record({"image": path}, folders), "image").path
        data = read_file(path)
        with _decoders, decoding(data, path, at_least=_LOOKED_AT) as picture:
            grey = picture.convert("L")
            small = np.asarray(grey.resize((9, 8)), int)
            parts = np.asarray(grey.resize((12, 12), Resampling.BOX), float)
        if np.ptp(small) < _FLAT:
            with _decoders, decoding(data, path) as picture:
                pixels = hashlib.sha256(picture.convert("L").tobytes()).hexdigest()
                return short_digest(f"{picture.size} {pixels}")
    except RecordError:
        return None
    apart = np.clip(np.rint((parts - parts.mean()) / max(parts.std(), _LEAST) * _ONE), -127, 127)
    return bytes(np.packbits(small[:, 1:] > small[:, :-1])) + bytes(apart.astype(np.int8))


def first_alike(looks: Sequence[bytes]) -> list[int]:
    """For each of these looks the place of the first that it is the same as, or nearly so."""
    first, alike = dict[bytes, int](), list[int]()
    hashes = array("Q", (int.from_bytes(look[:8], "little") for look in looks))
    buckets = defaultdict[tuple[int, int], list[int]](list)

    def root(place: int) -> int:
        while alike[place] != place:
            alike[place] = place = alike[alike[place]]
        return place

    for place, look in enumerate(looks):
        alike.append(first.setdefault(look, place))
        if alike[place] == place and len(look) > 8:
            near = set[int]()
            for band in range(0, 64, 13):
                # in 4 bits at the most they differ, so that one of 5 bands is the same
                bucket = buckets[band, hashes[place] >> band & 0x1FFF]
                near.update(
                    other
                    for other in bucket
                    if (hashes[place] ^ hashes[other]).bit_count() <= _NEAR
                )
                bucket.append(place)
            if not near:
                continue
            import numpy as np

            places = [*near]
            seen = np.frombuffer(b"".join(looks[one] for one in (place, *places)), np.int8).reshape(
                -1, len(look)
            )
            apart = np.abs(seen[1:, 8:].astype(np.int16) - seen[0, 8:]).max(axis=1, initial=0)
            for other in compress(places, apart <= _ONE):
                one, second = sorted((root(place), root(other)))
                alike[second] = one
    return [*map(root, range(len(alike)))]


def split(
    results: str,
    out: str,
    parts: dict[str, float],
    *,
    seed: int = 0,
    image_root: str | None = None,
    read: bool = True,
) -> dict[str, Any]:
    """Write each record into `out`/NAME.jsonl of its part, and where pictures are found into
    `out`/run.json.

    A picture's part follows from the seed and its path; of pictures that are nearly the same, from
    the first one's. So the same seed gives the same parts, and records that are added at the end
    change none, unless they link two groups.

    Args:
        parts: Name → weight, above 0.
        image_root, read: Where pictures are, if not where the run found them; whether they are read
            and compared.

    Returns:
        Counts of `records` and `pictures` per part, of pictures `alike` an earlier one, and of
        `unread` ones.

    Raises:
        InputError: A record can't be read, `out` is there already, or a part would be empty.
    """
    if os.path.lexists(out):
        raise InputError(f"{out} is there already: remove it, or choose another folder")
    folders, times, paths = image_folders_of(results, image_root), Counter[str](), dict[str, str]()
    for record in records_of(results):
        name, _ = names_of(record, f"record {record.place + 1} of {results}")
        # one text in memory
        paths.setdefault(name, name if path_of(record) == name else path_of(record))
        times[name] += 1
    looks, unread = looks_of(paths, folders) if read else names_alone(paths)
    import numpy as np

    first, names = first_alike(looks), [*paths]
    chance = np.fromiter(
        (int.from_bytes(short_digest(f"{seed} {names[place]}"), "little") for place in first), float
    )
    bounds = np.cumsum([*parts.values()]) / sum(parts.values()) * 2.0**64
    of_picture = np.searchsorted(bounds[:-1], chance, "right")
    sizes = (
        np.bincount(of_picture, each, len(parts)).astype(int).tolist()
        for each in ([*times.values()], None)
    )
    counts = {name: {"records": n, "pictures": m} for name, n, m in zip(parts, *sizes, strict=True)}
    if empty := [name for name, count in counts.items() if not count["records"]]:
        raise InputError(
            f"{empty[0]} would be empty, of {len({*first})} groups: choose another --seed or"
            " --ratios"
        )
    part_of = dict(zip(names, of_picture.tolist(), strict=True))
    with told_as(InputError, f"can't write {out}"), ExitStack() as undo:
        writers = [
            undo.enter_context(closing(RowWriter(within(out, f"{name}.jsonl")))) for name in parts
        ]
        for record in records_of(results):
            writers[part_of[names_of(record, results)[0]]].write(record)
        for writer in writers:
            writer.commit()
    run = {"split": {"seed": seed, "parts": parts}, "image_folders": [*map(absolute, folders)]}
    write_text(os.path.join(out, "run.json"), dump_text(run, 2) + "\n")
    return {"parts": counts, "alike": len(first) - len({*first}), "unread": len(unread)}
