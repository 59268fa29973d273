"""JSON as models write it: strict, or nearly so.

What is not quite JSON is read by a small grammar, in one pass: single quotes, unquoted
keys, trailing commas, comments, Python's literals and tuples, numbers with leading zeros, several
values one after the other, and a text that ends in the middle. Nothing is guessed: brackets that
don't match, and a value where a key belongs, are errors. No number is ever changed.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern

MAX_DEPTH = 60  # levels of arrays and objects
_MOST_VALUES = 5_000  # one after the other; no model has tokens for more, but in a loop
_MISSING: object = object()  # where there is no value, which may be None

_NUMBER = lazy_pattern(
    r"[-+]?(?:\d{1,400}(?:\.\d{0,400})?|\.\d{1,400})(?:[eE][-+]?\d{1,4})?(?=[\s,;:\]})/#，：；、］｝]|$)"
)
_WHOLE = lazy_pattern(r"[-+]?\d{1,18}")  # what is read as an int; a longer one as a float
_WORD = lazy_pattern(r"[^\W\d]\w*")
_SIGNED_WORD = lazy_pattern(r"[-+]?([^\W\d]\w*)")
_WORDS = {"true": True, "false": False, "null": None, "none": None, "undefined": None}
_NOT_A_NUMBER = frozenset(["nan", "infinity", "inf"])
_CLOSER_OF = {"{": "}", "[": "]", "(": ")"}
_KEYS_OF_ITEMS = frozenset(["id", "label", "text"])  # of an object that is one item of an answer
_QUOTES = {'"': '"', "'": "'", "“": "”", "”": "”", "`": "`"}
# A tuple, if it has numbers; other parentheses belong to words.
_OPENS = lazy_pattern(r"[\[{［｛]|\((?=\s{0,9}[-+.]?\d)")
# Where an object begins, or a list of objects.
_OBJECT_OPENS = lazy_pattern(r"(?:[\[［]\s{0,9}){0,2}[{｛]")
_IN_BRACKETS = lazy_pattern(r"\[[^\[\](){}\"]{0,200}\]|\([^\[\](){}\"]{0,200}\)")
_NUMBER_ALONE = lazy_pattern(r"(?<![\w.])\d+(?:\.\d+)?(?!\w)")
# What may come between values that are one list, as one object a line.
_BETWEEN = lazy_pattern(r"[\s,;]*(?:and(?:\s+then)?(?=[\s{\[])\s*)?", re.IGNORECASE)
_SKIP = lazy_pattern(r"(?:\s+|//[^\n]*|/\*(?:[^*]|\*(?!/))*(?:\*/|$)|#[^\n]*)+")
_COMMENT_MARKS = lazy_pattern(r"//|/\*|\*/|#")
# What follows a quotation mark that ends a string.
_AFTER_STRING = lazy_pattern(r"\s*(?:[,:;\]})，：；、］｝]|//|/\*|#|$)")
# Brackets that close nothing, after all values.
_CLOSERS = lazy_pattern(r"\s*[\]}］｝][\s\]}］｝]*")
_KEY_BEFORE = lazy_pattern(r"[\"'”]\s{0,9}[:：]\s{0,9}\Z")  # the end of `"objects": `
_CLOSES = lazy_pattern(r"[\]}］｝]")
_CLOSES_LIST = lazy_pattern(r"[\]］]")
# Gemini's tokens of a mask, of which the first quotation mark is lost (google-gemini/cookbook
# issue 798).
_MASK = lazy_pattern(r'<start_of_mask>(?:<seg_\d{1,3}>)*"')
_BRACKET = lazy_pattern(r"[\[\]{}［］｛｝]")
_ESCAPE = lazy_pattern(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}
# Full-width punctuation, which is read as JSON's own outside of strings.
_NARROW = {"［": "[", "］": "]", "｛": "{", "｝": "}", "：": ":", "，": ",", "、": ",", "；": ";"}


class RepeatedKeys(dict[str, object]):
    """An object that has a key twice; `pairs` are all its keys and values, in order."""

    def __init__(self, pairs: Sequence[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


class CutObject(RepeatedKeys):
    """An object that the text ends inside of: its whole values, maybe one key twice."""


class CutArray(list[object]):
    """An array that the text ends inside of: it has what is whole in it alone."""


class JsonText(NamedTuple):
    """The arrays and objects of a text, and where they are in it; without any, at its end."""

    values: list[object]
    start: int
    end: int
    comments: Sequence[str] = ()  # the words in them
    truncated: bool = False  # the text ends inside the last value, or begins inside the first list
    repaired: bool = False  # it isn't strict JSON of one value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else RepeatedKeys(pairs)


_STRICT = json.JSONDecoder(object_pairs_hook=_object, strict=False)


def strict_json(text: str) -> object:
    """Return the array or object that a text is in strict JSON; None for any other text."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return _STRICT.decode(text)
    except (ValueError, RecursionError):
        return None


