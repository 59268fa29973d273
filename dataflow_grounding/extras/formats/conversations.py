"""Conversations about pictures, as vision-language models are tuned on them: a question and an
answer for each phrase.

In `ms-swift` boxes stand beside the text, in pixels, and the trainer writes them as its model does.
In `llava` and `sharegpt` they are text, in the numbers of one family of models, the `target`. Where
nothing is there the answer is `[]`. Sources: modelscope/ms-swift, Custom-dataset.md and
swift/template/base.py; QwenLM/Qwen3-VL, qwen-vl-finetune; hiyouga/LLaMA-Factory, data/README.md and
src/llamafactory/data/mm_plugin.py; OpenGVLab/InternVL, internvl_chat.
"""

import html
import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any, ClassVar

from dataflow_grounding._util.errors import SpecError, TruncatedReply, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.data.records import dump_text, is_box
from dataflow_grounding.extras.formats.base import Sample
from dataflow_grounding.extras.formats.export_folder import ExportFolder
from dataflow_grounding.extras.formats.texts import Boxes, Line, Texts
from dataflow_grounding.replies import read_boxes

NOTHING = "[]"
# family → how it writes a phrase, all of its boxes, and one of them, and what stands between boxes
TAGS = {
    "qwen2-vl": (
        "<|object_ref_start|>{}<|object_ref_end|>",
        "{}",
        "<|box_start|>({},{}),({},{})<|box_end|>",
        "",
    ),
    "internvl": ("<ref>{}</ref>", "<box>[{}]</box>", "[{}, {}, {}, {}]", ", "),
    "ms-swift": ("<ref-object>", "{}", "<bbox>", ""),
}
TAGGED = re.compile(
    r"(?:(?<=<ref>)|(?<=<\|object_ref_start\|>)).*?(?=</ref>|<\|object_ref_end\|>)", re.DOTALL
)
# who resizes → the least and most square pixels, unless told otherwise, and how it is told
_TRAINERS = {
    "qwen": (16 * 28**2, 576 * 28**2, "--min_pixels {} --max_pixels {}"),
    "ms-swift": (4 * 28**2, 16384 * 28**2, "MIN_PIXELS={} MAX_PIXELS={}"),
    "llama-factory": (32**2, 768**2, "image_min_pixels: {}, image_max_pixels: {}"),
}
_KEY = re.compile('"((?:bbox|box)_2d)"')
_HAS_BOXES = re.compile(r"\[[-+\d.,\s]*\d[-+\d.,\s]*\]|<\|?box")
# an answer that should be nothing but boxes
_NO_WORDS = re.compile(r"\s*[\[{`]|.*(?:_2d\b|<)", re.DOTALL)
_MARK = re.compile("<ref-object>|<bbox>")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_UNREAD = ("dropped", "truncated", "broken_json", "superseded")


