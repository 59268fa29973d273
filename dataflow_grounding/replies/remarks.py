"""Words, keys and labels next to an addressed answer: harmful, harmless, or worth a remark.

An answer is addressed if every box names a phrase that was asked for, by its id or its label. What
models say around it is endless, so what does harm is listed, in remarks.yaml. What isn't listed,
and isn't harmless by the rules of words.py, is kept in the reading as a remark.

A thing is what a box is of: a phrase or a label. Its head is the noun that says what it is, as
"cup" in "the red cup on the shelf" (data/heads.py).
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from dataflow_grounding._util.lazy import lazy_pattern, load_table
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.heads import ends_phrase, head_of
from dataflow_grounding.data.nouns import singular
from dataflow_grounding.replies.words import (
    folded,
    is_neutral,
    neutral_parts,
    turning_word,
    words_of,
)

LONGEST_REMARK = 200  # characters that are kept
_LONGEST_LABEL = 400  # characters of a label that are compared
_LONGEST_WORDS = 20_000  # characters that are judged: a model that thinks aloud writes thousands
_THING = "thething"  # for a phrase that has a box, in any of its spellings
_BOXED = "theboxed"  # the same where _THING is a phrase without a box
_UNSEEN = lazy_pattern(r"[\u00ad\u200b-\u200f\u2060\ufeff]")
_FOUR_NUMBERS = lazy_pattern(r"(?<![\d.])(?:[-+]?\d+(?:\.\d+)?\s*[,;\s]\s*){3}[-+]?\d+")
# Braces, a bracket that is alone, or a comma at the beginning: a piece of a further list.
_PIECE = lazy_pattern(r"[{}]|\[[^\]]*\Z|\A[^\[]*\]|\A\s*,")
_QUOTED = lazy_pattern(r'"[^"\n]{0,200}"|“[^”\n]{0,200}”|「[^」\n]{0,200}」')
# Within a sentence it takes nothing back: "Region 2 actually shows a van."
_ACTUALLY_WITHIN = lazy_pattern(r"(?<=[\w'’] )actually\b")
# "There are no mistakes", "none of them is wrong", "not incorrect"
_NOTHING_WRONG = lazy_pattern(
    r"\b(?:no|none|nothing|neither|nor|without|any(?:thing)?)\b.*|\bnot (?:\w+ )?(?:be |been )?"
    r"(?:wrong\w*|incorrect\w*|mis\w+|swapped|reversed|confus\w+|mix(?:ed)? up|correct\w+)\b"
)
# A task that cleans captions is told of by "I corrected a typo" and "the corrected caption".
_TEXT_CORRECTED = lazy_pattern(
    r"\bcorrect(?:ed|ing|ions?)\b(?=(?: of)? (?:\w+ ){0,4}"
    r"(?:captions?|typos?|spellings?|misspell\w*|punctuation|grammar|capitali[sz]\w+)\b)"
)
# Before an answer, what was corrected is the answer: "Here is the corrected JSON:".
_ANSWER_CORRECTED = lazy_pattern(
    r"\bcorrected (?:\w+ ){0,2}"
    r"(?:json|box(?:es)?|answers?|response|output|coordinates|version|list|results?)\b"
)
_NOT_DONE = lazy_pattern(
    r"\bnot (?:been )?"
    r"(?:padded|cropped|turned|rotated|(?:re|down|up)?scaled|resized|flipped|mirrored)\b"
)
_SENTENCES = lazy_pattern(r"(?<=[.!?。！？\n])(?=\s)")  # with their ends
_SENTENCE = lazy_pattern(r"(?<!\d)\.|\.(?!\d)|[!?。！？；;\n]+")
_CLAUSE = lazy_pattern(r"[,:，、：—]|\s-\s|\b(?:so|but|because|and|while|although|since|which)\b")
_WORD = lazy_pattern(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+(?:\.\d+)?%?|%")
_SIZE = lazy_pattern(r"(?<!\d)(\d{2,5}) ?(?:[x×*]|by) ?(\d{2,5})(?!\d)")
_ORDER_NAME = lazy_pattern(r"\b(xyxy|yxyx|xywh|cxcywh|ltrb|tlbr|ltwh|voc|coco|yolo)\b")
_ORDERS_NAMED = {
    "ltrb": "xyxy",
    "voc": "xyxy",
    "tlbr": "yxyx",
    "ltwh": "xywh",
    "coco": "xywh",
    "yolo": "cxcywh",
}
_HEIGHTS = ("height", "h", "höhe", "hauteur", "alto", "高")
_EDGE = (
    r"left|top|right|bottom|links|oben|rechts|unten|gauche|haut|droite|bas"
    r"|izquierda|arriba|derecha|abajo|esquerda|direita|sinistra|destra|左|上|右|下"
)
# The name of one of a box's four numbers: x, x1, x_min, cx, center_x, width, left.
_AXIS = (
    r"(?:(?P<middle>c|center_|centre_)?(?P<axis>[xy])"
    r"(?:[_ ]?(?P<which>min|max|[0-2]|c|center|centre))?"
    r"|(?P<side>width|height|w|h|breite|höhe|largeur|hauteur|ancho|alto|宽|高|幅)"
    rf"|(?P<edge>{_EDGE}))"
)
_EDGES = {
    "l": "left links gauche izquierda esquerda sinistra 左",
    "t": "top oben haut arriba 上",
    "r": "right rechts droite derecha direita destra 右",
    "b": "bottom unten bas abajo 下",
}
_LETTERS = {name: letter for letter, names in _EDGES.items() for name in names.split()}
_NAME = lazy_pattern(_AXIS, re.IGNORECASE)
_UNNAMED = re.sub(r"\?P<\w+>", "?:", _AXIS)
_NAMES = lazy_pattern(
    rf"(?:(?<!\w)|(?=[左上右下])){_UNNAMED}"
    rf"(?:[\s,、，/|)(\]\[]+(?:(?:and|und|et|y) )?{_UNNAMED}(?:(?!\w)|(?<=[左上右下]))){{1,3}}",
    re.IGNORECASE,
)
_TEMPLATES = {
    "xyxy": ("ltrb", "xyxy"),
    "yxyx": ("tlbr", "yxyx"),
    "xywh": ("ltwh", "xywh"),
    "cxcywh": ("XYwh",),
}
"""What the names of numbers in an order come to, by `_letter_of`: a letter for each number.

