"""What the words beside a box say of it: those ahead of it or behind it, and which of the two they
are.
"""

import re

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._plain_text import MARKUP, TALK, label_before, label_in
from dataflow_grounding.replies._talk import TAG, named_before, named_behind
from dataflow_grounding.replies.reading import NOTHING_SAID, Said, named
from dataflow_grounding.replies.vocabulary import LABEL_KEYS, words

UNCLEAR = "it is unclear whether the labels in the reply stand before or behind their boxes"
_LABEL_BEHIND = lazy_pattern(r"\s{0,3}(?:[:：=→–—-]|->)\s{0,3}([^\n\[\](){}<>]{1,80})")
_ARTICLE = lazy_pattern(r"^(?:an?|the)\s+", re.IGNORECASE)
_JSON = lazy_pattern(r"[\"']\s{0,3}[:}\]]")
_JSON_LABEL = lazy_pattern(
    rf"[\"'](?:{'|'.join(LABEL_KEYS)})[\"']\s{{0,3}}:\s{{0,3}}[\"']([^\"'<>{{}}]{{1,200}})[\"']"
)
_CLOSING_TAG = lazy_pattern(r"</[^<>]{0,60}>")
_WORD = lazy_pattern(r"[^\W_]+")
_LETTERS = lazy_pattern(r"[^\W\d_]+")
_OPENING = lazy_pattern(r"<([A-Za-z][\w:.-]{0,40})\s")
# Tags of layout, files and tools; their names and classes are no things in a picture.
_NO_THING = lazy_pattern(
    r"(?:ima?ge?|file|tool|function|parameter|invoke|answer|input|output|model)\w{0,20}"
    r"|table|t[rdh]|p|a|b|i|ul|ol|li|em|div|pre|span|code|font|strong|section|html|body|style|script",
    re.IGNORECASE,
)
_NAMING = lazy_pattern(
    r"\s(?:data-)?(?:name|label|class|category|text|phrase|object|mention|id)\s{0,3}=\s{0,3}"
    r"(\"[^\"]{1,200}\"|'[^']{1,200}'|[^\s\"'<>/=]{1,80})",
    re.IGNORECASE,
)
_FILLER = words("filler")
_JOINS = lazy_pattern(
    r"(?:[,;]?\s+(?:and|&)|[,;、，])\s*$|^(?:and|&|和|[,;、，])\s+", re.IGNORECASE
)
_POINTS_BACK = lazy_pattern(
    r"(?:is|are|shows?|contains?|marks?|outlines?|represents?|corresponds|for|of)\b", re.IGNORECASE
)


def said_in_words(gaps: list[str]) -> list[Said]:
    """Return what words say of each box: those before it, or behind it where no words stand before
    the first one.

    Seed writes `<bbox>100 200 300 400</bbox> cat`, others `cat <box>[100, 200, 300, 400]</box>`.
    """
    ahead = [*map(said_ahead, gaps[:-1])]
    several = len(ahead) > 1
    if ahead[0] == NOTHING_SAID or begins_line(gaps[0]):
        in_lines = several and all("\n" in gap and begins_line(gap) for gap in gaps[1:-1])
        behind = [said_behind(gap, in_lines=in_lines) for gap in gaps[1:]]
        if behind[-1] != NOTHING_SAID:
            return _filled(behind[::-1])[::-1]
    elif several and said_behind(gaps[-1]).labels:
        # words stand before the first box and behind the last one
        raise UnreadableReply(UNCLEAR)
    if ahead[0] == NOTHING_SAID and any(said != NOTHING_SAID for said in ahead):
        raise UnreadableReply(UNCLEAR)
    return _filled(ahead)


def said_in_line(gaps: list[str]) -> list[Said]:
    """Return what words say of lists of numbers of which one follows another on a line, none stands
    before the first.

    Of any others nothing is returned; `gaps` are the words before, between and behind them.
    """
    between = gaps[1:-1]
    apart = all("\n" in gap for gap in between)
    if apart or not begins_line(gaps[0]) or not any(map(_WORD.search, [*between, *gaps[-1:]])):
        return []
    said = said_in_words(gaps)
    return said if any(each != NOTHING_SAID for each in said) else []


def _filled(said: list[Said]) -> list[Said]:
    """Return what is said of each box, of one without words what is said of the one before it."""
    filled: list[Said] = []
    for each in said:
        filled.append(each if each != NOTHING_SAID or not filled else filled[-1])
    return filled


def label_behind(text: str) -> str | None:
    """Return the label that `text` begins with, as behind the brackets of `[1, 2, 3, 4]: car`."""
    match = _LABEL_BEHIND.match(text[:100])
    if match is None:  # [1, 2, 3, 4] car
        line = text[:200].partition("\n")[0]
        return _bare_label(line) if line[:1].isspace() else None
    return None if TALK.search(match[1]) else label_in(match[1])


def said_ahead(text: str) -> Said:
    """Return what words before a box in a tag say of it: its label where they are nothing else,
    else what they name.
    """
    text = _CLOSING_TAG.sub(" ", text[-1000:])
    if _JSON.search(text):
        return named(next((match[1] for match in [*_JSON_LABEL.finditer(text)][-1:]), None))
    line = text[-400:].rpartition("\n")[2]
    return named(label_before(text) or _bare_label(line), named_before(text))


def said_behind(text: str, *, in_lines: bool = False) -> Said:
    """Return what the words behind a box in a tag, on its line, say of it; `in_lines`: lines are a
    box and its text.
    """
    if _JSON.search(text[:1000]):
        return named(next((match[1] for match in _JSON_LABEL.finditer(text[:1000])), None))
    line = TAG.sub(" ", text[:1000].partition("\n")[0]).strip(MARKUP + "-)]}")
    if _POINTS_BACK.match(line):
        return named(None, named_behind(line))
    label = _bare_label(_ARTICLE.sub("", line))
    if label is None and in_lines:
        label = line[:200]
    return named(label)


def label_of_words(line: str) -> str | None:
    """Return the label that a line of words is, without its article; None for a
    sentence or talk.
    """
    return _bare_label(_ARTICLE.sub("", line.strip(MARKUP + "-•#")))


def with_attributes_said(text: str) -> str:
    """Return a text in which a tag that names its thing in an attribute, as `<obj name="dog">`
    does, is `dog: `.
    """
    if "=" not in text:
        return text
    return TAG.sub(_attribute_said, text)


def _attribute_said(tag: re.Match[str]) -> str:
    opening = _OPENING.match(tag[0])
    if opening is None or _NO_THING.fullmatch(opening[1]):
        return tag[0]
    names = (value.strip("\"' ") for value in _NAMING.findall(tag[0]))
    thing = next(
        (
            name
            for name in names
            if any(word.lower() not in _FILLER for word in _LETTERS.findall(name))
        ),
        None,
    )
    return tag[0] if thing is None else f"{tag[0]}{thing}: "


def begins_line(text: str) -> bool:
    """Whether no words stand between the last new line of a text and its end."""
    return _WORD.search(TAG.sub(" ", text[-400:].rpartition("\n")[2])) is None


def _bare_label(line: str) -> str | None:
    """Return words that are a label and no part of a sentence, without what joins them to the next
    box.
    """
    words = _JOINS.sub("", TAG.sub(" ", line[-400:]).strip(MARKUP + "-•#")).rstrip(MARKUP)
    first = _WORD.search(words)
    if (
        first is None
        or first[0].lower() in _FILLER
        or words.endswith(("!", "?"))
        or TALK.search(words)
    ):
        return None
    return label_in(words)
