"""Remote files: what fsspec opens by its address (s3://, gs://, hf://).

The libraries that fsspec uses find the credentials. Their errors become the OSErrors that a local
file would raise. What may succeed later is tried again.
"""

import errno
import hashlib
import logging
import os
import posixpath
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import lru_cache, partial
from typing import IO, Any, TypeVar, cast

from dataflow_grounding._util.addresses import STORE_EXTRAS, State, is_remote, scheme_of
from dataflow_grounding._util.entry_points import targets_of
from dataflow_grounding._util.errors import (
    SHORT,
    GroundingError,
    InputError,
    MissingExtra,
    errors_as,
)
from dataflow_grounding._util.secrets import learn, learn_address, words_of
from dataflow_grounding._util.threads import THREADS

T = TypeVar("T")

PAUSES = (0.5, 1.0, 2.0)  # seconds before a store is asked again
PATIENCE = 5.0  # seconds after which it isn't: by then its library has tried several times itself

# "s3://key:secret@bucket"; the colons of "s3://arn:aws:s3:…" are part of the bucket's name.
_PASSWORD = re.compile(r"(?:s3a?|gc?s|hf)://(?!arn:)[^/@]+:[^@]*@", re.IGNORECASE)
_ERRNO_OF_ERRORS: tuple[tuple[type[Exception], int], ...] = (
    (FileNotFoundError, errno.ENOENT),
    (FileExistsError, errno.EEXIST),
    (IsADirectoryError, errno.EISDIR),
    (PermissionError, errno.EACCES),
    (ValueError, errno.EINVAL),
)
"""For errors that libraries raise, the errno that the system would give."""
# What errors of other classes say where one may not have the file: "Unable to locate credentials".
_DENIED = re.compile("credential|forbidden|denied|unauthorized", re.IGNORECASE)
# Names under which libraries tell the time of a file's last change, and a digest; the best first.
_TIMES = ("LastModified", "mtime", "updated", "last_modified", "created")
_DIGESTS = ("ETag", "etag", "checksum", "blob_id", "oid")


def place_of(address: str) -> tuple[Any, str]:
    """Return the fsspec file system that an address names, and the path in it."""
    scheme = scheme_of(address)
    address = scheme + address[len(scheme) :]  # libraries know a scheme in lower case alone
    learn_address(address)
    if _PASSWORD.match(address):
        raise InputError(
            f"{address}: keys belong into the environment or a profile, not into an address"
        )
    try:
        return _opened(address, scheme)
    except Exception as error:  # each library raises its own
        if isinstance(error, ImportError) and scheme in STORE_EXTRAS:
            raise MissingExtra(f"{scheme}://", STORE_EXTRAS[scheme]) from None
        raise InputError(f"can't open {address}: {words_of(error)}") from None


def _opened(address: str, scheme: str) -> tuple[Any, str]:
    """Raises what fsspec and its libraries raise."""
    from fsspec.config import conf
    from fsspec.registry import get_filesystem_class, register_implementation

    class_of_another_package = targets_of("stores").get(scheme)  # `module:Class`
    if class_of_another_package:
        register_implementation(scheme, class_of_another_package.replace(":", "."), clobber=True)
    # What `conf` has for a scheme is given to each file system of it that fsspec makes.
    s3_settings = conf.setdefault("s3", {}).setdefault("config_kwargs", {})
    s3_settings.setdefault("max_pool_connections", THREADS)  # by default 10, which is too few
    system_class = get_filesystem_class(scheme)
    if scheme == "hf":
        minute = time.monotonic() // 60
        # The Hub lists models without the prefix that addresses may have.
        as_listed = re.sub("^hf://models/", "hf://", address)
        return _hub_file_system(system_class, minute), system_class._strip_protocol(as_listed)
    options = dict(system_class._get_kwargs_from_urls(address))
    options["use_listings_cache"] = False  # a file may have changed since it was listed
    options["skip_instance_cache"] = False  # so equal options give one object, with its connections
    return system_class(**options), system_class._strip_protocol(address)


@lru_cache(maxsize=1)
def _hub_file_system(system_class: Callable[..., Any], minute: float) -> Any:
    """Make a new one each `minute`, so that no listing that it keeps grows old."""
    learn(os.environ.get("HF_TOKEN"))
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # else it prints each retry
    system = system_class(skip_instance_cache=True)
    system.info = _InfoFromOneListing(system).info
    return system


class _InfoFromOneListing:
    """The first thread lists a folder of the Hub; the others wait, then find the listing."""

    def __init__(self, system: Any) -> None:
        self._system = system
        self._info_of_library = system.info
        self._lock = threading.RLock()

    def info(self, path: str, **options: Any) -> Any:
        with self._lock:
            try:
                return self._info_of_library(path, **options)
            except FileNotFoundError:
                # Perhaps the folder is missing. The library keeps no listing of it then, and would
                # ask the Hub again for each file. So an empty one is kept, which the call below
                # uses.
                folder = self._system._parent(path)
                self._system.dircache.setdefault(folder, [])
            return self._info_of_library(path, **options)


