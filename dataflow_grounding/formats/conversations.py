"""Conversations about pictures, as vision-language models are tuned on them.

There is a question and an answer for each phrase. DIALECTS has the differences between trainers'
files. In `ms-swift` boxes are in a separate column, in pixels, and the trainer writes them as its
model does. In the others they are text, in the numbers of one family of models, the `target`. If
nothing is there, the answer is `[]`.
Sources: modelscope/ms-swift, Custom-dataset.md and swift/template/base.py; QwenLM/Qwen3-VL,
qwen-vl-finetune; hiyouga/LLaMA-Factory, data/README.md and src/llamafactory/data/mm_plugin.py;
OpenGVLab/InternVL, internvl_chat; trl, data_utils.py.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, TypeAlias

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.data.records import dump_text
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.formats.format import Format, Sample

Line: TypeAlias = dict[str, Any]
Boxes: TypeAlias = dict[str, list[Bbox]]
"""The boxes of each phrase of a picture, in pixels."""
Fours: TypeAlias = Sequence[Sequence[float]]
"""Boxes in a model's own numbers."""


@dataclass(frozen=True)
class Dialect:
    """What tells the files of one trainer from those of another.

    In OpenAI's words a turn is {"role": "user", "content": "<image>…"}: `speaker` is "role", `user`
    is "user", and `said` is "content". `<image>` marks the picture.
    """

    columns: tuple[str, ...]
    speaker: str
    user: str
    model: str  # who answers
    said: str
    in_parts: bool = False  # what is said is a list of parts, of which the picture is one
    boxes: BoxFormat | None = None  # None: the target's
    trainer: str = ""  # resizes pictures, within its own limits, for a target that counts pixels


_PIXELS = BoxFormat("ms-swift", "bbox_2d", "xyxy", "px")
_LLAVA = ("id", "image", "width", "height", "conversations")
_OPENAI = ("role", "user", "assistant", "content")  # as OpenAI calls them, and others after it
_SHAREGPT = ("from", "human", "gpt", "value")
DIALECTS = {
    "ms-swift": Dialect(("messages", "objects", "images"), *_OPENAI, boxes=_PIXELS),
    "llava": Dialect(_LLAVA, *_SHAREGPT, trainer="qwen"),
    "sharegpt": Dialect(("conversations", "images"), *_SHAREGPT, trainer="llama-factory"),
    "messages": Dialect(("messages", "images"), *_OPENAI, in_parts=True, trainer="qwen"),
}
"""By the format's name."""


class Tags(NamedTuple):
    """How a family writes a phrase and its boxes where not in JSON: patterns for `str.format`."""

    phrase: str
    boxes: str
    box: str
    separator: str


TAGS = {
    "qwen2-vl": Tags(
        phrase="<|object_ref_start|>{}<|object_ref_end|>",
        boxes="{}",
        box="<|box_start|>({},{}),({},{})<|box_end|>",
        separator="",
    ),
    "internvl": Tags(
        phrase="<ref>{}</ref>",
        boxes="<box>[{}]</box>",
        box="[{}, {}, {}, {}]",
        separator=", ",
    ),
    # placeholders for the phrases and boxes of `objects`, in their order
    "ms-swift": Tags(phrase="<ref-object>", boxes="{}", box="<bbox>", separator=""),
}
"""By the name of the family's box format. Others write objects in JSON."""
NOTHING = "[]"  # the answer if nothing is there


class Trainer(NamedTuple):
    """A trainer with its own limits in square pixels, and how one sets them."""

    min_pixels: int
    max_pixels: int
    settings: str
    resizes_first: bool = False  # by a rule of its own, before the model's processor does


_TRAINERS = {  # with their own defaults; 28 px: two of Qwen2-VL's patches
    "qwen": Trainer(16 * 28**2, 576 * 28**2, "--min_pixels 12544 --max_pixels 451584"),
    "llama-factory": Trainer(
        32**2, 768**2, "image_min_pixels: 1024, image_max_pixels: 589824", resizes_first=True
    ),
}


