"""JSON files: whole, or their lists, alone or in an object, one item at a time in memory."""

import json
import re
from collections.abc import Iterator
from io import TextIOWrapper
from typing import IO, Any

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.paths import open_file, system_errors

_CHUNK = 2**16
_SPACE, _BEHIND = re.compile(r"\s*"), re.compile(r"[\s,:\]}]")
_COLON, _VALUE = re.compile(r"\s*:?\s*"), re.compile(r"\s*:\s*((?!))?")
_LIST, _LIST_OF, _ITEM = (
    re.compile(r"\s*\[\s*(\])?"),
    re.compile(r"\s*:\s*\[\s*(\])?"),
    re.compile(r"\s*(?:,\s*|(\]))"),
)
_OBJECT, _MEMBER = re.compile(r'\s*\{\s*(?:(\})|(?="))'), re.compile(r'\s*(?:,\s*(?=")|(\}))')


def json_file(path: str) -> IO[str]:
    """A JSON file, open as text. Raises OSError."""
    with open_file(path) as start:
        encoding = json.detect_encoding(start.read(4))
    return TextIOWrapper(open_file(path), encoding, "surrogatepass")


def read_json(path: str) -> Any:
    """What a JSON file holds; None where it has one value after the other, JSON lines. Raises
    InputError, OSError.
    """
    with system_errors(path), open_file(path) as file:
        data = file.read()
    try:
        return json.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except RecursionError:
        raise InputError(f"{path} is nested too deeply") from None
    except ValueError as error:
        if str(error).startswith("Extra data"):
            return None
        raise InputError(f"{path} is not JSON: {error}") from None


def items_of(file: IO[str]) -> Iterator[str]:
    """The texts of the items of the list that a file holds. Raises ValueError where it holds
    something else.
    """
    text = _Text(file, "[")
    yield from (item for _, item in text.values(_LIST, _ITEM))
    text.end()


def lists_in(file: IO[str]) -> Iterator[tuple[str, int, Any]]:
    """The lists in the object that a file holds: each one's name, with -1, then with each number,
    from 0, the item.

    Raises ValueError where it holds something else.
    """
    text = _Text(file, "{")
    for name, _ in text.values(_OBJECT, _MEMBER):
        if text.after(_COLON) == "[":
            yield name, -1, None
            yield from (
                (name, number, item)
                for number, (item, _) in enumerate(text.values(_LIST_OF, _ITEM))
            )
        else:
            next(text.values(_VALUE, _VALUE))
    text.end()


class _Text:
    """A file's JSON, of which a part is in memory. Raises ValueError where it begins with another
    sign.
    """

    def __init__(self, file: IO[str], begin: str) -> None:
        self._file, self._text, self._at = file, file.read(_CHUNK), 0
        self._decode = json.JSONDecoder().raw_decode
        if self.after(_SPACE) != begin:
            raise ValueError

    def after(self, skipped: re.Pattern[str]) -> str:
        """The character that comes after what is skipped; none at the end."""
        while (at := skipped.match(self._text, self._at).end()) == len(self._text) and self._more():  # type: ignore[union-attr]
            pass
        return self._text[at : at + 1]

    def values(
        self, opening: re.Pattern[str], between: re.Pattern[str]
    ) -> Iterator[tuple[Any, str]]:
        """Each value with its text, to the end, which is the group of either pattern. Raises
        ValueError.
        """
        while not ((found := opening.match(self._text, self._at)) and found[1]):
            try:
                start = found.end() if found else len(self._text)
                value, end = self._decode(self._text, start)
                if not _BEHIND.match(self._text, end):  # a number may go on
                    raise ValueError
            except ValueError:
                if not self._more():
                    raise
            else:
                self._at, opening = end, between
                yield value, self._text[start:end]
        self._at = found.end()

    def end(self) -> None:
        """Raises ValueError where anything is left."""
        if self._text[self._at :].strip() or self._file.read().strip():
            raise ValueError

    def _more(self) -> bool:
        more = self._file.read(max(_CHUNK, len(self._text)))
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)
