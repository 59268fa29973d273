"""Files elsewhere: what fsspec opens by its address (s3://, gs://, hf://).

Its libraries find the credentials.
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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import lru_cache, partial
from typing import IO, Any, TypeVar, cast

from dataflow_grounding._util.errors import SHORT, GroundingError, InputError, MissingExtra, told_as
from dataflow_grounding._util.paths import STORE_EXTRAS, State, is_elsewhere, scheme_of
from dataflow_grounding._util.secrets import learn, learn_address, words_of
from dataflow_grounding._util.threads import THREADS

T = TypeVar("T")

PAUSES = (0.5, 1.0, 2.0)  # seconds before a store is asked again
PATIENCE = 5.0  # seconds after which it isn't: by then its library has tried several times itself

_PASSWORD = re.compile(r"(?:s3a?|gc?s|hf)://(?!arn:)[^/@]+:[^@]*@", re.IGNORECASE)
_NUMBERS: tuple[tuple[type[Exception], int], ...] = (
    (FileNotFoundError, errno.ENOENT),
    (FileExistsError, errno.EEXIST),
    (IsADirectoryError, errno.EISDIR),
    (PermissionError, errno.EACCES),
    (ValueError, errno.EINVAL),
)
"""Of errors of libraries, the system's numbers."""
_DENIED = re.compile("credential|forbidden|denied|unauthorized", re.IGNORECASE)
# as libraries call it, the best first
_TIMES = ("LastModified", "mtime", "updated", "last_modified", "created")
_DIGESTS = ("ETag", "etag", "checksum", "blob_id", "oid")


