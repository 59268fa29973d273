"""What a sentence says of coordinates that wasn't asked for: an order, a unit, a scale, a size.

In English, five other languages of Europe and Chinese, words that do harm are listed; in all other
languages, those that do none.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.replies.harm_words import (
    parts_listed,
    pattern_listed,
    words_listed,
)
from dataflow_grounding.replies.things import THING
from dataflow_grounding.replies.words import is_neutral, turning_word, with_whole_negations

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
    r"|\boben links\b(?! unten)|\blinks oben\b|\bobere\w* linke\w*"
    r"|(?<!links )\bunten rechts\b|\brechts unten\b|\buntere\w* rechte\w*"
    r"|\b(?:haut|supérieure?)(?: à)?[- ]gauche\b|\b(?:bas|inférieure?)(?: à)?[- ]droite?\b"
    r"|\bsuperiore? (?:izquierd|esquerd|sinistr)\w+|\balto a sinistra\b"
    r"|\binferiore? (?:derech|direit|destr)\w+|\bbasso a destra\b",
    re.IGNORECASE,
)
_JOINED = lazy_pattern(rf"\b(?:and|und|et|y) (?={_EDGE})", re.IGNORECASE)
_OTHER_CORNER = lazy_pattern(
    r"\b(?:(?:top|upper)[- ]right|(?:bottom|lower)[- ]left)\b|右上|左下"
    r"|\boben rechts\b|\brechts oben\b|\bobere\w* rechte\w*"
    r"|\bunten links\b|\blinks unten\b|\buntere\w* linke\w*"
    r"|\b(?:haut|supérieure?)(?: à)?[- ]droite?\b|\b(?:bas|inférieure?)(?: à)?[- ]gauche\b"
    r"|\bsuperiore? (?:derech|direit|destr)\w+|\balto a destra\b"
    r"|\binferiore? (?:izquierd|esquerd|sinistr)\w+|\bbasso a sinistra\b",
    re.IGNORECASE,
)
# "with y first", "y before x"; "izquierda y derecha" names no y
_FIRST_AXIS = lazy_pattern(
    r"\b([xy])(?:[- ]?(?:coordinates?|values?))?"
    r"(?: (?:comes? |is |are |given |listed )?first\b|[- ]first\b)"
    r"|\b([xy]) before [xy]\b",
    re.IGNORECASE,
)
_SPANISH_AND = lazy_pattern(r"\b(izquierda|derecha|arriba|abajo) y (?!\d)")
_CHINESE = lazy_pattern(r"[\u4e00-\u9fff]")  # also of Japanese
# "not in pixels", where they weren't asked for
_NOT_IN = r",? ?(?:and )?\b(?:not|rather than|instead of) (?:in |as )?(?:absolute |raw )?"
_UNITS_AFTER = r"(?: (?:values|coordinates|units|pixels))?\b(?:,? but\b)?"
_NOT_IN_PIXELS = lazy_pattern(rf"{_NOT_IN}(?:pixels?|px|absolute|percent\w*){_UNITS_AFTER}")
_NOT_IN_PARTS = lazy_pattern(rf"{_NOT_IN}(?:normali[sz]ed|relative|percent\w*){_UNITS_AFTER}")
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


def states_as_asked(text: str, asked: Asked, thing_count: int) -> bool:
    """Whether a key and its value, as "unit pixels", state the format that was asked for."""
    sentence = with_whole_negations(f"coordinates format {text}")
    may_number_boxes = text.startswith("order ")  # "order: 2"
    highest_count = thing_count if may_number_boxes else 0
    return other_coordinates(sentence, asked, highest_count) is None


def other_coordinates(sentence: str, asked: Asked, highest_count: int) -> str | None:
    """Return the words of a sentence on coordinates that say what wasn't asked for."""
    said_first = _FIRST_AXIS.search(sentence)  # "y first", "y before x"
    if said_first is not None:
        axis = said_first[1] or said_first[2]
        if not asked.order.startswith(axis.lower()):
            return said_first[0]
    is_about_coordinates = _is_about_coordinates(sentence)
    sentence = _SPANISH_AND.sub(r"\1, ", pattern_listed("extents").sub(" ", sentence))
    sentence = re.sub(r"\brelative to\b", " to ", sentence)  # to what: other_frame has that
    not_asked = _NOT_IN_PARTS if asked.scale == "px" else _NOT_IN_PIXELS
    sentence = not_asked.sub(" ", sentence)
    names = _names_of_numbers(sentence)
    if not names and not is_about_coordinates:
        return None
    other = _other_order_size_or_corner(sentence, names, asked)
    if other is not None:
        return other
    return _other_unit_or_word(sentence, asked, highest_count)


def _names_of_numbers(sentence: str) -> list[str]:
    """Such as "x1, y1, x2, y2" of "The boxes are [x1, y1, x2, y2]."."""
    without_corners = _CORNER.sub(" – ", sentence)
    all_names = [match[0] for match in _NAMES.finditer(without_corners)]
    return [names for names in all_names if _are_of_a_box(names, sentence)]


