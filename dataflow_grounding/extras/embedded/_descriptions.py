"""Descriptions of the regions that a request has, and the answers to the tasks about them.

All come from the regions' labels, boxes and colours. A description is tried out before it is given:
it is read again as a phrase, and it must mean this region and no other one.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from dataflow_grounding.extras.embedded import _words as words
from dataflow_grounding.extras.embedded._noun_phrases import tokenize
from dataflow_grounding.extras.embedded._phrases import (
    Phrase,
    is_at,
    on_side_of,
    parse_phrase,
    relative_center,
    select_meant,
)
from dataflow_grounding.extras.embedded._picture import Array, Picture
from dataflow_grounding.extras.embedded.regions import Thing, plural_of, read_things, with_article

# What a description may say of a thing's place: words before the noun, and phrases behind it.
_OUTERMOST_WORDS = ("leftmost", "rightmost", "topmost", "lowest")
_POSITION_PHRASES = (
    "",
    "on the left",
    "on the right",
    "at the top",
    "at the bottom",
    "in the middle",
    "in the top left corner",
    "in the top right corner",
    "in the bottom left corner",
    "in the bottom right corner",
)
# How far a thing's middle may be from a side to be called there, in parts of the picture's width or
# height. It must be nearer to both sides for a corner.
_MOST_FROM_SIDE = 0.42
_MOST_FROM_CORNER_SIDE = 0.36
_SIDES = ("left", "right", "top", "bottom", "middle")
_MOST_ANCHORS = 8  # things beside which a thing is described, the nearest
_WHOLE_PICTURE = 0.98  # of the picture's area: a region with more is called the picture
# The only words whose meaning is tested here: with any other, a phrase says more than can be
# checked.
_TESTED = words.TESTED.union(
    words.CHROMATIC, words.ACHROMATIC, words.SIZES, words.POSITIONS, words.NUMBERS
)
_parsed = lru_cache(maxsize=4096)(parse_phrase)
_COUNTS = {number: word for word, number in words.NUMBERS.items()}  # 2 → "two"


@dataclass(frozen=True, slots=True)
class Meaning:
    """The regions that a phrase means.

    It is not ``clear`` when the words fit all of these, or none, and ask for another number: "the
    car" of two, "two cars" of one.
    """

    ids: tuple[int, ...]
    clear: bool = True


@dataclass(frozen=True, slots=True)
class _Noun:
    """The kind of thing that a noun names, and the word that stands for the noun when parsed."""

    kind: str
    stand_in: str


@dataclass(frozen=True, slots=True)
class _Question:
    """A phrase as read, with the kinds of things that it names.

    Attributes:
        phrase: The phrase, in which "thing" or "things" stands for each noun.
        kind: What its noun names.
        anchor_kind: What the noun of its anchor names; empty without an anchor.
    """

    phrase: Phrase
    kind: str
    anchor_kind: str


class Descriptions:
    """Describes the things of one picture, by the rules by which the grounder selects.

    `meaning` returns the Meaning of a phrase among the things, which is worked out once for each
    phrase; None when not all of its words are understood.
    """

    def __init__(self, things: Sequence[Thing], picture: Picture) -> None:
        self.things = list(things)
        self.picture = picture
        # Labels may be any words, so phrases are parsed with "thing" or "things" in their place.
        self._nouns: dict[str, _Noun] = {}
        for kind in sorted({thing.kind for thing in things}):
            self._nouns[plural_of(kind)] = _Noun(kind, "things")
            self._nouns[kind] = _Noun(kind, "thing")
        longest_first = sorted(self._nouns, key=len, reverse=True)
        any_noun = "|".join(re.escape(noun) for noun in longest_first)
        if not any_noun:
            any_noun = "(?!)"  # matches nothing
        # A noun that no other noun follows. Of two in a row the first one describes the second: in
        # "the orange orange" this is the last word.
        self._noun_pattern = re.compile(rf"\b(?:{any_noun})\b(?!\s+(?:{any_noun})\b)")
        self.meaning = cache(self._meaning)

    def _read(self, text: str) -> _Question | None:
        """Return what a phrase asks for; None when not all of it is understood.

        "The red mug left of the cat" is parsed as "the red thing left of the thing", with the kinds
        "mug" and "cat".
        """
        kinds = [self._nouns[noun].kind for noun in self._noun_pattern.findall(text.lower())]
        plain = self._noun_pattern.sub(self._stand_in_for, text.lower())
        if not all(token in _TESTED or token.isdecimal() for token in tokenize(plain)):
            return None
        phrase = _parsed(plain)
        phrases = [phrase]
        if phrase.relation is not None:
            phrases.append(phrase.relation.anchor)
        if len(kinds) != len(phrases):  # a noun for each phrase
            return None
        if not all(_is_understood(parsed) for parsed in phrases):
            return None
        return _Question(phrase, kinds[0], kinds[1] if len(kinds) > 1 else "")

    def _stand_in_for(self, match: re.Match[str]) -> str:
        """Return "thing" or "things" for a noun that `_noun_pattern` matches."""
        return self._nouns[match.group()].stand_in

    def _meaning(self, text: str) -> Meaning | None:
        """Return what a phrase means among the things.

        None when not all of it is understood, or its anchor isn't a single thing. Where the words
        don't tell which are meant, the meaning is not clear, and has all things of the right kind
        and colour, on the right side of the anchor.
        """
        question = self._read(text)
        if question is None:
            return None
        phrase = question.phrase
        candidates = self._candidates(phrase, question.kind)
        if phrase.relation is not None:
            anchor = phrase.relation.anchor
            possible_anchors = self._candidates(anchor, question.anchor_kind)
            anchors = select_meant(possible_anchors, anchor, self.picture)
            if anchors is None or len(anchors) != 1:
                return None
            candidates = on_side_of(candidates, phrase.relation.side, anchors[0].bbox)
        selected = select_meant(candidates, phrase, self.picture)
        if selected is None:
            return Meaning(tuple(_ids(candidates)), clear=False)
        return Meaning(tuple(_ids(selected)))

    def _candidates(self, phrase: Phrase, kind: str) -> list[Thing]:
        """Return the things of a kind that have a phrase's colour, or all if it names none."""
        of_kind = [thing for thing in self.things if thing.kind == kind]
        if phrase.color is None:
            return of_kind
        return [thing for thing in of_kind if thing.color == phrase.color]

    def means(self, text: str, ids: Sequence[int]) -> bool:
        """Return whether a phrase clearly means exactly these things, in whatever order."""
        meaning = self.meaning(text)
        return meaning is not None and meaning.clear and sorted(meaning.ids) == sorted(ids)

    def shortest(self, thing: Thing) -> str | None:
        """Return the shortest phrase that means this thing alone; None when no words tell it apart.

        Properties by preference as in Dale and Reiter (1995, Cognitive Science 19): type, colour,
        size, place. As size and place depend on what is left, all sets are tried, small ones first.
        """
        for text in self._phrases(thing):
            if self.means(text, [thing.id]):
                return text
        return None

    def _phrases(self, thing: Thing) -> Iterator[str]:
        """Yield phrases that may mean a thing, the shortest first.

        Those that name another thing beside it come last.
        """
        colors = ["", thing.color] if thing.color else [""]
        positions = []
        for position in (*_POSITION_PHRASES, *_OUTERMOST_WORDS):
            if self._is_at(thing, position):
                positions.append(position)
        property_sets = itertools.product(positions, ("", "small", "large"), colors)
        for position, size, color in sorted(property_sets, key=_shortest_first):
            if position in _OUTERMOST_WORDS:
                yield _joined("the", position, size, color, thing.kind)
            else:
                yield _joined("the", size, color, thing.kind, position)
        for color in colors:
            for anchor in itertools.islice(self._anchors(thing), _MOST_ANCHORS):
                for side in ("to the left of", "to the right of", "above", "below"):
                    yield _joined("the", color, thing.kind, side, anchor)

    def _is_at(self, thing: Thing, position: str) -> bool:
        """Return whether a thing lies where a position phrase says: at each side that it names.

        To be further there than the other things is not enough. A phrase that names no side, such
        as "leftmost", holds of all things: whether it means this one is tried out later.
        """
        most_distance = _MOST_FROM_CORNER_SIDE if "corner" in position else _MOST_FROM_SIDE
        sides = [word for word in position.split() if word in _SIDES]
        return all(is_at(thing.bbox, side, self.picture, most_distance) for side in sides)

    def _anchors(self, thing: Thing) -> Iterator[str]:
        """Yield for each other thing the phrase that means it alone, the nearest thing first.

        The phrases name its kind, and its colour if need be. Things without such a phrase are left
        out.
        """
        for anchor in sorted(self.things, key=lambda anchor: _distance(thing, anchor)):
            if anchor == thing:
                continue
            colors = ["", anchor.color] if anchor.color else [""]
            for color in colors:
                text = _joined("the", color, anchor.kind)
                if self.means(text, [anchor.id]):
                    yield text
                    break

    def groups(self) -> list[tuple[str, list[int]]]:
        """Return each kind of thing, counted, with the ids of its things: ("two cars", [3, 5]).

        Groups of more things come first, of as many those with larger boxes. Things of a kind are
        told apart by colour ("two red cars", "a blue car") if the colours of all of that kind are
        clear.
        """
        by_color_and_kind: dict[tuple[str, str], list[Thing]] = {}
        for thing in self.things:
            colors_of_kind = [alike.color for alike in self.things if alike.kind == thing.kind]
            color = thing.color if all(colors_of_kind) else ""
            by_color_and_kind.setdefault((color, thing.kind), []).append(thing)
        ranked = sorted(by_color_and_kind.items(), key=_rank)
        groups = []
        for (color, kind), things in ranked:
            groups.append((_counted(len(things), color, kind), _ids(things)))
        return groups

    def caption(self) -> str:
        """Return what is there, counted: "Two red cars and a bus."; "A picture." without things."""
        parts = [text for text, _ in self.groups()]
        if not parts:
            listed = "a picture"
        elif len(parts) == 1:
            listed = parts[0]
        else:
            listed = f"{', '.join(parts[:-1])} and {parts[-1]}"
        return f"{listed[:1].upper()}{listed[1:]}."