class Conversations(Format):
    """A line for each picture, with a question and an answer for each phrase."""

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
    dialect: ClassVar[Dialect]
    boxes: BoxFormat  # of the answers

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        line_count = 0
        with out.lines(self.data_file) as put:
            for sample in samples:
                line_count += 1
                put(self._line(sample))
        for name, facts in self.further_files(line_count).items():
            with out.file(name) as file:
                # Such files may list several data sets by name: this one is called `grounding`.
                file.write(dump_text({"grounding": facts}, 2) + "\n")

    def further_files(self, line_count: int) -> dict[str, Line]:
        """Return what files next to the lines tell a trainer of them, by the file's name."""
        return {}

    def _line(self, sample: Sample) -> Line:
        boxes_of: Boxes = {}  # boxes of equal phrases come together
        for phrase in sample.phrases:
            boxes_of.setdefault(phrase.text, []).extend(phrase.boxes)
        turns = self._conversation(sample.size, boxes_of)
        # the columns of all dialects, of which this one takes its own
        values = {
            "id": str(sample.record.get("image_id") or sample.file_name),
            "image": sample.file_name,
            "images": [sample.file_name],
            "width": sample.size[0],
            "height": sample.size[1],
            "conversations": turns,
            "messages": turns,
            "objects": _objects(boxes_of),
        }
        return {column: values[column] for column in self.dialect.columns}

    def _conversation(self, size: Size, boxes_of: Boxes) -> list[Line]:
        turns: list[Line] = []
        for phrase, boxes in boxes_of.items():
            question = self.question(phrase)
            is_first = not turns  # the picture is in the first turn alone
            turns.append(self._turn(self.dialect.user, question, has_picture=is_first))
            turns.append(self._turn(self.dialect.model, self.answer(phrase, boxes, size)))
        return turns

    def _turn(self, speaker: str, text: str, has_picture: bool = False) -> Line:
        said: Any = text
        if self.dialect.in_parts:
            said = [{"type": "text", "text": text}]
            if has_picture:
                # It has a text because `datasets` gives the same keys to all parts.
                said.insert(0, {"type": "image", "text": ""})
        elif has_picture:
            said = f"<image>\n{text}"
        return {self.dialect.speaker: speaker, self.dialect.said: said}

    def question(self, phrase: str) -> str:
        tags = TAGS.get(self.boxes.name)
        if tags:
            tagged = tags.phrase.format(phrase)
            return f"Give the boxes of all that fits this description: {tagged}"
        return f"Give the boxes as JSON of all that fits this description: {phrase}"

    def answer(self, phrase: str, boxes: list[Bbox], size: Size) -> str:
        """Return the answer with these boxes, in pixels, as the family writes them."""
        sent = self.sent(size)
        fours = [self.boxes.from_pixels(box, original=size, sent=sent) for box in boxes]
        tags = TAGS.get(self.boxes.name)
        if tags is None or not fours:  # without boxes all families answer `[]`, JSON's empty list
            return _in_json(phrase, fours, self.boxes.key)
        return _in_tags(phrase, fours, tags)

    def training(self) -> str:
        return (
            f"Ask the trained model as the data does: `{self.question('…')}`. `{NOTHING}`: nothing"
            " is there."
        )

    def sent(self, size: Size) -> Size:
        """Return the size in which the model's own processor gets a picture of this size."""
        return size


class MsSwift(Conversations):
    """What ms-swift reads."""

    dialect = DIALECTS["ms-swift"]
    boxes = _PIXELS


