"""The details of a box in the words beside it, which may stand before or behind it."""

import re

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._plain_text import MARKUP, TALK, label_before, label_in
from dataflow_grounding.replies._talk import TAG, thing_before, thing_behind
from dataflow_grounding.replies.reading import NO_DETAILS, Details, details_of_label
from dataflow_grounding.replies.vocabulary import LABEL_KEYS, words

_MOST_BESIDE = 1000  # characters beside a box that are looked at
_LONGEST_LINE = 400  # characters of its line that are looked at
_LONGEST_LABEL = 200  # characters of a label behind a box
_LONGEST_WITH_MARK = 100  # characters of one with a mark before it, as in ": car"
UNCLEAR = "it is unclear whether the labels in the reply stand before or behind their boxes"
# Behind a box: ": car", "-> car". The group is the label.
_LABEL_BEHIND = lazy_pattern(r"\s{0,3}(?:[:：=→–—-]|->)\s{0,3}([^\n\[\](){}<>]{1,80})")
_ARTICLE = lazy_pattern(r"^(?:an?|the)\s+", re.IGNORECASE)
_JSON = lazy_pattern(r"[\"']\s{0,3}[:}\]]")  # the end of a string of JSON
# A label in JSON: `"label": "cat"`. The group is "cat".
_JSON_LABEL = lazy_pattern(
    rf"[\"'](?:{'|'.join(LABEL_KEYS)})[\"']\s{{0,3}}:\s{{0,3}}[\"']([^\"'<>{{}}]{{1,200}})[\"']"
)
_CLOSING_TAG = lazy_pattern(r"</[^<>]{0,60}>")
_WORD = lazy_pattern(r"[^\W_]+")
_LETTERS = lazy_pattern(r"[^\W\d_]+")
_OPENING = lazy_pattern(r"<([A-Za-z][\w:.-]{0,40})\s")  # of a tag with attributes; its name
# Tags of layout, files and tools; their names and classes are no things in a picture.
_NO_THING = lazy_pattern(
    r"(?:ima?ge?|file|tool|function|parameter|invoke|answer|input|output|model)\w{0,20}"
    r"|table|t[rdh]|p|a|b|i|ul|ol|li|em|div|pre|span|code|font|strong|section|html|body|style|script",
    re.IGNORECASE,
)
# An attribute that may name a thing: ` name="dog"`. The group is the value as it stands there.
_NAMING = lazy_pattern(
    r"\s(?:data-)?(?:name|label|class|category|text|phrase|object|mention|id)\s{0,3}=\s{0,3}"
    r"(\"[^\"]{1,200}\"|'[^']{1,200}'|[^\s\"'<>/=]{1,80})",
    re.IGNORECASE,
)
_FILLER = words("filler")  # words that name no thing
# What joins a label to the one before or behind it: ", and" at its end, "and " at its beginning.
_JOINS = lazy_pattern(
    r"(?:[,;]?\s+(?:and|&)|[,;、，])\s*$|^(?:and|&|和|[,;、，])\s+", re.IGNORECASE
)
# The first word of a sentence that goes on behind its box: "is the cat".
_POINTS_BACK = lazy_pattern(
    r"(?:is|are|shows?|contains?|marks?|outlines?|represents?|corresponds|for|of)\b", re.IGNORECASE
)


def details_in_words(gaps: list[str]) -> list[Details]:
    """Return the details of each box from the words beside the boxes.

    The words before a box are its own. Where none stand before the first box on its line, and the
    last one has some behind it, those behind a box are its own. A box without any has those of the
    box next to it on the side where its own would stand.
    Seed writes `<bbox>100 200 300 400</bbox> cat`, others `cat <box>[100, 200, 300, 400]</box>`.

    Args:
        gaps: The words before the first box, between boxes, and behind the last box.

    Raises:
        UnreadableReply: It is unclear on which side of their boxes the labels stand: words stand
            before the first box and a label behind the last of several, or only between boxes.
    """
    ahead = [details_ahead(gap) for gap in gaps[:-1]]
    several = len(ahead) > 1
    if ahead[0] == NO_DETAILS or begins_line(gaps[0]):
        in_lines = several and all("\n" in gap and begins_line(gap) for gap in gaps[1:-1])
        behind = [details_behind(gap, in_lines=in_lines) for gap in gaps[1:]]
        if behind[-1] != NO_DETAILS:
            return _fill_gaps_from_behind(behind)
    elif several and details_behind(gaps[-1]).labels:
        raise UnreadableReply(UNCLEAR)
    if ahead[0] == NO_DETAILS and _any_details(ahead):
        raise UnreadableReply(UNCLEAR)
    return _fill_gaps(ahead)


def details_in_line(gaps: list[str]) -> list[Details]:
    """Return the details of lists of numbers that follow one another on a line.

    Args:
        gaps: The words before the first list, between lists, and behind the last list.

    Returns:
        The details of each list; [] where the lists stand on lines of their own, where words stand
        before the first one, or where none say anything of them.
    """
    between = gaps[1:-1]
    if all("\n" in gap for gap in between) or not begins_line(gaps[0]):
        return []
    if not any(_WORD.search(gap) for gap in (*between, gaps[-1])):
        return []
    all_details = details_in_words(gaps)
    return all_details if _any_details(all_details) else []


