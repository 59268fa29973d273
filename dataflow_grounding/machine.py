"""What is the machine's fault and no record's: files, memory or threads that run out, disks that are full or don't answer."""

from __future__ import annotations

import errno
import os

from dataflow_grounding.errors import ImageMissing, MachineBusy, RecordError, RunStopped, StorageFailed

SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN}  # no files or memory are left for now

_AWAY = {
    *(errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ECONNRESET),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
}
"""The disk, or the server of a network's disk, doesn't answer."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def cant_read(path: str, error: OSError) -> RecordError:
    """Why an image file can't be read: it isn't there, or the machine can't get at it now."""
    busy = error.errno in SHORT or error.errno in _AWAY
    return (MachineBusy if busy else ImageMissing)(f"can't read {path!r}: {error.strerror or error}")


def machine_fault(error: BaseException) -> MachineBusy | RunStopped | None:
    """What an exception out of a decoder or an operator means, if it isn't about what was worked on."""
    said = " ".join(str(error).split())[:200]
    if isinstance(error, MemoryError) or "out of memory" in said:  # Pillow's decoders say so in an OSError
        return MachineBusy(f"there is not enough memory{f': {said}' if said else ''}")
    if isinstance(error, RuntimeError) and "start new thread" in said:
        return MachineBusy(f"this machine {said}")
    if isinstance(error, OSError) and error.errno in SHORT:
        return MachineBusy(f"this machine has none left: {said}")
    if isinstance(error, OSError) and error.errno in _FULL:
        return StorageFailed(f"can't write: {said}. Fix that, then run the same command again")
    return None


def files_left() -> int:
    """How many connections this process may open besides the files that it has open, with some left for all else."""
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most == resource.RLIM_INFINITY:
        return 1_000_000
    try:
        left = most - len(os.listdir("/dev/fd")) - 8
    except OSError:  # not even that many
        return 1
    return max(1, left - min(40, left // 4))
