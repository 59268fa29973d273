"""Descriptions of given regions, and the answers to the tasks about them: all from their labels,
boxes and colours.
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
_AT_A_SIDE, _IN_A_CORNER = 0.42, 0.36
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
    """The regions that a phrase means; not ``clear`` when its words fit all of them and should fit
    fewer.
    """

    ids: tuple[int, ...]
    clear: bool = True


class Descriptions:
    """Describes the things of one picture, by the rules by which the grounder chooses among
    candidates.
    """

    def __init__(self, things: Sequence[Thing], picture: Picture) -> None:
        self.things = list(things)
        self.picture = picture
        # what a kind is called → the kind, and a word that stands for it
        self._forms: dict[str, tuple[str, str]] = {}
        for kind in sorted({thing.kind for thing in things}):
            self._forms |= {plural_of(kind): (kind, "things"), kind: (kind, "thing")}
        forms = (
            "|".join(re.escape(form) for form in sorted(self._forms, key=len, reverse=True))
            or "(?!)"
        )
        # Of two in a row the first one describes the second: "the orange orange".
        self._noun = re.compile(rf"\b(?:{forms})\b(?!\s+(?:{forms})\b)")
        self.meaning = cache(self._meaning)

    def _meaning(self, text: str) -> Meaning | None:
        """What a phrase means among the things; None when not all of it is understood."""
        kinds = [self._forms[found][0] for found in self._noun.findall(text.lower())]
        plain = self._noun.sub(lambda found: self._forms[found.group()][1], text.lower())
        if not all(token in _TESTED or token.isdecimal() for token in tokenize(plain)):
            return None
        phrase = _parsed(plain)
        phrases = [phrase, phrase.relation[1]] if phrase.relation else [phrase]
        understood = all((p.head, p.refusal, p.unread) == ("thing", "", False) for p in phrases)
        if len(kinds) != len(phrases) or not understood:
            return None
        candidates = self._candidates(phrase, kinds[0])
        if phrase.relation is not None:
            side, anchor = phrase.relation
            anchors = choose(self._candidates(anchor, kinds[1]), anchor, self.picture)
            if anchors is None or len(anchors) != 1:
                return None
            candidates = beside(candidates, side, anchors[0].bbox)
        chosen = choose(candidates, phrase, self.picture)
        return Meaning(
            tuple(thing.id for thing in (candidates if chosen is None else chosen)),
            chosen is not None,
        )

    def _candidates(self, phrase: Phrase, kind: str) -> list[Thing]:
        return [
            thing
            for thing in self.things
            if thing.kind == kind and phrase.color in (None, thing.color)
        ]

    def means(self, text: str, ids: Sequence[int]) -> bool:
        """Whether a phrase means exactly these things."""
        meaning = self.meaning(text)
        return meaning is not None and meaning.clear and sorted(meaning.ids) == sorted(ids)

    def shortest(self, thing: Thing) -> str | None:
        """The shortest phrase that means this thing and no other; None when the words don't tell it
        from another.

        Properties by preference as in Dale and Reiter (1995, Cognitive Science 19): type, colour,
        size, place. As size and place depend on what is left, all sets are tried, small ones first.
        """
        return next((text for text in self._phrases(thing) if self.means(text, [thing.id])), None)

    def _phrases(self, thing: Thing) -> Iterator[str]:
        colors = ("", thing.color) if thing.color else ("",)
        places = [place for place in (*_PLACES, *_ENDS) if self._lies(thing, place)]
        sets = itertools.product(places, ("", "small", "large"), colors)
        for place, size, color in sorted(sets, key=lambda s: (sum(map(bool, s)), "corner" in s[0])):
            end, rest = (place, "") if place in _ENDS else ("", place)
            yield _joined("the", end, size, color, thing.kind, rest)
        for color in colors:
            for anchor in itertools.islice(self._anchors(thing), _MOST_ANCHORS):
                for side in ("to the left of", "to the right of", "above", "below"):
                    yield _joined("the", color, thing.kind, side, anchor)

    def _lies(self, thing: Thing, place: str) -> bool:
        """Whether a thing lies where the words say, not only further there than the others."""
        far = _IN_A_CORNER if "corner" in place else _AT_A_SIDE
        sides = ("left", "right", "top", "bottom", "middle")
        return all(
            lies(thing.bbox, word, self.picture, far) for word in place.split() if word in sides
        )

    def _anchors(self, thing: Thing) -> Iterator[str]:
        """Phrases for the other things, the nearest first, that type, and colour if need be, tell
        from all others.
        """
        for other in sorted(self.things, key=lambda other: _distance(thing, other)):
            texts = (
                _joined("the", color, other.kind) for color in dict.fromkeys(("", other.color))
            )
            telling = (text for text in texts if other != thing and self.means(text, [other.id]))
            yield from itertools.islice(telling, 1)

    def groups(self) -> list[tuple[str, list[int]]]:
        """Each kind of thing, counted ("two red cars", by colour if all are clear), and which they
        are, many first.
        """
        by_name: dict[tuple[str, str], list[Thing]] = {}
        for thing in self.things:
            same = [other.color for other in self.things if other.kind == thing.kind]
            by_name.setdefault((thing.color if all(same) else "", thing.kind), []).append(thing)
        ranked = sorted(
            by_name.items(),
            key=lambda item: (-len(item[1]), -sum(t.size for t in item[1]), item[0]),
        )
        return [
            (_counted(len(group), *name), [thing.id for thing in group]) for name, group in ranked
        ]

    def caption(self) -> str:
        """What is there, counted: "Two red cars and a bus."."""
        parts = [text for text, _ in self.groups()] or ["a picture"]
        listed = f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
        return f"{listed[:1].upper()}{listed[1:]}."


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _counted(count: int, color: str, kind: str) -> str:
    if count > 1:
        return _joined(_COUNTS.get(count, str(count)), color, plural_of(kind))
    return with_article(_joined(color, kind))


def _distance(one: Thing, other: Thing) -> float:
    return sum(
        abs(one.bbox[axis] + one.bbox[axis + 2] - other.bbox[axis] - other.bbox[axis + 2])
        for axis in (0, 1)
    )


def answer_about_regions(task: str, image: Array, given: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to a task about regions; ``image`` is uint8 (H, W, 3), BGR, upright, ``given`` the
    request's input.
    """
    picture = Picture(image)
    seen = Descriptions(read_things(picture, given.get("regions") or []), picture)
    match task:
        case "region_expression":
            types = {region["id"]: region.get("type") or "" for region in given["regions"]}
            # What nothing tells from others is called one of them: "a red car".
            texts = {
                t.id: seen.shortest(t) or with_article(_joined(t.color, t.kind))
                for t in seen.things
            }
            regions = [
                {"id": t.id, "type": types[t.id], "color": t.color, "description": texts[t.id]}
                for t in seen.things
            ]
            return {"regions": regions}
        case "image_caption":
            return {"caption": seen.caption()}
        case "grounding_expression":
            return {"expressions": _merged(seen)}
        case "double_check":
            return {
                "checks": [
                    _checked(seen, e["id"], str(e["text"]), e["region_ids"])
                    for e in given["expressions"]
                ]
            }
        case _:
            return {
                "captions": [
                    {"id": thing.id, "text": _plain_caption(seen, thing)} for thing in seen.things
                ]
            }


