"""Paths: of this machine, and remote addresses (s3://, gs://, hf://).

What is done to the latter is in `stores.py`.
"""

import io
import os
import posixpath
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, cast

from dataflow_grounding._util import stores
from dataflow_grounding._util.addresses import State, is_remote
from dataflow_grounding._util.errors import InputError, errors_as

_FILE = "file://"  # what addresses of this machine's files begin with
# The bucket or repository of an address, which `..` doesn't lead out of: `s3://bucket`,
# `hf://datasets/owner/name`.
_BUCKET_OR_REPOSITORY = re.compile(
    r"hf://(?:(?:datasets|spaces|kernels|buckets|models)/)?[^/]+/[^/]+|[^/]+//[^/]*", re.IGNORECASE
)


def has_scheme(path: str) -> bool:
    """Return whether a path begins as an address does, also a misspelled one (`s3:/bucket`)."""
    return re.match("[a-z][a-z0-9]+:/", path, re.IGNORECASE) is not None


def plain_path(path: str) -> str:
    """Return the path that an address `file://…` names; any other path or address as it is."""
    if path[: len(_FILE)].lower() == _FILE:
        return path[len(_FILE) :]
    return path


def is_absolute(path: str) -> bool:
    return os.path.isabs(plain_path(path)) or is_remote(path)


def absolute(path: str) -> str:
    """Return a path from the root of this machine; an address as it is."""
    return path if is_remote(path) else os.path.abspath(plain_path(path))


def joined(folder: str, path: str) -> str:
    """Return a path in a folder or address: no `..` leads out of its bucket or repository."""
    if is_remote(path):
        return path
    if not is_remote(folder) or is_absolute(path):
        return os.path.join(plain_path(folder), plain_path(path))
    end = cast("re.Match[str]", _BUCKET_OR_REPOSITORY.match(folder)).end()
    within = posixpath.normpath(f"/{folder[end:]}/{path}").lstrip("/")
    return f"{folder[:end]}/{within}"


def look(path: str) -> State:
    """Return the state of a file or folder, local or remote."""
    if is_remote(path):
        return stores.look(path)
    status = os.stat(plain_path(path))
    if stat.S_ISDIR(status.st_mode):
        kind = "folder"
    elif stat.S_ISREG(status.st_mode):
        kind = "file"
    else:
        kind = "pipe"
    return State(status.st_size, status.st_mtime_ns, kind)


def state_of(path: str) -> list[int] | None:
    """Return numbers that change when a file is written to or replaced; the first are bytes and
    nanoseconds since 1970. None if there is no such file, and for a local folder or pipe.
    """
    with suppress(OSError, InputError):
        if is_remote(path):
            return [*look(path)[:2]]
        status = os.stat(plain_path(path))
        if stat.S_ISREG(status.st_mode):
            return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    return None


def kind_of(path: str) -> str:
    """Return `file`, `folder` or `pipe`; "" for nothing, or what can't be looked up here."""
    absent: tuple[type[Exception], ...] = (FileNotFoundError,)
    if not is_remote(path):
        absent = (OSError, ValueError)  # the latter for a name that no file can have, with a null
    with errors_as(InputError, f"can't read {path}"), suppress(*absent):
        return look(path).kind
    return ""


def open_file(path: str) -> IO[bytes]:
    """Open a file to read, local or remote; what a store doesn't send is asked for again. An empty
    file isn't read: the kernel's are empty, and some of them never end (/proc/kmsg).
    """
    if is_remote(path):
        return stores.open_file(path)
    file = open(plain_path(path), "rb")  # noqa: SIM115
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and not status.st_size:
        file.close()
        return io.BytesIO()
    return file


def names_in(folder: str, pattern: str = "") -> list[str]:
    """Return the files under a remote folder, or those that match a pattern, relative to it."""
    return stores.names_in(folder, pattern)


def fetched(address: str, size: int) -> bytes:
    return stores.fetched(address, size)


@contextmanager
def system_errors(path: str) -> Iterator[None]:
    """Raise what a library raises of a remote file as the OSError of a file of this machine."""
    if not is_remote(path):
        yield
        return
    with stores.system_errors(path):
        yield


def bare_address(endpoint: str) -> str:
    """Return an address without user name, password, query and fragment, which may hold keys."""
    from urllib.parse import urlsplit, urlunsplit

    try:
        parts = urlsplit(endpoint)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return endpoint
