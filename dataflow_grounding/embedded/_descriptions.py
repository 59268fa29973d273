"""Descriptions of the regions that a request has, and the answers to the tasks about them.

All come from the regions' labels, colours and places, by one table: each phrase that can be made of
these, with the regions that it fits.
"""

from collections.abc import Iterator, Sequence

from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.embedded import _words as words
from dataflow_grounding.embedded._phrases import relative_center
from dataflow_grounding.embedded._picture import Array, Picture
from dataflow_grounding.embedded.regions import Thing, plural_of, read_things, with_article

_WHOLE_PICTURE = 0.98  # of the picture's area: a region with more is called the picture
_COUNTS = {number: word for word, number in words.NUMBERS.items()}  # 2 → "two"


class Descriptions:
    """What can be said of things in a picture.

    A phrase fits things, and may mean them. "Red car" means a car if no other is red. Where two are
    red, it fits both and means neither, and "two red cars" means both.
    """

    def __init__(self, things: Sequence[Thing], picture: Picture) -> None:
        self.things = things
        # {"red car": [3, 5]}: the ids of the things that a phrase, without article, fits
        self.meanings: dict[str, list[int]] = {}
        self._names_by_id: dict[int, list[str]] = {}  # all names of each thing, the shortest first
        for thing in things:
            names = list(_names(thing, picture))
            self._names_by_id[thing.id] = names
            for name in names:
                self.meanings.setdefault(name, []).append(thing.id)
        # Where "red car" fits two things, "two red cars" means both.
        for color in ("", *words.COLOR_BOUNDS):  # all colour terms; "" for "two cars"
            for kind in {thing.kind for thing in things}:
                ids = self.meanings.get(_joined(color, kind), [])
                if len(ids) > 1:
                    self.meanings[_counted(len(ids), color, kind)] = ids

    def meaning(self, text: str) -> list[int] | None:
        """Return the ids of the things that a phrase fits; None where its words aren't known."""
        name = text.strip().lower()
        first, _, rest = name.partition(" ")
        if first in ("a", "an", "the"):
            name = rest
        return self.meanings.get(name)

    def means(self, text: str, ids: Sequence[int]) -> bool:
        """Return whether a phrase means exactly these things."""
        fitting_ids = self.meaning(text)
        return fitting_ids == sorted(ids) and _is_clear(text, len(ids))

    def shortest(self, thing: Thing) -> str | None:
        """Return the shortest phrase that means this thing alone; None where no words tell."""
        for name in self._names_by_id[thing.id]:
            if self.meanings[name] == [thing.id]:
                return f"the {name}"
        return None

    def groups(self) -> list[tuple[str, list[int]]]:
        """Return each kind of thing, counted, with its things' ids: ("two cars", [3, 5])."""
        ranked = []
        for (color, kind), things in self._things_alike().items():
            count = len(things)
            total_size = sum(thing.size for thing in things)
            ids = [thing.id for thing in things]
            # minus: most things first, and among equals those with the largest boxes
            ranked.append((-count, -total_size, _counted(count, color, kind), ids))
        return [(text, ids) for _, _, text, ids in sorted(ranked)]

    def _things_alike(self) -> dict[tuple[str, str], list[Thing]]:
        """Return the red cars by ("red", "car"), all buses by ("", "bus") if one has no colour."""
        kinds_without_color = {thing.kind for thing in self.things if not thing.color}
        things_alike: dict[tuple[str, str], list[Thing]] = {}
        for thing in self.things:
            color = "" if thing.kind in kinds_without_color else thing.color
            things_alike.setdefault((color, thing.kind), []).append(thing)
        return things_alike

    def caption(self) -> str:
        """Return what is there, counted: "Two red cars and a bus."; "A picture." without things."""
        texts = [text for text, _ in self.groups()]
        *first_texts, last_text = texts or ["a picture"]
        listed = last_text
        if first_texts:
            listed = f"{', '.join(first_texts)} and {last_text}"
        return f"{listed[:1].upper()}{listed[1:]}."


def _names(thing: Thing, picture: Picture) -> Iterator[str]:
    """Yield "car", "red car", "car on the left", "red car on the left" and so on."""
    x, y = relative_center(thing.bbox, picture)
    across = "left" if x < 0.5 else "right"
    down = "top" if y < 0.5 else "bottom"
    corner = f"in the {down} {across} corner"
    for place in ("", f"on the {across}", f"at the {down}", corner):
        yield _joined(thing.kind, place)
        if thing.color:
            yield _joined(thing.color, thing.kind, place)


