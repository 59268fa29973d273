"""JSON files: whole, or their lists, alone or in an object, one item at a time in memory."""

import json
import re
from collections.abc import Iterator
from io import TextIOWrapper
from typing import IO, Any

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.paths import open_file, system_errors

_CHUNK = 2**16
_SPACE = re.compile(r"\s*")
_COLON = re.compile(r"\s*:?\s*")
_BEHIND_VALUE = re.compile(r"[\s,:\]}]")  # whatever may come after a value
# What comes before a list's first item, before another, before an object's key, and before the
# value of a key. The group is the end, if it comes instead; a value has none, so that it never
# matches.
_LIST = re.compile(r"\s*\[\s*(\])?")
_LIST_OF_KEY = re.compile(r"\s*:\s*\[\s*(\])?")
_ITEM = re.compile(r"\s*(?:,\s*|(\]))")
_OBJECT = re.compile(r'\s*\{\s*(?:(\})|(?="))')
_MEMBER = re.compile(r'\s*(?:,\s*(?=")|(\}))')
_VALUE = re.compile(r"\s*:\s*((?!))?")


def json_file(path: str) -> IO[str]:
    """A JSON file, open as text. Raises OSError."""
    with open_file(path) as start:
        encoding = json.detect_encoding(start.read(4))
    return TextIOWrapper(open_file(path), encoding, "surrogatepass")


def read_json(path: str) -> Any:
    """What a JSON file holds; None where it has one value after the other, JSON lines.

    Raises InputError, OSError.
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
    """The texts of the items of the list that a file holds.

    Raises ValueError where it holds something else.
    """
    text = _Text(file, "[")
    for _, item in text.values(_LIST, _ITEM):
        yield item
    text.end()


def lists_in(file: IO[str]) -> Iterator[tuple[str, int, Any]]:
    """The lists in the object that a file holds.

    Each one's name comes with -1 first, then with each item's number, from 0, and the item. Raises
    ValueError where the file holds something else.
    """
    text = _Text(file, "{")
    for name, _ in text.values(_OBJECT, _MEMBER):
        if text.after(_COLON) == "[":
            yield name, -1, None
            for number, (item, _) in enumerate(text.values(_LIST_OF_KEY, _ITEM)):
                yield name, number, item
        else:
            next(text.values(_VALUE, _VALUE))  # passed over
    text.end()


class _Text:
    """A file's JSON, of which a part is in memory.

    Raises ValueError where it begins with another sign than `begin`.
    """

    def __init__(self, file: IO[str], begin: str) -> None:
        self._file = file
        self._text = file.read(_CHUNK)
        self._at = 0  # up to here it is read
        self._decode = json.JSONDecoder().raw_decode
        if self.after(_SPACE) != begin:
            raise ValueError

    def after(self, skipped: re.Pattern[str]) -> str:
        """The character that comes after what is skipped; none at the end."""
        while True:
            match = skipped.match(self._text, self._at)
            assert match is not None  # these patterns match an empty text, too
            if match.end() < len(self._text) or not self._more():
                return self._text[match.end() : match.end() + 1]

    def values(
        self, opening: re.Pattern[str], between: re.Pattern[str]
    ) -> Iterator[tuple[Any, str]]:
        """Each value with its text, to the end, which is the group of either pattern.

        Raises ValueError.
        """
        before_value = opening
        while True:
            match = before_value.match(self._text, self._at)
            if match and match[1]:
                self._at = match.end()
                return
            try:
                start = match.end() if match else len(self._text)
                value, end = self._decode(self._text, start)
                if not _BEHIND_VALUE.match(self._text, end):  # a number may go on
                    raise ValueError
            except ValueError:  # it may be whole with more of the file
                if not self._more():
                    raise
                continue
            self._at = end
            before_value = between
            yield value, self._text[start:end]

    def end(self) -> None:
        """Raises ValueError where anything is left."""
        if self._text[self._at :].strip() or self._file.read().strip():
            raise ValueError

    def _more(self) -> bool:
        """Read on, as much as there is already, so that a large value takes linear time."""
        more = self._file.read(max(_CHUNK, len(self._text)))
        self._text = self._text[self._at :] + more
        self._at = 0
        return bool(more)