class _Conversations(Texts):
    breaking = (
        "<|",
        "<image>",
        "<video>",
        "<audio>",
        "<ref-object>",
        "<bbox>",
        "<ref>",
        "</ref>",
        "<box>",
        "</box>",
    )
    keys: ClassVar[tuple[str, str, str, str]] = ("from", "human", "gpt", "value")
    boxes: BoxFormat

    def conversation(self, size: Size, asked: Boxes) -> list[dict[str, str]]:
        """A question and an answer for each phrase, about a picture of this size."""
        by, user, assistant, text = self.keys
        turns: list[dict[str, str]] = []
        for phrase, boxes in asked.items():
            turns.append({by: user, text: "<image>\n" * (not turns) + self.question(phrase)})
            turns.append({by: assistant, text: self.answer(phrase, boxes, size)})
        return turns

    def question(self, phrase: str) -> str:
        tags = TAGS.get(self.boxes.name)
        how, what = ("", tags[0].format(phrase)) if tags else (" as JSON", phrase)
        return f"Give the boxes{how} of all that fits this description: {what}"

    def answer(self, phrase: str, boxes: list[Bbox], size: Size) -> str:
        sent = self.sent(size)
        return as_answer(
            phrase,
            [self.boxes.from_pixels(box, original=size, sent=sent) for box in boxes],
            self.boxes,
        )

    def training(self) -> str:
        return (
            f"Ask the trained model as the data does: `{self.question('…')}`. `{NOTHING}`: nothing"
            " is there."
        )

    def sent(self, size: Size) -> Size:
        """The size in which the model's own processor gets a picture."""
        return size

    def said(self, line: Line, size: Size) -> Iterator[tuple[str, list[Bbox]]]:
        turns, numbers = self.turns(line)
        question = ""
        for turn in turns:
            role, text = (
                turn.get("from") or turn["role"],
                turn["value"] if "value" in turn else turn["content"],
            )
            if role in ("human", "user"):
                question = text
            elif role != "system" and text.strip() == NOTHING:
                yield phrase_of(question), []
            elif role != "system" and _HAS_BOXES.search(text):
                phrase = phrase_of(question)
                if plain := plain_boxes(text, phrase, numbers, size, self.sent(size)):
                    yield phrase, plain
                    continue
                for label, box in self._boxes_in(text, numbers, size):
                    same = label in (None, html.unescape(phrase))  # the reader resolves entities
                    yield phrase if same else str(label), [box]

    def _boxes_in(
        self, text: str, numbers: BoxFormat, size: Size
    ) -> Iterator[tuple[str | None, Bbox]]:
        """The boxes in an answer, with their labels. Phrases, which may look like boxes, are read
        under other names.
        """
        if wrong := {*_KEY.findall(text)} - {numbers.key}:
            raise ValueError(
                f"its boxes are {wrong.pop()!r}, and those of its target {numbers.key!r}: name"
                " theirs"
            )
        names, given = (
            count(),
            {f"phrase {n}": phrase for n, phrase in enumerate(TAGGED.findall(text))},
        )
        text = TAGGED.sub(lambda _: f"phrase {next(names)}", text)
        try:
            reading = read_boxes(text, format=numbers, image_size=size, sent_size=self.sent(size))
        except UnreadableReply as error:
            if isinstance(error, TruncatedReply) or _NO_WORDS.match(text):
                raise
            self.passed_over["answers with numbers in brackets that are no box"] += 1
            return iter(())
        if unread := [note.text for note in reading.notes if note.code in _UNREAD]:
            raise ValueError(unread[0])
        return ((given.get(str(box.label), box.label), box.bbox) for box in reading.boxes)

    def turns(self, line: Line) -> tuple[list[Any], BoxFormat]:
        """The turns with the boxes in their text, and what the numbers mean. Raises KeyError,
        ValueError.
        """
        return line.get("conversations") or line["messages"], self.boxes


class MsSwift(_Conversations):
    """What ms-swift reads: `<ref-object>` and `<bbox>` stand for the phrases and boxes of
    `objects`, in their order.
    """

    keys = ("role", "user", "assistant", "content")
    boxes = BoxFormat("ms-swift", "bbox_2d", "xyxy", "px")

    def line(self, sample: Sample, asked: Boxes) -> Line:
        return {**self._written(sample.size, asked), "images": [sample.file_name]}

    def _written(self, size: Size, asked: Boxes) -> Line:
        refs = [text for text, boxes in asked.items() for _ in range(1 + bool(boxes))]
        numbers = [list(box) for boxes in asked.values() for box in boxes]
        objects = {"ref": refs, "bbox": numbers, "bbox_type": "real"}
        return {"messages": self.conversation(size, asked), "objects": objects}

    def said(self, line: Line, size: Size) -> Iterator[tuple[str, list[Bbox]]]:
        objects: dict[str, list[Any]] = line.get("objects") or {}
        refs, boxes = iter(objects.get("ref") or ()), iter(objects.get("bbox") or ())
        asked: Boxes = {}
        for answer in line["messages"][1::2]:
            given = asked[str(next(refs, ""))] = list(
                islice(boxes, answer["content"].count("<bbox>"))
            )
            if given:
                next(refs, None)
        inside = all(
            all(map(is_box, given)) and are_inside(given, size) for given in asked.values()
        )
        as_here = inside and self._written(size, asked).items() <= line.items()  # as most are
        return iter(asked.items()) if as_here else super().said(line, size)

    def answer(self, phrase: str, boxes: list[Bbox], size: Size) -> str:
        return as_answer(phrase, boxes, self.boxes)

    def turns(self, line: Line) -> tuple[list[Any], BoxFormat]:
        objects, messages = line.get("objects") or {}, line["messages"]
        refs, boxes = list(objects.get("ref") or ()), list(objects.get("bbox") or ())
        marks = _MARK.findall("".join(one["content"] for one in messages))
        if (marks.count("<ref-object>"), marks.count("<bbox>")) != (len(refs), len(boxes)):
            raise ValueError(
                "not as many <ref-object> and <bbox> in its messages as in its objects"
            )
        if wrong := next((box for box in boxes if not is_box(box)), None):
            raise ValueError(f"{wrong} is not a box [x1, y1, x2, y2]; points can't be read")
        numbers = (
            replace(self.boxes, scale=1) if objects.get("bbox_type") == "norm1" else self.boxes
        )
        return [
            {**one, "content": _filled(one["content"], refs, boxes)} for one in messages
        ], numbers


