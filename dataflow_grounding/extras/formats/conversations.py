"""Conversations about pictures, as vision-language models are tuned on them.

There is a question and an answer for each phrase. In `ms-swift` boxes stand beside the text, in
pixels, and the trainer writes them as its model does. In `llava` and `sharegpt` they are text, in
the numbers of one family of models, the `target`. Where nothing is there the answer is `[]`.
Sources: modelscope/ms-swift, Custom-dataset.md and swift/template/base.py; QwenLM/Qwen3-VL,
qwen-vl-finetune; hiyouga/LLaMA-Factory, data/README.md and src/llamafactory/data/mm_plugin.py;
OpenGVLab/InternVL, internvl_chat.
"""

import html
import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar, NamedTuple

from dataflow_grounding._util.errors import SpecError, TruncatedReply, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.data.records import dump_text, is_box
from dataflow_grounding.extras.formats.base import Sample
from dataflow_grounding.extras.formats.export_folder import ExportFolder
from dataflow_grounding.extras.formats.texts import Boxes, Line, Texts
from dataflow_grounding.replies import Reading, read_boxes
from dataflow_grounding.replies.box_reader import to_reading
from dataflow_grounding.replies.reading import ParsedReply
from dataflow_grounding.replies.tokens import has_tokens, read_tokens

NOTHING = "[]"  # the answer where nothing is there
_IMAGE = "<image>\n"  # stands for the picture, before the first question


class Tags(NamedTuple):
    """How a family of models writes a phrase and its boxes, where that isn't JSON.

    All but `separator`, which stands between boxes, are patterns for `str.format`: `phrase` takes
    the phrase, `box` a box's four numbers, `boxes` all boxes of the phrase, joined.
    """

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
    "ms-swift": Tags(phrase="<ref-object>", boxes="{}", box="<bbox>", separator=""),
}
"""By the name of the family's box format. Others write objects in JSON."""
TAGGED_PHRASE = re.compile(  # the phrase alone inside a family's tags: "a dog" of <ref>a dog</ref>
    r"(?:(?<=<ref>)|(?<=<\|object_ref_start\|>)).*?(?=</ref>|<\|object_ref_end\|>)", re.DOTALL
)


class Trainer(NamedTuple):
    """A trainer that resizes pictures: its own limits in square pixels, and how one sets others.

    `settings` is a pattern of both limits, in the trainer's own words.
    """

    min_pixels: int
    max_pixels: int
    settings: str


_LLAMA_FACTORY = "llama-factory"
_TRAINERS = {  # with their own defaults; 28 px: two of Qwen2-VL's patches
    "qwen": Trainer(16 * 28**2, 576 * 28**2, "--min_pixels {} --max_pixels {}"),
    "ms-swift": Trainer(4 * 28**2, 16384 * 28**2, "MIN_PIXELS={} MAX_PIXELS={}"),
    _LLAMA_FACTORY: Trainer(32**2, 768**2, "image_min_pixels: {}, image_max_pixels: {}"),
}
_BOX_KEY = re.compile('"((?:bbox|box)_2d)"')  # a JSON key of boxes, "bbox_2d" or "box_2d"
# What any answer with boxes has in it: numbers in brackets, as [12, 34, 56, 78], or a tag of a box.
_MAY_HAVE_BOXES = re.compile(r"\[[-+\d.,\s]*\d[-+\d.,\s]*\]|<\|?box")
# Matches an answer that is meant as boxes, not as words with numbers in brackets among them: it
# begins with a bracket or a code block, or has a box key or a tag anywhere.
_MEANT_AS_BOXES = re.compile(r"\s*[\[{`]|.*(?:_2d\b|<)", re.DOTALL)
_PLACEHOLDER = re.compile("<ref-object>|<bbox>")  # ms-swift's, for the next phrase or box
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")  # 12, -3, 0.25
# Who speaks in turns that the user asks in, and in turns that are neither a question nor the
# model's answer: instructions, calls of tools, and what tools return, as the trainers' formats name
# them.
_USERS = ("human", "user")
_NEITHER = (
    "system",
    "developer",
    "function_call",
    "tool_call",
    "observation",
    "function",
    "tool",
    "tool_response",
)
# codes of the reader of replies for what it leaves out: of training data that is an error
_NOTES_OF_LOSS = ("dropped", "truncated")


