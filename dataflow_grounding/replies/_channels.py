"""The parts of a reply that are for the user: without other turns, channels and thinking.

Providers name these in ever new ways, so they go by rule: a part opened and closed before the
answer isn't the answer.
"""

import re
from typing import NamedTuple

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._absence import says_none
from dataflow_grounding.replies.vocabulary import pattern, words

_HEADER = pattern("header")  # of a message: "<|im_start|>assistant"; one group matches, the name
_END = pattern("end")  # a token that ends a message: "<|im_end|>"
# Templates whose special tokens were left out of the text: "analysisI see … assistantfinal[…]".
_BARE_SIDE = lazy_pattern(r"(?:assistant)?(?:analysis(?=[A-Z])| ?to=(?!user\b)\w)")
_BARE_FINAL = lazy_pattern(r"assistant\s*(?:final|to=user)(?:\s?(?:json|code))?\s*")
# The beginning of a turn without tokens: "User:", "**Assistant**:". One group matches, the name.
_ROLE_LINE = lazy_pattern(
    r"(?:^|\n)[ \t]*(?:\*\*)?((?i:user|human|assistant))(?:\*\*)?["
    r" \t]*[:：](?:\*\*)?|(?:^|\s)(USER|ASSISTANT):"
)
_ASKING = words("asking")  # roles that ask: "user", "system"
_ANSWERING = words("answering") | {""}  # words of headers of answers: "assistant", "final"

# Tags and tokens that may open or close a part: <x> </x> <|x|> <|/x|> <|x> <x|> ◁x▷ ◁/x▷ [X] [/X].
_MARKER = lazy_pattern(
    r"<(?P<bar>[|｜]?)(?P<slash>/?)(?P<name>[A-Za-z][\w:.▁-]{0,40})(?:\s[^<>]{0,200})?(?P<bar_behind>[|｜]?)>"
    r"|◁(?P<moon_slash>/?)(?P<moon>\w{1,40})▷|\[(?P<square_slash>/?)(?P<square>[A-Z][A-Z_]{2,30})\]"
)
# Names that say which side a token is; the group is the part's name: "begin_of_thought".
_OPENS = lazy_pattern(r"(?:begin_of_|start_of_|begin_|start_)(.+)|(.+)_(?:start|begin)")
_CLOSES = lazy_pattern(r"(?:end_of_|end_|stop_)(.+)|(.+)_(?:end|stop)")
# Names of parts: thoughts, "think"; the answer, "final"; what belongs to an answer's layout, "box".
_THINKING = pattern("thinking")
_ANSWER = pattern("answer")
_LAYOUT = pattern("layout")
_TALKING = pattern("talking")  # a word of one who talks: "is", "maybe"
_CLOSING_NAMES = {"unused95": "unused94"}  # name that closes → that of its part: MedGemma's
_ANSWER_TOKEN = lazy_pattern(
    r"<\|(?:(?:begin|start|end)_(?:of_)?)?(?:answer|response|solution|output)\|>", re.IGNORECASE
)
_MAY_ANSWER = lazy_pattern(r"\d|\[\s*\]|\{\s*\}|\bnull\b|\bnone\b", re.IGNORECASE)
_BRACKETS = lazy_pattern(r"[\[({][^\[\](){}]{0,400}[\])}]")
# An element of a document, which may have any text:
# <list_item><loc_66><loc_47><loc_431><loc_77>What you need is …
_LOCATED = lazy_pattern(r"\s{0,9}(?:<[a-z]\w{0,40}>\s{0,9}){0,4}<loc_?\d")
_MOST_ALONE = 10  # tags without a partner that are looked at
_MOST_PIECES = 50  # that end tokens cut a text into
_LONGEST_PROSE = 20_000  # characters that tell whether a text is prose
_FEWEST_WORDS = 3  # of prose
_WORD = lazy_pattern(r"[^\W\d_]{2,}|[\u3400-\u9fff]")


class Marker(NamedTuple):
    """A tag or token that may open or close a part of a text.

    Attributes:
        name: The name of the part, in lower case and without "end_of_" and its like; of a border
            between messages, whose message it begins.
        side: +1 where it opens a part, -1 where it closes one, 0 where that is unclear.
        start: Where it begins in the text.
        end: Where it ends.
    """

    name: str
    side: int
    start: int
    end: int