"l", "t", "r" and "b" are edges, "x" and "y" coordinates of either edge, "w" and "h" sides, and "X"
and "Y" the middle.
"""
# Two corners, unless nothing is between them: "top left bottom right" may name four numbers.
_CORNER = lazy_pattern(
    r"\b(?:top|upper)[- ]left\b(?! (?:bottom|lower))"
    r"|(?<!left )\b(?:bottom|lower)[- ]right\b|左上角?|右下角?"
)
_JOINED = lazy_pattern(rf"\b(?:and|und|et|y) (?={_EDGE})", re.IGNORECASE)
_OTHER_CORNER = lazy_pattern(r"\b(?:(?:top|upper)[- ]right|(?:bottom|lower)[- ]left)\b|右上|左下")
_NO_THING = lazy_pattern(
    rf"\b(?:no|neither|not an?|not any|(?:not|not able to|unable to) (?:\w+ )?"
    rf"(?:see|find|detect|locate|identify|contain|show|include)(?: an?| the| any)?)"
    rf" {_THING}\b(?! ?['’]s\b)"
    rf"|\b(?:none|neither) of (?:the |these |those |them )?(?:\w+ )?"
    rf"(?:objects|things|items|phrases|{_THING})? ?"
    rf"(?:(?:is|are|was|were) (?:\w+ )?(?:present|visible|there|found|shown|in )"
    rf"|(?:appears?|exists?)(?: in\b|\W*\Z))"
)
_THING_IS_NOT = lazy_pattern(
    rf"^\W*(?:(?:and|so|but|note|that|however|unfortunately|since|because|i think|as|the)\W+)*"
    rf"{_THING} (?:\w+ ){{0,2}}?(?:(?:is|are|was|were|do|does|did|has|have|can|could|will) )?"
    rf"(?:\w+ly )?(?:(?:not|never)\b ?(?:be )?(?P<what>\w+)?"
    rf"|absent\b|missing\b|nowhere\b|invisible\b)"
)
# "id 2 is a spoon", "id 2: spoon"
_NAMED_BY_ID = lazy_pattern(
    r"\bid\W{0,2}(?P<id>\d+)(?: ?[:=] ?| (?:is|shows|was) (?=an?\b|the\b))(?P<what>[^\W\d][\w -]{0,60})"
)
# "It is a spoon", but not "It is the one on the left"
_NAMED_ALONE = lazy_pattern(
    r"\W*(?:it|this|that|the box|the object)(?:'s| is| was| shows)"
    r" (?:an?|the) (?!(?:one|only|same|best|main)\b)(?P<what>[^\W\d][\w -]{0,60})"
)
_COLOR_SAID = lazy_pattern(rf"{_THING} (?:is|are|was|looks|appears) (?:\w+ly )?(?P<what>[a-z]+)\b")
_NAMED_BY_NAME = lazy_pattern(
    rf"{_THING} (?:is|are|was|were) (?:\w+ly )?(?:an?|the) (?P<what>[^\W\d][\w -]{{0,60}})"
)
_ORDINALS = ("first", "second", "third", "fourth", "fifth")
# "Box 2 is a fox", "the second one shows a wolf"
_NUMBER = (
    rf"\b(?:(?:box|object|item|number|#) ?(?P<number>[1-9]\d?)"
    rf"|(?P<ordinal>{'|'.join(_ORDINALS)})(?: (?:one|box|object|item|animal|thing))?)"
)
_BY_NUMBER = lazy_pattern(_NUMBER)
_NAMED_BY_NUMBER = lazy_pattern(
    rf"{_NUMBER}"
    r" (?:is|shows|contains|marks|encloses) (?:really |actually )?(?:an?|the)"
    r" (?P<what>[^\W\d][\w -]{0,60})"
)
_VERB = "(?:is|are|was|were|can|could|does|did|has|not)"
# "Dog: not found", "dog ✗"
_STATUS_LINE = lazy_pattern(
    rf"{_THING} ?(?:[✗✘❌]|(?:[:：=|–—-]|→)+ ?(?:[✗✘❌×]|(?:absent|missing|none)\b|no\b(?! \d)"
    r"|not (?:found|present|visible|detected|there|in|seen)\b))"
)
_LISTED_ABSENT = lazy_pattern(
    r"\b(?:not (?:found|present|visible|detected|in the (?:image|picture|photo))|missing|absent)"
    rf" ?[:：][^.\n]*{_THING}"
)
_NUMBERED_ABSENT = lazy_pattern(
    r"\b(?:first|second|third|fourth|fifth|last"
    r"|(?:object|item|phrase|expression|box|number|#) ?\d+)"
    r" (?:(?:one|object|item|thing|phrase|expression|box) )?(?:(?:was|is|could|can) )?"
    r"(?:not|never) (?:be )?(?:found|visible|present|detected|located|seen|there)\b"
)
_NOTHING_THERE = lazy_pattern(
    r"\bthere (?:is|are) no (?:visible |such )?"
    r"(?:animals?|people|persons?|humans?|vehicles?|objects?)\b(?! (?:other|more|else))"
)
_ONLY_FOUND = lazy_pattern(
    r"\bonly (?:(?:see|find|found|detect(?:ed)?|located?|identif(?:y|ied)) )?(?:the |an? )?"
    rf"{_THING}\b(?P<rest>[^.\n]*)"
)
_FOUND_OF = lazy_pattern(
    r"\b(?:detected|found|located|identified|boxed)"
    r" (?P<found>\d) (?:out )?of (?:the )?(?P<all>\d)\b"
)
_SEEN = lazy_pattern(r"\b(?:found|visible|present|detected|see|find|located?|identif\w+)\b")
_DENIAL = lazy_pattern(r"(?:not|absent|missing|nowhere|invisible|never)\b", re.IGNORECASE)
_ASIDE = lazy_pattern(r"[(\[]([^)\]]*)")
_KEY_WORD = lazy_pattern(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
# "with y first", "y before x"; "izquierda y derecha" names no y
_FIRST_AXIS = lazy_pattern(
    r"\b([xy])(?:[- ]?(?:coordinates?|values?))?"
    r"(?: (?:comes? |is |are |given |listed )?first\b|[- ]first\b)"
    r"|\b([xy]) before [xy]\b",
    re.IGNORECASE,
)
_SPANISH_AND = lazy_pattern(r"\b(izquierda|derecha|arriba|abajo) y (?!\d)")
_CHINESE = lazy_pattern(r"[\u4e00-\u9fff]")  # also of Japanese
_ENDS_OF = {1000: (1000, 999), 999: (1000, 999), 1: (1,), 100: (100,), 1024: (1024, 1023)}


@dataclass(frozen=True)
class Asked:
    """What boxes were asked for, which words may say of them."""

    order: str
    scale: Any
    sizes: tuple[Size, ...]  # of the picture, as sent and as stored

    @classmethod
    def of(cls, box_format: BoxFormat, *sizes: Size) -> "Asked":
        return cls(box_format.order, box_format.scale, sizes)

    @property
    def numbers(self) -> frozenset[float]:
        """The numbers that may be said of the scale: where it ends, and the picture's sides."""
        ends = _ENDS_OF.get(self.scale, ())
        sides = [side for size in self.sizes for side in size]
        return frozenset([0, *ends, *sides])