class _Conversations(Texts):
    """Base of the formats of questions and answers, one of each for each phrase."""

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
    # of a turn that is written: the key of who speaks, its value for the user and for the model,
    # and the key of the text
    keys: ClassVar[tuple[str, str, str, str]] = ("from", "human", "gpt", "value")
    boxes: BoxFormat  # of the answers

    def conversation(self, size: Size, boxes_of: Boxes) -> list[dict[str, str]]:
        """Return the turns of a question and an answer for each phrase.

        `size` is the picture's; it stands before the first question. Without phrases there are
        none.
        """
        speaker_key, user, assistant, text_key = self.keys
        turns: list[dict[str, str]] = []
        for phrase, boxes in boxes_of.items():
            question = self.question(phrase)
            if not turns:
                question = _IMAGE + question
            turns.append({speaker_key: user, text_key: question})
            turns.append({speaker_key: assistant, text_key: self.answer(phrase, boxes, size)})
        return turns

    def question(self, phrase: str) -> str:
        """Return the question for a phrase's boxes."""
        tags = TAGS.get(self.boxes.name)
        if tags:
            tagged = tags.phrase.format(phrase)
            return f"Give the boxes of all that fits this description: {tagged}"
        return f"Give the boxes as JSON of all that fits this description: {phrase}"

    def answer(self, phrase: str, boxes: list[Bbox], size: Size) -> str:
        """Return the answer that gives these boxes of a picture of this size, in pixels."""
        sent = self.sent(size)
        fours = [self.boxes.from_pixels(box, original=size, sent=sent) for box in boxes]
        return as_answer(phrase, fours, self.boxes)

    def training(self) -> str:
        """Return a paragraph of the README: how the trained model is to be asked."""
        return (
            f"Ask the trained model as the data does: `{self.question('…')}`. `{NOTHING}`: nothing"
            " is there."
        )

    def sent(self, size: Size) -> Size:
        """Return the size in which the model's own processor gets a picture of this size."""
        return size

    def answers(self, line: Line, size: Size) -> Iterator[tuple[str, list[Bbox]]]:
        """Yield the phrases and boxes of all answers of the model.

        Each is read as the answer to the user's turn before it. An answer without anything like
        boxes in it is passed over, without being counted; so is what tools are asked and return.
        """
        turns, box_format = self.turns(line)
        question = ""
        for turn in turns:
            role = turn.get("from") or turn["role"]
            text = turn["value"] if "value" in turn else turn["content"]
            if role in _USERS:
                question = text
            elif role not in _NEITHER:
                yield from self._phrases_of_answer(question, text, box_format, size)

    def _phrases_of_answer(
        self, question: str, answer: str, box_format: BoxFormat, size: Size
    ) -> Iterator[tuple[str, list[Bbox]]]:
        """Yield the phrases of an answer with their boxes; one may come several times.

        A box without a label of its own is of the question's phrase, which comes without boxes
        where the answer is NOTHING. Of an answer without anything like a box nothing is yielded.
        Raises ValueError, UnreadableReply.
        """
        if answer.strip() == NOTHING:
            yield phrase_of(question), []
            return
        if not _MAY_HAVE_BOXES.search(answer):
            return
        phrase = phrase_of(question)
        boxes = boxes_as_written(answer, phrase, box_format, size, self.sent(size))
        if boxes:  # most answers are ours, and reading them as a reply takes much longer
            yield phrase, boxes
            return
        for label, box in self._boxes_in(answer, box_format, size):
            # The reader of replies resolves entities, such as &amp;, in a label.
            if label is None or label == html.unescape(phrase):
                label = phrase
            yield label, [box]

    def _boxes_in(
        self, text: str, box_format: BoxFormat, size: Size
    ) -> list[tuple[str | None, Bbox]]:
        """Return the boxes in an answer, read like a model's reply, each with its label or None.

        An answer of words whose numbers in brackets are no boxes has none, and is counted. Raises
        UnreadableReply of an answer that is meant as boxes; ValueError where a part of it would be
        left out, or its boxes stand under another family's key.
        """
        wrong_keys = {*_BOX_KEY.findall(text)} - {box_format.key}
        if wrong_keys:
            raise ValueError(
                f"its boxes are {wrong_keys.pop()!r}, and those of its target {box_format.key!r}:"
                " name theirs"
            )
        text, phrase_of_name = _with_names_for_phrases(text)
        try:
            reading = _read(text, box_format, size, self.sent(size))
        except UnreadableReply as error:
            if isinstance(error, TruncatedReply) or _MEANT_AS_BOXES.match(text):
                raise
            self.passed_over["answers with numbers in brackets that are no box"] += 1
            return []
        for note in reading.notes:
            if note.code in _NOTES_OF_LOSS:
                raise ValueError(note.text)
        boxes = []
        for box in reading.boxes:
            label = box.label
            if label in phrase_of_name:
                label = phrase_of_name[label]
            boxes.append((label, box.bbox))
        return boxes

    def turns(self, line: Line) -> tuple[list[Any], BoxFormat]:
        """Return a line's turns, with the boxes in their text, and the format of these boxes.

        Raises KeyError, ValueError.
        """
        return line.get("conversations") or line["messages"], self.boxes