def _is_understood(phrase: Phrase) -> bool:
    """Return whether all of a phrase about a "thing" was read."""
    return phrase.head == "thing" and not phrase.refusal and not phrase.unread


def _shortest_first(properties: tuple[str, str, str]) -> tuple[int, bool]:
    """Return a sort key for position, size and colour: those that name fewer first, corners last.

    A property that isn't named is empty.
    """
    position, _, _ = properties
    named = [value for value in properties if value]
    return len(named), "corner" in position


def _rank(group: tuple[tuple[str, str], list[Thing]]) -> tuple[int, float, tuple[str, str]]:
    """Return a sort key for groups of things: many first, then large ones, then by name."""
    color_and_kind, things = group
    total_size = sum(thing.size for thing in things)
    return -len(things), -total_size, color_and_kind


def _joined(*parts: str) -> str:
    """Return the parts that are not empty, with spaces between them."""
    return " ".join(filter(None, parts))


def _ids(things: Sequence[Thing]) -> list[int]:
    """Return the ids of the things, in their order."""
    return [thing.id for thing in things]


def _counted(count: int, color: str, kind: str) -> str:
    """Return so many things in words: "two red cars", "a car"; ``color`` may be empty."""
    if count > 1:
        return _joined(_COUNTS.get(count, str(count)), color, plural_of(kind))
    return with_article(_joined(color, kind))