@cache
def _table(name: str) -> Any:
    return load_table(__package__, "remarks.yaml")[name]


@cache
def _words(name: str) -> frozenset[str]:
    return frozenset(_table(name).split())


@cache
def _pattern(name: str) -> re.Pattern[str]:
    text = _table(name)
    if isinstance(text, list):
        return re.compile("|".join(text), re.IGNORECASE)
    # A pattern in several lines of YAML has a blank after each, which is no part of it.
    return re.compile(re.sub(r"\s*\|\s*", "|", text.strip()), re.IGNORECASE)


@cache
def _parts(*names: str) -> re.Pattern[str]:
    parts = [part for name in names for part in _table(name).split()] + list(neutral_parts())
    return re.compile("|".join(map(re.escape, sorted(parts, key=len, reverse=True))))


def harm_in(text: str, things: Sequence[str], asked: Asked, *, is_after: bool = True) -> str | None:
    """Return what in words next to an answer may make its boxes wrong, or None.

    That is a further answer, another order, unit, scale or picture than was asked for, invented
    numbers, something taken back, or a thing with a box denied. Words before an answer take back
    only what the model thought until then.
    """
    if len(text) > _LONGEST_WORDS:
        return f"more than {_LONGEST_WORDS:,} characters"
    # 1. A further answer?
    text = _UNSEEN.sub("", unicodedata.normalize("NFKC", text))
    further = _FOUR_NUMBERS.search(text) or _PIECE.search(text)
    if further is not None:
        return f"a further answer: {further[0]!r:.40}"
    # 2. Words that a table of remarks.yaml lists? "If I was wrong, tell me." takes nothing back.
    without_conditions = _pattern("condition").sub(" ", _things_marked(text, things))
    plain = with_whole_negations(without_conditions)
    tables_of_harm = ["invented", "taken_back", "other_frame"]
    if is_after:
        tables_of_harm.append("taken_back_after")
    for table in tables_of_harm:
        for sentence in _SENTENCES.split(plain):
            found = _pattern(table).search(_NOT_DONE.sub(" ", sentence))
            if found is None or (table == "taken_back" and _is_harmless(sentence, is_after)):
                continue
            return repr(found[0].strip())
    # 3. Another order, unit, scale or size of the picture? 4. A thing with a box denied?
    for sentence in _SENTENCE.split(plain):
        other = _other_coordinates(sentence, asked, highest_count=len(things))
        if other is not None:
            return f"{other!r} is said of coordinates"
    marked = _heads_marked(plain, things)
    absent = _absent_by_list(marked, things)
    if absent is not None:
        return f"a thing with a box is denied: {absent.replace(_THING, '…').strip()!r:.60}"
    for clause in _clauses(marked):
        takes_back = is_after and f"not {_THING}" in clause  # "This is a plate, not the cup."
        if takes_back or _denies_thing(clause, things):
            return f"a thing with a box is denied: {clause.replace(_THING, '…').strip()!r:.60}"
    return None


def _is_harmless(sentence: str, is_after: bool) -> bool:
    # Whether words that take something back say that nothing is wrong or, before an answer, that
    # it is the corrected one.
    sentence = _NOTHING_WRONG.sub(" ", sentence)
    if not is_after:
        sentence = _ANSWER_CORRECTED.sub(" ", sentence)
    return _pattern("taken_back").search(sentence) is None


