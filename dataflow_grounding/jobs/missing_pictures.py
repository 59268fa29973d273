"""Where pictures that aren't found may be: advice to state another `data.image_root`."""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice

from dataflow_grounding._util.errors import GroundingError, ImageMissing
from dataflow_grounding._util.paths import is_absolute, joined
from dataflow_grounding._util.terminal import shown
from dataflow_grounding.engine.source import Source
from dataflow_grounding.images.image import find_image
from dataflow_grounding.jobs.job import Job

DEEPEST = 3
"""How many levels below a folder are looked at."""
MOST_FOLDERS = 2000
MOST_NAMES = 20
MOST_ROWS = 200
"""How many first rows tell whether pictures are missing."""


def advice_on_folder(job: Job, picture_names: Sequence[str]) -> str:
    """Return what to add to the command to have missing pictures found; "" where nothing helps."""
    key = job.input.image_root_key
    if not key:
        return ""
    starts = [os.path.dirname(job.input.reads) or ".", "."]
    relative_names = [name for name in picture_names if not is_absolute(name)]
    folder = folder_with(relative_names, starts)
    if not folder:
        return ""
    setting = shlex.quote(f"{key}={folder}")
    return f"if the pictures are in {folder}, add {setting}"


def missing_names(job: Job) -> list[str]:
    """Return what the first rows call pictures that aren't found; [] if half of them are found."""
    source = Source(job.steps)
    names = []
    record_count = 0
    for row in islice(job.input.rows(), MOST_ROWS):
        with suppress(GroundingError):
            record = source.record(row)
            record_count += 1
            try:
                find_image(record, source.image_key)
            except ImageMissing:
                names.append(str(record[source.image_key]))
    most_are_missing = 2 * len(names) > record_count
    return names if most_are_missing else []


def folder_with(file_names: Sequence[str], starts: Sequence[str]) -> str:
    """Return the folder, at or below the first start with any, that has most files; "" for none."""
    names = file_names[:MOST_NAMES]
    best_folder = ""
    most_found = 0
    for start in dict.fromkeys(starts):
        for folder in islice(_folders_under(start), MOST_FOLDERS):
            found = sum(_is_file(joined(folder, name)) for name in names)
            if found > most_found:
                best_folder = folder
                most_found = found
        if most_found:
            break
    if not best_folder:
        return ""
    return shown(os.path.normpath(best_folder), lines=False)  # it may have control characters


def _folders_under(start: str) -> Iterator[str]:
    """Yield `start`, then the folders in it, then those in them: the nearest first."""
    level = [start]
    for _ in range(DEEPEST + 1):
        below = []
        for folder in level:
            yield folder
            with suppress(OSError):
                inside = sorted(os.scandir(folder), key=lambda entry: entry.name)
                below += [entry.path for entry in inside if _may_hold_pictures(entry)]
        level = below


def _may_hold_pictures(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        is_hidden = entry.name.startswith(".")
        # Python's environments have many folders, and pictures of their packages.
        is_environment = os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))
        return entry.is_dir() and not is_hidden and not is_environment
    return False  # it can't be looked into


def _is_file(path: str) -> bool:
    with suppress(OSError, ValueError):
        return os.path.isfile(path)
    return False
