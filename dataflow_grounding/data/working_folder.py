"""The folder of this machine in which commands work for a results folder, which may be remote.

Results at an address (s3://, gs://, …) are worked on in a folder of this machine, their mirror. The
module `mirror.py` makes it, fetches what is at the address and sends what is new.
"""

import os

from dataflow_grounding._util.addresses import is_remote
from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.paths import has_scheme
from dataflow_grounding.data.mirror import CKPT, mirror_folder, mirror_of

CALIBRATION = "calibration.json"
"""The file in CKPT that says how the run's model writes boxes, where it was calibrated."""
SHARDS = "shards"
"""The folder in a results folder where the folders of its shards are."""
LEGACY_STATE = os.path.join(CKPT, "labels.json")
"""The file in a step's folder that says what its label files in a legacy format were made of."""


def working_folder(results: str, part: str = "") -> str:
    """Return the folder of this machine in which to work for a results folder.

    For a folder of this machine that is the folder itself; for an address its mirror, in
    `DF_WORK_FOLDER` or the user's cache, the same each time. Raises InputError, also for an address
    that is misspelt.

    Args:
        results: The results folder, or its address.
        part: A folder within it, such as a shard's; "" for the whole.

    Example:
        >>> working_folder("results", "shards/1-of-8")
        'results/shards/1-of-8'
    """
    if is_remote(results):
        return mirror_folder(results, part)
    if has_scheme(results) and not os.path.isdir(results):
        raise InputError(
            f"results can't be written to {results}: name a folder, or a bucket as s3://bucket/run"
        )
    return os.path.join(results, part) if part else results


def address_of(path: str) -> str:
    """Return a path for messages: the address that it mirrors, or the path itself."""
    mirror = None if is_remote(path) else mirror_of(path)
    if mirror is None:
        return path
    return f"{mirror.address}/{os.path.relpath(path, mirror.root)}".removesuffix("/.")


def present(*paths: str, refresh: bool = False) -> str:
    """Fetch files of a mirror that aren't here yet, and return the first of the paths.

    `refresh` fetches files that are here, too. All paths are of one mirror: if the first isn't in a
    mirror, or is an address, nothing is fetched. Raises InputError.
    """
    wanted = [path for path in paths if refresh or not os.path.exists(path)]
    if wanted and not is_remote(paths[0]):
        mirror = mirror_of(paths[0])
        if mirror is not None:
            names = [os.path.relpath(path, mirror.root) for path in wanted]
            mirror.fetch(*names)
    return paths[0]


def sent(path: str, *endings: str) -> str:
    """Send what is new in a file's mirror to its address, and return the file's path for messages.

    With `endings`, only files whose names end so are sent. Nothing is sent of a file that is in no
    mirror.
    """
    mirror = mirror_of(path)
    if mirror is not None:
        mirror.put(*endings)
    return address_of(path)