def _absent_by_list(marked: str, things: Sequence[str]) -> str | None:
    # Where a thing with a box is said to be absent in a list, by its number, or by what was found.
    bare = re.sub(r"[ \t]+", " ", re.sub(r"[\"“”*_`]", " ", marked))
    for pattern in (_STATUS_LINE, _LISTED_ABSENT, _NUMBERED_ABSENT, _NOTHING_THERE):
        found = pattern.search(bare)
        if found is not None:
            return found[0]
    count = len({folded(thing) for thing in things})
    only = _ONLY_FOUND.search(bare)
    if only is not None and count > 1 and _SEEN.search(only[0]) and _THING not in only["rest"]:
        return only[0]
    fewer = _FOUND_OF.search(bare)
    if fewer is not None and int(fewer["found"]) < int(fewer["all"]) <= count:
        return fewer[0]
    without_quotes = _QUOTED.sub(" ", marked)  # a sign may say "No dogs"
    for head in {head_of(thing) for thing in things} - {""}:
        absent = re.search(
            rf"\bno {re.escape(head)}(?:e?s)?\b(?= ?(?:\Z|[.!\n,;]|(?:is|are|was|were|in|visible"
            r"|present|detected|found|anywhere|here)\b))",
            without_quotes,
        )
        if absent is not None:
            return absent[0]
    return None


def harm_without_boxes(text: str, *, is_after: bool, has_denial: bool = False) -> str | None:
    """Return what in words next to an answer without boxes may make it wrong, or None.

    That is a further answer, an invented one, or one that the model takes back after it. If the
    answer itself denies something (`has_denial`), "the second one is wrong" is about that, and only
    a slip of the model's own counts.
    """
    if len(text) > _LONGEST_WORDS:
        return f"more than {_LONGEST_WORDS:,} characters"
    text = _UNSEEN.sub("", unicodedata.normalize("NFKC", text))
    further = _PIECE.search(text)
    if further is not None:
        return f"a further answer: {further[0]!r:.40}"
    without_quotes = _QUOTED.sub(" ", text)  # 'a sign that says "My mistake"'
    plain = with_whole_negations(_pattern("condition").sub(" ", without_quotes))
    plain = _TEXT_CORRECTED.sub("", plain)
    tables_of_harm = ["invented", "unseen"]
    if is_after:
        tables_of_harm += ["own_slip", "taken_back_after"]
        plain = _ACTUALLY_WITHIN.sub("", plain)
    for table in tables_of_harm:
        found = _pattern(table).search(plain)
        if found is not None:
            return repr(found[0].strip())
    if not is_after or has_denial:
        return None
    for sentence in _SENTENCE.split(plain):
        found = _pattern("taken_back").search(_NOTHING_WRONG.sub(" ", sentence))
        if found is not None:
            return repr(found[0].strip())
    return None


def says_unseen(text: str) -> bool:
    """Whether a text says that the model didn't get to see the picture."""
    return _pattern("unseen").search(with_whole_negations(text)) is not None


def denies_thing(text: str, thing: str) -> bool:
    """Whether a text names a thing only to say that it isn't this one, or isn't there: "a spoon,
    not a fork" for "the fork".
    """
    marked = _heads_marked(_things_marked(with_whole_negations(text), [thing]), [thing])
    if marked.count(_THING) != 1:
        return False  # "the red cup, not the cup next to it"
    for clause in _clauses(marked):
        if f"not {_THING}" in clause or _denies_thing(clause, [thing]):
            return True
    return False


def left_out_in(
    text: str,
    missing: Mapping[int, str],
    things: Sequence[str],
    *,
    is_before: bool = False,
    is_thinking: bool = False,
) -> dict[int, str]:
    """Return the ids of phrases without a box that a text doesn't say to be absent, each with why.

    They are those that a sentence names without denying them, or all if it says that some were left
    out. `things` have a box. A list of all phrases before an answer repeats the question, and
    thinking names phrases to look for them.
    """
    unsure: dict[int, str] = {}
    sentences = _SENTENCE.split(unicodedata.normalize("NFKC", text))
    for sentence in dict.fromkeys(sentences):  # a model in a loop repeats itself
        plain = _things_marked(with_whole_negations(sentence), things)
        plain = _heads_marked(plain, things).replace(_THING, _BOXED)
        marked = _missing_marked(plain, list(missing.values()), things)
        clauses = list(_CLAUSE.split(marked))
        if any(map(_says_absent, clauses)):
            continue
        is_left_out = any(map(_says_left_out, clauses))
        named: list[int] = []
        if _THING in marked:
            for own_id, phrase in missing.items():
                if _THING in _missing_marked(plain, [phrase], things):
                    named.append(own_id)
        is_list = len(named) == len(missing) and _BOXED in marked
        is_alone = all(word in (_THING, _BOXED) or word.isdigit() for word in words_of(marked))
        is_question = is_thinking or (is_before and (is_list or is_alone))
        concerned = named or list(missing) * is_left_out
        if is_left_out or not is_question:
            said = " ".join(sentence.split())[:80]
            unsure |= dict.fromkeys(concerned, f"the reply says {said!r}")
    return unsure


def _missing_marked(text: str, phrases: Sequence[str], things: Sequence[str]) -> str:
    # "A fork" and "fork" become _THING where "the fork" is a phrase, unless another fork has a box.
    text = _things_marked(text, phrases)
    for head in {head_of(phrase) for phrase in phrases} - {head_of(thing) for thing in things}:
        if head:
            word = (
                rf"\b(?:(?:the|an?|any) )?{re.escape(head)}(?:e?s)?\b" if head.isascii() else head
            )
            text = re.sub(word, f" {_THING} ", text, flags=re.IGNORECASE)
    return re.sub(r"\s+", " ", text)


def _says_absent(clause: str) -> bool:
    if _pattern("no_denial").search(clause) is not None:
        return False  # "_THING is not clearly visible"
    return _pattern("absence").search(clause) is not None


def _says_left_out(clause: str) -> bool:
    if _pattern("cut_short").search(clause) is not None:
        return True
    # "The handle of the cup was left out of its box" leaves out no phrase.
    return _BOXED not in clause and _pattern("left_out").search(clause) is not None


