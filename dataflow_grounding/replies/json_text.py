"""Finds JSON, and what was meant to be JSON, in any text.

It does so in one pass and linear time, without recursion, and evaluates nothing.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies.json_values import (
    JsonArray,
    JsonItem,
    JsonObject,
    Scan,
    nested_values,
    unescape,
)
from dataflow_grounding.replies.vocabulary import COORDINATE

MAX_DEPTH = 100  # levels of arrays and objects

# Made once, as `json.loads` makes a decoder anew each time. NaN and Infinity become null.
_STRICT = json.JSONDecoder(object_pairs_hook=JsonObject, parse_constant=lambda _: None)
# A bracket that opens an outermost array or object. A "(" does where numbers stand in it: "(1, 2)".
_OPEN = lazy_pattern(r"[\[{]|\((?=\s*[-+.]?\d[^()\n]{0,200}\))")
# At the end of a text: a box in parentheses that breaks off, as in "(12, 3".
_CUT = lazy_pattern(r"\(\s*[-+.]?\d[\d\s,.;-]*$")
_MOST_OF_CUT = 200  # characters of such a box
# Strings, which stay as they are, and full-width punctuation between the tokens of JSON.
_WIDE = lazy_pattern(
    r"(\"(?:[^\"\\]|\\.){0,500}\"|“[^”]{0,500}”)|[［］｛｝]|(?<=[\d\"”'\]}］｝])\s*[：，、；]\s*(?=[-\d\"“'\[{［｛])",
    re.DOTALL,
)
_NARROW = str.maketrans("［］｛｝：，、；", "[]{}:,,;")
_CLOSER_OF = {"{": "}", "[": "]", "(": ")"}
# Mark that begins a string → the marks that may end it.
_QUOTES = {'"': '"', "'": "'", "“": "“”", "”": "”", "`": "`"}
_TAG = r"</?[A-Za-z_]{1,30}>|<\|/?\w{1,30}\|>"
# What is passed over between tokens: blanks, backslashes, comments with their text, and tags.
_SKIP = lazy_pattern(rf"(?:[\s\\]+|//[^\n]*|/\*(?:[^*]|\*(?!/))*(?:\*/)?|#(?=\s)[^\n]*|{_TAG})+")
# The same in JSON that is itself commented out: of comments only the marks, not their text.
_SKIP_MARKS = lazy_pattern(rf"(?:[\s\\]+|//+|#+(?=\s)|{_TAG})+")
_IN_COMMENT = lazy_pattern(r"\s*(?:#|//)")  # the beginning of a line that is a comment
_MOST_OF_BOX = 4  # numbers
_MOST_OF_LINE = 200  # characters before a bracket in which its line may begin
# A box in a comment, as in "# was [1, 2, 3, 4]"; the group is its numbers.
_BOX_IN_COMMENT = lazy_pattern(
    r"(?:#|//|/\*)[^\n#/]{0,200}?[\[(]\s*((?:[-+]?\d[\d.]{0,20}\s*,\s*){3}[-+]?\d[\d.]{0,20})\s*[\])]"
)
# A comment that is the name of a coordinate, as in "100, // y1 (top)"; the group is the name.
_NAME_IN_COMMENT = lazy_pattern(
    rf"(?:#|//|/\*)[^\S\n]*({COORDINATE})"
    r"(?:[^\S\n]+(?:coord\w*|edge|side|value)|-coord\w*)?"
    r"(?:[^\S\n]*\([^()\n]{0,40}\)|[^\S\n]*[:=,–—-][^\n*]{0,40})?[^\S\n]*(?=\n|\*/|$)",
    re.IGNORECASE,
)
# A number and nothing more: "-1.5e3", but not the "3" of "3rd".
_NUMBER = lazy_pattern(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,6})?(?=[\s,;:\]})/#<]|$)")
_WHOLE = lazy_pattern(r"[-+]?\d{1,18}")  # what is read as an int; a longer one as a float
# A text without quotation marks, up to a bracket, comma, colon or the line's end: `red cat`.
_WORD = lazy_pattern(r"[^\s,:=;{}\[\]()\"“”][^,:=;{}\[\]()\"“”\n]*")
# What follows a quotation mark that ends a string, and none that stands within it.
_AFTER_STRING = lazy_pattern(r"\s*(?:[,:;=\]})\"'“]|//|/\*|#|\n|$)")
# A line that begins with a bracket or a key: no string goes on in it.
_NEW_LINE_OF_STRUCTURE = lazy_pattern(r"[ \t]*(?:[{}\[\]]|[\"'][^\"'\n]{1,40}[\"']\s*:)")
# Mark that begins a string → where reading it may stop: a closing mark, a backslash, a new line.
_STOP = {quote: lazy_pattern(rf"[{closers}\\\n]") for quote, closers in _QUOTES.items()}
# Mark that begins a string → a closing mark with what may follow a string.
_CLOSES = {
    quote: lazy_pattern(rf"[{closers}][^\S\n]*[,:;=\]}})]") for quote, closers in _QUOTES.items()
}
# Word in lower case → the value that it is; None for "null", "nan" and their like.
_KEYWORDS: dict[str, Any] = {"true": True, "false": False}
_KEYWORDS |= dict.fromkeys(["null", "none", "nil", "undefined", "nan", "infinity", "-infinity"])


def find_json(text: str) -> Scan:
    """Return all outermost arrays and objects in `text`, strict JSON or not.

    In the scan's own text, full-width punctuation between JSON's tokens is narrow.

    Raises:
        UnreadableReply: They are nested deeper than MAX_DEPTH.
    """
    strict = strict_json(text)
    if strict is not None:
        return strict
    if not text.isascii():
        text = _WIDE.sub(_narrow_punctuation, text)
    return _Scanner(text).read_all()


def _narrow_punctuation(match: re.Match[str]) -> str:
    """Return full-width punctuation as JSON's own, "," for "，"; a string as it is."""
    return match[1] or match[0].translate(_NARROW)