def _any_details(all_details: list[Details]) -> bool:
    """Whether any box has details."""
    return any(details != NO_DETAILS for details in all_details)


def _fill_gaps(all_details: list[Details]) -> list[Details]:
    """Return the details of each box; one without any gets those of the box before it."""
    filled: list[Details] = []
    for details in all_details:
        if details == NO_DETAILS and filled:
            details = filled[-1]
        filled.append(details)
    return filled


def _fill_gaps_from_behind(all_details: list[Details]) -> list[Details]:
    """Return the details of each box; one without any gets those of the box behind it."""
    filled = _fill_gaps(all_details[::-1])
    filled.reverse()
    return filled


def label_behind(text: str) -> str | None:
    """Return the label that `text` begins with, as behind the brackets of `[1, 2, 3, 4]: car`.

    A mark such as ":" or a blank must stand before it. None where there is none, or it is talk.
    """
    match = _LABEL_BEHIND.match(text[:_LONGEST_WITH_MARK])
    if match is not None:
        return None if TALK.search(match[1]) else label_in(match[1])
    line = text[:_LONGEST_LABEL].partition("\n")[0]
    if not line[:1].isspace():
        return None
    return _bare_label(line)  # as in [1, 2, 3, 4] car


def details_ahead(text: str) -> Details:
    """Return the details of a box in a tag from the words before it.

    In JSON such as `"label": "cat", "box": "`, the label is the last one under a label's key; there
    are no details without any.
    Elsewhere it is a label as `label_before` reads it, with its colon or as a heading, or else
    the whole line, as in `a cat`. The thing that the sentence before the box talks of, as in
    `there is a cat at`, goes along as the details' `talk`.
    """
    text = _CLOSING_TAG.sub(" ", text[-_MOST_BESIDE:])
    if _JSON.search(text):
        labels = [match[1] for match in _JSON_LABEL.finditer(text)]
        return details_of_label(labels[-1]) if labels else NO_DETAILS
    line = text[-_LONGEST_LINE:].rpartition("\n")[2]
    return details_of_label(label_before(text) or _bare_label(line), talk=thing_before(text))


def details_behind(text: str, *, in_lines: bool = False) -> Details:
    """Return the details of a box in a tag from the words behind it on its line.

    In JSON, the label is the first one under a label's key. In `is the cat` the thing is the
    details' `talk`; other words are the label.

    Args:
        text: The words behind the box.
        in_lines: Whether each line is a box and its text, so that any words are its label.
    """
    text = text[:_MOST_BESIDE]
    if _JSON.search(text):
        first = _JSON_LABEL.search(text)
        return NO_DETAILS if first is None else details_of_label(first[1])
    line = TAG.sub(" ", text.partition("\n")[0]).strip(MARKUP + "-)]}")
    if _POINTS_BACK.match(line):  # as in `[1, 2, 3, 4] is the cat`
        return details_of_label(None, talk=thing_behind(line))
    label = _bare_label(_ARTICLE.sub("", line))
    if label is None and in_lines:
        label = line[:_LONGEST_LABEL]
    return details_of_label(label)


def label_of_words(line: str) -> str | None:
    """Return the label that a line is, without its article; None for a sentence or talk."""
    return _bare_label(_ARTICLE.sub("", line.strip(MARKUP + "-•#")))


def with_names_from_attributes(text: str) -> str:
    """Return a text with the names in attributes of tags also written behind these tags.

    `<obj name="dog">` becomes `<obj name="dog">dog: `.
    """
    if "=" not in text:
        return text
    return TAG.sub(_with_name_from_attribute, text)


def _with_name_from_attribute(tag: re.Match[str]) -> str:
    """Return a tag with the first name of a thing in its attributes behind it, if there is one.

    A tag of layout or of a tool is returned as it is.
    """
    opening = _OPENING.match(tag[0])
    if opening is None or _NO_THING.fullmatch(opening[1]):
        return tag[0]
    for value in _NAMING.findall(tag[0]):
        name = value.strip("\"' ")
        if any(word.lower() not in _FILLER for word in _LETTERS.findall(name)):
            return f"{tag[0]}{name}: "
    return tag[0]


def begins_line(text: str) -> bool:
    """Whether no words stand between the last new line of a text and its end."""
    return _WORD.search(TAG.sub(" ", text[-_LONGEST_LINE:].rpartition("\n")[2])) is None


def _bare_label(line: str) -> str | None:
    """Return a line as a label, without the "and" or comma that joins it to another box.

    None where it has no words, or is a part of a sentence.
    """
    label = _JOINS.sub("", TAG.sub(" ", line[-_LONGEST_LINE:]).strip(MARKUP + "-•#")).rstrip(MARKUP)
    first = _WORD.search(label)
    if first is None or first[0].lower() in _FILLER:
        return None
    if label.endswith(("!", "?")) or TALK.search(label):
        return None
    return label_in(label)
