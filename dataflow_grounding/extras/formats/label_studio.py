"""Label Studio: tasks with predictions out, with annotations in; `labels.xml`, the labelling
configuration, is beside.

A box is a region, in percents of the sides, with its phrase as a text of its own, related to where
that stands in the caption. Offsets are code points; early versions counted UTF-16 units, which the
region's text shows. Sources: labelstud.io/guide/{task_format,predictions}; label-studio's
web/libs/editor/src: utils/selection-tools.js, mixins/AreaMixin.js (an id ends at `#`).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.data.records import has_id
from dataflow_grounding.extras.formats.base import Format, Phrase, Sample, stands
from dataflow_grounding.extras.formats.export_folder import ExportFolder
from dataflow_grounding.extras.formats.reading import broken, read_lines

# as in label_studio.xml
_BOX, _PHRASE, _NOTHING, _ABSENT = "object", "phrase", "nothing there", "absent"
_OTHER_SHAPES = ("polygon", "ellipse", "brush", "bitmask", "keypoint", "vector", "video")
_OURS = re.compile(rf"p\d+b\d+|{_ABSENT}")
_DECIMALS = 6  # of a pixel


@dataclass
class LabelStudio(Format):
    """Label Studio's JSON. `image` and `caption` are what these two are called in a task's data."""

    image: str = "image"
    caption: str = "caption"

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        with out.file("labels.xml") as file:
            file.write(files(__package__).joinpath("label_studio.xml").read_text("utf-8"))
        with out.lists(self.data_file, "") as (put,):
            for sample in samples:
                name = sample.file_name
                address = name if "://" in name else f"/data/local-files/?d={quote(name)}"
                data = {
                    self.image: address,
                    self.caption: sample.caption,
                    "image_id": sample.record.get("image_id"),
                }
                result = [
                    part
                    for n, one in enumerate(sample.phrases)
                    for part in _regions(f"p{n}", one, sample)
                ]
                if absent := [
                    phrase.text for phrase in sample.phrases if not phrase.boxes and not phrase.span
                ]:
                    region = {
                        "id": _ABSENT,
                        "from_name": _ABSENT,
                        "to_name": "image",
                        "type": "textarea",
                    }
                    result.append({**region, "value": {"text": absent}})
                scores = [
                    score
                    for phrase in sample.phrases
                    for score in phrase.scores
                    if score is not None
                ]
                model = str(sample.record.get("model") or "dataflow-grounding")
                done = {
                    "model_version": model,
                    **({"score": min(scores)} if scores else {}),
                    "result": result,
                }
                put({"data": data, "predictions": [done]})

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        for where, task in read_lines(path, self.data_file):
            with broken(where):
                if "data" not in task:
                    raise BrokenRow(
                        "no 'data' in it: export from Label Studio as JSON, not as JSON-MIN"
                    )
                done = _latest(task.get("annotations")) or _latest(task.get("predictions"))
                cancelled = [
                    bool(one.get("was_cancelled")) for one in task.get("annotations") or []
                ]
                self.passed_over["cancelled annotations"] += sum(cancelled)
                self.passed_over["annotations before a task's last one"] += max(
                    0, cancelled.count(False) - 1
                )
                self.passed_over["tasks without an annotation"] += not done
                yield from [self._record(task["data"], said) for said in done]

    def _record(self, data: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
        caption, address = data.get(self.caption) or "", data[self.image]
        served = parse_qs(urlsplit(address).query).get("d", [address.removeprefix("/data/")])
        record: dict[str, Any] = {"image_path": served[0], "caption": caption}
        if any(part.get("item_index") for part in said["result"]):
            raise BrokenRow("a task of several pages: only tasks of one picture can be read")
        record["expressions"] = _expressions(said["result"], caption)
        for box in (part for part in said["result"] if _kind(part) == "box"):
            record |= {"width": box["original_width"], "height": box["original_height"]}
        who = said.get("completed_by")
        who = (who.get("email") or who.get("id")) if isinstance(who, dict) else who
        own = {"image_id": data.get("image_id"), "reviewed_by": None if who is None else str(who)}
        return record | {key: value for key, value in own.items() if has_id(value)}


def _regions(span_id: str, phrase: Phrase, sample: Sample) -> Iterator[dict[str, Any]]:
    """A phrase's place in the caption, and its boxes, each with its text and a relation to that
    place.
    """
    if phrase.span:
        start, end = phrase.span
        words, label = sample.caption[start:end], _PHRASE if phrase.boxes else _NOTHING
        region, value = (
            {"id": span_id, "to_name": "caption"},
            {"start": start, "end": end, "text": words},
        )
        yield {
            **region,
            "from_name": "span",
            "type": "labels",
            "value": {**value, "labels": [label]},
        }
        if not phrase.boxes and phrase.text != words:
            yield {
                **region,
                "from_name": "words",
                "type": "textarea",
                "value": {**value, "text": [phrase.text]},
            }
    width, height = sample.size
    for number, ((x1, y1, x2, y2), score) in enumerate(
        zip(phrase.boxes, phrase.scores, strict=True)
    ):
        corner = {"x": x1 / width * 100, "y": y1 / height * 100}
        area = {
            **corner,
            "width": (x2 - x1) / width * 100,
            "height": (y2 - y1) / height * 100,
            "rotation": 0,
        }
        sides: dict[str, Any] = {
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
        }
        region = {"id": f"{span_id}b{number}", "to_name": "image"} | sides
        box = {
            **region,
            "from_name": "box",
            "type": "rectanglelabels",
            "value": {**area, "rectanglelabels": [_BOX]},
        }
        yield box if score is None else {**box, "score": score}
        yield {
            **region,
            "from_name": "phrase",
            "type": "textarea",
            "value": {**area, "text": [phrase.text]},
        }
        if phrase.span:
            yield {
                "type": "relation",
                "from_id": region["id"],
                "to_id": span_id,
                "direction": "right",
                "labels": [],
            }


def _latest(given: Any) -> list[dict[str, Any]]:
    """The one of them that was made or changed last and not cancelled, if there is any."""
    kept = [one for one in given or [] if not one.get("was_cancelled")]
    return sorted(kept, key=lambda one: str(one.get("updated_at") or one.get("created_at") or ""))[
        -1:
    ]


def _expressions(result: list[dict[str, Any]], caption: str) -> list[dict[str, Any]]:
    """Regions put together: boxes of one text, related to one place in the caption, are one
    expression's.
    """
    texts = {part["id"]: part["value"]["text"] for part in result if part["type"] == "textarea"}
    spans = {
        part["id"]: _code_points(part["value"], caption) for part in result if _kind(part) == "span"
    }
    places = _places(result, spans)
    found: dict[Any, dict[str, Any]] = {}
    for part in result:
        region, kind = part.get("id", ""), _kind(part)
        for place, given in _at(
            places.get(region, [""]), region, texts.get(region), spans, caption
        ):
            span = spans.get(place)
            for text in _texts(part, kind, given, span, caption):
                key = place or next((there for there, other in found if other == text), ""), text
                one = found.setdefault(key, {"text": text, "instances": []})
                # of others it's looked for
                one |= {"char_span": span} if span or _OURS.fullmatch(region) else {}
                one["instances"] += [_instance(part)] if kind == "box" else []
    return list(found.values())


def _places(result: list[dict[str, Any]], spans: Mapping[str, Any]) -> dict[str, list[str]]:
    """Of each region those in the caption that it is related to, in either direction; of these
    themselves.
    """
    places = {one: [one] for one in spans}
    for a, b in [(part["from_id"], part["to_id"]) for part in result if part["type"] == "relation"]:
        for one, other in ((a, b), (b, a)):
            if one not in spans and other in spans and other not in places.setdefault(one, []):
                places[one].append(other)
    return places


def _at(
    places: list[str], region: str, given: Any, spans: Mapping[str, Any], caption: str
) -> list[tuple[str, Any]]:
    """The places, each with the texts written to the region that stand there, where it isn't the
    only one.
    """
    if len(places) == 1:
        return [(places[0], given)]
    given = [given] if isinstance(given, str) else given or []
    at = [(place, [one for one in given if stands(one, spans[place], caption)]) for place in places]
    if lost := {*given}.difference(*(texts for _, texts in at)):
        raise BrokenRow(
            f"region {region} has several relations, and {lost.pop()!r} is at none: leave it one"
        )
    return at


def _kind(part: Mapping[str, Any]) -> str:
    """What a region is to us: `box`, `span`, `absent` or nothing. Raises BrokenRow for what we'd
    lose.
    """
    kind = part["type"]
    if kind.startswith(_OTHER_SHAPES):
        raise BrokenRow(f"region {part['id']} is a {kind}: only rectangles can be read")
    if kind.startswith("rectangle"):
        return "box"
    if kind == "textarea":
        return _ABSENT if part["from_name"] == _ABSENT else ""
    return "span" if isinstance(part.get("value", {}).get("start"), int) else ""


def _texts(part: Mapping[str, Any], kind: str, given: Any, span: Any, caption: str) -> list[str]:
    """The phrases that a region is of: as written to it, else as its place has it,
    else its labels.
    """
    labels = part["value"].get(part["type"], []) if kind in ("box", "span") else []
    if not kind or (kind == "span" and labels != [_NOTHING]):
        return []
    said = given or (
        caption[slice(*span)] if span else [label for label in labels if label != _BOX]
    )
    if not said:
        raise BrokenRow(f"region {part['id']} has no phrase")
    return [said] if isinstance(said, str) else said


def _code_points(value: Mapping[str, Any], caption: str) -> list[int]:
    """A region's place in the caption, also where UTF-16 units were counted."""
    span, said = [value["start"], value["end"]], value.get("text")
    if caption[slice(*span)] != said:
        units = caption.encode("utf-16-le", "surrogatepass")
        counted = [len(units[: 2 * n].decode("utf-16-le", "replace")) for n in span]
        return counted if caption[slice(*counted)] == said else span
    return span


def _instance(part: Mapping[str, Any]) -> dict[str, Any]:
    value, sides = part["value"], (part["original_width"], part["original_height"])
    if value.get("rotation") or part.get("image_rotation"):
        raise BrokenRow(f"region {part['id']} is rotated: only upright boxes can be read")
    corners = (value["x"], value["y"], value["x"] + value["width"], value["y"] + value["height"])
    bbox = [round(n * sides[i % 2] / 100, _DECIMALS) for i, n in enumerate(corners)]
    return {
        "bbox": bbox,
        "score": part.get("score") if part.get("origin", "prediction") == "prediction" else None,
    }