def parts_for_user(reply: str) -> list[str]:
    """Return the parts of a reply that are for the user who asked.

    These are several where thoughts stand between them; none is blank.

    Raises:
        UnreadableReply: The reply is empty, or ends in the middle of a thought.
    """
    text = _final_of_bare_channels(_last_message(reply))
    parts: list[str] = []
    for part in _without_thinking(_turn_of_assistant(text)):
        answer = _without_unknown_parts(part)
        if answer.strip():
            parts.append(answer)
    if not parts:
        raise UnreadableReply("the reply ends before the thinking does")
    return parts


def may_answer(text: str) -> bool:
    """Whether a text has anything that could be an answer.

    That is a number, an empty list, or words for none.
    """
    return bool(_MAY_ANSWER.search(text)) or says_none(text)


def markers(text: str) -> list[Marker]:
    """Return the tags and tokens of a text that could open or close a part of it."""
    return [_marker_of(match) for match in _MARKER.finditer(text)]


def _marker_of(match: re.Match[str]) -> Marker:
    """Return the marker of a match of _MARKER.

    A slash, or a bar at its end alone, says that it closes a part; else its name says the side. A
    token with bars at both ends and no such name has none; anything else opens a part.
    """
    name = (match["name"] or match["moon"] or match["square"]).lower().replace("▁", "_")
    slash = match["slash"] or match["moon_slash"] or match["square_slash"]
    bar_ahead = bool(match["bar"])
    bar_behind = bool(match["bar_behind"])
    opens = _OPENS.fullmatch(name)
    closes = _CLOSES.fullmatch(name)
    side = 1
    if name in _CLOSING_NAMES:
        name = _CLOSING_NAMES[name]
        side = -1
    elif slash or (bar_behind and not bar_ahead):
        side = -1
    elif closes:
        name = closes[1] or closes[2]
        side = -1
    elif opens:
        name = opens[1] or opens[2]
    elif bar_ahead and bar_behind:
        side = 0
    return Marker(name, side, match.start(), match.end())


def _last_message(text: str) -> str:
    """Return the last message of the first turn that answers, in any chat template.

    That turn ends where the next one asks. Of a text without headers, the piece that is its message
    is returned.

    Raises:
        UnreadableReply: No message answers, or all are empty.
    """
    headers: list[Marker] = []
    for match in _HEADER.finditer(text):
        name = match[match.lastindex or 0]
        headers.append(Marker(name, 0, match.start(), match.end()))
    if not headers:
        return _first_piece(text)
    answer: str | None = None
    has_other_messages = False  # such as thoughts
    for header, part in _split_at(headers, text):
        role, answers = _role_of_header(header)
        if role in _ASKING:
            if answer is not None or has_other_messages:
                break  # the next turn
            continue
        content = _first_piece(part)
        if not content.strip():
            continue
        if answers:
            answer = content
        else:
            has_other_messages = True
    if answer is not None:
        return answer
    if has_other_messages:
        raise UnreadableReply("the reply ends before the thinking does")
    raise UnreadableReply("the reply is empty")


def _split_at(borders: list[Marker], text: str) -> list[tuple[str, str]]:
    """Return the parts of a text between borders, each as (name of the border before it, part).

    The name of the first part, before any border, is "".
    """
    parts: list[tuple[str, str]] = []
    name = ""
    start = 0
    for border in borders:
        parts.append((name, text[start : border.start]))
        name = border.name
        start = border.end
    parts.append((name, text[start:]))
    return parts


