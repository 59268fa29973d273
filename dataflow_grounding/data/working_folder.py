"""The folder of this machine in which commands work for a results folder, here or elsewhere.

Results at an address (s3://, gs://, …) are worked on in a folder of this machine that stands for
it; the extension `stores: mirrors` makes it, brings what is there and sends what is new.
"""

import os
from pathlib import Path
from types import ModuleType

from dataflow_grounding._util.environment import cache_folder
from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.extensions import extension
from dataflow_grounding._util.paths import has_scheme, is_elsewhere

CKPT = ".ckpt"
"""Of a results folder: where a run keeps its replies and what it has found out."""
standing: set[str] = set()
"""Folders of this machine that stand for an address, as this process has been told."""


def mirrors(results: str) -> ModuleType:
    """What works for results elsewhere. Raises InputError where that isn't installed."""
    module = extension("stores", "mirrors")
    if not isinstance(module, ModuleType):
        what = "no part for results elsewhere is installed: install dataflow-grounding again"
        raise InputError(f"can't work in {results}: {what}")
    return module


def working_folder(results: str, part: str = "") -> str:
    """The folder in which to work for `part` of a results folder, "" or a shard's.

    For an address it is one of this machine, in `DF_WORK_FOLDER` or the user's cache, the same each
    time. Raises InputError.

    Example:
        >>> working_folder("results", "shards/1-of-8")
        'results/shards/1-of-8'
    """
    if is_elsewhere(results):
        folder: str = mirrors(results).working_folder(results, part)
        return folder
    if has_scheme(results) and not os.path.isdir(results):
        raise InputError(
            f"results can't be written to {results}: name a folder, or a bucket as s3://bucket/run"
        )
    return os.path.join(results, part) if part else results


def mirrors_folder() -> str:
    """Where folders that stand for an address are made."""
    return os.environ.get("DF_WORK_FOLDER") or os.path.join(cache_folder(), "elsewhere")


def is_mirrored(path: str) -> bool:
    """Whether a path may be in a folder that stands for an address.

    A stranger's folder, which may say so too, is none: it is not where this program makes them.
    """
    at, work = Path(os.path.abspath(path)), Path(os.path.abspath(mirrors_folder()))
    return any(folder.parent == work or str(folder) in standing for folder in (at, *at.parents))


def address_of(path: str) -> str:
    """What a path is called for people: its address, where its folder stands for one."""
    if is_elsewhere(path) or not is_mirrored(path):
        return path
    address: str = mirrors(path).address_of(path)
    return address


def present(*paths: str, anew: bool = False) -> str:
    """The first of some paths, once all are brought that are elsewhere and not here.

    With `anew`, those that are here are brought too. Raises InputError.
    """
    lacking = [path for path in paths if anew or not os.path.exists(path)]
    if lacking and not is_elsewhere(paths[0]) and is_mirrored(paths[0]):
        mirrors(paths[0]).bring(paths[0], lacking)
    return paths[0]


def sent(path: str, *endings: str) -> str:
    """What a file is called for people, once what is new in its folder is sent."""
    if is_mirrored(path):
        mirrors(path).send_new(path, *endings)
    return address_of(path)
