"""Answers to the tasks about given regions: all from their labels, boxes and colours."""

from collections.abc import Mapping, Sequence
from typing import Any

from dataflow_grounding.embedded.choose import center
from dataflow_grounding.embedded.descriptions import Descriptions
from dataflow_grounding.embedded.picture import Array, Picture
from dataflow_grounding.embedded.regions import Thing, read_things, with_article

Reply = dict[str, Any]


def answer_about_regions(task: str, image: Array, given: Mapping[str, Any]) -> Reply:
    """The reply to a task about regions; ``image`` is uint8 (H, W, 3), BGR, upright, ``given`` the request's input."""
    picture = Picture(image)
    seen = Descriptions(read_things(picture, given.get("regions") or []), picture)
    match task:
        case "region_expression":
            types = {region["id"]: region.get("type") or "" for region in given["regions"]}
            regions = [
                {"id": t.id, "type": types[t.id], "color": t.color, "description": _description(seen, t)}
                for t in seen.things
            ]
            return {"regions": regions}
        case "image_caption":
            return {"caption": seen.caption()}
        case "grounding_expression":
            return {"expressions": _merged(seen)}
        case "double_check":
            return {"checks": [_checked(seen, e["id"], str(e["text"]), e["region_ids"]) for e in given["expressions"]]}
        case _:
            return {"captions": [{"id": thing.id, "text": _plain_caption(seen, thing)} for thing in seen.things]}


def _description(seen: Descriptions, thing: Thing) -> str:
    """The phrase that means this thing alone, or one that says that it is one of several."""
    name = " ".join(part for part in (thing.color, thing.kind) if part)
    return seen.shortest(thing) or with_article(name)


def _plain_caption(seen: Descriptions, thing: Thing) -> str:
    """Colour, size and place, which is all that is known of a region without a label; and a remark that says so."""
    share = thing.size / seen.picture.area
    color = f"mostly {thing.color}" if thing.color else "of no single colour"
    if share > 0.98:
        return f"A picture {color}. (Colour only: the embedded grounder can't tell what it is.)"
    x, y = center(thing.bbox, seen.picture)
    across, down = _third(x, "left", "right"), _third(y, "top", "bottom")
    place = " ".join(part for part in (down, across) if part) or "middle"
    return (
        f"A region {color}, {max(1, round(100 * share))}% of the picture, in its {place}. "
        "(Colour, size and place only: the embedded grounder can't tell what it is.)"
    )


def _third(part: float, low: str, high: str) -> str:
    return low if part < 1 / 3 else high if part > 2 / 3 else ""


def _merged(seen: Descriptions) -> list[Reply]:
    """An expression for each thing that can be told from all others, and one for each group that can be counted."""
    single = [(text, [thing.id]) for thing in seen.things if (text := seen.shortest(thing)) is not None]
    groups = [(text, ids) for text, ids in seen.groups() if len(ids) > 1 and seen.means(text, ids)]
    return [{"text": text, "region_ids": ids} for text, ids in [*groups, *single]]


def _checked(seen: Descriptions, number: int, text: str, ids: Sequence[int]) -> Reply:
    check = {"id": number, "text": text, "region_ids": list(ids), "reason": ""}
    meaning = seen.meaning(text)
    if meaning is None:
        return {**check, "matches": None, "reason": "not all words are understood"}
    if meaning.clear and sorted(meaning.ids) == sorted(ids):
        return {**check, "matches": True}
    found = list(meaning.ids)
    if meaning.clear and found:
        return {**check, "matches": False, "region_ids": found, "reason": "it means other regions"}
    if found and len(ids) == 1:
        return {**check, "matches": False, "region_ids": found, "reason": f"it fits {len(found)} regions"}
    right = [thing for thing in seen.things if [thing.id] == list(ids)]
    better = seen.shortest(right[0]) if right else None
    reason = "it is not clear" if found else "it fits no region"
    return {**check, "matches": False, "text": better or text, "reason": reason}