@dataclass
class ForTarget(Conversations):
    """Base of the formats in which boxes are text, in the numbers of the model to be trained.

    `target` is a family of the contract table, a model's name, or a plain format.
    """

    target: str = ""

    def __post_init__(self) -> None:
        self.boxes = _box_format_of(self.target)
        self._trainer: Trainer | None = None  # only where pixels of a resized picture are counted
        # A box format that counts pixels of a resized picture has a frame "smart_resize_28": the
        # model's processor resizes it within limits of its area, which each trainer sets.
        is_resized = re.fullmatch(r"smart_resize_\d+", self.boxes.frame) is not None
        if not is_resized:
            return
        trainer = _TRAINERS[self.dialect.trainer]
        self._trainer = trainer
        if trainer.resizes_first:  # it keeps to its limits itself, before the processor: see `sent`
            return
        # Other trainers give the processor their limits. A frame with limits has them in its name.
        frame = f"{self.boxes.frame}_{trainer.min_pixels}_{trainer.max_pixels}"
        self.boxes = replace(self.boxes, frame=frame)

    def sent(self, size: Size) -> Size:
        """Return the size to which the trainer resizes a picture before the processor does."""
        trainer = self._trainer
        if trainer is None or not trainer.resizes_first:
            return size
        width, height = size
        area = width * height
        area_within_limits = min(max(area, trainer.min_pixels), trainer.max_pixels)
        scale = math.sqrt(area_within_limits / area)
        # 28 px are two of the model's patches: the trainer makes no side shorter
        return max(int(width * scale), 28), max(int(height * scale), 28)

    def training(self) -> str:
        """Return a paragraph on the numbers that boxes are in, and on how to ask the model."""
        boxes = self.boxes
        if self._trainer:
            numbers = (
                f"pixels of the frame `{boxes.frame}` of the picture as {self.dialect.trainer}"
                f" sends it with `{self._trainer.settings}`: with other limits, all would be off"
            )
        elif boxes.scale != "px":
            limit = boxes.limits((1, 1))[0]  # the same for a picture of any size
            numbers = f"from 0 to {limit:g} along each side of a picture of any size"
        else:
            numbers = f"pixels of the frame `{boxes.frame}`"
        return (
            f"Boxes are written as {boxes.name} does: {boxes.order},"
            f" {numbers}.\n\n{super().training()}"
        )


class Llava(ForTarget):
    """What Qwen's own trainer, InternVL's and others in LLaVA's way read."""

    dialect = DIALECTS["llava"]

    def further_files(self, line_count: int) -> dict[str, Line]:
        """Return the meta.json that InternVL's trainer needs; others are given the lines alone."""
        if self.boxes.name != "internvl":
            return {}
        facts = {
            "root": ".",
            "annotation": self.data_file,
            "data_augment": False,
            "repeat_time": 1,
            "length": line_count,
        }
        return {"meta.json": facts}


class ShareGpt(ForTarget):
    """What LLaMA-Factory reads."""

    dialect = DIALECTS["sharegpt"]

    def further_files(self, line_count: int) -> dict[str, Line]:
        """Return the dataset_info.json by which LLaMA-Factory finds the lines and their columns."""
        columns = {"messages": "conversations", "images": "images"}
        facts = {"file_name": self.data_file, "formatting": "sharegpt", "columns": columns}
        return {"dataset_info.json": facts}


class Messages(ForTarget):
    """What TRL and the chat templates of transformers read: the path is under `images` alone."""

    dialect = DIALECTS["messages"]


def _in_json(phrase: str, fours: Fours, key: str) -> str:
    return dump_text([{key: four, "label": phrase} for four in fours])


def _in_tags(phrase: str, fours: Fours, tags: Tags) -> str:
    boxes = tags.separator.join(tags.box.format(*four) for four in fours)
    return tags.phrase.format(phrase) + tags.boxes.format(boxes)


def _objects(boxes_of: Boxes) -> Line:
    """Return ms-swift's column: phrases and boxes in the order of their placeholders."""
    refs: list[str] = []
    numbers: list[list[float]] = []
    for text, boxes in boxes_of.items():
        refs.append(text)  # in the question
        if boxes:
            refs.append(text)  # in the answer
        numbers += [list(box) for box in boxes]
    return {"ref": refs, "bbox": numbers, "bbox_type": "real"}


def _box_format_of(target: str) -> BoxFormat:
    """Return the box format of a family, a model or a format's name.

    Raises SpecError for an unknown target, and where boxes can't be written as text.
    """
    # "auto" finds the format of a model or family, such as qwen3-vl. After that the target is taken
    # for the name of a format, such as xyxy_1000.
    for name in ("auto", target):
        with suppress(SpecError):  # there is none
            box_format = find_box_format(name, model=target)
            # A model may have tokens of its own for boxes, which are no text.
            has_box_tokens = box_format.bins or box_format.scale == "grid_32"
            if not has_box_tokens:
                return box_format
    wrong = f", not {target!r}" if target else ""
    raise SpecError(
        "target should be the family or model to be trained, in whose numbers boxes are written,"
        " such as qwen3-vl, qwen2.5-vl, qwen2-vl, internvl, gemini or"
        f" xyxy_1000{wrong}; the format ms-swift needs no target"
    )
