"""What a model says to the one who asked: without other turns, without other channels, without
thinking.

Providers name these in ever new ways, so they go by rule: a part opened and closed before the
answer isn't the answer.
"""

import re
from typing import NamedTuple

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._absence import says_none
from dataflow_grounding.replies.vocabulary import pattern, words

_HEADER, _END = pattern("header"), pattern("end")
# Templates whose special tokens were left out of the text: "analysisI see … assistantfinal[…]".
_BARE_SIDE = lazy_pattern(r"(?:assistant)?(?:analysis(?=[A-Z])| ?to=(?!user\b)\w)")
_BARE_FINAL = lazy_pattern(r"assistant\s*(?:final|to=user)(?:\s?(?:json|code))?\s*")
_ROLE_LINE = lazy_pattern(
    r"(?:^|\n)[ \t]*(?:\*\*)?((?i:user|human|assistant))(?:\*\*)?["
    r" \t]*[:：](?:\*\*)?|(?:^|\s)(USER|ASSISTANT):"
)
_ASKING, _ANSWERING = words("asking"), words("answering") | {""}

# Tags and tokens that may open or close a part: <x> </x> <|x|> <|/x|> <|x> <x|> ◁x▷ ◁/x▷ [X] [/X].
_MARKER = lazy_pattern(
    r"<(?P<bar>[|｜]?)(?P<slash>/?)(?P<name>[A-Za-z][\w:.▁-]{0,40})(?:\s[^<>]{0,200})?(?P<bar_behind>[|｜]?)>"
    r"|◁(?P<moon_slash>/?)(?P<moon>\w{1,40})▷|\[(?P<square_slash>/?)(?P<square>[A-Z][A-Z_]{2,30})\]"
)
_OPENS = lazy_pattern(r"(?:begin_of_|start_of_|begin_|start_)(.+)|(.+)_(?:start|begin)")
_CLOSES = lazy_pattern(r"(?:end_of_|end_|stop_)(.+)|(.+)_(?:end|stop)")
_THINKING, _ANSWER, _LAYOUT, _TALKING = map(pattern, ("thinking", "answer", "layout", "talking"))
_CLOSING_NAMES = {"unused95": "unused94"}  # MedGemma's
_ANSWER_TOKEN = lazy_pattern(
    r"<\|(?:(?:begin|start|end)_(?:of_)?)?(?:answer|response|solution|output)\|>", re.IGNORECASE
)
_MAY_ANSWER = lazy_pattern(r"\d|\[\s*\]|\{\s*\}|\bnull\b|\bnone\b", re.IGNORECASE)
_BRACKETS = lazy_pattern(r"[\[({][^\[\](){}]{0,400}[\])}]")
# An element of a document, which may have any text:
# <list_item><loc_66><loc_47><loc_431><loc_77>What you need is …
_LOCATED = lazy_pattern(r"\s{0,9}(?:<[a-z]\w{0,40}>\s{0,9}){0,4}<loc_?\d")
_MOST_ALONE = 10  # tags without a partner that are looked at
_WORD = lazy_pattern(r"[^\W\d_]{2,}|[\u3400-\u9fff]")


class Marker(NamedTuple):
    """A tag or token: its name, +1 where it opens a part, -1 if it closes one, 0 if that is
    unclear, its place.
    """

    name: str
    side: int
    start: int
    end: int


def spoken(reply: str) -> list[str]:
    """Return the parts of a reply said to the one who asked. Raises UnreadableReply for an
    unfinished thought.
    """
    text = _bare_channels(_messages(reply))
    parts = [_without_unknown(part) for part in _without_thinking(_turn_in_words(text))]
    parts = [part for part in parts if part.strip()]
    if not parts:
        raise UnreadableReply("the reply ends before the thinking does")
    return parts


def may_answer(text: str) -> bool:
    """Whether a text has anything that could be an answer: numbers, an empty list,
    words for none.
    """
    return bool(_MAY_ANSWER.search(text)) or says_none(text)


