"""Finds JSON, and what was meant to be JSON, in any text: one pass, linear time, no recursion,
nothing evaluated.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies.json_values import (
    FoundJson,
    JsonArray,
    JsonObject,
    Scan,
    nested,
    unescaped,
)

MAX_DEPTH = 100

_OPEN = lazy_pattern(r"[\[{]|\((?=\s*[-+.]?\d[^()\n]{0,200}\))")
_CUT = lazy_pattern(r"\(\s*[-+.]?\d[\d\s,.;-]*$")
# Strings, which stay as they are, and full-width punctuation between the tokens of JSON.
_WIDE = lazy_pattern(
    r"(\"(?:[^\"\\]|\\.){0,500}\"|“[^”]{0,500}”)|[［］｛｝]|(?<=[\d\"”'\]}］｝])\s*[：，、；]\s*(?=[-\d\"“'\[{［｛])",
    re.DOTALL,
)
_NARROW = str.maketrans("［］｛｝：，、；", "[]{}:,,;")
_CLOSER_OF = {"{": "}", "[": "]", "(": ")"}
_QUOTES = {'"': '"', "'": "'", "“": "“”", "”": "”", "`": "`"}
_TAG = r"</?[A-Za-z_]{1,30}>|<\|/?\w{1,30}\|>"
_SKIP = lazy_pattern(rf"(?:[\s\\]+|//[^\n]*|/\*(?:[^*]|\*(?!/))*(?:\*/)?|#(?=\s)[^\n]*|{_TAG})+")
# Of JSON that is itself commented out, the marks at the beginnings of its lines.
_SKIP_MARKS = lazy_pattern(rf"(?:[\s\\]+|//+|#+(?=\s)|{_TAG})+")
_IN_COMMENT = lazy_pattern(r"\s*(?:#|//)")
_BOX_IN_COMMENT = lazy_pattern(
    r"(?:#|//|/\*)[^\n#/]{0,200}?[\[(]\s*((?:[-+]?\d[\d.]{0,20}\s*,\s*){3}[-+]?\d[\d.]{0,20})\s*[\])]"
)
_NUMBER = lazy_pattern(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,6})?(?=[\s,;:\]})/#<]|$)")
_WHOLE = lazy_pattern(r"[-+]?\d{1,18}")
_WORD = lazy_pattern(r"[^\s,:=;{}\[\]()\"“”][^,:=;{}\[\]()\"“”\n]*")
_AFTER_STRING = lazy_pattern(r"\s*(?:[,:;=\]})\"'“]|//|/\*|#|\n|$)")
_NEW_LINE_OF_STRUCTURE = lazy_pattern(r"[ \t]*(?:[{}\[\]]|[\"'][^\"'\n]{1,40}[\"']\s*:)")
_STOP = {quote: lazy_pattern(rf"[{closers}\\\n]") for quote, closers in _QUOTES.items()}
_CLOSES = {
    quote: lazy_pattern(rf"[{closers}][^\S\n]*[,:;=\]}})]") for quote, closers in _QUOTES.items()
}
_KEYWORDS: dict[str, Any] = {"true": True, "false": False}
_KEYWORDS |= dict.fromkeys(["null", "none", "nil", "undefined", "nan", "infinity", "-infinity"])


def find_json(text: str) -> Scan:
    """Return all outermost arrays and objects in `text`, strict JSON or not. Raises UnreadableReply
    past MAX_DEPTH.
    """
    strict = strict_json(text)
    if strict is None and not text.isascii():
        text = _WIDE.sub(lambda match: match[1] or match[0].translate(_NARROW), text)
    return strict if strict is not None else _Scanner(text).run()


def decoded(value: Any) -> Any:
    """Return what a string of JSON holds, as in the arguments of a tool call; any other value as it
    is.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    scan = find_json(value)
    found = scan.found[0].value if len(scan.found) == 1 else None
    return found if holds_objects(found) else value


def holds_objects(value: Any) -> bool:
    """Whether a value is an object, or an array with objects in it."""
    return isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(item, dict) for item in value)
    )