def decode_json_string(value: Any) -> Any:
    """Return the array or object that a string holds as JSON, if it holds objects.

    The arguments of a tool call are such a string. Any other value is returned as it is.

    Raises:
        UnreadableReply: The string's brackets are nested deeper than MAX_DEPTH.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    items = find_json(value).items
    if len(items) == 1 and holds_objects(items[0].value):
        return items[0].value
    return value


def holds_objects(value: Any) -> bool:
    """Whether a value is an object, or an array with an object among its items."""
    if isinstance(value, list):
        return any(isinstance(item, dict) for item in value)
    return isinstance(value, dict)


def strict_json(text: str) -> Scan | None:
    """Return the array or object that a text is in strict JSON, as the only item of a scan.

    None for any other text, and for one that is nested deeper than MAX_DEPTH.
    """
    start = len(text) - len(text.lstrip())
    if text[start : start + 1] not in ("{", "["):
        return None
    try:
        value = _STRICT.decode(text)
    except (ValueError, RecursionError):
        return None
    # With so few brackets it can't be deep, which spares most texts the walk.
    has_few_brackets = text.count("[") + text.count("{") <= MAX_DEPTH
    if not has_few_brackets and _deeper_than(value, MAX_DEPTH):
        return None
    return Scan(text, [JsonItem(value, start, len(text.rstrip()))])


def _deeper_than(value: Any, depth: int) -> bool:
    """Whether a value has more than `depth` levels of arrays and objects, itself the first."""
    level = [value]
    for _ in range(depth):
        next_level: list[Any] = []
        for parent in level:
            next_level += nested_values(parent)
        if not next_level:
            return False
        level = next_level
    return True


@dataclass
class _Open:
    """An array or object that is not closed yet.

    Attributes:
        closer: The bracket that closes it: `]`, `}`, or the `)` of an array in parentheses.
        value: A JsonArray or JsonObject, as far as it was read.
        key: A key that has no value yet.
    """

    closer: str
    value: Any
    key: str | None = None


def _holds_numbers_alone(value: Any) -> bool:
    """Whether an array, as far as it was read, is numbers alone, and no more than a box has."""
    if not isinstance(value, list) or len(value) > _MOST_OF_BOX:
        return False
    return all(type(item) in (int, float) for item in value)


class _Scanner:
    """Reads the arrays and objects of a text, whatever is wrong with them.

    Attributes:
        text: The text.
        at: The index in the text up to which it was read.
        stack: The arrays and objects that are open, the innermost last.
        scan: What was read.
        skip: Matches what is passed over between tokens.
        line_end: Where the line ends in which a string's end was last looked for.
        closer_known_until: Quotation mark → (index, answer): from any place up to that index, it is
            the answer of `_closes_later`.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.stack: list[_Open] = []
        self.scan = Scan(text)
        self.skip = _SKIP
        self.line_end = -1
        self.closer_known_until: dict[str, tuple[int, bool]] = {}

    def read_all(self) -> Scan:
        """Read all outermost arrays and objects, and return them.

        Raises:
            UnreadableReply: They are nested deeper than MAX_DEPTH.
        """
        scan = self.scan
        opening = _OPEN.search(self.text)
        while opening is not None:
            self._read_outermost(opening)
            opening = _OPEN.search(self.text, self.at)
        scan.truncated = scan.truncated or _CUT.search(self.text[-_MOST_OF_CUT:]) is not None
        scan.repaired = scan.repaired or scan.broken
        return scan

    def _read_outermost(self, opening: re.Match[str]) -> None:
        """Read the array or object that begins with `opening`, and add it to the scan's items.

        It is added too where the text ends inside of it, marked as cut off like all that is open in
        it then. Raises UnreadableReply for what is nested too deeply.
        """
        start = opening.start()
        self.at = start
        # Within a comment, its mark begins each further line, and is passed over as blanks are.
        self.skip = _SKIP_MARKS if self._is_in_comment() else _SKIP
        self._open(opening[0])
        root = self.stack[0].value
        while self.stack and self.at < len(self.text):
            self._read_next()
        if self.stack:
            self.scan.truncated = True
            self._close_all()
        self.scan.items.append(JsonItem(root, start, self.at))

    def _is_in_comment(self) -> bool:
        """Whether the line begins with the mark of a comment."""
        near = max(0, self.at - _MOST_OF_LINE)
        line = max(self.text.rfind("\n", near, self.at) + 1, near)
        return _IN_COMMENT.match(self.text, line, self.at) is not None

    def _read_next(self) -> None:
        """Read the next token, or what is passed over before it.

        A key that a comma follows gets null.
        """
        skip = self.skip.match(self.text, self.at)
        if skip is not None:
            if not skip[0].isspace():
                self.scan.repaired = True
                self.scan.boxes_in_comments += _BOX_IN_COMMENT.findall(skip[0])
                if _holds_numbers_alone(self.stack[-1].value):
                    self.scan.names_in_comments += _NAME_IN_COMMENT.findall(skip[0])
            self.at = skip.end()
            return
        char = self.text[self.at]
        if char in ",;":
            self.at += 1
            if self.stack[-1].key is not None:
                self._add(None)
        elif char in "{[(":
            self._open(char)
        elif char in "}])":
            self._close(char)
        elif char in ":=":
            self._read_colon()
        elif char in _QUOTES and not (char == "`" and self.text.startswith("```", self.at)):
            self._read_string(char)
        elif not self._read_number():
            self._read_word()

    def _open(self, opener: str) -> None:
        """Begin the array or object that a bracket opens; `(` opens an array.

        It is added to the innermost one that is open. Where none is, it is an outermost one, which
        `_read_outermost` adds to the scan.

        Raises:
            UnreadableReply: It is nested deeper than MAX_DEPTH.
        """
        if len(self.stack) >= MAX_DEPTH:
            raise UnreadableReply(f"brackets are nested deeper than {MAX_DEPTH}")
        value: Any = JsonObject() if opener == "{" else JsonArray()
        if self.stack:
            self._add(value)
        self.stack.append(_Open(_CLOSER_OF[opener], value))
        self.at += 1

    def _close(self, closer: str) -> None:
        """End the innermost array or object that a bracket closes, and all that is open in it.

        A bracket that closes none is passed over. Then, and where it ends several, the scan is
        marked as broken.
        """
        self.at += 1
        if not self._is_open(closer):
            self.scan.broken = True
            return
        while self._close_innermost().closer != closer:
            self.scan.broken = True

    def _is_open(self, closer: str) -> bool:
        """Whether any open array or object is closed by this bracket."""
        return any(opened.closer == closer for opened in self.stack)

    def _close_innermost(self) -> _Open:
        """End the innermost array or object and return it; a key without a value gets null."""
        top = self.stack.pop()
        if top.key is not None:
            top.value.put(top.key, None)
        return top

    def _close_all(self) -> None:
        """End all arrays and objects that are open, and mark them as cut off."""
        self.scan.broken = True
        while self.stack:
            self._close_innermost().value.cut = True

    def _add(self, value: Any) -> None:
        """Add a value to the innermost array or object.

        In an object it stands under the key that has no value yet, else among the `loose` values,
        of which a colon behind it makes a key.
        """
        top = self.stack[-1]
        if top.closer != "}":
            top.value.append(value)
        elif top.key is not None:
            top.value.put(top.key, value)
            top.key = None
        else:
            top.value.loose.append(value)

    def _read_colon(self) -> None:
        """Read a colon or "=": the innermost object's last loose value becomes a key.

        A colon elsewhere, as in an array, is passed over, and the scan marked as broken.
        """
        self.at += 1
        top = self.stack[-1]
        if top.closer == "}" and top.key is None:
            loose = top.value.loose
            if loose and not isinstance(loose[-1], (dict, list)):
                top.key = str(loose.pop())
                return
        self.scan.broken = True

    def _read_string(self, quote: str) -> None:
        """Read the string that begins here and add it, up to the quotation mark that ends it.

        A mark with no comma, bracket or the like behind it is a part of the string, if the line has
        another one later that may end it. A new line that begins as JSON ends the string, too. One
        that the text's end cuts off is not added.
        """
        text = self.text
        at = self.at + 1
        if quote != '"':
            self.scan.repaired = True
        while True:
            stop = _STOP[quote].search(text, at)
            if stop is None:  # cut off inside of the string
                self.at = len(text)
                return
            if stop[0] == "\\":
                at = stop.end() + 1
            elif stop[0] == "\n":
                self.scan.repaired = True
                if _NEW_LINE_OF_STRUCTURE.match(text, stop.end()):
                    self.scan.broken = True
                    self._end_broken_string(stop.start())
                    return
                at = stop.end()
            elif _AFTER_STRING.match(text, stop.end()) or not self._closes_later(quote, stop.end()):
                self._add(unescape(text[self.at + 1 : stop.start()]))
                self.at = stop.end()
                return
            else:  # a quotation mark within the string
                self.scan.repaired = True
                at = stop.end()

    def _closes_later(self, quote: str, at: int) -> bool:
        """Whether behind `at` the line has another quotation mark that may end a string.

        That is one with a comma, semicolon, colon, "=" or closing bracket behind it. The answer is
        remembered up to the mark, or to the line's end where there is none, so that each line is
        searched only once: calls go on through the text.
        """
        known_until, answer = self.closer_known_until.get(quote, (-1, False))
        if at <= known_until:
            return answer
        if at > self.line_end:
            end = self.text.find("\n", at)
            self.line_end = end if end >= 0 else len(self.text)
        match = _CLOSES[quote].search(self.text, at, self.line_end)
        if match is None:
            self.closer_known_until[quote] = (self.line_end, False)
            return False
        self.closer_known_until[quote] = (match.start(), True)
        return True

    def _end_broken_string(self, end: int) -> None:
        """Add a string that no mark closes, up to `end`, and end the innermost object around it.

        Arrays inside of that object end with it. Where one array or object alone is open, it stays
        so.
        """
        self._add(unescape(self.text[self.at + 1 : end]))
        self.at = end
        if self._is_open("}") and len(self.stack) > 1:
            while self._close_innermost().closer != "}":
                pass

    def _read_number(self) -> bool:
        """Read the number that begins here and add it, and return whether there is one.

        A number at the very end of the text is not added, as it may be cut off.
        """
        match = _NUMBER.match(self.text, self.at)
        if match is None:
            return False
        self.at = match.end()
        if self.at < len(self.text):
            self._add(int(match[0]) if _WHOLE.fullmatch(match[0]) else float(match[0]))
        return True

    def _read_word(self) -> None:
        """Read the word that begins here and add it: a keyword, or a text without quotation marks.

        A word at the very end of the text is not added, as it may be cut off. A fence ends all that
        is open, as cut off. A character that begins no word is passed over.
        """
        match = _WORD.match(self.text, self.at)
        if match is None:
            self.at += 1
            self.scan.broken = True
            return
        self.at = match.end()
        word = match[0].rstrip()
        if word.startswith("```"):
            self._close_all()
            return
        if word not in ("null", "true", "false"):
            self.scan.repaired = True
        if self.at < len(self.text):
            self._add(_KEYWORDS.get(word.lower(), word))