def _filled(text: str, refs: list[Any], boxes: list[Any]) -> str:
    """The text with the next phrases and boxes in it, which are taken from their lists."""
    as_json = text.lstrip()[:1] in ("[", "{", "`")
    ref, _, box, _ = TAGS["qwen2-vl"]

    def fill(mark: re.Match[str]) -> str:
        if mark[0] == "<bbox>":
            return dump_text(boxes.pop(0)) if as_json else box.format(*boxes.pop(0))
        return dump_text(str(refs.pop(0)))[1:-1] if as_json else ref.format(refs.pop(0))

    return _MARK.sub(fill, text)


@dataclass
class Llava(_Conversations):
    """What Qwen's own trainer, InternVL's and others in LLaVA's way read.

    `target` is a family of the contract table, a model's name, or a plain format. For targets in
    pixels, `trainer` resizes the pictures, to areas from `min_pixels` to `max_pixels`, in square
    pixels: its own limits unless given.
    """

    target: str = ""
    trainer: str = ""
    min_pixels: int = 0
    max_pixels: int = 0
    usual_trainer: ClassVar[str] = "qwen"

    def __post_init__(self) -> None:
        self.boxes = _box_format_of(self.target)
        if not re.fullmatch(r"smart_resize_\d+", self.boxes.frame):
            if self.trainer or self.min_pixels or self.max_pixels:
                raise SpecError(
                    f"leave out trainer, min_pixels, max_pixels: the numbers of {self.target} need"
                    " none"
                )
            return
        self.trainer = self.trainer or self.usual_trainer
        if self.trainer not in _TRAINERS:
            raise SpecError(
                f"trainer should be one of {', '.join(_TRAINERS)}, not {self.trainer!r}"
            )
        low, high, _ = _TRAINERS[self.trainer]
        low, high = self.min_pixels, self.max_pixels = (
            self.min_pixels or low,
            self.max_pixels or high,
        )
        if not 0 < low <= high:
            raise SpecError(f"max_pixels ({high}) should be at least min_pixels ({low}), above 0")
        if self.trainer != "llama-factory":
            self.boxes = replace(self.boxes, frame=f"{self.boxes.frame}_{low}_{high}")

    def sent(self, size: Size) -> Size:
        if self.trainer != "llama-factory":
            return size
        area = size[0] * size[1]
        scale = math.sqrt(min(max(area, self.min_pixels), self.max_pixels) / area)
        return max(int(size[0] * scale), 28), max(int(size[1] * scale), 28)

    def training(self) -> str:
        boxes, numbers = self.boxes, f"pixels of the frame `{self.boxes.frame}`"
        if self.trainer:
            told = _TRAINERS[self.trainer][2].format(self.min_pixels, self.max_pixels)
            numbers += (
                f" of the picture as {self.trainer} sends it with `{told}`: with other limits, all"
                " would be off"
            )
        elif boxes.scale != "px":
            numbers = (
                f"from 0 to {boxes.limits((1, 1))[0]:g} along each side, whatever the picture's"
                " size"
            )
        return (
            f"Boxes are written as {boxes.name} does: {boxes.order},"
            f" {numbers}.\n\n{super().training()}"
        )

    def line(self, sample: Sample, asked: Boxes) -> Line:
        facts: Line = {
            "id": str(sample.record.get("image_id") or sample.file_name),
            "image": sample.file_name,
        }
        facts |= {"width": sample.size[0], "height": sample.size[1]}
        return {**facts, "conversations": self.conversation(sample.size, asked)}

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        super().write(samples, out)
        for name, facts in self.beside().items():
            with out.file(name) as file:
                file.write(dump_text({"grounding": facts}, 2) + "\n")

    def beside(self) -> dict[str, Line]:
        """Files that tell a trainer of the data, by name."""
        facts = {"root": ".", "annotation": self.data_file, "data_augment": False, "repeat_time": 1}
        return (
            {"meta.json": {**facts, "length": self.length}} if self.boxes.name == "internvl" else {}
        )