def hedges_in(text: str, phrases: Mapping[int, str], missing: Mapping[int, str]) -> dict[int, str]:
    """Return the ids of phrases that a text isn't sure of, each with the words that say so."""
    doubts: dict[int, str] = {}
    if _pattern("hedged").search(text) is None:
        return doubts
    for sentence in _SENTENCE.split(unicodedata.normalize("NFKC", text)):
        found = _pattern("hedged").search(sentence)
        if found is None:
            continue
        texts = list(phrases.values())
        names_missing = _THING in _missing_marked(sentence, list(missing.values()), texts)
        for own_id, phrase in phrases.items():
            # With a single phrase, a sentence is about it also where it names none.
            is_named = _THING in _heads_marked(_things_marked(sentence, [phrase]), [phrase])
            is_named |= own_id in _numbered(sentence, phrases)
            if is_named or (len(phrases) == 1 and not names_missing):
                doubts[own_id] = f"the reply isn't sure of it: {found[0].strip()!r}"
    return doubts


def _numbered(sentence: str, phrases: Mapping[int, str]) -> list[int]:
    # The phrases of "the second box", "box 2" and "the boxes".
    if re.search(r"\bthe boxes\b", sentence, re.IGNORECASE):
        return list(phrases)
    return [
        own_id
        for found in _BY_NUMBER.finditer(sentence.casefold())
        for own_id in _at_number(found, phrases)
    ]


def _at_number(found: re.Match[str], phrases: Mapping[int, str]) -> list[int]:
    # The phrase of "box 2" or "the second one": boxes are in the phrases' order. [] for a number
    # beyond.
    number = found["number"] or _ORDINALS.index(found["ordinal"]) + 1
    return list(phrases)[int(number) - 1 : int(number)]


def other_names_in(text: str, phrases: Mapping[int, str]) -> dict[int, str]:
    """Return the ids of phrases that a text calls another thing, each with its words: "id 2 is a
    spoon" for a fork.
    """
    doubts: dict[int, str] = {}
    for sentence in _SENTENCE.split(unicodedata.normalize("NFKC", text).casefold()):
        for own_id, what in _names_in_sentence(sentence, phrases):
            tells_apart = all(is_neutral(word) or _tells_apart(word) for word in words_of(what))
            if not tells_apart and len(what.split()) <= 4 and not is_like(what, phrases[own_id]):
                doubts[own_id] = f"the model calls it {what[:60]!r}"
    return doubts


def _names_in_sentence(sentence: str, phrases: Mapping[int, str]) -> Iterator[tuple[int, str]]:
    # What a sentence calls a phrase's thing, with the phrase's id.
    by_id = _NAMED_BY_ID.search(sentence)
    if by_id is not None and int(by_id["id"]) in phrases:
        yield int(by_id["id"]), by_id["what"]
    by_number = _NAMED_BY_NUMBER.search(sentence)
    if by_number is not None:
        for own_id in _at_number(by_number, phrases):
            yield own_id, by_number["what"]
    alone = _NAMED_ALONE.fullmatch(sentence)
    if alone is not None and len(phrases) == 1:
        yield next(iter(phrases)), alone["what"]
    for own_id, phrase in phrases.items():
        by_name = _NAMED_BY_NAME.search(_heads_marked(_things_marked(sentence, [phrase]), [phrase]))
        color = _COLOR_SAID.search(_heads_marked(_things_marked(sentence, [phrase]), [phrase]))
        if color is not None and color["what"] in _kind("color"):
            said = f"{color['what']} {head_of(phrase)}"
            if _contradicts(said, phrase):
                yield own_id, said
        others = [other for other in phrases.values() if other != phrase]
        if by_name is None:
            continue
        what = by_name["what"]
        is_likeness = not _words("likeness").isdisjoint(words_of(what))
        if is_likeness or any(is_like(what, other) for other in others):
            yield own_id, what


def thought_against(text: str, phrases: Mapping[int, str]) -> dict[int, str]:
    """Return the ids of phrases with a box that a model's thinking denies in the last sentence that
    names them, or all if it invents its numbers.
    """
    plain = with_whole_negations(unicodedata.normalize("NFKC", text[:_LONGEST_WORDS]))
    if _pattern("invented").search(plain) is not None:
        return dict.fromkeys(phrases, "the model's thinking says that it is invented")
    doubts: dict[int, str] = {}
    for own_id, phrase in phrases.items():
        marked = _heads_marked(_things_marked(plain, [phrase]), [phrase])
        about = [sentence for sentence in _SENTENCE.split(marked) if _THING in sentence]
        last = about[-1] if about else ""
        if any(_denies_thing(clause, [phrase]) for clause in _CLAUSE.split(last)):
            doubts[own_id] = "the model's thinking says that it isn't there"
    return doubts


def describes_another(text: str, phrase: str) -> bool:
    """Whether a description has no word of its phrase: "A steel spoon on a napkin" for a fork."""
    words = words_of(text)
    if not words or words[0] not in ("a", "an", "the") or len(words) < 4:
        return False  # no noun with its article, or a kind of things
    said = {word for word in words if not is_neutral(word) and not ends_phrase(word, "")}
    names_thing = not all(map(_tells_apart, said))  # "the one on the left" names none
    is_english = text.isascii() and phrase.isascii()
    return names_thing and is_english and said.isdisjoint(words_of(phrase))


def denials_in(text: str, phrases: Mapping[int, str]) -> dict[int, str]:
    """Return the phrases of which a text may say in another language that one isn't there."""
    for sentence in _SENTENCE.split(with_whole_negations(unicodedata.normalize("NFKC", text))):
        denial = _pattern("denied_abroad").search(sentence)
        if denial is not None and _pattern("denies_others").search(sentence) is None:
            return dict.fromkeys(phrases, f"the reply says {' '.join(sentence.split())[:80]!r}")
    return {}


