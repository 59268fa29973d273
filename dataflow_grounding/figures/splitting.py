"""Parts of a data set that have no picture in common, nor nearly."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from dataflow_grounding.errors import InputError
from dataflow_grounding.figures.duplicates import first_alike, hash_of, looks_of, path_of
from dataflow_grounding.records import dump_text
from dataflow_grounding.results_folder import image_folders_of, records_of
from dataflow_grounding.rows import RowWriter, write_text


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