def _distance(first: Thing, second: Thing) -> float:
    """Return twice the sum of how far the middles of two things lie apart across and down.

    Only the order of such distances counts.
    """
    a, b = first.bbox, second.bbox
    across = abs(a[0] + a[2] - b[0] - b[2])
    down = abs(a[1] + a[3] - b[1] - b[3])
    return across + down


def answer_about_regions(
    task: str, image: Array, request_input: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the reply to a task about regions, shaped as its schema says.

    Args:
        task: "region_expression", "image_caption", "grounding_expression", "double_check" or
            "region_caption".
        image: uint8 (H, W, 3), BGR, upright.
        request_input: `regions`, as `read_things` takes them, and for "double_check" the
            `expressions` that are to be checked.
    """
    picture = Picture(image)
    regions = request_input.get("regions") or []
    descriptions = Descriptions(read_things(picture, regions), picture)
    match task:
        case "region_expression":
            labels = {region["id"]: region.get("type") or "" for region in request_input["regions"]}
            described = []
            for thing in descriptions.things:
                described.append(_described(descriptions, thing, labels[thing.id]))
            return {"regions": described}
        case "image_caption":
            return {"caption": descriptions.caption()}
        case "grounding_expression":
            return {"expressions": _unambiguous_expressions(descriptions)}
        case "double_check":
            checks = []
            for expression in request_input["expressions"]:
                text = str(expression["text"])
                region_ids = expression["region_ids"]
                checks.append(_check(descriptions, expression["id"], text, region_ids))
            return {"checks": checks}
        case _:  # region_caption
            captions = []
            for thing in descriptions.things:
                captions.append({"id": thing.id, "text": _plain_caption(descriptions, thing)})
            return {"captions": captions}


def _described(descriptions: Descriptions, thing: Thing, label: str) -> dict[str, Any]:
    """Return a region's id, label and colour, and the shortest phrase that means it.

    What nothing tells from others is described as one of them: "a red car".
    """
    text = descriptions.shortest(thing)
    if text is None:
        text = with_article(_joined(thing.color, thing.kind))
    return {"id": thing.id, "type": label, "color": thing.color, "description": text}


def _plain_caption(descriptions: Descriptions, thing: Thing) -> str:
    """Return a region's colour, size and place in words, and a remark that this is all.

    Its label is not in it. Of a region that is nearly the whole picture the colour alone is told.
    """
    share = thing.size / descriptions.picture.area
    color = f"mostly {thing.color}" if thing.color else "of no single colour"
    if share > _WHOLE_PICTURE:
        return f"A picture {color}. (Colour only: the embedded grounder can't tell what it is.)"
    x, y = relative_center(thing.bbox, descriptions.picture)
    position = _joined(_word_for_third(y, "top", "bottom"), _word_for_third(x, "left", "right"))
    position = position or "middle"
    return (
        f"A region {color}, {max(1, round(100 * share))}% of the picture, in its {position}. "
        "(Colour, size and place only: the embedded grounder can't tell what it is.)"
    )


def _word_for_third(share: float, first: str, last: str) -> str:
    """Return ``first`` for the first third of a side, ``last`` for the last one, else "".

    ``share`` is where on the side a point is, from 0 to 1.
    """
    if share < 1 / 3:
        return first
    return last if share > 2 / 3 else ""


def _unambiguous_expressions(descriptions: Descriptions) -> list[dict[str, Any]]:
    """Return expressions, each with the ids of just those regions that it means.

    One for each group of several that its count and noun mean, then one for each thing that can be
    told from all others.
    """
    expressions = []
    for text, ids in descriptions.groups():
        if len(ids) > 1 and descriptions.means(text, ids):
            expressions.append({"text": text, "region_ids": ids})
    for thing in descriptions.things:
        shortest = descriptions.shortest(thing)
        if shortest is not None:
            expressions.append({"text": shortest, "region_ids": [thing.id]})
    return expressions


def _check(
    descriptions: Descriptions, expression_id: int, text: str, region_ids: Sequence[int]
) -> dict[str, Any]:
    """Return whether an expression means these regions; if not, a correction and the reason.

    ``matches`` is None where not all words are understood. Where it is False, ``region_ids`` are
    corrected to the regions that the words mean, or for a single region to all that they fit. Where
    they fit none, or don't tell which of several, ``text`` is corrected to the shortest phrase for
    a single region; without such a phrase nothing is corrected.
    """
    check = {"id": expression_id, "text": text, "region_ids": list(region_ids), "reason": ""}
    meaning = descriptions.meaning(text)
    if meaning is None:
        return {**check, "matches": None, "reason": "not all words are understood"}
    if descriptions.means(text, region_ids):
        return {**check, "matches": True}
    meant = list(meaning.ids)
    if meant and (meaning.clear or len(region_ids) == 1):
        reason = "it means other regions" if meaning.clear else f"it fits {len(meant)} regions"
        return {**check, "matches": False, "region_ids": meant, "reason": reason}
    better_text: str | None = None
    for thing in descriptions.things:
        if [thing.id] == list(region_ids):
            better_text = descriptions.shortest(thing)
            break
    reason = "it is not clear" if meant else "it fits no region"
    return {**check, "matches": False, "text": better_text or text, "reason": reason}