def strict_json(text: str) -> Scan | None:
    """Return the one array or object that `text` is, in strict JSON; None for any other text."""
    start = len(text) - len(text.lstrip())
    if text[start : start + 1] not in ("{", "["):
        return None
    try:
        value = json.loads(text, object_pairs_hook=JsonObject, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    return (
        None
        if _deeper_than(value, MAX_DEPTH)
        else Scan(text, [FoundJson(value, start, len(text.rstrip()))])
    )


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [child for parent in level for child in nested(parent)]
        if not level:
            return False
    return True


@dataclass
class _Open:
    closer: str
    value: Any
    key: str | None = None


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.stack: list[_Open] = []
        self.scan = Scan(text)
        self.skip = _SKIP
        self.line_end = -1
        self.closer_known_until: dict[str, tuple[int, bool]] = {}

    def run(self) -> Scan:
        while (match := _OPEN.search(self.text, self.at)) is not None:
            self.at = start = match.start()
            near = max(0, self.at - 200)
            line = max(self.text.rfind("\n", near, self.at) + 1, near)
            self.skip = _SKIP_MARKS if _IN_COMMENT.match(self.text, line, self.at) else _SKIP
            self._push(match[0])
            root = self.stack[0].value
            while self.stack and self.at < len(self.text):
                self._step()
            if self.stack:
                self.scan.truncated = True
                self._close_all()
            self.scan.found.append(FoundJson(root, start, self.at))
        self.scan.truncated = self.scan.truncated or _CUT.search(self.text[-200:]) is not None
        self.scan.repaired = self.scan.repaired or self.scan.broken
        return self.scan

    def _step(self) -> None:
        skip = self.skip.match(self.text, self.at)
        if skip is not None:
            if not skip[0].isspace():
                self.scan.repaired = True
                self.scan.commented += _BOX_IN_COMMENT.findall(skip[0])
            self.at = skip.end()
            return
        char = self.text[self.at]
        if char in ",;":
            self.at += 1
            if self.stack[-1].key is not None:
                self._add(None)
        elif char in "{[(":
            self._push(char)
        elif char in "}])":
            self._pop(char)
        elif char in ":=":
            self._colon()
        elif char in _QUOTES and not (char == "`" and self.text.startswith("```", self.at)):
            self._string(char)
        else:
            self._scalar()

    def _push(self, kind: str) -> None:
        if len(self.stack) >= MAX_DEPTH:
            raise UnreadableReply(f"brackets are nested deeper than {MAX_DEPTH}")
        value: Any = JsonObject() if kind == "{" else JsonArray()
        if self.stack:
            self._add(value)
        self.stack.append(_Open(_CLOSER_OF[kind], value))
        self.at += 1

    def _pop(self, char: str) -> None:
        self.at += 1
        if not self._is_open(char):
            self.scan.broken = True
            return
        while self._leave().closer != char:
            self.scan.broken = True

    def _is_open(self, closer: str) -> bool:
        return any(one.closer == closer for one in self.stack)

    def _leave(self) -> _Open:
        top = self.stack.pop()
        if top.key is not None:
            top.value.put(top.key, None)
        return top

    def _close_all(self) -> None:
        self.scan.broken = True
        while self.stack:
            self._leave().value.cut = True

    def _add(self, value: Any) -> None:
        top = self.stack[-1]
        if top.closer != "}":
            top.value.append(value)
        elif top.key is not None:
            top.value.put(top.key, value)
            top.key = None
        else:
            top.value.loose.append(value)

    def _colon(self) -> None:
        self.at += 1
        top = self.stack[-1]
        loose = top.value.loose if top.closer == "}" and top.key is None else []
        if loose and not isinstance(loose[-1], (dict, list)):
            top.key = str(loose.pop())
        else:
            self.scan.broken = True

    def _string(self, quote: str) -> None:
        text, at = self.text, self.at + 1
        self.scan.repaired = self.scan.repaired or quote != '"'
        while True:
            stop = _STOP[quote].search(text, at)
            if stop is None:  # cut off inside of the string: not known how it goes on
                self.at = len(text)
                return
            if stop[0] == "\\":
                at = stop.end() + 1
            elif stop[0] == "\n":
                self.scan.repaired = True
                if _NEW_LINE_OF_STRUCTURE.match(text, stop.end()):
                    self.scan.broken = True
                    self._broken_string(stop.start())
                    return
                at = stop.end()
            elif _AFTER_STRING.match(text, stop.end()) or not self._closes_later(quote, stop.end()):
                self._add(unescaped(text[self.at + 1 : stop.start()]))
                self.at = stop.end()
                return
            else:  # a quotation mark within the string
                self.scan.repaired = True
                at = stop.end()

    def _closes_later(self, quote: str, at: int) -> bool:
        """Whether the line goes on to a quotation mark that ends a string; remembered, to search
        each line once.
        """
        until, answer = self.closer_known_until.get(quote, (-1, False))
        if at > until:
            if at > self.line_end:
                end = self.text.find("\n", at)
                self.line_end = end if end >= 0 else len(self.text)
            match = _CLOSES[quote].search(self.text, at, self.line_end)
            until, answer = (match.start(), True) if match else (self.line_end, False)
            self.closer_known_until[quote] = until, answer
        return answer

    def _broken_string(self, end: int) -> None:
        """Take a string that its line never closes as ended there, with the object around it."""
        self._add(unescaped(self.text[self.at + 1 : end]))
        self.at = end
        if self._is_open("}") and len(self.stack) > 1:
            while self._leave().closer != "}":
                pass

    def _scalar(self) -> None:
        number = _NUMBER.match(self.text, self.at)
        match = number or _WORD.match(self.text, self.at)
        if match is None:
            self.at += 1
            self.scan.broken = True
            return
        self.at = match.end()
        if number is not None:
            if self.at < len(self.text):
                self._add(int(match[0]) if _WHOLE.fullmatch(match[0]) else float(match[0]))
            return
        word = match[0].rstrip()
        if word.startswith("```"):
            self._close_all()
            return
        self.scan.repaired = self.scan.repaired or word not in ("null", "true", "false")
        if self.at < len(self.text):
            self._add(_KEYWORDS.get(word.lower(), word))