def _read(text: str, box_format: BoxFormat, size: Size, sent: Size) -> Reading:
    """Return the boxes in an answer. What stands next to tags is a caption, whatever it says.

    Raises:
        UnreadableReply: As `read_boxes`.
    """
    if text.lstrip().startswith(("{", "[")) or not has_tokens(text):
        return read_boxes(text, format=box_format, image_size=size, sent_size=sent)
    parsed = ParsedReply()
    read_tokens(text, parsed)
    return to_reading(parsed, box_format, size, sent, {})


def _with_names_for_phrases(text: str) -> tuple[str, dict[str, str]]:
    """Return an answer with a name in the place of each tagged phrase, and the phrases by name.

    Phrases may look like boxes, which names such as "phrase 0" don't.

    Example:
        >>> _with_names_for_phrases("<ref>[1, 2]</ref><box>[[1, 2, 3, 4]]</box>")
        ('<ref>phrase 0</ref><box>[[1, 2, 3, 4]]</box>', {'phrase 0': '[1, 2]'})
    """
    phrase_of_name: dict[str, str] = {}
    parts = []
    end = 0  # of the last phrase in the text
    for phrase in TAGGED_PHRASE.finditer(text):
        name = f"phrase {len(phrase_of_name)}"
        phrase_of_name[name] = phrase[0]
        parts += [text[end : phrase.start()], name]
        end = phrase.end()
    return "".join([*parts, text[end:]]), phrase_of_name


class MsSwift(_Conversations):
    """What ms-swift reads.

    `<ref-object>` and `<bbox>` stand for the phrases and boxes of `objects`, in their order.
    """

    keys = ("role", "user", "assistant", "content")
    boxes = BoxFormat("ms-swift", "bbox_2d", "xyxy", "px")

    def line(self, sample: Sample, boxes_of: Boxes) -> Line:
        """Return the line of a sample: the conversation, its objects, and its picture."""
        return {**self._columns(sample.size, boxes_of), "images": [sample.file_name]}

    def _columns(self, size: Size, boxes_of: Boxes) -> Line:
        """Return the columns of a line for these phrases, all but the one of its picture."""
        refs: list[str] = []
        numbers: list[list[float]] = []
        for text, boxes in boxes_of.items():
            refs.append(text)  # in the question
            if boxes:
                refs.append(text)  # in the answer
            numbers += [list(box) for box in boxes]
        objects = {"ref": refs, "bbox": numbers, "bbox_type": "real"}
        return {"messages": self.conversation(size, boxes_of), "objects": objects}

    def answers(self, line: Line, size: Size) -> Iterator[tuple[str, list[Bbox]]]:
        """Return the phrases and boxes of a line, taken from its columns if it is as written here.

        Most lines are, and reading their answers like a model's replies would take much longer.
        Other lines are read so. Of a line as written here, each phrase comes once.
        """
        boxes_of = self._boxes_if_ours(line)
        if not _all_are_inside(boxes_of, size):
            return super().answers(line, size)
        # The line may have further columns, such as its picture.
        is_ours = self._columns(size, boxes_of).items() <= line.items()
        return iter(boxes_of.items()) if is_ours else super().answers(line, size)

    def _boxes_if_ours(self, line: Line) -> Boxes:
        """Return the phrases of a line with their boxes, as if it were one that is written here.

        Of another line they may be wrong, and the boxes may be anything: the caller has to see
        whether writing them makes the same line.
        """
        objects: dict[str, list[Any]] = line.get("objects") or {}
        refs = iter(objects.get("ref") or ())
        boxes = iter(objects.get("bbox") or ())
        boxes_of: Boxes = {}
        for answer in line["messages"][1::2]:
            its_boxes = list(islice(boxes, answer["content"].count("<bbox>")))
            boxes_of[str(next(refs, ""))] = its_boxes
            if its_boxes:
                next(refs, None)  # the phrase again, in the answer
        return boxes_of

    def answer(self, phrase: str, boxes: list[Bbox], size: Size) -> str:
        """Return the answer, with placeholders, as boxes stand in `objects`."""
        return as_answer(phrase, boxes, self.boxes)

    def turns(self, line: Line) -> tuple[list[Any], BoxFormat]:
        """Return the messages with phrases and boxes for placeholders, and the format of the boxes.

        Boxes are in pixels, or with `norm1` in parts of the sides. Raises ValueError where there
        are more or fewer placeholders than objects, or a box isn't four numbers.
        """
        objects = line.get("objects") or {}
        messages = line["messages"]
        refs = list(objects.get("ref") or ())
        boxes = list(objects.get("bbox") or ())
        placeholders = _PLACEHOLDER.findall("".join(message["content"] for message in messages))
        ref_count = placeholders.count("<ref-object>")
        if ref_count != len(refs) or placeholders.count("<bbox>") != len(boxes):
            raise ValueError(
                "not as many <ref-object> and <bbox> in its messages as in its objects"
            )
        for box in boxes:
            if not is_box(box):
                raise ValueError(f"{box} is not a box [x1, y1, x2, y2]; points can't be read")
        box_format = self.boxes
        if objects.get("bbox_type") == "norm1":
            box_format = replace(box_format, scale=1)
        next_refs = iter(refs)
        next_boxes = iter(boxes)
        turns = []
        for message in messages:
            content = _without_placeholders(message["content"], next_refs, next_boxes)
            turns.append({**message, "content": content})
        return turns, box_format