def _role_of_header(header: str) -> tuple[str, bool]:
    """Return whose message a header begins, "" where it doesn't say, and whether it is an answer.

    An answer is a message to the user in an answering channel, or a call of a tool, which goes to
    `functions.NAME` or `tool.NAME`: "assistant<|channel|>final" is an answer, "assistant to=python"
    and "analysis" are none.
    """
    header = header.lower()
    recipient = re.search(r"to=([\w.:-]+)", header)
    without_recipient = re.sub(r"to=[\w.:-]+|<\|constrain\|>[^<]*", " ", header)
    names: list[str] = []
    for word in re.findall(r"[\w.:-]+", without_recipient):
        if word not in ("channel", "recipient", "message", "constrain"):
            names.append(word)
    role = names[0] if names else ""
    if recipient is not None and recipient[1] not in ("user", "assistant"):
        return role, recipient[1].startswith(("function", "tool"))
    return role, role in _ANSWERING and _ANSWERING.issuperset(names)


def _first_piece(text: str) -> str:
    """Return the piece of a text that is its message; tokens that end messages part the pieces.

    It is the first piece that may answer, or else the first that isn't blank; "" where all are.
    """
    pieces = _END.split(text, maxsplit=_MOST_PIECES)
    for piece in pieces:
        if may_answer(piece):
            return piece
    for piece in pieces:
        if piece.strip():
            return piece
    return ""


def _final_of_bare_channels(text: str) -> str:
    """Return the last final channel of a text whose headers have lost their special tokens.

    Such a text begins with another channel: "analysisI see … assistantfinal[…]". Any other text is
    returned as it is.

    Raises:
        UnreadableReply: There are other channels, and no final one.
    """
    if _BARE_SIDE.match(text.lstrip()) is None:
        return text
    final = list(_BARE_FINAL.finditer(text))
    if not final:
        raise UnreadableReply("the reply ends before the thinking does")
    return text[final[-1].end() :]


def _turn_of_assistant(text: str) -> str:
    """Return the turn behind "Assistant:", without the echoed question and further turns.

    Where an answer stands before it, that is returned. A text without such a turn is returned as it
    is.
    """
    roles: list[Marker] = []
    for match in _ROLE_LINE.finditer(text):
        name = (match[1] or match[2]).lower()
        roles.append(Marker(name, 0, match.start(), match.end()))
    names = [role.name for role in roles]
    if "assistant" not in names:
        return text
    first = names.index("assistant")
    before = text[: roles[first].start]
    # A text that begins with "User:" echoes the question before the answer.
    begins_with_question = first > 0 and not text[: roles[0].start].strip()
    if not begins_with_question and may_answer(before):
        return before
    # With several turns of the assistant the text goes on into a conversation, which is left out.
    # With one, a line such as "User:" behind it counts as the answer's own.
    end = len(text)
    if names.count("assistant") > 1:
        for role in roles[first + 1 :]:
            if role.name != "assistant":
                end = role.start
                break
    return text[roles[first].end : end]


def _without_thinking(text: str) -> list[str]:
    """Return the parts of a text that are outside of thinking.

    These are the parts behind thoughts that may answer; else the part before the first thought; if
    that is blank, all parts.
    """
    outside: list[str] = []
    open_parts: list[str] = []  # names of the thoughts that the marker is inside of
    at = 0  # where the text outside of thoughts goes on
    for marker in markers(text):
        if not _THINKING.search(marker.name) or marker.side == 0:
            continue
        if marker.side > 0:
            if not open_parts:
                outside.append(text[at : marker.start])
            open_parts.append(marker.name)
        elif not open_parts:
            # The thought that closes here was opened in the prompt: all before it was thought.
            outside = [""]
            at = marker.end
        elif marker.name in open_parts:
            del open_parts[open_parts.index(marker.name) :]
            if not open_parts:
                at = marker.end
    if not open_parts:
        outside.append(text[at:])
    answers = [part for part in outside[1:] if may_answer(part)]
    if answers:
        return answers
    if outside[0].strip():
        return [outside[0]]
    return outside


def _without_unknown_parts(text: str) -> str:
    """Return a text without parts in tags of unknown names that are prose, so likely thoughts.

    Where what is left can't be an answer, the text is returned whole.

    Raises:
        UnreadableReply: The text ends inside of such a part.
    """
    text = _without_channels(text)
    remover = _PartRemover(text)
    lone_count = 0
    for tag, closing in _unknown_parts(text):
        if remover.has_passed(tag):
            continue
        if closing is not None:
            remover.pass_part(tag, closing)
        elif lone_count < _MOST_ALONE:
            lone_count += 1
            remover.pass_lone_tag(tag)
    rest = remover.rest()
    return _ANSWER_TOKEN.sub(" ", rest if may_answer(rest) else text)


