"""Reading JSON files: whole (`read_json`), or a list in them with one item at a time in memory.

`lists_in` is for a file that holds an object of lists. `items_of` is for one that holds a list, of
which an item that isn't strict JSON fails alone: it is read in parts. The standard decoder reads a
value from the part in memory; where the value may go on after it, more is read and the value is
decoded again.
"""

import codecs
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from io import TextIOWrapper
from typing import IO, Any

from dataflow_grounding._util.errors import InputError, errors_as
from dataflow_grounding._util.paths import open_input

_CHUNK = 2**16  # characters that are read at a time, at the least
_AFTER_VALUE = re.compile(r"[\s,:\]}]")  # all that may come after a value
# Each of these matches what comes before a value. Group 1 matches if the list ends there
# instead, as in "[ ]" or after the last item.
_LIST = re.compile(r"\s*\[\s*(\])?")  # before a list's first item: "[" or "[ ]"
_ITEM = re.compile(r"\s*(?:,\s*|(\]))")  # before another item: "," or "]"
# in place of an item's number; see `lists_in`
_LIST_BEGINS = -1
_NO_LIST = -2
_STARTS = ("start_map", "start_array")
_MOST_LEVELS = 200  # of lists and objects in each other


def json_file(path: str) -> IO[str]:
    """Open a JSON file as text, surrogates and all."""
    return TextIOWrapper(open_input(path), "utf-8-sig", "surrogatepass")


def read_json(path: str) -> Any:
    """Return the value in a JSON file; None also where it holds several, as JSON lines do."""
    try:
        with json_file(path) as file:
            return json.load(file)
    except RecursionError:
        raise InputError(f"{path} is nested too deeply") from None
    except ValueError as error:
        if str(error).startswith("Extra data"):  # json's words where another value follows
            return None
        raise InputError(f"{path} is not JSON: {error}") from None


def items_of(file: IO[str]) -> Iterator[str]:
    """Yield the JSON text of a list's items. Raises ValueError, perhaps after some, for no list."""
    decode = json.JSONDecoder().raw_decode
    text = file.read(_CHUNK)  # the part of the file that is in memory
    while text.isspace():
        text = file.read(_CHUNK)
    if text.lstrip()[:1] != "[":
        raise ValueError
    at = 0  # up to where items were read in it
    before = _LIST  # what comes before the next item
    while True:
        match = before.match(text, at)
        if match and match.lastindex == 1:
            break
        try:
            # Without a match, what comes before the item may go on in the next part.
            start = match.end() if match else len(text)
            _, end = decode(text, start)
            # A number may go on, too: of 12.5, the part may have 12.
            if not _AFTER_VALUE.match(text, end):
                raise ValueError
        except ValueError:
            # Parts double while an item doesn't fit: so decoding a large one again and again takes
            # linear time in all.
            more = file.read(max(_CHUNK, len(text)))
            if not more:
                raise
            text, at = text[at:] + more, 0
            continue
        yield text[start:end]
        at, before = end, _ITEM
    if text[match.end() :].strip() or file.read().strip():
        raise ValueError


def is_coco(path: str) -> bool:
    """Whether a JSON file is one object with a list of images, which are objects, in it."""
    with suppress(InputError):  # JSON lines, say
        for name, number, item in lists_in(path):
            if name == "images" and number == 0:
                return isinstance(item, dict)
    return False


def lists_in(path: str) -> Iterator[tuple[str, int, Any]]:
    """Yield the items of the lists in a JSON file's object, as (name, number, item). Of
    {"images": [7], "info": 1} these are:

        ("images", -1, None)  where a list begins, so that an empty one shows, too
        ("images", 0, 7)
        ("info", -2, 1)       where the value is no list

    A file that is JSON but no object yields nothing. Raises InputError, perhaps after some items,
    which says where the file isn't strict JSON.
    """
    import ijson  # few commands read such a file

    name, number = "", _NO_LIST
    with errors_as(InputError, f"can't read {path}"), open_input(path) as file:
        if file.read(3) != codecs.BOM_UTF8:
            file.seek(0)
        events = ijson.basic_parse(file, use_float=True)
        try:
            if next(events)[0] != "start_map":
                return
            for event, value in events:
                if event == "end_map":
                    break
                name, number = value, _NO_LIST
                event, value = next(events)
                if event != "start_array":
                    yield name, _NO_LIST, _value_of(event, value, events)
                    continue
                yield name, _LIST_BEGINS, None
                number = 0
                for event, value in events:
                    if event == "end_array":
                        break
                    yield name, number, _value_of(event, value, events)
                    number += 1
            next(events, None)  # raises an error if there is more in the file
        except (ijson.JSONError, ValueError) as error:
            why, *around = str(error).splitlines()
            entry = f"entry {number + 1} of " if number >= 0 else ""
            place = f"{entry}{name!r:.40}" if name else "its beginning"
            text = f", at {around[0].strip()}" if around else ""
            raise InputError(f"{path} is not JSON, in {place}: {why}{text}") from None


def _value_of(event: str, value: Any, events: Iterator[tuple[str, Any]], levels: int = 0) -> Any:
    """Return the value that an event of ijson's begins, of it and the events after it."""
    if levels > _MOST_LEVELS:
        raise ValueError("nested too deeply")
    if event == "start_array":
        items = []
        for event, value in events:
            if event == "end_array":
                break
            if event in _STARTS:
                value = _value_of(event, value, events, levels + 1)
            items.append(value)
        return items
    if event == "start_map":
        entry = {}
        for event, key in events:
            if event == "end_map":
                break
            event, value = next(events)
            if event in _STARTS:
                value = _value_of(event, value, events, levels + 1)
            entry[key] = value
        return entry
    return value