@contextmanager
def system_errors(address: str) -> Iterator[None]:
    """Raise a library's error as the OSError that a local file would raise."""
    try:
        yield
    except Exception as error:
        # This machine is short of files, memory or disk: the store isn't to blame.
        is_short = getattr(error, "errno", None) in {*SHORT, errno.ENOSPC, errno.EDQUOT}
        if is_short or not is_remote(address) or isinstance(error, GroundingError):
            raise
        number = _errno_of(error)
        why = words_of(error)
        if number in (errno.ENOENT, errno.EISDIR):  # the number says it better than the library
            why = os.strerror(number)
        if number == errno.EACCES and address[:5].lower() == "hf://":
            why = "no such repository, or no token that may use it: set HF_TOKEN to one"
        raise OSError(number, why, address) from None


def _errno_of(error: Exception) -> int:
    """What the system would give; EIO for an error that says nothing: `patiently` asks again."""
    if "(repository not found)" in f"{error}":  # huggingface_hub says so if one may not see it
        return errno.EACCES
    for error_class, number in _ERRNO_OF_ERRORS:
        if isinstance(error, error_class):
            return number
    if getattr(getattr(error, "response", None), "status_code", None) == 404:
        return errno.ENOENT
    return errno.EACCES if _DENIED.search(repr(error)) else errno.EIO


def patiently(address: str, once: Callable[[], T]) -> T:
    """Return what `once` returns; call it again where a store doesn't answer or breaks off."""
    begun = time.monotonic()
    for pause in PAUSES:
        try:
            with system_errors(address):
                return once()
        except OSError as error:
            may_pass = error.errno == errno.EIO
            if not may_pass or time.monotonic() - begun >= PATIENCE:
                raise
        # Many threads fail at the same moment: they don't come back at the same one.
        time.sleep(pause * random.uniform(0.75, 1.25))
    with system_errors(address):  # the last time, any error is raised
        return once()


def look(path: str) -> State:
    """Return the state of a remote file or folder, with size 0 where the store tells none."""
    system, name = place_of(path)
    info = patiently(path, lambda: system.info(name))
    is_folder = info.get("type") == "directory"
    nanoseconds = int(_change_time(info) * 10**9)
    return State(info.get("size") or 0, nanoseconds, "folder" if is_folder else "file")


def _change_time(info: Mapping[str, object]) -> float:
    """In seconds since 1970; where none is told, a number below 1 that changes with the digest."""
    changed = _first_of(info, _TIMES)
    if isinstance(changed, datetime):
        return changed.timestamp()
    if isinstance(changed, (int, float)):
        return changed
    digests = repr([info.get(name) for name in _DIGESTS]).encode()
    return int.from_bytes(hashlib.sha256(digests).digest()[:8], "little") / 2**64


def _first_of(info: Mapping[str, object], names: Iterable[str]) -> object:
    for name in names:
        if info.get(name):
            return info[name]
    return None


def names_in(folder: str, pattern: str = "") -> list[str]:
    """Return a folder's files, relative to it and sorted; with a pattern, those that match it."""
    system, name = place_of(folder)
    list_files = partial(_listed_again, system, system.find, name)
    if pattern:
        _, pattern_in_system = place_of(pattern)
        list_files = partial(_listed_again, system, system.glob, pattern_in_system)
    with errors_as(InputError, f"can't list {folder}"):
        listed = patiently(folder, list_files)
    return sorted(posixpath.relpath(path, name) for path in listed)


def files_in(folder: str) -> set[str]:
    """Return the names of the files directly in a folder; none where it can't be listed."""
    system, name = place_of(folder)
    # Whoever may read a store's files may not always list them.
    not_listed = suppress(FileNotFoundError, PermissionError)
    with errors_as(InputError, f"can't list {folder}"), not_listed:
        entries = patiently(folder, lambda: system.ls(name, detail=True))
        return {posixpath.basename(entry["name"]) for entry in entries if entry["type"] == "file"}
    return set()


def _listed_again(system: Any, method: Callable[[str], list[str]], path: str) -> list[str]:
    """Files may have come since the library listed the folder."""
    system.invalidate_cache()
    return method(path)


def open_file(path: str) -> IO[bytes]:
    """Open a remote file to read; a block that doesn't come, or comes short, is asked for again."""
    system, name = place_of(path)
    file: Any = patiently(
        path, lambda: system.open(name, "rb", block_size=2**22, cache_type="readahead")
    )
    if hasattr(file, "cache"):
        # The library's own reader of blocks is replaced by one that tries again.
        file.cache.fetcher = partial(_fetch_patiently, file, path, file.cache.fetcher)
    return cast("IO[bytes]", file)


def _fetch_patiently(
    file: Any, path: str, fetch: Callable[[int, int], bytes], begin: int, end: int
) -> bytes:
    size = min(end, file.size) - begin  # `end` may be beyond the end of the file
    return patiently(path, lambda: _checked_length(fetch(begin, end), size))


def fetched(address: str, size: int) -> bytes:
    """Return a file's first `size` bytes. Raises OSError also where the file is shorter."""
    system, name = place_of(address)
    if size == 0:
        return b""
    return patiently(
        address, lambda: _checked_length(system.cat_file(name, start=0, end=size), size)
    )


def _checked_length(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise OSError(errno.EIO, f"{len(data):,} of {size:,} bytes came")
    return data