def _is_about_coordinates(sentence: str) -> bool:
    if pattern_listed("coordinate_words").search(sentence) is not None:
        return True
    # "The format of the boxes" is, and "a photo of a large format" isn't.
    return _is_of_boxes(sentence) and pattern_listed("if_of_boxes").search(sentence) is not None


def _is_of_boxes(sentence: str) -> bool:
    return pattern_listed("of_boxes").search(sentence) is not None


def _other_order_size_or_corner(
    sentence: str, all_names: Sequence[str], asked: Asked
) -> str | None:
    """The first words on another order, size of the picture, or corner than was asked for."""
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
    """As "x, y", "width, height" and "left, top, right, bottom" are."""
    found = _names_in(names)
    has_other_than_edges = any(not match["edge"] for match in found)
    if len(found) == 4 or has_other_than_edges:
        return True
    # "left, right" may say where things are, unless the sentence is about numbers.
    return "[" in sentence or pattern_listed("of_numbers").search(sentence) is not None


def _names_in(names: str) -> list[re.Match[str]]:
    return list(_NAME.finditer(_JOINED.sub("", names)))  # "izquierda y derecha" has no y


def _is_in_order(names: str, order: str) -> bool:
    """Whether "x1, y1, x2, y2", or "x2, y2" of a second corner, come in this order."""
    found = _names_in(names)
    counts_from_0 = any(match["which"] == "0" for match in found)
    letters = "".join(_letter_of(match, counts_from_0) for match in found)
    # "rb" is in "ltrb": two names may be those of the second corner.
    starts = (0, 2) if len(letters) == 2 else (0,)
    for template in _TEMPLATES[order]:
        for start in starts:
            if template.startswith(letters, start):
                return True
    return False


def _letter_of(name: re.Match[str], counts_from_0: bool) -> str:
    """As _TEMPLATES has it: "l" for "xmin", "b" for "y2", "w" for "width", "X" for "cx"."""
    if name["side"]:
        return "h" if name["side"].casefold() in _HEIGHTS else "w"
    if name["edge"]:
        return _LETTERS[name["edge"].casefold()]
    axis = name["axis"].casefold()
    which = (name["which"] or "").casefold()
    if name["middle"] or which in ("c", "center", "centre"):
        return axis.upper()
    # x1 is the left edge of "x1, y1, x2, y2", and the right one of "x0, y0, x1, y1".
    lower = ("min", "0") if counts_from_0 else ("min", "0", "1")
    if which in lower:
        return "l" if axis == "x" else "t"
    if which:
        return "r" if axis == "x" else "b"
    return axis  # "x" alone


def _other_unit_or_word(sentence: str, asked: Asked, highest_count: int) -> str | None:
    """The first word on another scale: "percent" where parts of 1000 were asked for."""
    has_size = _SIZE.search(sentence) is not None
    is_of_picture_size = has_size and not _is_of_boxes(sentence)  # "The image has 640 x 480 pixels"
    units = "pixels" if asked.scale == "px" or is_of_picture_size else "parts"
    is_listed = pattern_listed("listed_languages").search(sentence) is not None
    for pattern in (_NAMES, _ORDER_NAME, _SIZE, _CORNER):  # these were judged already
        sentence = pattern.sub(" ", sentence)
    if not sentence.isascii():
        sentence = parts_listed("filler_parts", f"unit_parts_of_{units}").sub(" ", sentence)
    for whole in _WORD.findall(sentence):
        word: str = whole.removesuffix("'s")
        if word[0].isdigit():
            is_right = _is_right_number(word, asked, highest_count)
        else:
            is_right = _is_right_word(word, asked, units, is_listed)
        if not is_right:
            return word
    return None


def _is_right_number(word: str, asked: Asked, highest_count: int) -> bool:
    if word.endswith("%"):  # neither a count nor the end of a scale
        return False
    is_count = word.isdecimal() and int(word) <= highest_count  # "3 boxes"
    return is_count or float(word) in asked.numbers


def _is_right_word(word: str, asked: Asked, units: str, is_listed: bool) -> bool:
    """Whether a word agrees with what was asked for; `units` is "pixels" or "parts"."""
    if word in words_listed("percents"):
        return bool(asked.scale == 100)
    if word in words_listed("fillers"):  # that say nothing of a scale
        return True
    if word in words_listed("units_of_pixels") | words_listed("units_of_parts"):
        return word in words_listed(f"units_of_{units}")
    if is_neutral(word) or word == THING:
        return True
    if turning_word(word) is not None:
        return False
    # No list of harmless words has it. Where the words that do harm are listed, it is right if it
    # is none of them: in Chinese, and in a sentence of a listed language.
    if _CHINESE.search(word) is not None:
        return pattern_listed("other_scale_parts").search(word) is None
    return is_listed and word not in words_listed("other_scales")
