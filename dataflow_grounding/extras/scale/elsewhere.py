"""Files elsewhere: what fsspec opens by its address (s3://, gs://, hf://), with credentials that
its libraries find.
"""

import asyncio
import atexit
import errno
import hashlib
import logging
import os
import posixpath
import random
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache, lru_cache
from itertools import islice
from multiprocessing.pool import ThreadPool
from typing import IO, Any, NamedTuple, TypeVar, cast

from dataflow_grounding._util.errors import SHORT, GroundingError, InputError, MissingExtra, told_as
from dataflow_grounding._util.secrets import excerpt, learn, learn_address

T = TypeVar("T")
A = TypeVar("A")

THREADS = 64  # that wait for stores
THREAD_BYTES = 2**27  # of addresses that Linux sets aside for a thread's stack and its allocator
PAUSES = (0.5, 1.0, 2.0)  # seconds before a store is asked again
PATIENCE = 5.0  # seconds after which it isn't: by then its library has tried several times itself

_ADDRESS = re.compile("(?!(?:https?|file)://)[a-z][a-z0-9+.-]{1,40}://", re.IGNORECASE)
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf"}
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
_OWN = re.compile(
    r"hf://(?:(?:datasets|spaces|kernels|buckets|models)/)?[^/]+/[^/]+|[^/]+//[^/]*", re.IGNORECASE
)
# as libraries call it, the best first
_TIMES = ("LastModified", "mtime", "updated", "last_modified", "created")
_DIGESTS = ("ETag", "etag", "checksum", "blob_id", "oid")


def is_elsewhere(path: object) -> bool:
    """Whether a path is an address that fsspec is to open; those of the web and of this machine's
    files are not.
    """
    return isinstance(path, str) and "://" in path and _ADDRESS.match(path) is not None


def scheme_of(path: str) -> str:
    """The scheme of an address that fsspec is to open, in lower case; empty for a path of this
    machine.
    """
    return path.partition("://")[0].lower() if is_elsewhere(path) else ""


def is_web(value: object) -> bool:
    """Whether a value is the http(s) address of something."""
    return isinstance(value, str) and value[:8].lower().startswith(("http://", "https://"))


def may_be_named(path: str, folders: Iterable[str] = ()) -> bool:
    """Whether a row, or another file of data, may name this path: a file of this machine, a store
    of the extras, or an address of the same scheme as one of `folders`, which the user named.

    fsspec knows some forty further schemes, and to open one is to connect to whatever host the row
    names.
    """
    scheme = scheme_of(path)
    return not scheme or scheme in _EXTRAS or scheme in map(scheme_of, folders)


def has_scheme(path: str) -> bool:
    """Whether a path begins as an address does, of whatever kind, also one that is misspelt
    (`s3:/bucket`).
    """
    return re.match("[a-z][a-z0-9]+:/", path, re.IGNORECASE) is not None


def plain_path(path: str) -> str:
    """The path that an address `file://…` names; any other as it is."""
    return path[7:] if path[:7].lower() == "file://" else path


def is_absolute(path: str) -> bool:
    """Whether a path names its place by itself, whatever the folder."""
    return os.path.isabs(plain_path(path)) or is_elsewhere(path)


def absolute(path: str) -> str:
    """A path from the root of this machine, or an address."""
    return path if is_elsewhere(path) else os.path.abspath(plain_path(path))


def joined(folder: str, path: str) -> str:
    """A path in a folder, which may be an address: no `..` leads out of its bucket or repository.

    Example:
        >>> above = "../../../b.jpg"
        >>> within = joined("s3://bucket/a", "../b.jpg")
        >>> within, joined("s3://bucket/a", above), joined("a", "b.jpg")
        ('s3://bucket/b.jpg', 's3://bucket/b.jpg', 'a/b.jpg')
    """
    if is_elsewhere(path) or not is_elsewhere(folder) or is_absolute(path):
        return path if is_elsewhere(path) else os.path.join(plain_path(folder), plain_path(path))
    end = cast("re.Match[str]", _OWN.match(folder)).end()
    return f"{folder[:end]}/{posixpath.normpath(f'/{folder[end:]}/{path}').lstrip('/')}"


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
        if isinstance(error, ImportError) and scheme in _EXTRAS:
            raise MissingExtra(f"{scheme}://", _EXTRAS[scheme]) from None
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