class ShareGpt(Llava):
    """What LLaMA-Factory reads."""

    usual_trainer = "llama-factory"

    def line(self, sample: Sample, asked: Boxes) -> Line:
        return {
            "conversations": self.conversation(sample.size, asked),
            "images": [sample.file_name],
        }

    def beside(self) -> dict[str, Line]:
        columns = {"messages": "conversations", "images": "images"}
        return {
            "dataset_info.json": {
                "file_name": self.data_file,
                "formatting": "sharegpt",
                "columns": columns,
            }
        }


def _box_format_of(target: str) -> BoxFormat:
    """The box format of a family, a model or a plain format's name. Raises SpecError."""
    for name in ("auto", target):
        with suppress(SpecError):
            found = find_box_format(name, target)
            if not found.bins and found.scale != "grid_32":
                # those have tokens of their own for boxes
                return found
    raise SpecError(
        "target should be the family or model to be trained, in whose numbers boxes are written,"
        " such as qwen3-vl, qwen2.5-vl, qwen2-vl, internvl, gemini or"
        f" xyxy_1000{f', not {target!r}' if target else ''}; the format ms-swift needs no target"
    )


def as_answer(
    phrase: str, fours: Sequence[Sequence[float]], numbers: BoxFormat, is_json: bool = False
) -> str:
    """The phrase and its boxes in a family's tags, else as objects with the numbers of a box under
    the family's key.
    """
    if is_json or numbers.name not in TAGS or not fours:
        return dump_text([{numbers.key: four, "label": phrase} for four in fours])
    ref, every, one, between = TAGS[numbers.name]
    return ref.format(phrase) + every.format(between.join(one.format(*four) for four in fours))


def phrase_of(question: str) -> str:
    """What a question asks for: in its tags, else behind its colon, else all of it."""
    plain = question.replace("<image>", "")
    tagged = TAGGED.search(question) if "<" in plain else None
    return tagged[0] if tagged else (plain.partition(":")[2].strip() or plain.strip())


def plain_boxes(text: str, phrase: str, numbers: BoxFormat, size: Size, sent: Size) -> list[Bbox]:
    """The boxes of an answer written as it is here, as most are, all inside; none of another, a
    reply like any.
    """
    fours: list[list[float]] = []
    with suppress(ValueError, TypeError, KeyError):
        if text.startswith("[{"):
            fours = [one[numbers.key] for one in json.loads(text)]
        elif numbers.name == "qwen2-vl":  # others' tags mean their own numbers
            found = json.loads(
                f"[{','.join(_NUMBER.findall(text.rpartition('<|object_ref_end|>')[2]))}]"
            )
            fours = [found[at : at + 4] for at in range(0, len(found), 4)]
    if not all(map(is_box, fours)) or text != as_answer(
        phrase, fours, numbers, text.startswith("[")
    ):
        return []
    boxes = [numbers.to_pixels(four, original=size, sent=sent) for four in fours]
    return boxes if are_inside(boxes, size) and html.unescape(phrase) == phrase else []


def are_inside(boxes: Sequence[Bbox], size: Size) -> bool:
    """Whether all have an area, within a picture of that size."""
    return all(0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1] for x1, y1, x2, y2 in boxes)