def _is_clear(text: str, count: int) -> bool:
    """Return whether a phrase means what it fits: "the red car" one car, "two red cars" any."""
    if count == 0:
        return False
    words_of_text = text.lower().split()
    first_word = words_of_text[0] if words_of_text else ""
    has_number = first_word in words.NUMBERS or first_word.isdecimal()
    return count == 1 or has_number


def _joined(*parts: str) -> str:
    return " ".join(filter(None, parts))


def _counted(count: int, color: str, kind: str) -> str:
    if count > 1:
        return _joined(_COUNTS.get(count, str(count)), color, plural_of(kind))
    return with_article(_joined(color, kind))


def answer_about_regions(task: str, image: Array, request_input: JsonObject) -> dict[str, object]:
    """Answer a task about regions in an image, which is uint8 (H, W, 3), BGR, upright."""
    picture = Picture(image)
    regions = request_input.get("regions") or []
    descriptions = Descriptions(read_things(picture, regions), picture)
    if task == "image_caption":
        return {"caption": descriptions.caption()}
    if task == "grounding_expression":
        return {"expressions": _unambiguous_expressions(descriptions)}
    if task == "double_check":
        expressions = request_input["expressions"]
        return {"checks": [_check(descriptions, expression) for expression in expressions]}
    if task == "region_caption":
        captions = []
        for thing in descriptions.things:
            captions.append({"id": thing.id, "text": _plain_caption(thing, picture)})
        return {"captions": captions}
    return {"regions": _described_regions(regions, descriptions)}  # "region_expression"


def _described_regions(
    regions: Sequence[JsonObject], descriptions: Descriptions
) -> list[dict[str, object]]:
    described = []
    for region, thing in zip(regions, descriptions.things, strict=True):
        # if no phrase means the thing alone, it is "a red car"
        text = descriptions.shortest(thing) or with_article(_joined(thing.color, thing.kind))
        label = region.get("type") or ""
        described.append({"id": thing.id, "type": label, "color": thing.color, "description": text})
    return described


def _plain_caption(thing: Thing, picture: Picture) -> str:
    share = thing.size / picture.area
    color = f"mostly {thing.color}" if thing.color else "of no single colour"
    if share > _WHOLE_PICTURE:
        return f"A picture {color}. (Colour only: the embedded grounder can't tell what it is.)"
    percent = max(1, round(100 * share))
    x, y = relative_center(thing.bbox, picture)
    # "top left", "top" or "left"; "" in the middle third both ways
    place = _joined(_word_for_third(y, "top", "bottom"), _word_for_third(x, "left", "right"))
    return (
        f"A region {color}, {percent}% of the picture, in its"
        f" {place or 'middle'}. (Colour, size and place only: the embedded grounder can't tell what"
        " it is.)"
    )


def _word_for_third(share: float, first: str, last: str) -> str:
    if share < 1 / 3:
        return first
    return last if share > 2 / 3 else ""


def _unambiguous_expressions(descriptions: Descriptions) -> list[dict[str, object]]:
    """Return groups such as "two red cars", then each thing that some phrase means alone."""
    expressions: list[dict[str, object]] = []
    for text, ids in descriptions.groups():
        if len(ids) > 1 and descriptions.means(text, ids):
            expressions.append({"text": text, "region_ids": ids})
    for thing in descriptions.things:
        own_text = descriptions.shortest(thing)
        if own_text is not None:
            expressions.append({"text": own_text, "region_ids": [thing.id]})
    return expressions


def _check(descriptions: Descriptions, expression: JsonObject) -> dict[str, object]:
    """Return the answer about one expression; `matches` is None where its words aren't known."""
    text = str(expression["text"])
    region_ids = list(expression["region_ids"])
    check = {"id": expression["id"], "text": text, "region_ids": region_ids}
    fitting_ids = descriptions.meaning(text)
    if fitting_ids is None:
        return {**check, "matches": None}
    if descriptions.means(text, region_ids):
        return {**check, "matches": True}
    return {**check, "matches": False, "region_ids": fitting_ids}