def _all_are_inside(boxes_of: Boxes, size: Size) -> bool:
    """Whether all phrases' boxes are four numbers, with an area, in a picture of that size.

    True where there are none.
    """
    for boxes in boxes_of.values():
        if not all(map(is_box, boxes)) or not are_inside(boxes, size):
            return False
    return True


def _without_placeholders(text: str, refs: Iterator[Any], boxes: Iterator[Any]) -> str:
    """Return the text with phrases and boxes in the place of `<ref-object>` and `<bbox>`.

    As many as it needs are taken from the iterators, which have to have them. In a text of JSON,
    by its first character, they are written as JSON, else in Qwen2-VL's tags, which our reader of
    replies knows.
    """
    is_json = text.lstrip()[:1] in ("[", "{", "`")
    tags = TAGS["qwen2-vl"]
    parts = []
    end = 0  # of the last placeholder in the text
    for placeholder in _PLACEHOLDER.finditer(text):
        if placeholder[0] == "<bbox>":
            box = next(boxes)
            written = dump_text(box) if is_json else tags.box.format(*box)
        else:
            ref = next(refs)
            # In JSON the placeholder stands inside of quotation marks.
            written = dump_text(str(ref))[1:-1] if is_json else tags.phrase.format(ref)
        parts += [text[end : placeholder.start()], written]
        end = placeholder.end()
    return "".join([*parts, text[end:]])


