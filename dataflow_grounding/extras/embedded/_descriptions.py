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
from dataflow_grounding.replies.english import words
from dataflow_grounding.replies.english.noun_phrases import tokenize

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
_MOST_ANCHORS = 8
# The only words whose meaning is tested here: with any other, a phrase says more than can be
# checked.
_TESTED = words.TESTED.union(
    words.CHROMATIC, words.ACHROMATIC, words.SIZES, words.POSITIONS, words.NUMBERS
)
_parsed = lru_cache(maxsize=4096)(parse_phrase)
_COUNTS = {number: word for word, number in words.NUMBERS.items()}


@dataclass(frozen=True, slots=True)
class Meaning:
    """The regions that a phrase means.

    It is not ``clear`` when the phrase's words fit all of them and should fit fewer.
    """

    ids: tuple[int, ...]
    clear: bool = True


@dataclass(frozen=True, slots=True)
class _Noun:
    """The kind of thing that a noun names, and the word that stands for the noun when parsed."""

    kind: str
    stand_in: str


class Descriptions:
    """Describes the things of one picture, by the rules by which the grounder selects."""

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
        # Of two in a row the first one describes the second: "the orange orange".
        self._noun_pattern = re.compile(rf"\b(?:{any_noun})\b(?!\s+(?:{any_noun})\b)")
        self.meaning = cache(self._meaning)

    def _meaning(self, text: str) -> Meaning | None:
        """Return what a phrase means among the things; None when not all of it is understood."""
        # "the red mug left of the cat" is parsed as "the red thing left of the thing": `kinds` are
        # those of the two things, in order.
        kinds = [self._nouns[noun].kind for noun in self._noun_pattern.findall(text.lower())]
        plain = self._noun_pattern.sub(
            lambda match: self._nouns[match.group()].stand_in, text.lower()
        )
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
        candidates = self._candidates(phrase, kinds[0])
        if phrase.relation is not None:
            anchor = phrase.relation.anchor
            anchors = select_meant(self._candidates(anchor, kinds[1]), anchor, self.picture)
            if anchors is None or len(anchors) != 1:
                return None
            candidates = on_side_of(candidates, phrase.relation.side, anchors[0].bbox)
        selected = select_meant(candidates, phrase, self.picture)
        if selected is None:
            return Meaning(tuple(_ids(candidates)), clear=False)
        return Meaning(tuple(_ids(selected)))

    def _candidates(self, phrase: Phrase, kind: str) -> list[Thing]:
        """The things of a kind that have a phrase's colour."""
        of_kind = [thing for thing in self.things if thing.kind == kind]
        if phrase.color is None:
            return of_kind
        return [thing for thing in of_kind if thing.color == phrase.color]

    def means(self, text: str, ids: Sequence[int]) -> bool:
        """Whether a phrase means exactly these things."""
        meaning = self.meaning(text)
        return meaning is not None and meaning.clear and sorted(meaning.ids) == sorted(ids)

    def shortest(self, thing: Thing) -> str | None:
        """The shortest phrase that means this thing alone; None when no words tell it from others.

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
            for color in dict.fromkeys(("", anchor.color)):
                text = _joined("the", color, anchor.kind)
                if self.means(text, [anchor.id]):
                    yield text
                    break

    def groups(self) -> list[tuple[str, list[int]]]:
        """Return each kind of thing, counted, with the ids of its things; large groups first.

        Things of a kind are told apart by colour ("two red cars", "a blue car") if the colours of
        all of that kind are clear.
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
        """What is there, counted: "Two red cars and a bus."."""
        parts = [text for text, _ in self.groups()]
        if not parts:
            listed = "a picture"
        elif len(parts) == 1:
            listed = parts[0]
        else:
            listed = f"{', '.join(parts[:-1])} and {parts[-1]}"
        return f"{listed[:1].upper()}{listed[1:]}."


def _is_understood(phrase: Phrase) -> bool:
    """Whether all of a phrase about a "thing" was read."""
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
    """The parts that are not empty, with spaces between them."""
    return " ".join(filter(None, parts))


def _ids(things: Sequence[Thing]) -> list[int]:
    return [thing.id for thing in things]


def _counted(count: int, color: str, kind: str) -> str:
    if count > 1:
        return _joined(_COUNTS.get(count, str(count)), color, plural_of(kind))
    return with_article(_joined(color, kind))


def _distance(first: Thing, second: Thing) -> float:
    """How far the middles of two things lie apart: twice the sum of both axes."""
    a, b = first.bbox, second.bbox
    across = abs(a[0] + a[2] - b[0] - b[2])
    down = abs(a[1] + a[3] - b[1] - b[3])
    return across + down


def answer_about_regions(
    task: str, image: Array, request_input: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the reply to a task about regions, shaped as its schema says.

    ``image`` is uint8 (H, W, 3), BGR, upright.
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
        case _:
            captions = []
            for thing in descriptions.things:
                captions.append({"id": thing.id, "text": _plain_caption(descriptions, thing)})
            return {"captions": captions}


def _described(descriptions: Descriptions, thing: Thing, label: str) -> dict[str, Any]:
    """A region with its colour and the shortest phrase that means it."""
    text = descriptions.shortest(thing)
    if text is None:
        # What nothing tells from others is called one of them: "a red car".
        text = with_article(_joined(thing.color, thing.kind))
    return {"id": thing.id, "type": label, "color": thing.color, "description": text}


def _plain_caption(descriptions: Descriptions, thing: Thing) -> str:
    """Colour, size and place of a region without a label; and a remark that this is all."""
    share = thing.size / descriptions.picture.area
    color = f"mostly {thing.color}" if thing.color else "of no single colour"
    if share > 0.98:
        return f"A picture {color}. (Colour only: the embedded grounder can't tell what it is.)"
    x, y = relative_center(thing.bbox, descriptions.picture)
    row = _word_for_third(y, "top", "bottom")
    column = _word_for_third(x, "left", "right")
    position = _joined(row, column) or "middle"
    return (
        f"A region {color}, {max(1, round(100 * share))}% of the picture, in its {position}. "
        "(Colour, size and place only: the embedded grounder can't tell what it is.)"
    )


def _word_for_third(share: float, first: str, last: str) -> str:
    """Return the word for the first or the last third of a side; empty for the middle third."""
    if share < 1 / 3:
        return first
    return last if share > 2 / 3 else ""


def _unambiguous_expressions(descriptions: Descriptions) -> list[dict[str, Any]]:
    """Return expressions that mean just the regions that they are given with.

    One for each group that can be counted, and one for each thing that can be told from all others.
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

    The correction is in ``region_ids`` where the words mean other regions, else in ``text`` where
    other words mean this region.
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