def markers(text: str) -> list[Marker]:
    """Return the tags and tokens of a text that could open or close a part of it."""
    found = []
    for match in _MARKER.finditer(text):
        name = (match["name"] or match["moon"] or match["square"]).lower().replace("▁", "_")
        slash = match["slash"] or match["moon_slash"] or match["square_slash"]
        bars = bool(match["bar"]), bool(match["bar_behind"])
        opens, closes = _OPENS.fullmatch(name), _CLOSES.fullmatch(name)
        side = 1
        if name in _CLOSING_NAMES:
            name, side = _CLOSING_NAMES[name], -1
        elif slash or bars == (False, True):
            side = -1
        elif closes:
            name, side = closes[1] or closes[2], -1
        elif opens:
            name = opens[1] or opens[2]
        elif all(bars):
            side = 0
        found.append(Marker(name, side, match.start(), match.end()))
    return found


def _messages(text: str) -> str:
    """Return the last message of the first turn that answers, in any chat template; a text without
    headers as it is.
    """
    headers = [
        Marker(match[match.lastindex or 0], 0, *match.span()) for match in _HEADER.finditer(text)
    ]
    if not headers:
        return _before_end(text)
    said: list[str] = []
    side = False
    for who, part in _cut_at(headers, text):
        role, answers = _role(who)
        content = _before_end(part)
        if role in _ASKING and (said or side):
            break
        if role in _ASKING or not content.strip():
            continue
        if answers:
            said.append(content)
        side = side or not answers
    if not said:
        raise UnreadableReply(
            "the reply ends before the thinking does" if side else "the reply is empty"
        )
    return said[-1]


def _cut_at(borders: list[Marker], text: str) -> list[tuple[str, str]]:
    """Return the parts of a text between borders, each with the name of the border before it, the
    first with none.
    """
    names = ["", *(border.name for border in borders)]
    starts, ends = (
        [0, *(border.end for border in borders)],
        [*(border.start for border in borders), len(text)],
    )
    return [(name, text[start:end]) for name, start, end in zip(names, starts, ends, strict=True)]


def _role(header: str) -> tuple[str, bool]:
    """Return whose a message is, and whether it is an answer: to the user, or a call of a tool."""
    header = header.lower()
    to = re.search(r"to=([\w.:-]+)", header)
    words = re.findall(r"[\w.:-]+", re.sub(r"to=[\w.:-]+|<\|constrain\|>[^<]*", " ", header))
    words = [word for word in words if word not in ("channel", "recipient", "message", "constrain")]
    role = words[0] if words else ""
    if to is not None and to[1] not in ("user", "assistant"):
        return role, to[1].startswith(("functions", "tool", "function"))
    return role, role in _ANSWERING and all(word in _ANSWERING for word in words)


def _before_end(text: str) -> str:
    """Return what comes before the first token that ends a message, or, if that is empty, what
    follows it.
    """
    pieces = _END.split(text, maxsplit=50)
    return next((piece for piece in pieces if may_answer(piece)), "") or next(
        filter(str.strip, pieces), ""
    )


def _bare_channels(text: str) -> str:
    if _BARE_SIDE.match(text.lstrip()) is None:
        return text
    final = list(_BARE_FINAL.finditer(text))
    if not final:
        raise UnreadableReply("the reply ends before the thinking does")
    return text[final[-1].end() :]


def _turn_in_words(text: str) -> str:
    """Return a text without "Assistant:" before it, an echo of the question above it, and a next
    turn below it.
    """
    roles = [
        Marker((match[1] or match[2]).lower(), 0, *match.span())
        for match in _ROLE_LINE.finditer(text)
    ]
    names = [role.name for role in roles]
    if "assistant" not in names:
        return text
    first = names.index("assistant")
    before = text[: roles[first].start]
    if first and not text[: roles[0].start].strip():
        before = ""  # the question
    if may_answer(before):
        return before
    following = [role.start for role in roles[first + 1 :] if role.name != "assistant"]
    end = following[0] if following and names.count("assistant") > 1 else len(text)
    return text[roles[first].end : end]


