"""Descriptions of given regions, and the answers to the tasks about them.

All come from the regions' labels, boxes and colours.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from dataflow_grounding.extras.embedded import words
from dataflow_grounding.extras.embedded._phrases import (
    Phrase,
    beside,
    center,
    choose,
    lies,
    parse_phrase,
)
from dataflow_grounding.extras.embedded._picture import Array, Picture
from dataflow_grounding.extras.embedded.noun_phrases import tokenize
from dataflow_grounding.extras.embedded.regions import Thing, plural_of, read_things, with_article

_ENDS = ("leftmost", "rightmost", "topmost", "lowest")
_PLACES = (
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
# How far to a side, in parts of it, a thing's middle must lie to be called there; further for a
# corner.
_AT_A_SIDE = 0.42
_IN_A_CORNER = 0.36
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


class Descriptions:
    """Describes the things of one picture, by the rules by which the grounder chooses."""

    def __init__(self, things: Sequence[Thing], picture: Picture) -> None:
        self.things = list(things)
        self.picture = picture
        # what a kind is called → the kind, and a word that stands for it
        self._forms: dict[str, tuple[str, str]] = {}
        for kind in sorted({thing.kind for thing in things}):
            self._forms |= {plural_of(kind): (kind, "things"), kind: (kind, "thing")}
        longest_first = sorted(self._forms, key=len, reverse=True)
        forms = "|".join(re.escape(form) for form in longest_first)
        if not forms:
            forms = "(?!)"  # matches nothing
        # Of two in a row the first one describes the second: "the orange orange".
        self._noun = re.compile(rf"\b(?:{forms})\b(?!\s+(?:{forms})\b)")
        self.meaning = cache(self._meaning)

    def _meaning(self, text: str) -> Meaning | None:
        """What a phrase means among the things; None when not all of it is understood."""
        kinds = [self._forms[noun][0] for noun in self._noun.findall(text.lower())]
        plain = self._noun.sub(lambda match: self._forms[match.group()][1], text.lower())
        if not all(token in _TESTED or token.isdecimal() for token in tokenize(plain)):
            return None
        phrase = _parsed(plain)
        phrases = [phrase]
        if phrase.relation:
            phrases.append(phrase.relation[1])
        if len(kinds) != len(phrases) or not all(map(_is_understood, phrases)):
            return None
        candidates = self._candidates(phrase, kinds[0])
        if phrase.relation is not None:
            side, anchor = phrase.relation
            anchors = choose(self._candidates(anchor, kinds[1]), anchor, self.picture)
            if anchors is None or len(anchors) != 1:
                return None
            candidates = beside(candidates, side, anchors[0].bbox)
        chosen = choose(candidates, phrase, self.picture)
        if chosen is None:
            return Meaning(tuple(_ids(candidates)), clear=False)
        return Meaning(tuple(_ids(chosen)))

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
        """Phrases that may mean a thing, the shortest first."""
        colors = ["", thing.color] if thing.color else [""]
        positions = [where for where in (*_PLACES, *_ENDS) if self._lies(thing, where)]
        sets = itertools.product(positions, ("", "small", "large"), colors)
        for position, size, color in sorted(sets, key=_length):
            if position in _ENDS:
                yield _joined("the", position, size, color, thing.kind)
            else:
                yield _joined("the", size, color, thing.kind, position)
        for color in colors:
            for anchor in itertools.islice(self._anchors(thing), _MOST_ANCHORS):
                for side in ("to the left of", "to the right of", "above", "below"):
                    yield _joined("the", color, thing.kind, side, anchor)

    def _lies(self, thing: Thing, position: str) -> bool:
        """Whether a thing lies where the words say, not only further there than the others."""
        far = _IN_A_CORNER if "corner" in position else _AT_A_SIDE
        sides = [word for word in position.split() if word in _SIDES]
        return all(lies(thing.bbox, side, self.picture, far) for side in sides)

    def _anchors(self, thing: Thing) -> Iterator[str]:
        """Phrases that mean one of the other things each, the nearest first.

        They name its type, and its colour if need be.
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
        """Each kind of thing, counted, and which they are, many first.

        "two red cars": by colour, if the colours of all are clear.
        """
        by_name: dict[tuple[str, str], list[Thing]] = {}
        for thing in self.things:
            colors = [alike.color for alike in self.things if alike.kind == thing.kind]
            color = thing.color if all(colors) else ""
            by_name.setdefault((color, thing.kind), []).append(thing)
        ranked = sorted(by_name.items(), key=_rank)
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


