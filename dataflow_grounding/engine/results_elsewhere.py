"""Results folders that may be elsewhere: what works for runs there, and what is read of one."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import ModuleType

from dataflow_grounding._util.extensions import store_part
from dataflow_grounding._util.paths import is_elsewhere
from dataflow_grounding.data.working_folder import CKPT, address_of
from dataflow_grounding.engine.keyed_log import KeyedLog, other_stores, store_path


def mirrored_runs(results: str) -> ModuleType:
    """Return what works for runs elsewhere, the extension `stores: runs`.

    `results` is the folder, for the error. Raises InputError without the extension.
    """
    return store_part("runs", f"work in {results}", "results")


@contextmanager
def readable(results: str, *names: str, replies: bool = False) -> Iterator[str]:
    """Yield a results folder of this machine to be read.

    Of a folder elsewhere that is a copy, which is there as long as the block runs. Raises
    InputError.

    Args:
        results: The folder, or its address.
        names: The files to be copied.
        replies: Whether all stored replies are copied, too.
    """
    if not is_elsewhere(results):
        yield results
        return
    with mirrored_runs(results).copied(results, *names, replies=replies) as folder:
        yield folder


@contextmanager
def readable_replies(folder: str) -> Iterator[KeyedLog]:
    """Yield what is stored for the run that a checkpoint folder is of, to be read.

    It has also what the run's shards have stored, and who works for it elsewhere. Nothing in the
    folder is touched: a run may be at work there. Raises InputError, StorageFailed.
    """
    elsewhere = readable(address_of(os.path.dirname(os.path.abspath(folder))), replies=True)
    with elsewhere as results:
        others = {*other_stores(folder), *other_stores(os.path.join(results, CKPT))}
        with closing(KeyedLog(store_path(folder), read_only=True, others=others)) as log:
            yield log
