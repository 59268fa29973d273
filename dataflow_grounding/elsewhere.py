"""Files elsewhere: what fsspec opens by its address (s3://, gs://, hf://), with credentials that its libraries find."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from dataflow_grounding.errors import InputError, MissingExtra
from dataflow_grounding.secrets import blotted

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf"}


def is_elsewhere(path: object) -> bool:
    """Whether a path is an address that fsspec is to open; those of the web and of this machine's files are not."""
    found = _ADDRESS.match(path) if isinstance(path, str) else None
    return found is not None and found[1].lower() not in ("http", "https", "file")


class Place(NamedTuple):
    """A file or folder elsewhere: its file system, an fsspec one, and what it is called there."""

    system: Any
    path: str


def place_of(address: str) -> Place:
    """The place that an address names. Raises InputError, MissingExtra."""
    scheme = address.partition("://")[0].lower()
    try:
        from fsspec.core import url_to_fs

        return Place(*url_to_fs(address, use_listings_cache=False, skip_instance_cache=False))
    except ImportError:
        raise MissingExtra(f"{scheme}://", _EXTRAS.get(scheme, "s3")) from None
    except Exception as error:  # each library raises its own
        raise InputError(f"can't open {address}: {said(error)}") from None


@contextmanager
def system_errors(address: str) -> Iterator[None]:
    """What any library raises of a file elsewhere, as the OSError that one of this machine would be."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # fsspec's own say no more than what kind they are
            kinds = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES, IsADirectoryError: errno.EISDIR}
            raise OSError(kinds.get(type(error), errno.EIO), said(error), address) from None
        raise
    except Exception as error:
        raise OSError(errno.EIO, said(error), address) from None


def said(error: BaseException) -> str:
    """What an error says, in a line without secrets."""
    return blotted(" ".join(f"{error}".split())[:200]) or type(error).__name__