@dataclass
class Llava(_Conversations):
    """What Qwen's own trainer, InternVL's and others in LLaVA's way read.

    `target` is a family of the contract table, a model's name, or a plain format. For targets whose
    numbers are pixels of the resized picture, such as qwen2.5-vl, `trainer` resizes the pictures,
    to areas from `min_pixels` to `max_pixels`, in square pixels: its own limits unless given. For
    other targets the three are refused with SpecError.
    """

    target: str = ""
    trainer: str = ""
    min_pixels: int = 0
    max_pixels: int = 0
    usual_trainer: ClassVar[str] = "qwen"

    def __post_init__(self) -> None:
        """Find the target's box format; for pixels of resized pictures, set trainer and limits.

        Raises SpecError for an unknown target or trainer, and for limits that are of no use.
        """
        self.boxes = _box_format_of(self.target)
        is_in_resized_pixels = re.fullmatch(r"smart_resize_\d+", self.boxes.frame)
        if not is_in_resized_pixels:
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
        limits = _TRAINERS[self.trainer]
        self.min_pixels = self.min_pixels or limits.min_pixels
        self.max_pixels = self.max_pixels or limits.max_pixels
        if not 0 < self.min_pixels <= self.max_pixels:
            raise SpecError(
                f"max_pixels ({self.max_pixels}) should be at least min_pixels"
                f" ({self.min_pixels}), above 0"
            )
        if self.trainer != _LLAMA_FACTORY:  # which resizes by its own rule, see `sent`
            frame = f"{self.boxes.frame}_{self.min_pixels}_{self.max_pixels}"
            self.boxes = replace(self.boxes, frame=frame)

    def sent(self, size: Size) -> Size:
        """Return the size in which the model's processor gets a picture of this size.

        LLaMA-Factory resizes pictures to its limits before that, as its mm_plugin.py does.
        """
        if self.trainer != _LLAMA_FACTORY:
            return size
        area = size[0] * size[1]
        scale = math.sqrt(min(max(area, self.min_pixels), self.max_pixels) / area)
        return max(int(size[0] * scale), 28), max(int(size[1] * scale), 28)

    def training(self) -> str:
        """Return two paragraphs of the README: on the boxes' numbers, and on the questions."""
        boxes = self.boxes
        if self.trainer:
            settings = _TRAINERS[self.trainer].settings.format(self.min_pixels, self.max_pixels)
            numbers = (
                f"pixels of the frame `{boxes.frame}` of the picture as {self.trainer} sends it"
                f" with `{settings}`: with other limits, all would be off"
            )
        elif boxes.scale != "px":
            limit = boxes.limits((1, 1))[0]  # the same for a picture of any size
            numbers = f"from 0 to {limit:g} along each side, whatever the picture's size"
        else:
            numbers = f"pixels of the frame `{boxes.frame}`"
        return (
            f"Boxes are written as {boxes.name} does: {boxes.order},"
            f" {numbers}.\n\n{super().training()}"
        )

    def line(self, sample: Sample, boxes_of: Boxes) -> Line:
        """Return the line of a sample: its picture, and the conversation about it."""
        return {
            "id": str(sample.record.get("image_id") or sample.file_name),
            "image": sample.file_name,
            "width": sample.size[0],
            "height": sample.size[1],
            "conversations": self.conversation(sample.size, boxes_of),
        }

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        """Write the lines, then the files beside them, which may say how many lines there are."""
        super().write(samples, out)
        for name, facts in self.beside().items():
            with out.file(name) as file:
                file.write(dump_text({"grounding": facts}, 2) + "\n")

    def beside(self) -> dict[str, Line]:
        """Return what files beside the data tell a trainer of it, by the file's name.

        `write` puts each into its file under the key `grounding`. Without any, there are no files.
        """
        if self.boxes.name != "internvl":
            return {}
        facts = {
            "root": ".",
            "annotation": self.data_file,
            "data_augment": False,
            "repeat_time": 1,
            "length": self.length,
        }
        return {"meta.json": facts}


class ShareGpt(Llava):
    """What LLaMA-Factory reads."""

    usual_trainer = "llama-factory"

    def line(self, sample: Sample, boxes_of: Boxes) -> Line:
        """Return the line of a sample: the conversation and its picture."""
        return {
            "conversations": self.conversation(sample.size, boxes_of),
            "images": [sample.file_name],
        }

    def beside(self) -> dict[str, Line]:
        """Return LLaMA-Factory's entry of the data set."""
        columns = {"messages": "conversations", "images": "images"}
        return {
            "dataset_info.json": {
                "file_name": self.data_file,
                "formatting": "sharegpt",
                "columns": columns,
            }
        }


class Messages(Llava):
    """What TRL and the chat templates of transformers read: contents are lists of parts.

    The picture is a part without its path, which stands under `images`.
    """

    keys = ("role", "user", "assistant", "content")

    def line(self, sample: Sample, boxes_of: Boxes) -> Line:
        """Return the line of a sample, with the picture as the first part of the first message."""
        messages: list[Line] = []
        for turn in self.conversation(sample.size, boxes_of):
            text = turn["content"]
            parts = [{"type": "text", "text": text.removeprefix(_IMAGE)}]
            if text.startswith(_IMAGE):
                # with a text as well: in `datasets` all parts have the same keys
                parts.insert(0, {"type": "image", "text": ""})
            messages.append({"role": turn["role"], "content": parts})
        return {"messages": messages, "images": [sample.file_name]}

    def beside(self) -> dict[str, Line]:
        """Return no files: these trainers read the data alone."""
        return {}

    def turns(self, line: Line) -> tuple[list[Any], BoxFormat]:
        """Return the messages, each content's parts of text joined, and the format of the boxes.

        Parts of other types are dropped; a content that is a text stays. Raises KeyError.
        """
        turns = []
        for message in line["messages"]:
            content = message["content"]
            if isinstance(content, list):
                texts = [str(part.get("text") or "") for part in content if part["type"] == "text"]
                content = "".join(texts)
            turns.append({**message, "content": content})
        return turns, self.boxes


