"""Files elsewhere: what fsspec opens by its address (s3://, gs://, hf://), with credentials that
its libraries find.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from typing import IO, Any, TypeVar, cast

from dataflow_grounding._util.errors import SHORT, GroundingError, InputError, MissingExtra, told_as
from dataflow_grounding._util.paths import STORE_EXTRAS, State, is_elsewhere, scheme_of
from dataflow_grounding._util.secrets import excerpt, learn, learn_address
from dataflow_grounding._util.threads import THREADS

T = TypeVar("T")

PAUSES = (0.5, 1.0, 2.0)  # seconds before a store is asked again
PATIENCE = 5.0  # seconds after which it isn't: by then its library has tried several times itself

_PASSWORD = re.compile(r"(?:s3a?|gc?s|hf)://(?!arn:)[^/@]+:[^@]*@", re.IGNORECASE)
_KINDS = (
    *(
        (FileNotFoundError, errno.ENOENT),
        (FileExistsError, errno.EEXIST),
        (IsADirectoryError, errno.EISDIR),
    ),
    *((PermissionError, errno.EACCES), (ValueError, errno.EINVAL)),
)
_DENIED = re.compile("credential|forbidden|denied|unauthorized", re.IGNORECASE)
# as libraries call it, the best first
_TIMES = ("LastModified", "mtime", "updated", "last_modified", "created")
_DIGESTS = ("ETag", "etag", "checksum", "blob_id", "oid")


def place_of(address: str) -> tuple[Any, str]:
    """The file system, an fsspec one, of what an address names, and its path there. Raises
    InputError, MissingExtra.
    """
    scheme = scheme_of(address)
    address = scheme + address[len(scheme) :]  # as libraries strip it
    learn_address(address)
    if _PASSWORD.match(address):
        raise InputError(
            f"{address}: keys belong into the environment or a profile, not into an address"
        )
    try:
        from fsspec.config import conf
        from fsspec.registry import get_filesystem_class

        # else 10
        conf.setdefault("s3", {}).setdefault("config_kwargs", {}).setdefault(
            "max_pool_connections", THREADS
        )
        kind = get_filesystem_class(scheme)
        given = {
            **kind._get_kwargs_from_urls(address),
            "use_listings_cache": False,
            "skip_instance_cache": False,
        }
        system = _hub(kind, time.monotonic() // 60) if scheme == "hf" else kind(**given)
        # as the Hub lists its files
        return system, kind._strip_protocol(re.sub("^hf://models/", "hf://", address))
    except Exception as error:  # each library raises its own
        if isinstance(error, ImportError) and scheme in STORE_EXTRAS:
            raise MissingExtra(f"{scheme}://", STORE_EXTRAS[scheme]) from None
        raise InputError(f"can't open {address}: {said(error)}") from None


@lru_cache(maxsize=1)
def _hub(kind: Callable[..., Any], minute: float) -> Any:
    """The Hub, one for all threads: to tell of one file it lists a folder, and keeps that, here for
    a minute.
    """
    learn(os.environ.get("HF_TOKEN"))
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells each of its retries
    system = kind(skip_instance_cache=True)
    lock, info = threading.RLock(), system.info

    def in_turn(path: str, **options: Any) -> Any:
        with lock:
            with suppress(FileNotFoundError):
                return info(path, **options)
            # a folder that isn't there is asked for once, too
            system.dircache.setdefault(system._parent(path), [])
            return info(path, **options)

    system.info = in_turn
    return system


@contextmanager
def system_errors(address: str) -> Iterator[None]:
    """What any library raises of a file elsewhere, as the OSError that one of this machine would
    be.
    """
    try:
        yield
    except Exception as error:
        short = getattr(error, "errno", None) in {*SHORT, errno.ENOSPC, errno.EDQUOT}
        if short or not is_elsewhere(address) or isinstance(error, GroundingError):
            raise
        # as huggingface_hub tells it
        gone = getattr(getattr(error, "response", None), "status_code", None) == 404
        number = next(
            (n for kind, n in _KINDS if isinstance(error, kind)),
            errno.ENOENT if gone else errno.EIO,
        )
        if (
            number == errno.EIO and _DENIED.search(repr(error))
        ) or "(repository not found)" in f"{error}":
            number = errno.EACCES
        why = os.strerror(number) if number in (errno.ENOENT, errno.EISDIR) else said(error)
        if number == errno.EACCES and address[:5].lower() == "hf://":
            why = "no such repository, or no token that may use it: set HF_TOKEN to one"
        raise OSError(number, why, address) from None


def said(error: BaseException) -> str:
    """What an error says, in a line without secrets."""
    return excerpt(f"{error}", 200) or type(error).__name__


def patiently(address: str, once: Callable[[], T]) -> T:
    """What `once` returns, tried again where a store doesn't answer, or tears what it sends. Raises
    OSError.
    """
    pauses, begun = iter(PAUSES), time.monotonic()
    while True:
        try:
            with system_errors(address):
                return once()
        except OSError as error:
            pause = next(pauses, None) if time.monotonic() - begun < PATIENCE else None
            if error.errno != errno.EIO or pause is None:
                raise
            time.sleep(pause * random.uniform(0.75, 1.25))


def look(path: str) -> State:
    """The state of a file or folder elsewhere. Raises OSError, InputError, MissingExtra."""
    system, name = place_of(path)
    info = patiently(path, lambda: system.info(name))
    changed = next((info[name] for name in _TIMES if info.get(name)), None)
    seconds = changed.timestamp() if isinstance(changed, datetime) else changed
    if not isinstance(seconds, (int, float)):  # a digest then, as a time of long ago
        told = repr([info.get(name) for name in _DIGESTS]).encode()
        seconds = int.from_bytes(hashlib.sha256(told).digest()[:8], "little") / 2**64
    return State(
        info.get("size") or 0,
        int(seconds * 10**9),
        "folder" if info.get("type") == "directory" else "file",
    )


def version_told(info: dict[str, Any]) -> str:
    """What changes when a file elsewhere is replaced, of what its library tells of it."""
    found = next((info[name] for name in (*_DIGESTS, *_TIMES) if info.get(name)), None)
    # some stores quote a digest, but not in listings
    return f"{info.get('size')} {found}".replace('"', "")


def names_in(folder: str, pattern: str = "") -> list[str]:
    """The files under a folder elsewhere, or those that match a pattern, relative to it. Raises
    InputError.
    """
    system, name = place_of(folder)
    ask, what = (system.glob, place_of(pattern)[1]) if pattern else (system.find, name)
    with told_as(InputError, f"can't list {folder}"):
        found = patiently(folder, lambda: system.invalidate_cache() or ask(what))
    return sorted(posixpath.relpath(path, name) for path in found)


def open_file(path: str) -> IO[bytes]:
    """A file elsewhere to read, asked for again where it comes late. Raises as `look`, in
    reading anything.
    """
    system, name = place_of(path)
    file: Any = patiently(
        path, lambda: system.open(name, "rb", block_size=2**22, cache_type="readahead")
    )
    if hasattr(file, "cache"):
        once = file.cache.fetcher
        file.cache.fetcher = lambda at, to: patiently(
            path, lambda: _whole(once(at, to), min(to, file.size) - at)
        )
    return cast("IO[bytes]", file)


def fetched(address: str, size: int) -> bytes:
    """The first `size` bytes of a file elsewhere. Raises OSError, InputError, MissingExtra."""
    system, name = place_of(address)
    return (
        patiently(address, lambda: _whole(system.cat_file(name, start=0, end=size), size))
        if size
        else b""
    )


def _whole(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise OSError(errno.EIO, f"{len(data):,} of {size:,} bytes came")
    return data