def _length(properties: tuple[str, str, str]) -> tuple[int, bool]:
    """What phrases are sorted by: how many of position, size and colour they name, corners last."""
    position, _, _ = properties
    empty = properties.count("")
    return len(properties) - empty, "corner" in position


def _rank(group: tuple[tuple[str, str], list[Thing]]) -> tuple[int, float, tuple[str, str]]:
    """What groups of things are sorted by: many first, then large ones, then their names."""
    name, things = group
    return -len(things), -sum(thing.size for thing in things), name


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


def answer_about_regions(task: str, image: Array, given: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to a task about regions.

    ``image`` is uint8 (H, W, 3), BGR, upright, ``given`` the request's input.
    """
    picture = Picture(image)
    seen = Descriptions(read_things(picture, given.get("regions") or []), picture)
    match task:
        case "region_expression":
            types = {region["id"]: region.get("type") or "" for region in given["regions"]}
            regions = [_described(seen, thing, types[thing.id]) for thing in seen.things]
            return {"regions": regions}
        case "image_caption":
            return {"caption": seen.caption()}
        case "grounding_expression":
            return {"expressions": _merged(seen)}
        case "double_check":
            checks = []
            for expression in given["expressions"]:
                text = str(expression["text"])
                checks.append(_checked(seen, expression["id"], text, expression["region_ids"]))
            return {"checks": checks}
        case _:
            captions = []
            for thing in seen.things:
                captions.append({"id": thing.id, "text": _plain_caption(seen, thing)})
            return {"captions": captions}


def _described(seen: Descriptions, thing: Thing, label: str) -> dict[str, Any]:
    """A region with its colour and the shortest phrase that means it."""
    text = seen.shortest(thing)
    if text is None:
        # What nothing tells from others is called one of them: "a red car".
        text = with_article(_joined(thing.color, thing.kind))
    return {"id": thing.id, "type": label, "color": thing.color, "description": text}


def _plain_caption(seen: Descriptions, thing: Thing) -> str:
    """Colour, size and place of a region without a label; and a remark that this is all."""
    share = thing.size / seen.picture.area
    color = f"mostly {thing.color}" if thing.color else "of no single colour"
    if share > 0.98:
        return f"A picture {color}. (Colour only: the embedded grounder can't tell what it is.)"
    x, y = center(thing.bbox, seen.picture)
    position = _joined(_third(y, "top", "bottom"), _third(x, "left", "right")) or "middle"
    return (
        f"A region {color}, {max(1, round(100 * share))}% of the picture, in its {position}. "
        "(Colour, size and place only: the embedded grounder can't tell what it is.)"
    )


def _third(share: float, first: str, last: str) -> str:
    """The word for the first or the last third of a side; none for the one between."""
    if share < 1 / 3:
        return first
    return last if share > 2 / 3 else ""


def _merged(seen: Descriptions) -> list[dict[str, Any]]:
    """The expressions that mean regions of a picture.

    One for each group that can be counted, and one for each thing that can be told from all others.
    """
    expressions = []
    for text, ids in seen.groups():
        if len(ids) > 1 and seen.means(text, ids):
            expressions.append({"text": text, "region_ids": ids})
    for thing in seen.things:
        shortest = seen.shortest(thing)
        if shortest is not None:
            expressions.append({"text": shortest, "region_ids": [thing.id]})
    return expressions


def _checked(seen: Descriptions, number: int, text: str, ids: Sequence[int]) -> dict[str, Any]:
    """Whether an expression means the regions it is said to, and if not, what would be right."""
    check = {"id": number, "text": text, "region_ids": list(ids), "reason": ""}
    meaning = seen.meaning(text)
    if meaning is None:
        return {**check, "matches": None, "reason": "not all words are understood"}
    if seen.means(text, ids):
        return {**check, "matches": True}
    meant = list(meaning.ids)
    if meant and (meaning.clear or len(ids) == 1):
        reason = "it means other regions" if meaning.clear else f"it fits {len(meant)} regions"
        return {**check, "matches": False, "region_ids": meant, "reason": reason}
    better: str | None = None
    for thing in seen.things:
        if [thing.id] == list(ids):
            better = seen.shortest(thing)
            break
    reason = "it is not clear" if meant else "it fits no region"
    return {**check, "matches": False, "text": better or text, "reason": reason}