def _box_format_of(target: str) -> BoxFormat:
    """Return the box format of a family, a model or a plain format's name.

    Raises SpecError where there is none, or its boxes are tokens of their own, not numbers.
    """
    for name in ("auto", target):  # "auto" takes `target` for a model's name
        with suppress(SpecError):
            box_format = find_box_format(name, target)
            has_box_tokens = box_format.bins or box_format.scale == "grid_32"
            if not has_box_tokens:
                return box_format
    wrong = f", not {target!r}" if target else ""
    raise SpecError(
        "target should be the family or model to be trained, in whose numbers boxes are written,"
        " such as qwen3-vl, qwen2.5-vl, qwen2-vl, internvl, gemini or"
        f" xyxy_1000{wrong}; the format ms-swift needs no target"
    )


def as_answer(
    phrase: str, fours: Sequence[Sequence[float]], box_format: BoxFormat, is_json: bool = False
) -> str:
    """Return the answer that gives a phrase and its boxes, `fours` of the family's own numbers.

    It is in the family's tags if it has some, unless `is_json` or there is no box; else it is a
    JSON list of an object for each box, its numbers under the family's key: NOTHING without a box.
    """
    tags = TAGS.get(box_format.name)
    if is_json or tags is None or not fours:
        return dump_text([{box_format.key: four, "label": phrase} for four in fours])
    boxes = tags.separator.join(tags.box.format(*four) for four in fours)
    return tags.phrase.format(phrase) + tags.boxes.format(boxes)


def phrase_of(question: str) -> str:
    """Return the phrase that a question asks for.

    It is what is in the first of its tags, else what is behind its first colon, else all of it
    without `<image>`. It may be empty.
    """
    text = question.replace("<image>", "")
    tagged = TAGGED_PHRASE.search(question) if "<" in text else None
    if tagged:
        return tagged[0]
    behind_colon = text.partition(":")[2].strip()
    return behind_colon or text.strip()


def boxes_as_written(
    text: str, phrase: str, box_format: BoxFormat, size: Size, sent: Size
) -> list[Bbox]:
    """Return the boxes, in pixels, of an answer that is exactly as `as_answer` writes it.

    The list is empty for any other answer, where a box isn't inside the picture, and where the
    phrase has an entity such as &amp;: those are to be read like a model's reply.

    Args:
        text: The answer.
        phrase: What its question asks for.
        box_format: What its numbers mean.
        size: The picture's.
        sent: The size in which the model's processor gets the picture.
    """
    fours = _fours_of(text, box_format)
    is_json = text.startswith("[")
    if not all(map(is_box, fours)) or text != as_answer(phrase, fours, box_format, is_json):
        return []
    boxes = [box_format.to_pixels(four, original=size, sent=sent) for four in fours]
    if not are_inside(boxes, size) or html.unescape(phrase) != phrase:
        return []
    return boxes


def _fours_of(text: str, box_format: BoxFormat) -> list[list[float]]:
    """Return the numbers of the boxes of an answer, four each, if `as_answer` wrote it.

    Of another answer they may be anything, or an empty list. It is empty, too, for an answer in
    other tags than Qwen2-VL's: the reader of replies reads those.
    """
    with suppress(ValueError, TypeError, KeyError):
        if text.startswith("[{"):
            return [item[box_format.key] for item in json.loads(text)]
        if box_format.name == "qwen2-vl":
            behind_phrase = text.rpartition("<|object_ref_end|>")[2]
            values = json.loads(f"[{','.join(_NUMBER.findall(behind_phrase))}]")
            return [values[start : start + 4] for start in range(0, len(values), 4)]
    return []


def are_inside(boxes: Sequence[Bbox], size: Size) -> bool:
    """Whether all boxes have an area, and are within a picture of that size; True for none."""
    width, height = size
    return all(0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height for x1, y1, x2, y2 in boxes)