def _plain_caption(seen: Descriptions, thing: Thing) -> str:
    """Colour, size and place, which is all that is known of a region without a label; and a remark
    that says so.
    """
    share = thing.size / seen.picture.area
    color = f"mostly {thing.color}" if thing.color else "of no single colour"
    if share > 0.98:
        return f"A picture {color}. (Colour only: the embedded grounder can't tell what it is.)"
    x, y = center(thing.bbox, seen.picture)
    across = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    down = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else ""
    place = _joined(down, across) or "middle"
    return (
        f"A region {color}, {max(1, round(100 * share))}% of the picture, in its {place}. "
        "(Colour, size and place only: the embedded grounder can't tell what it is.)"
    )


def _merged(seen: Descriptions) -> list[dict[str, Any]]:
    """An expression for each thing that can be told from all others, and one for each group that
    can be counted.
    """
    single = [
        (text, [thing.id]) for thing in seen.things if (text := seen.shortest(thing)) is not None
    ]
    groups = [(text, ids) for text, ids in seen.groups() if len(ids) > 1 and seen.means(text, ids)]
    return [{"text": text, "region_ids": ids} for text, ids in [*groups, *single]]


def _checked(seen: Descriptions, number: int, text: str, ids: Sequence[int]) -> dict[str, Any]:
    check = {"id": number, "text": text, "region_ids": list(ids), "reason": ""}
    meaning = seen.meaning(text)
    if meaning is None:
        return {**check, "matches": None, "reason": "not all words are understood"}
    if seen.means(text, ids):
        return {**check, "matches": True}
    found = list(meaning.ids)
    if found and (meaning.clear or len(ids) == 1):
        reason = "it means other regions" if meaning.clear else f"it fits {len(found)} regions"
        return {**check, "matches": False, "region_ids": found, "reason": reason}
    better = next((seen.shortest(thing) for thing in seen.things if [thing.id] == list(ids)), None)
    reason = "it is not clear" if found else "it fits no region"
    return {**check, "matches": False, "text": better or text, "reason": reason}