class State(NamedTuple):
    """What tells a file from an earlier one of its name: bytes, nanoseconds since 1970; `file`,
    `folder` or `pipe`.
    """

    size: int
    changed: int
    kind: str


def look(path: str) -> State:
    """The state of a file or folder, here or elsewhere. Raises OSError, InputError,
    MissingExtra.
    """
    if not is_elsewhere(path):
        found = os.stat(plain_path(path))
        kind = (
            "folder"
            if stat.S_ISDIR(found.st_mode)
            else "file"
            if stat.S_ISREG(found.st_mode)
            else "pipe"
        )
        return State(found.st_size, found.st_mtime_ns, kind)
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


def state_of(path: str) -> list[int] | None:
    """What changes when a file is written to or replaced; None for a pipe, and without a file.
    Raises MissingExtra.
    """
    with suppress(OSError, InputError):
        if is_elsewhere(path):
            return [*look(path)[:2]]
        found = os.stat(plain_path(path))
        if stat.S_ISREG(found.st_mode):
            return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
    return None


def kind_of(path: str) -> str:
    """`file`, `folder`, `pipe`; empty where nothing is. Raises InputError where a store doesn't
    tell, MissingExtra.
    """
    with (
        told_as(InputError, f"can't read {path}"),
        suppress(FileNotFoundError if is_elsewhere(path) else OSError),
    ):
        return look(path).kind
    return ""


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
    """A file to read, here or elsewhere, asked for again where it comes late. Raises as `look`, in
    reading anything.
    """
    if not is_elsewhere(path):
        return open(plain_path(path), "rb")
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


@cache
def _threads(process: int) -> ThreadPool:
    """A process's that wait for stores, which may take their time: Python doesn't wait for them at
    its end.
    """
    try:
        pool = ThreadPool(_most_threads())
    except (RuntimeError, AttributeError):  # the second is what ThreadPool makes of the first
        raise InputError(
            "this machine can't start a thread: give it more memory (ulimit -v) or tasks"
            " (ulimit -u)"
        ) from None
    atexit.register(pool.terminate)  # else it may complain when it is cleared away
    return pool


def _most_threads() -> int:
    """Where memory is limited to so many bytes of addresses, as by `ulimit -v`, as many as have
    room in a half.
    """
    with suppress(ImportError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        return (
            THREADS
            if limit == resource.RLIM_INFINITY
            else max(1, min(THREADS, limit // (2 * THREAD_BYTES)))
        )
    return THREADS


def at_once(work: Callable[[A], T], items: Iterable[A]) -> list[T]:
    """What `work`, which waits for stores, returns for each item. Raises what it raises."""
    return _threads(os.getpid()).map(work, items, 1)


async def off_loop(work: Callable[..., T], *arguments: Any) -> T:
    """What work that waits for stores returns, done by a thread: the event loop's own are too few
    for that.
    """
    future: Future[T] = Future()
    _threads(os.getpid()).apply_async(work, arguments, {}, future.set_result, future.set_exception)
    return await asyncio.shield(asyncio.wrap_future(future))


def side_by_side(
    work: Callable[[A], T], items: Iterable[A], waits: Callable[[A], bool]
) -> Iterator[T]:
    """What `work` returns for each item, in order; where it `waits` for stores, threads do some at
    a time.
    """
    left = iter(items)
    while some := list(islice(left, 4 * THREADS)):
        yield from at_once(work, some) if any(map(waits, some)) else map(work, some)