def place_of(address: str) -> tuple[Any, str]:
    """The file system, an fsspec one, of what an address names, and its path there.

    Raises InputError, MissingExtra.
    """
    scheme = scheme_of(address)
    address = scheme + address[len(scheme) :]  # as libraries strip it
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
    """What `place_of` returns. Raises whatever the scheme's library does."""
    from fsspec.config import conf
    from fsspec.registry import get_filesystem_class

    s3_settings = conf.setdefault("s3", {}).setdefault("config_kwargs", {})
    s3_settings.setdefault("max_pool_connections", THREADS)  # else 10
    file_system = get_filesystem_class(scheme)
    if scheme == "hf":
        system = _hub(file_system, time.monotonic() // 60)
        as_listed = re.sub("^hf://models/", "hf://", address)
        return system, file_system._strip_protocol(as_listed)
    options = dict(file_system._get_kwargs_from_urls(address))
    options["use_listings_cache"] = False
    options["skip_instance_cache"] = False
    return file_system(**options), file_system._strip_protocol(address)


@lru_cache(maxsize=1)
def _hub(file_system: Callable[..., Any], minute: float) -> Any:
    """The Hub, one for all threads and a `minute`.

    To tell of one file it lists a folder, and keeps that.
    """
    learn(os.environ.get("HF_TOKEN"))
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells each of its retries
    system = file_system(skip_instance_cache=True)
    lock = threading.RLock()
    info = system.info

    def info_in_turn(path: str, **options: Any) -> Any:
        # else each thread lists the folder for itself
        with lock:
            with suppress(FileNotFoundError):
                return info(path, **options)
            # a folder that isn't there is asked for once, too
            system.dircache.setdefault(system._parent(path), [])
            return info(path, **options)

    system.info = info_in_turn
    return system


@contextmanager
def system_errors(address: str) -> Iterator[None]:
    """What a library raises of a file elsewhere, as the OSError that one here would raise."""
    try:
        yield
    except Exception as error:
        # what this machine is short of is no fault of the store
        is_short = getattr(error, "errno", None) in {*SHORT, errno.ENOSPC, errno.EDQUOT}
        if is_short or not is_elsewhere(address) or isinstance(error, GroundingError):
            raise
        number = _number_of(error)
        why = words_of(error)
        if number in (errno.ENOENT, errno.EISDIR):
            why = os.strerror(number)
        if number == errno.EACCES and address[:5].lower() == "hf://":
            why = "no such repository, or no token that may use it: set HF_TOKEN to one"
        raise OSError(number, why, address) from None


def _number_of(error: Exception) -> int:
    """The number that the system would give to what a library raised; EIO for what may pass."""
    if "(repository not found)" in f"{error}":  # as huggingface_hub tells what one may not see
        return errno.EACCES
    for kind, number in _NUMBERS:
        if isinstance(error, kind):
            return number
    if getattr(getattr(error, "response", None), "status_code", None) == 404:
        return errno.ENOENT
    return errno.EACCES if _DENIED.search(repr(error)) else errno.EIO


def patiently(address: str, once: Callable[[], T]) -> T:
    """What `once` returns, tried again where a store doesn't answer, or tears what it sends.

    Raises OSError.
    """
    begun = time.monotonic()
    for pause in PAUSES:
        try:
            with system_errors(address):
                return once()
        except OSError as error:
            if error.errno != errno.EIO or time.monotonic() - begun >= PATIENCE:
                raise
        # not all at the same moment
        time.sleep(pause * random.uniform(0.75, 1.25))
    with system_errors(address):
        return once()


def look(path: str) -> State:
    """The state of a file or folder elsewhere. Raises OSError, InputError, MissingExtra."""
    system, name = place_of(path)
    info = patiently(path, lambda: system.info(name))
    kind = "folder" if info.get("type") == "directory" else "file"
    return State(info.get("size") or 0, int(_seconds_told(info) * 10**9), kind)


def _seconds_told(info: dict[str, Any]) -> float:
    """When a file elsewhere was changed, in seconds since 1970.

    Where its library doesn't tell, it is a digest as a time of long ago: another for another file.
    """
    changed = _first_of(info, _TIMES)
    if isinstance(changed, datetime):
        return changed.timestamp()
    if isinstance(changed, (int, float)):
        return changed
    told = repr([info.get(name) for name in _DIGESTS]).encode()
    return int.from_bytes(hashlib.sha256(told).digest()[:8], "little") / 2**64


def _first_of(info: dict[str, Any], names: Iterable[str]) -> Any:
    """The first value that is there under one of the names; None without any."""
    for name in names:
        if info.get(name):
            return info[name]
    return None


def version_told(info: dict[str, Any]) -> str:
    """What changes when a file elsewhere is replaced, of what its library tells of it."""
    version = _first_of(info, (*_DIGESTS, *_TIMES))
    # some stores quote a digest, but not in listings
    return f"{info.get('size')} {version}".replace('"', "")


def names_in(folder: str, pattern: str = "") -> list[str]:
    """The files under a folder elsewhere, or those that match a pattern, relative to it.

    Raises InputError.
    """
    system, name = place_of(folder)
    ask = partial(system.find, name)
    if pattern:
        ask = partial(system.glob, place_of(pattern)[1])

    def paths() -> list[str]:
        system.invalidate_cache()
        listed: list[str] = ask()
        return listed

    with told_as(InputError, f"can't list {folder}"):
        listed = patiently(folder, paths)
    return sorted(posixpath.relpath(path, name) for path in listed)


def open_file(path: str) -> IO[bytes]:
    """A file elsewhere to read, asked for again where it comes late.

    Raises as `look`, in reading anything.
    """
    system, name = place_of(path)
    file: Any = patiently(
        path, lambda: system.open(name, "rb", block_size=2**22, cache_type="readahead")
    )
    if hasattr(file, "cache"):
        fetch = file.cache.fetcher

        def fetch_patiently(begin: int, end: int) -> bytes:
            size = min(end, file.size) - begin
            return patiently(path, lambda: _whole(fetch(begin, end), size))

        file.cache.fetcher = fetch_patiently
    return cast("IO[bytes]", file)


def fetched(address: str, size: int) -> bytes:
    """The first `size` bytes of a file elsewhere. Raises OSError, InputError, MissingExtra."""
    system, name = place_of(address)
    if size == 0:
        return b""
    return patiently(address, lambda: _whole(system.cat_file(name, start=0, end=size), size))


def _whole(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise OSError(errno.EIO, f"{len(data):,} of {size:,} bytes came")
    return data
