"""Addresses of files in stores (s3://, gs://, hf://), by their words alone; opens nothing."""

import re
from collections.abc import Iterable
from typing import NamedTuple

STORE_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf"}
"""The schemes of stores that rows may name, and the extra that opens each."""

# The scheme of an address that fsspec is to open, as `s3://`, but not `https://` or `file://`.
_ADDRESS = re.compile("(?!(?:https?|file)://)[a-z][a-z0-9+.-]{1,40}://", re.IGNORECASE)


def is_remote(path: object) -> bool:
    """Return whether a path is an address that fsspec is to open: not of the web, nor `file://`."""
    return isinstance(path, str) and "://" in path and _ADDRESS.match(path) is not None


def scheme_of(path: str) -> str:
    """Return the scheme of a remote address, in lower case; "" for a path of this machine."""
    return path.partition("://")[0].lower() if is_remote(path) else ""


def is_web(value: object) -> bool:
    return isinstance(value, str) and value[:8].lower().startswith(("http://", "https://"))


def may_be_named(path: str, folders: Iterable[str] = ()) -> bool:
    """Return whether data may name this path: the schemes of STORE_EXTRAS and of `folders`."""
    # fsspec knows some forty schemes, by some of which a row could connect to any host.
    scheme = scheme_of(path)
    return not scheme or scheme in STORE_EXTRAS or scheme in map(scheme_of, folders)


class State(NamedTuple):
    """What tells a file from an earlier one of the same name."""

    size: int  # bytes
    changed: int  # nanoseconds since 1970
    kind: str  # `file`, `folder` or `pipe`