def _without_thinking(text: str) -> list[str]:
    """Return what is outside parts that are thinking by their names: after the first of them, or
    else before it.
    """
    outside: list[str] = []
    stack: list[str] = []
    at = 0
    for marker in markers(text):
        if not _THINKING.search(marker.name) or marker.side == 0:
            continue
        if marker.side > 0:
            if not stack:
                outside.append(text[at : marker.start])
            stack.append(marker.name)
        elif not stack:
            outside, at = [""], marker.end  # its beginning stands in the prompt
        elif marker.name in stack:
            del stack[stack.index(marker.name) :]
            at = marker.end if not stack else at
    if not stack:
        outside.append(text[at:])
    behind = [part for part in outside[1:] if may_answer(part)]
    return behind or (outside[:1] if outside[0].strip() else outside)


def _without_unknown(text: str) -> str:
    """Return a text without parts of any name that talk, where what is left of it may be the
    answer.
    """
    text = _without_channels(text)
    left, at, alone = [""], 0, 0
    closing: set[int] = set()  # where tags stand that close a part which is kept
    for marker, end in _unknown_parts(text):
        if marker.start < at or marker.start in closing:
            continue
        if end is not None:
            if _LOCATED.match(text, marker.end):
                closing.add(end.start)
            elif _is_prose(text[marker.end : end.start]):
                left.append(text[at : marker.start])
                at = end.end
        elif alone < _MOST_ALONE:
            alone += 1
            before = " ".join([*left, text[at : marker.start]])
            if marker.side < 0 and _is_prose(before) and may_answer(before):
                # its beginning stands in the prompt
                left, at = [""], marker.end
            elif marker.side > 0 and not may_answer(before) and _is_prose(text[marker.end :]):
                raise UnreadableReply(
                    f"the reply ends inside <{marker.name}>, which may be thinking"
                )
    rest = " ".join([*left, text[at:]])
    return _ANSWER_TOKEN.sub(" ", rest if may_answer(rest) else text)


def _unknown_parts(text: str) -> list[tuple[Marker, Marker | None]]:
    """Return tags that are neither layout nor an answer's; one that opens a part with the next that
    closes it.
    """
    found = [marker for marker in markers(text) if marker.side and text[marker.start] == "<"]
    found = [
        marker
        for marker in found
        if not _LAYOUT.fullmatch(marker.name) and not _ANSWER.fullmatch(marker.name)
    ]
    parts: list[tuple[Marker, Marker | None]] = []
    ends: dict[str, Marker] = {}
    for marker in reversed(found):
        parts.append((marker, ends.get(marker.name) if marker.side > 0 else None))
        if marker.side < 0:
            ends[marker.name] = marker
    return parts[::-1]


def _without_channels(text: str) -> str:
    """Return a text without what is between unpaired tokens such as <|x|>, where that
    only talks.
    """
    borders = [
        marker for marker in markers(text) if not marker.side and not _LAYOUT.fullmatch(marker.name)
    ]
    if not borders:
        return text
    parts = _cut_at(borders, text)
    answers = [
        part for name, part in parts if name and _ANSWER.fullmatch(name) and may_answer(part)
    ]
    if answers:
        return answers[-1]
    kept = [part for name, part in parts if not _THINKING.search(name)]
    terse = [part for part in kept if not _is_prose(part)]
    return "\n".join(terse if any(map(may_answer, terse)) else kept)


def _is_prose(text: str) -> bool:
    """Whether a text talks, and is not a list of labels and boxes."""
    talk = _BRACKETS.sub(" ", text[:20_000])
    return len(_WORD.findall(talk)) >= 3 and _TALKING.search(talk) is not None