class _PartRemover:
    """Goes through the unknown tags of a text, and leaves out the parts that are likely thoughts.

    Attributes:
        text: The text.
        at: The index up to which the text was kept or left out.
        kept_parts: What was kept up to there.
        closing_kept: The indices of tags that close parts which are kept.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.kept_parts = [""]
        self.closing_kept: set[int] = set()

    def has_passed(self, tag: Marker) -> bool:
        """Whether a tag is in a part that was left out, or closes one that is kept."""
        return tag.start < self.at or tag.start in self.closing_kept

    def pass_part(self, opening: Marker, closing: Marker) -> None:
        """Leave out the part between two tags if it is prose.

        A document's element stays: its text stands behind its box.
        """
        if _LOCATED.match(self.text, opening.end):
            self.closing_kept.add(closing.start)
        elif _is_prose(self.text[opening.end : closing.start]):
            self.kept_parts.append(self.text[self.at : opening.start])
            self.at = closing.end

    def pass_lone_tag(self, tag: Marker) -> None:
        """Leave out all before a tag without a partner if it closes a thought.

        That is prose which might be taken for an answer; the prompt has opened it.

        Raises:
            UnreadableReply: The tag opens prose, and nothing before it can be an answer.
        """
        before = " ".join([*self.kept_parts, self.text[self.at : tag.start]])
        if tag.side < 0 and _is_prose(before) and may_answer(before):
            self.kept_parts = [""]
            self.at = tag.end
        elif tag.side > 0 and not may_answer(before) and _is_prose(self.text[tag.end :]):
            raise UnreadableReply(f"the reply ends inside <{tag.name}>, which may be thinking")

    def rest(self) -> str:
        """Return all of the text that wasn't left out."""
        return " ".join([*self.kept_parts, self.text[self.at :]])


def _unknown_parts(text: str) -> list[tuple[Marker, Marker | None]]:
    """Return the tags of a text, in order, that are neither layout nor an answer's.

    Each tag that opens a part comes with the next one that closes a part of its name; with None
    where there is none. A tag that closes a part comes with None, too.
    """
    unknown: list[Marker] = []
    for marker in markers(text):
        if not marker.side or text[marker.start] != "<":
            continue
        if not _LAYOUT.fullmatch(marker.name) and not _ANSWER.fullmatch(marker.name):
            unknown.append(marker)
    parts: list[tuple[Marker, Marker | None]] = []
    next_closing: dict[str, Marker] = {}
    for marker in reversed(unknown):
        if marker.side > 0:
            parts.append((marker, next_closing.get(marker.name)))
        else:
            parts.append((marker, None))
            next_closing[marker.name] = marker
    parts.reverse()
    return parts


def _without_channels(text: str) -> str:
    """Return a text without the parts behind tokens such as <|x|> that think or are prose.

    Such tokens have no partner that closes them. The last part behind an answer's token that may
    answer is returned alone. Prose is kept where nothing else may answer. A text without such
    tokens is returned as it is.
    """
    borders: list[Marker] = []
    for marker in markers(text):
        if marker.side == 0 and not _LAYOUT.fullmatch(marker.name):
            borders.append(marker)
    if not borders:
        return text
    answer: str | None = None
    kept_parts: list[str] = []
    for name, part in _split_at(borders, text):
        if name and _ANSWER.fullmatch(name) and may_answer(part):
            answer = part
        if not _THINKING.search(name):
            kept_parts.append(part)
    if answer is not None:
        return answer
    without_prose = [part for part in kept_parts if not _is_prose(part)]
    if any(may_answer(part) for part in without_prose):
        return "\n".join(without_prose)
    return "\n".join(kept_parts)


def _is_prose(text: str) -> bool:
    """Whether a text is sentences, and not a list of labels and boxes."""
    talk = _BRACKETS.sub(" ", text[:_LONGEST_PROSE])
    return len(_WORD.findall(talk)) >= _FEWEST_WORDS and _TALKING.search(talk) is not None
