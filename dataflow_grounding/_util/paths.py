"""Paths: of this machine, and remote addresses (s3://, gs://, hf://).

What is done to the latter is in `stores.py`.
"""

import glob
import io
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import IO, cast

from dataflow_grounding._util import stores
from dataflow_grounding._util.addresses import State, is_remote
from dataflow_grounding._util.errors import InputError, errors_as

# Flags of `os.open`: without the first, a pipe that took a file's place would be waited for;
# without the second, Windows would change the ends of lines.
_PLAIN_OPEN = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
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
    # The cast leaves out None: the pattern matches every remote address.
    bucket_end = cast("re.Match[str]", _BUCKET_OR_REPOSITORY.match(folder)).end()
    # From a root, `..` leads no further up: `/a/../../b` becomes `/b`.
    within = posixpath.normpath(f"/{folder[bucket_end:]}/{path}").lstrip("/")
    return f"{folder[:bucket_end]}/{within}"


def folders_in_words(folders: Iterable[str]) -> list[str]:
    """Return folders as a message names them, each once: `./photos/` is `photos`."""
    # The names are as they were given, not absolute: Ray's workers run in other folders, and say
    # the same.
    names = []
    for folder in folders:
        name = folder if is_remote(folder) else os.path.normpath(plain_path(folder))
        names.append("the current folder" if name == "." else name)
    return list(dict.fromkeys(names))


def path_within(path: str, root: str | None) -> str:
    """Return an absolute path or address relative to `root`; "" where it isn't within it."""
    if not root or is_remote(path) != is_remote(root):
        return ""
    # Nearly all paths and roots are plain: then no relpath is needed, which takes as long as
    # reading a picture's header.
    if _is_plain(root) and _is_plain(path) and path != root:
        beginning = f"{root}{os.sep}"
        return path.removeprefix(beginning) if path.startswith(beginning) else ""
    inside = os.path.relpath(plain_path(path), absolute(root))
    is_outside = inside.split(os.sep)[0] == os.pardir  # `../b.jpg`
    return "" if is_outside else inside


def _is_plain(path: str) -> bool:
    """Whether a path is absolute, and has no `..`, `.` or double slash: `/data/a.jpg`."""
    starts_once = path.startswith(os.sep) and not path.startswith(os.sep * 2)
    return starts_once and path != os.sep and os.path.normpath(path) == path


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
    """Return numbers that change with a file, its bytes and time (ns) first; None for no file."""
    with suppress(OSError, InputError):
        if is_remote(path):
            state = look(path)
            return [state.size, state.changed]
        status = os.stat(plain_path(path))
        if stat.S_ISREG(status.st_mode):
            return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    return None


def kind_of(path: str) -> str:
    """Return `file`, `folder` or `pipe`; "" for nothing, or what can't be looked up here."""
    # The errors after which "" is returned. A store may only be out of reach for now: its other
    # errors become an InputError.
    means_nothing: tuple[type[Exception], ...] = (FileNotFoundError,)
    if not is_remote(path):
        means_nothing = (OSError, ValueError)  # the latter for a name with a null
    with errors_as(InputError, f"can't read {path}"), suppress(*means_nothing):
        return look(path).kind
    return ""


def open_input(path: str) -> IO[bytes]:
    """Open a file to read. One of size 0 isn't read: the kernel's are so, and some never end."""
    if is_remote(path):
        return stores.open_file(path)
    file = open(plain_path(path), "rb")  # noqa: SIM115
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and not status.st_size:
        file.close()
        return io.BytesIO()
    return file


def open_start(path: str, size: int, check: Callable[[State], None]) -> IO[bytes]:
    """Open a file for its first `size` bytes, which alone a store sends, unless `check` raises."""
    state = look(path)
    check(state)
    if is_remote(path):
        return io.BytesIO(stores.fetched(path, min(size, state.size)))
    return open_input(path)


def read_input(
    path: str, most: int, check: Callable[[State], None], size: int | None = None
) -> bytes:
    """Return a file's bytes, unless `check` raises; one that grows is read up to about `most`."""
    if is_remote(path):
        state = look(path) if size is None else State(size, 0, "file")
        check(state)
        return stores.fetched(path, state.size)
    path = plain_path(path)
    # It is checked before it is opened: opening a device may have an effect.
    state = look(path)
    check(state)
    # A picture is read for each request: this takes half as long as a buffered file.
    descriptor = os.open(path, os.O_RDONLY | _PLAIN_OPEN)
    try:
        # One byte more is asked for than there should be: it only comes if the file has grown.
        data = os.read(descriptor, state.size + 1)
        # A network's disk may give a part only, and a file that grows meanwhile more.
        while len(data) != state.size and len(data) <= most:
            more = os.read(descriptor, 2**20)
            if not more:
                break
            data += more
        return data
    finally:
        os.close(descriptor)


def names_in(folder: str) -> list[str]:
    """Return the files at any depth of a folder, relative to it, sorted; no hidden ones."""
    if is_remote(folder):
        return [name for name in stores.names_in(folder) if "/." not in f"/{name}"]
    names = []
    seen: set[str] = set()
    for top, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(top)
        if real in seen:  # a link that leads back: os.walk goes no deeper if its list is empty
            folders.clear()
            continue
        seen.add(real)
        # It goes into the folders that stay in the list.
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                path = os.path.relpath(os.path.join(top, name), folder)
                names.append(path.replace(os.sep, "/"))
    return sorted(names)


def names_like(folder: str, pattern: str) -> list[str]:
    """Return the files in a folder that match a pattern, which begins with it, relative to it."""
    if is_remote(pattern):
        return stores.names_in(folder, pattern)
    paths = filter(os.path.isfile, sorted(glob.glob(pattern, recursive=True)))
    return [os.path.relpath(path, folder or ".") for path in paths]


def bare_address(endpoint: str) -> str:
    """Return an address without user name, password, query and fragment, which may hold keys."""
    from urllib.parse import urlsplit, urlunsplit

    try:
        parts = urlsplit(endpoint)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return endpoint