@lru_cache(maxsize=1024)
def plain_key(key: str) -> str:
    return re.sub(r"[\W_]", "", key.lower())


def find_json(text: str) -> JsonText:
    """Find the first array or object of a text, and those right after it."""
    value = strict_json(text)
    if value is not None:
        return JsonText([value], 0, len(text))
    start = _start_of_json(text)
    if start is None:
        return JsonText([], len(text), len(text))
    scanner = _Scanner(text, start)
    values, end = scanner.values_in_a_row()
    closers = ""
    has_key = _KEY_BEFORE.search(text, 0, start) is not None  # `"rejected": […]}`
    if not has_key:
        match = _CLOSERS.fullmatch(text, end)  # as after `{"id": 1, …}, {"id": 2, …}]}`
        closers = "" if match is None else match[0]
    # A "]" too many after items: the reply lacks the list's opening bracket, which some servers put
    # into the prompt (roboflow/inference issue 2930). Its first objects may be lost as well.
    has_lost_bracket = _CLOSES_LIST.search(closers) is not None and not ends_answer(values[0])
    return JsonText(
        values,
        start,
        len(text) if closers else end,
        comments=scanner.comments,
        truncated=scanner.cut or has_lost_bracket,
        repaired=scanner.repaired or bool(closers) or len(values) > 1,
    )


def _start_of_json(text: str) -> int | None:
    opening = _OPENS.search(text)
    if opening is None:
        return None
    # The first bracket may be one of words before the answer: "Coordinates as [x1, y1, x2, y2]:",
    # "The image is (640, 480)." Then the answer begins with its first object.
    first_object = _OBJECT_OPENS.search(text, opening.start())
    if first_object is not None:
        before_object = text[opening.start() : first_object.start()]
        if _are_words(before_object):
            return first_object.start()
    return opening.start()


def _are_words(text: str) -> bool:
    """As "[x1, y1, x2, y2]" and "(640, 480)" are; "[10, 20, 30" may be a box."""
    for piece in _IN_BRACKETS.findall(text):
        if len(_NUMBER_ALONE.findall(piece)) > 2:
            return False
    rest = _IN_BRACKETS.sub("", text)
    return not any(mark in rest for mark in '[]"［］')


def ends_answer(value: object) -> bool:
    """Whether a value is all of an answer, so that no item can follow it."""
    if isinstance(value, list):
        return any(isinstance(item, dict) for item in value)  # else it may be a box
    if not isinstance(value, dict):
        return False
    is_item = not _KEYS_OF_ITEMS.isdisjoint(map(plain_key, value))
    if is_item:  # {"id": 1, …}
        return False
    lists = [inner for inner in value.values() if isinstance(inner, list)]
    if not lists:
        return len(value) == 1  # {"caption": "…"}
    # {"objects": []} and {"objects": [{…}]}, but not {"bbox": [1, 2, 3, 4]}
    return any(not items or isinstance(items[0], (dict, str)) for items in lists)