def with_its_thing(text: str, phrase: str) -> str:
    """Return a text in an item as a sentence: "not in the picture" says so of the item's phrase."""
    return f"{phrase} {text}" if _DENIAL.match(text.strip()) else text


def is_plain(text: str, things: Sequence[str], *, is_of_one: bool) -> bool:
    """Whether a text isn't worth a remark.

    It is plain if each of its words is neutral or is in the name of a thing. If it is of one box, a
    text of more than three words is plain if none of them can turn an answer round.
    """
    words = words_of(text)
    if is_of_one and len(text.split()) > 3:
        has_odd_word = not _words("odd").isdisjoint(words)  # "similar", "supposed"
        return not has_odd_word and turning_word(text, " ".join(things)) is None
    words_of_things = {word for thing in things for word in words_of(thing)}
    return all(is_neutral(word) or word in words_of_things for word in words)


def denies(label: str, phrase: str) -> bool:
    """Whether a label says that its box isn't of the phrase, or is none: "not a cup", "<label>"."""
    is_placeholder = label.startswith("<") and label.endswith(">")  # "<label>"
    is_question = "?" in label and "?" not in phrase
    if is_placeholder or is_question:
        return True
    label_words = set(with_whole_negations(folded(label)).split())
    phrase_words = set(with_whole_negations(folded(phrase)).split())
    denying_words = label_words & _words("denying")
    return not denying_words.issubset(phrase_words)


def is_like(label: str, phrase: str) -> bool:
    """Whether a label names the phrase's thing: the same head, and nothing that contradicts it."""
    if len(label) > _LONGEST_LABEL:
        return False
    label = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)  # pottedPlant
    phrase_has_number = re.search(r"\d", phrase) is not None
    head = head_of(_bare(label, keeps_number=phrase_has_number))
    if head != head_of(_bare(phrase, keeps_number=True)) or _contradicts(label, phrase):
        return False
    aside = _ASIDE.search(label)
    if aside is not None and not all(map(_tells_apart, words_of(aside[1]))):
        return False  # "dog (reflection)"; "dog (left)" only tells it from other dogs
    # Such words in a label say that its box is invented, or in another picture or scale.
    return not any(_pattern(name).search(label) for name in ("invented", "other_frame"))


def key_words(key: str) -> list[str]:
    """Return a key's words in lower case: two of `imageWidth` and of `image_width`."""
    return [word.lower() for word in _KEY_WORD.findall(key)]


def key_changes(key: str, value: Any = None) -> bool:
    """Whether a key names something that changes what the box next to it means."""
    words = key_words(key)
    if isinstance(value, str):
        words = words[-1:]  # which say what a text is: `page_title` is a title
    if words[:1] in (["not"], ["no"]):
        return False  # "not_cropped"
    return not _words("changing").isdisjoint(words)


def key_states(key: str) -> bool:
    """Whether a key states something of a box format, and nothing else: `coordinate_format`."""
    words = key_words(key)
    return bool(words) and _words("stating").issuperset(words) and key_changes(key)


def key_affirms(key: str) -> bool:
    """Whether the truth of a key says that a box is right: `is_correct`."""
    return not _words("says_so").isdisjoint(key_words(key))


def key_denies(key: str, truth: bool) -> bool:
    """Whether this truth under a key says that a box is of no use: `visible: false`,
    `not_visible: true`, `estimated: true`.
    """
    words = key_words(key)
    if not _words("degrees").isdisjoint(words):
        return False  # "fully_visible": false
    if words[:1] in (["not"], ["no"]):
        words = words[1:]
        truth = not truth
    says = "says_not" if truth else "says_so"
    return not _words(says).isdisjoint(words)


def key_says_cut(key: str, truth: bool) -> bool:
    """Whether this truth under a key says that a list goes on: `has_more: true`."""
    words = set(key_words(key))
    saying = _words("says_cut" if truth else "says_whole")
    return not saying.isdisjoint(words) and words <= saying | _words("of_answer")


def names_another(key: str) -> bool:
    """Whether a key names what a box is of instead: `actual_object`, `bbox_of`."""
    words = key_words(key)
    if words[:1] == ["refers"]:  # "refers_to"
        return True
    # So "actual_object_" begins with the name "actual_", and "actuals_" doesn't.
    joined = "_".join([*words, ""])
    return any(joined.startswith(f"{name}_") for name in _words("names_another"))


def states_as_asked(text: str, asked: Asked, thing_count: int) -> bool:
    """Whether a key and its value, such as "unit pixels", state the box format that was asked for.
    `thing_count` is how many things have a box.
    """
    sentence = with_whole_negations(f"coordinates format {text}")
    may_number_boxes = text.startswith("order ")  # "order: 2"
    highest_count = thing_count if may_number_boxes else 0
    return _other_coordinates(sentence, asked, highest_count) is None


def with_whole_negations(text: str) -> str:
    """Return a text in lower case in which "isn't" is "is not"."""
    plain = text.casefold().replace("’", "'")
    plain = re.sub(r"\bcan(?:'t|not)\b", "can not", plain)
    plain = re.sub(r"\bwon't\b", "will not", plain)
    return re.sub(r"n't\b", " not", plain)


def _things_marked(text: str, things: Sequence[str]) -> str:
    # "The red cups are on a tray." becomes "_THING are on a tray." where "a red cup" has a box.
    for thing in sorted(set(things), key=len, reverse=True):
        words = [word for word in re.split(r"\s+", folded(thing)) if word not in ("the", "a", "an")]
        if not words:
            continue
        pattern = r"[\s_-]+".join(map(re.escape, words))
        if thing.isascii():  # with its article, and in the plural
            pattern = rf"(?:\b(?:the|an?)\s+)?\b{pattern}(?:e?s)?\b"
        text = re.sub(pattern, f" {_THING} ", text, flags=re.IGNORECASE)
    return text


