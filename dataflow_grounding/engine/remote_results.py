"""Results folders that may be remote: what works for runs there, and what is read of one."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

from dataflow_grounding._util.addresses import is_remote
from dataflow_grounding.data.mirror import CKPT, Mirror, is_mirrored
from dataflow_grounding.data.working_folder import address_of
from dataflow_grounding.engine.keyed_log import KeyedLog, other_stores, store_path
from dataflow_grounding.engine.rolling import copied, mirrored
from dataflow_grounding.engine.run_lock import only_run


@contextmanager
def local_copy(results: str, *names: str, replies: bool = False) -> Iterator[str]:
    """Yield a results folder of this machine for reading.

    A remote folder is copied; the copy exists while the block runs. Raises InputError.

    Args:
        results: The folder, or its address.
        names: The files to be copied.
        replies: Whether all stored replies are copied, too.
    """
    if not is_remote(results):
        yield results
        return
    with copied(results, *names, replies=replies) as folder:
        yield folder


@contextmanager
def stored_replies(folder: str) -> Iterator[KeyedLog]:
    """Yield the stored replies of the run that a checkpoint folder belongs to, for reading.

    They include those of its shards and of its workers on other machines. Nothing in the folder is
    changed: a run may be at work there. Raises InputError, StorageFailed.
    """
    copy = local_copy(address_of(os.path.dirname(os.path.abspath(folder))), replies=True)
    with copy as results:
        others = {*other_stores(folder), *other_stores(os.path.join(results, CKPT))}
        with closing(KeyedLog(store_path(folder), read_only=True, others=others)) as log:
            yield log


@contextmanager
def locked_folder(folder: str) -> Iterator[Mirror | None]:
    """Hold the lock of a checkpoint folder, as `only_run` does, and of the remote one it mirrors.

    If the folder mirrors a remote one, what a run needs is fetched before the block, and what the
    run leaves is sent in the block or at its end.

    Yields:
        What mirrors the remote folder; None for a folder of this machine.

    Raises:
        FolderTaken: Another run holds a lock.
        InputError: A folder can't be written or fetched.
        StorageFailed: What the block left can't be sent.
    """
    with only_run(folder):
        if not is_mirrored(folder):
            yield None
            return
        with mirrored(folder) as mirror:
            yield mirror