class _Scanner:
    """Reads one value after the other; `at` is the index up to which the text was read.

    Where the text ends inside a value, each array and object around the place returns what it has,
    as a CutArray or CutObject.
    """

    def __init__(self, text: str, at: int) -> None:
        self.text = text
        self.at = at
        self.cut = False  # whether the text ends inside a value
        self.comments: list[str] = []
        self.repaired = False  # whether any value wasn't strict JSON

    def values_in_a_row(self) -> tuple[list[object], int]:
        """Read the array or object at `at`, and those right after it; the last one's end, too."""
        values: list[object] = []
        end = self.at
        while _OPENS.match(self.text, self.at) and not self.cut:
            if len(values) == _MOST_VALUES:
                raise UnreadableReply(f"more than {_MOST_VALUES} values in a row", "runaway")
            values.append(self.outermost())
            end = self.at
            between = _BETWEEN.match(self.text, end)
            if between is not None:
                self.at = between.end()  # where the next value may begin
        return values, end

    def outermost(self) -> object:
        """Read a value that is in no other one."""
        # A try to read strict JSON that fails takes long, because the decoder's error counts all
        # lines of the text. After one failure, later values would fail as well.
        if not self.repaired:
            try:
                value, self.at = _STRICT.raw_decode(self.text, self.at)
            except (ValueError, RecursionError):
                self.repaired = True
            else:
                return value
        return self.value(depth=1)

    def value(self, depth: int) -> object:
        """Read one value: what is whole in it where the text ends inside, or `_MISSING`."""
        char = self.peek()
        if char in "{[(":
            if depth > MAX_DEPTH:
                raise UnreadableReply(f"brackets are nested deeper than {MAX_DEPTH}", "broken JSON")
            self.at += 1
            return self.fields(depth) if char == "{" else self.array(_CLOSER_OF[char], depth)
        if char in _QUOTES:
            return self.string(_QUOTES[char])
        number = _NUMBER.match(self.text, self.at)
        if number is not None:
            self.at = number.end()
            if self.at == len(self.text):  # more digits may have followed
                return self.ended()
            return int(number[0]) if _WHOLE.fullmatch(number[0]) else float(number[0])
        return self.word()

    def array(self, closer: str, depth: int) -> object:
        """Read the items of an array, after its bracket, up to `closer`."""
        items: list[object] = []
        comments_before = len(self.comments)
        while not self.cut:
            char = self.skip()
            if char == closer:
                # [10, 20, 30, 40 /* pixels */]: such a comment may change what the numbers mean.
                # Comments between objects are judged with the words around the answer.
                has_comments = len(self.comments) > comments_before
                if has_comments and not any(map(_is_nested, items)):
                    raise self.broken()
                self.at += 1
                return items
            item = self.ended() if char == "" else self.value(depth + 1)
            if item is not _MISSING:
                items.append(item)
            if not self.cut:
                self.separator(closer, item)
        # The text ends before the closing bracket.
        if all(isinstance(item, str) for item in items):
            return CutArray(items)
        # Of `["cup", 10, 20` nothing is left: they are a box that is cut off, and its label.
        return CutArray(item for item in items if _is_nested(item) and not _is_cut_to_nothing(item))

    def fields(self, depth: int) -> object:
        """Read the keys and values of an object, after its brace."""
        pairs: list[tuple[str, object]] = []
        if self.skip() == "{":  # the brace is there twice, as Qwen3-VL's cookbook shows it
            self.at += 1
        while not self.cut:
            char = self.skip()
            if char == "}":
                self.at += 1
                return _object(pairs)
            key = self.ended() if char == "" else self.key()  # where the text ends, `cut` is set
            has_value = not self.cut and self.skip() != ""
            value = self.value(depth + 1) if has_value else self.ended()
            # `"objects": [` at the text's end is left out: an empty list would say that nothing is
            # there.
            is_value = value is not _MISSING and not _is_cut_to_nothing(value)
            if is_value and isinstance(key, str):
                pairs.append((key, value))
            if not self.cut:
                self.separator("}", item=None)
        return CutObject(pairs)  # the text ends before the closing brace

    def key(self) -> object:
        """Read a key and the colon after it; `_MISSING` where the text ends before the colon."""
        char = self.peek()
        if char in _QUOTES:
            key = self.string(_QUOTES[char])
            if not isinstance(key, str):
                return key
        else:  # without quotation marks: label, or 1
            match = _WORD.match(self.text, self.at) or _WHOLE.match(self.text, self.at)
            if match is None:
                raise self.broken()
            self.at = match.end()
            key = match[0]
        if _BRACKET.search(key):
            raise self.broken()  # a quotation mark is missing, and the key has swallowed values
        char = self.skip()
        if char == "":
            return self.ended()
        if char not in ":=":  # "=" is read as the colon is
            raise self.broken()
        self.at += 1
        return key

    def separator(self, closer: str, item: object) -> None:
        """Pass over the comma after an item; `[{…} {…}]` and `[10 20 30 40]` may lack it."""
        char = self.skip()
        if char in (",", ";"):
            self.at += 1
            return
        is_at_end = char in (closer, "")
        are_nested = _is_nested(item) and char in "{["
        are_numbers = isinstance(item, (int, float)) and _NUMBER.match(self.text, self.at)
        if not is_at_end and not are_nested and not are_numbers:
            raise self.broken()

    def string(self, closer: str) -> object:
        """Read a string up to the quotation mark that ends it."""
        text = self.text
        start = self.at + 1
        after_quote = start
        while True:
            quote = text.find(closer, after_quote)
            if quote < 0:
                return self.ended()
            backslashes = 0  # right before the mark; two of them are one that was escaped
            while quote - backslashes > start and text[quote - backslashes - 1] == "\\":
                backslashes += 1
            is_escaped = backslashes % 2 == 1
            after_quote = quote + 1
            # A comma, a bracket or the like follows the last mark. Others are within the string: a
            # model forgot to escape those of `"a sign with "STOP" on it"`.
            if not is_escaped and _AFTER_STRING.match(text, after_quote):
                self.at = after_quote
                return _unescaped(text[start:quote])

    def word(self) -> object:
        """Read a literal such as true, None or NaN, or a mask's token."""
        mask = _MASK.match(self.text, self.at)
        if mask is not None:
            self.at = mask.end()
            return mask[0]
        match = _SIGNED_WORD.match(self.text, self.at)
        if match is None:
            # Where nothing closes any more, the model fell into a loop, of dashes or the like.
            if not _CLOSES.search(self.text, self.at):
                return self.ended()
            raise self.broken()
        word = match[1].lower()
        if match.end() == len(self.text):  # perhaps the beginning of a longer word
            return self.ended()
        if word in _NOT_A_NUMBER:
            self.at = match.end()
            return float("nan")
        if word not in _WORDS:
            raise self.broken()
        self.at = match.end()
        return _WORDS[word]

    def skip(self) -> str:
        """Pass over blanks and comments, and return the next character; "" at the text's end."""
        match = _SKIP.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
            if not match[0].isspace():
                self.comments.append(_COMMENT_MARKS.sub(" ", match[0]))
        return self.peek()

    def peek(self) -> str:
        char = self.text[self.at : self.at + 1]
        return _NARROW.get(char, char)

    def ended(self) -> object:
        """Note that the text ends inside a value, and return `_MISSING`."""
        self.at = len(self.text)
        self.cut = True
        return _MISSING

    def broken(self) -> UnreadableReply:
        near = " ".join(self.text[max(0, self.at - 20) : self.at + 20].split())
        return UnreadableReply(f"the JSON is broken near {near!r}", "broken JSON")


def _is_nested(value: object) -> bool:
    return isinstance(value, (dict, list))


def _is_cut_to_nothing(value: object) -> bool:
    return isinstance(value, CutArray) and not value


def _unescaped(raw: str) -> str:
    if "\\" not in raw:
        return raw
    text = _ESCAPE.sub(_character, raw)
    # Pairs of surrogates become one character; a lone one can't be written to a file.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _character(match: re.Match[str]) -> str:
    """The character of an escape. An unknown letter keeps its backslash."""
    code, char = match.groups()
    if code:
        return chr(int(code, 16))
    unknown = f"\\{char}" if char.isalpha() else char
    return _ESCAPES.get(char, unknown)