def _heads_marked(text: str, things: Sequence[str]) -> str:
    # "the cup" is the red cup, and becomes _THING, too.
    for head in {head_of(thing) for thing in things} - {""}:
        if head.isascii():
            word = re.escape(head)
            with_article = rf"\b(?:the|an?|this|that)\s+{word}\b(?!['’]s)"
            # "Fork" at a sentence's beginning, if a verb follows
            begins = rf"(?:\A|(?<=[.!?\n;]))\s*{word}(?=\s+{_VERB}\b)"
            text = re.sub(f"{with_article}|{begins}", f" {_THING} ", text, flags=re.IGNORECASE)
    return re.sub(r"[ \t]+", " ", text)


def _clauses(text: str) -> Iterator[str]:
    for sentence in _SENTENCE.split(text):
        yield from _CLAUSE.split(sentence)


def _denies_thing(clause: str, things: Sequence[str]) -> bool:
    clause = re.sub(r"\s+", " ", clause)
    if _pattern("no_denial").search(clause) is not None:
        return False  # "_THING is not fully visible"
    if _NO_THING.search(clause) is not None:
        return True  # "there is no _THING"
    denial = _THING_IS_NOT.search(clause)
    if denial is None:
        return False
    word_after_not = denial["what"]
    if word_after_not is None or word_after_not in _words("denied"):
        return True  # "_THING is absent", "_THING is not visible"
    # "_THING is not a cup" denies the box of a cup; "_THING is not smiling" denies none.
    words_of_things = {word for thing in things for word in words_of(thing)}
    return singular(word_after_not) in words_of_things


def _other_coordinates(sentence: str, asked: Asked, highest_count: int) -> str | None:
    # What a sentence about coordinates says that wasn't asked for, such as "pixels" where parts of
    # 1000 were. None for other sentences. Numbers up to `highest_count` may count the boxes.
    first = _FIRST_AXIS.search(sentence)
    if first is not None and not asked.order.startswith((first[1] or first[2]).lower()):
        return first[0]
    is_about_coordinates = _is_about_coordinates(sentence)
    sentence = _SPANISH_AND.sub(r"\1, ", _pattern("extents").sub(" ", sentence))
    sentence = re.sub(r"\brelative to\b", " to ", sentence)  # to what: other_frame has that
    sentence = _not_in(asked).sub(" ", sentence)
    names = _names_of_numbers(sentence)
    if not names and not is_about_coordinates:
        return None
    other = _other_order_size_or_corner(sentence, names, asked)
    if other is not None:
        return other
    return _other_unit_or_word(sentence, asked, highest_count)


@cache
def _not_in_pattern(is_in_pixels: bool) -> re.Pattern[str]:
    units = (
        "normali[sz]ed|relative|percent\\w*" if is_in_pixels else "pixels?|px|absolute|percent\\w*"
    )
    return re.compile(
        rf",? ?(?:and )?\b(?:not|rather than|instead of) (?:in |as )?(?:{units})"
        r"(?: (?:values|coordinates|units|pixels))?\b"
    )


def _not_in(asked: Asked) -> re.Pattern[str]:
    # "not in pixels", where they weren't asked for
    return _not_in_pattern(asked.scale == "px")


def _names_of_numbers(sentence: str) -> list[str]:
    # "x1, y1, x2, y2" of "The boxes are [x1, y1, x2, y2]."
    without_corners = _CORNER.sub(" – ", sentence)
    all_names = [match[0] for match in _NAMES.finditer(without_corners)]
    return [names for names in all_names if _are_of_a_box(names, sentence)]


def _is_about_coordinates(sentence: str) -> bool:
    if _pattern("coordinate_words").search(sentence) is not None:
        return True
    # "The format of the boxes" is, and "a photo of a large format" isn't.
    return _is_of_boxes(sentence) and _pattern("if_of_boxes").search(sentence) is not None


def _is_of_boxes(sentence: str) -> bool:
    return _pattern("of_boxes").search(sentence) is not None


def _other_order_size_or_corner(
    sentence: str, all_names: Sequence[str], asked: Asked
) -> str | None:
    # The first words that name another order of numbers ("y1, x1, y2, x2", "yxyx"), another size of
    # the picture ("640 x 480"), or corners that no order begins or ends with ("top right").
    for names in all_names:  # "x1, y1, x2, y2"
        if not _is_in_order(names, asked.order):
            return names.strip()
    for match in _ORDER_NAME.finditer(sentence):
        if _ORDERS_NAMED.get(match[1], match[1]) != asked.order:
            return match[0]
    for match in _SIZE.finditer(sentence):
        size = int(match[1]), int(match[2])
        is_of_scale = set(size) == {asked.scale}  # "1000 x 1000"
        if size not in asked.sizes and not is_of_scale:
            return match[0]
    other_corner = _OTHER_CORNER.search(sentence)
    return None if other_corner is None else other_corner[0]


def _are_of_a_box(names: str, sentence: str) -> bool:
    # "left, right" may be of things, unless the sentence is about numbers. "x" and "width" are not.
    found = _names_in(names)
    if len(found) == 4 or any(not match["edge"] for match in found):
        return True
    return "[" in sentence or _pattern("of_numbers").search(sentence) is not None


def _names_in(names: str) -> list[re.Match[str]]:
    return list(_NAME.finditer(_JOINED.sub("", names)))  # "izquierda y derecha" has no y


def _is_in_order(names: str, order: str) -> bool:
    # "x1, y1, x2, y2" becomes "ltrb", with which a template of "xyxy" begins.
    found = _names_in(names)
    counts_from_0 = any(match["which"] == "0" for match in found)
    letters = "".join(_letter_of(match, counts_from_0) for match in found)
    # Two letters may name either corner: "x2, y2" becomes "rb", which is at 2 in "ltrb".
    starts = (0, 2) if len(letters) == 2 else (0,)
    for template in _TEMPLATES[order]:
        for start in starts:
            if template.startswith(letters, start):
                return True
    return False


def _letter_of(name: re.Match[str], counts_from_0: bool) -> str:
    # As _TEMPLATES has it: "l" for "xmin", "b" for "y2", "w" for "width", "X" for "cx".
    if name["side"]:
        return "h" if name["side"].casefold() in _HEIGHTS else "w"
    if name["edge"]:
        return _LETTERS[name["edge"].casefold()]
    axis = name["axis"].casefold()
    which = (name["which"] or "").casefold()
    if name["middle"] or which in ("c", "center", "centre"):
        return axis.upper()
    # x1 is the left edge, but the right one of "x0, y0, x1, y1".
    if which in ("min", "0") or (which == "1" and not counts_from_0):
        return "l" if axis == "x" else "t"
    if which:  # "max", "2", or "1" after "0"
        return "r" if axis == "x" else "b"
    return axis


def _other_unit_or_word(sentence: str, asked: Asked, highest_count: int) -> str | None:
    # The first word of a sentence on the boxes that tells of another scale than was asked for:
    # "percent" or "1024" where parts of 1000 were, "pixels" where the sentence doesn't state the
    # picture's size. None if there is none.
    has_size_of_picture = _SIZE.search(sentence) is not None and not _is_of_boxes(sentence)
    units = "pixels" if asked.scale == "px" or has_size_of_picture else "parts"
    is_english = _pattern("english").search(sentence) is not None
    for pattern in (_NAMES, _ORDER_NAME, _SIZE, _CORNER):  # these were judged already
        sentence = pattern.sub(" ", sentence)
    if not sentence.isascii():
        sentence = _parts("filler_parts", f"unit_parts_of_{units}").sub(" ", sentence)
    for whole in _WORD.findall(sentence):
        word: str = whole.removesuffix("'s")
        if word[0].isdigit():
            is_right = _is_right_number(word, asked, highest_count)
        else:
            is_right = _is_right_word(word, asked, units, is_english)
        if not is_right:
            return word
    return None


def _is_right_number(word: str, asked: Asked, highest_count: int) -> bool:
    if word.endswith("%"):  # neither a count nor the end of a scale
        return False
    is_count = word.isdecimal() and int(word) <= highest_count  # "3 boxes"
    return is_count or float(word) in asked.numbers


def _is_right_word(word: str, asked: Asked, units: str, is_english: bool) -> bool:
    # `units` is "pixels" or "parts", by which remarks.yaml has the names of the right units.
    if word in ("%", "percent", "percentage", "percentages"):
        return bool(asked.scale == 100)
    if word in _words("fillers"):  # that say nothing of a scale
        return True
    if word in _words("units_of_pixels") | _words("units_of_parts"):
        return word in _words(f"units_of_{units}")
    if is_neutral(word) or word == _THING:
        return True
    if _CHINESE.search(word) is not None:
        return _pattern("other_scale_parts").search(word) is None and turning_word(word) is None
    return is_english and word not in _words("other_scales") and turning_word(word) is None


def _bare(label: str, *, keeps_number: bool) -> str:
    # The man of "man (left)", the shelf of "shelf, top", the bike of "bike_1".
    text = folded(re.split(r"[(\[,]", label)[0])
    if not keeps_number:
        text = re.sub(r"[\s#:]*\d{1,3}$", "", text)
    words = text.split()
    while len(words) > 1 and words[-1] in {*_kind("side"), *_kind("ordinal")}:
        words.pop()
    return " ".join(words)


def _differ(label: str, phrase: str) -> bool:
    # "glass on the floor" for "the glass on the shelf": each has a word that the other lacks.
    said = {word for word in words_of(label) if not _names_no_thing(word)}
    asked = {word for word in words_of(phrase) if not _names_no_thing(word)}
    return bool(said - asked and asked - said)


def _names_no_thing(word: str) -> bool:
    is_relation = ends_phrase(word, "") and not word.endswith(("ing", "ed"))
    return is_neutral(word) or _tells_apart(word) or is_relation


def _are_more(said: set[str], asked: set[str], phrase: str) -> bool:
    # "all six chairs" for "the chair", but not for "chairs", which asks for several itself
    several = _kind("number") - {"one"}
    says_several = not said.isdisjoint(several)
    asks_for_several = not asked.isdisjoint(several)
    is_head_in_singular = head_of(phrase) in asked  # `head_of` returns the singular
    return says_several and not asks_for_several and is_head_in_singular


def _tells_apart(word: str) -> bool:
    return word.isdigit() or any(word in _kind(name) for name in _table("kinds"))


@cache
def _kind(name: str) -> frozenset[str]:
    return frozenset(_table("kinds")[name].split())


def _contradicts(label: str, phrase: str) -> bool:
    # Whether a label says something of its thing that the phrase rules out, or adds a word that
    # makes it another thing.
    said = set(re.sub(r"[(),]", " ", with_whole_negations(folded(label))).split())
    asked = set(with_whole_negations(folded(phrase)).replace(",", " ").split())
    for name in _table("kinds"):
        said_of_kind = said & _kind(name)
        asked_of_kind = asked & _kind(name)
        if said_of_kind - asked_of_kind and asked_of_kind - said_of_kind:
            return True  # "left" for "right"
    changing_words = _words("several") | _words("likeness")
    if not (said & changing_words).issubset(asked):
        return True  # "toy dog", or "dog or cat", for "dog"
    if _differ(label, phrase) or _are_more(said, asked, phrase):
        return True
    # "bus 7" for "bus 12", but not for "bus"
    said_numbers = {word for word in said if word.isdigit()}
    asked_numbers = {word for word in asked if word.isdigit()}
    return bool(asked_numbers and said_numbers and said_numbers != asked_numbers)
