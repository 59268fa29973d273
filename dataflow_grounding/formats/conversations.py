"""Conversations about pictures, as vision-language models are tuned on them.

There is a question and an answer for each phrase. DIALECTS has the differences between trainers'
files. In `ms-swift` boxes are in a separate column, in pixels, and the trainer writes them as its
model does. In the others they are text, in the numbers of one family of models, the `target`. If
nothing is there, the answer is `[]`.
An answer is read by the reader of replies (`replies/`), as a model's own would be.
Sources: modelscope/ms-swift, Custom-dataset.md and swift/template/base.py; QwenLM/Qwen3-VL,
qwen-vl-finetune; hiyouga/LLaMA-Factory, data/README.md and src/llamafactory/data/mm_plugin.py;
OpenGVLab/InternVL, internvl_chat; trl, data_utils.py.
"""

import html
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, TypeAlias

from dataflow_grounding._util.errors import SpecError, TruncatedReply, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.data.records import dump_text, is_box
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.formats.format import Format, Sample
from dataflow_grounding.formats.reading import (
    entry_errors,
    object_errors,
    picture_size,
    read_lines,
    unite,
)
from dataflow_grounding.replies import Reading, read_boxes
from dataflow_grounding.replies.box_reader import to_reading
from dataflow_grounding.replies.reading import ParsedReply
from dataflow_grounding.replies.tokens import has_tokens, read_tokens

Line: TypeAlias = dict[str, Any]
Boxes: TypeAlias = dict[str, list[Bbox]]
"""The boxes of each phrase of a picture, in pixels."""
Fours: TypeAlias = Sequence[Sequence[float]]
"""Boxes in a model's own numbers."""
Turn: TypeAlias = tuple[str, Any]
"""Who speaks, and what is said, which should be a text."""
PhraseBoxes: TypeAlias = tuple[str, list[Bbox]]
"""A phrase, and boxes that an answer has of it."""
LabelAndBox: TypeAlias = tuple[str | None, Bbox]
"""A box after its label in an answer, which may have none."""


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
TAGGED_PHRASE = re.compile(  # the phrase alone inside a family's tags: "a dog" of <ref>a dog</ref>
    r"(?:(?<=<ref>)|(?<=<\|object_ref_start\|>)).*?(?=</ref>|<\|object_ref_end\|>)", re.DOTALL
)


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
_BOX_KEY = re.compile('"((?:bbox|box)_2d)"')  # a JSON key of boxes, "bbox_2d" or "box_2d"
# What any answer with boxes has in it: numbers in brackets, as [12, 34, 56, 78], or a box's key or
# tag, also where its numbers can't be read.
_MAY_HAVE_BOXES = re.compile(rf"\[[-+\d.,\s]*\d[-+\d.,\s]*\]|<\|?box|{_BOX_KEY.pattern}")
# Matches an answer that is meant as boxes, not as words with numbers in brackets among them: it
# begins with a bracket or a code block, or has a box key or a tag anywhere.
_MEANT_AS_BOXES = re.compile(r"\s*[\[{`]|.*(?:_2d\b|<)", re.DOTALL)
# Four numbers as they are written here: [1, 2, 3, 4] or (1,2),(3,4).
_FOUR = re.compile(r"[\[(]N, ?N\)?, ?\(?N, ?N[\])]".replace("N", r"(-?\d+(?:\.\d+)?)"))
_PLACEHOLDER = re.compile("<ref-object>|<bbox>")  # ms-swift's, for the next phrase or box
# Speakers as the trainers' formats call them: who asks, and who neither asks nor answers.
_USERS = ("human", "user")
_NOT_ANSWERING = (
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
    measures = True
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

    def read(self, path: str, image_root: str) -> Iterator[Line]:
        """Yield a record for each line with a picture, by whose sides its boxes are counted."""
        for where, line in read_lines(path, self.data_file, self.bad):
            with entry_errors(where, self.bad):
                name = _picture_of(line)
                if name is None:
                    continue
                size = picture_size(image_root, name, where)
                row = {
                    "image_path": name,
                    "caption": None,
                    "width": size[0],
                    "height": size[1],
                    "expressions": [],
                }
                with object_errors(where, self.bad):  # a bad answer costs the expressions alone
                    row["expressions"] = self._expressions(line, size)
                yield self.bad.marked(row)

    def _expressions(self, line: Line, size: Size) -> list[dict[str, Any]]:
        keyed = []
        for phrase, boxes in self._answers(line, size):
            if not phrase:
                raise ValueError("an answer without a phrase")
            instances = [{"bbox": list(box)} for box in boxes]
            keyed.append((phrase, {"text": phrase, "instances": instances}))
        return unite(keyed)

    def _answers(self, line: Line, size: Size) -> Iterator[PhraseBoxes]:
        """Yield the phrases and boxes of each answer; what tools say and are asked is none."""
        turns = _turns_of(line)
        box_format = self.boxes
        if self.dialect.boxes:  # they are in a column of their own, `objects`
            turns, box_format = _with_objects(turns, line.get("objects") or {}, box_format)
        question = ""
        for speaker, said in turns:
            if speaker in _USERS:
                question = said
            elif speaker not in _NOT_ANSWERING:
                yield from self._phrases_of_answer(question, said, box_format, size)

    def _phrases_of_answer(
        self, question: str, answer: str, box_format: BoxFormat, size: Size
    ) -> Iterator[PhraseBoxes]:
        if answer.strip() == NOTHING:
            yield phrase_of(question), []
            return
        if not _MAY_HAVE_BOXES.search(answer):  # it is words alone, which isn't counted
            return
        phrase = phrase_of(question)
        boxes = _boxes_as_written(answer, phrase, box_format, size, self.sent(size))
        if boxes:
            yield phrase, boxes
            return
        # An answer that no export of ours wrote may have boxes of several phrases, by their labels.
        yield from _by_phrase(self._boxes_in(answer, box_format, size), phrase)

    def _boxes_in(self, text: str, box_format: BoxFormat, size: Size) -> list[LabelAndBox]:
        """Return boxes after their labels, as the reader of replies finds them.

        Raises ValueError where they are another family's, or some can't be read.
        """
        wrong_keys = {*_BOX_KEY.findall(text)} - {box_format.key}  # "box_2d", say, for "bbox_2d"
        if wrong_keys:
            raise ValueError(
                f"its boxes are {wrong_keys.pop()!r}, and those of its target {box_format.key!r}:"
                " name theirs"
            )
        try:
            reading = _read(text, box_format, size, self.sent(size))
        except TruncatedReply:  # an UnreadableReply, too: boxes that are cut short are no words
            raise
        except UnreadableReply:
            if _MEANT_AS_BOXES.match(text):
                raise
            # It is words, such as "Room [2] has 3 chairs."
            self.passed_over["answers with numbers in brackets that are no box"] += 1
            return []
        for note in reading.notes:
            if note.code in _NOTES_OF_LOSS:
                raise ValueError(note.text)
        return [(box.label, box.bbox) for box in reading.boxes]


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


def _by_phrase(boxes: Iterable[LabelAndBox], asked: str) -> Iterator[PhraseBoxes]:
    """Yield each box after its label, or the phrase that was asked about if it has no label."""
    # The reader of replies resolves entities in labels: "salt & pepper" for the question
    # "salt &amp; pepper" is the same phrase, and keeps the question's spelling.
    asked_as_read = html.unescape(asked)
    for label, box in boxes:
        if label is None or label == asked_as_read:
            yield asked, [box]
        else:
            yield label, [box]


def _in_json(phrase: str, fours: Fours, key: str) -> str:
    return dump_text([{key: four, "label": phrase} for four in fours])


def _in_tags(phrase: str, fours: Fours, tags: Tags) -> str:
    boxes = tags.separator.join(tags.box.format(*four) for four in fours)
    return tags.phrase.format(phrase) + tags.boxes.format(boxes)


def _boxes_as_written(
    text: str, phrase: str, box_format: BoxFormat, size: Size, sent: Size
) -> list[Bbox]:
    """Return the boxes of an answer that is letter by letter as an export writes it, else none.

    The reader of replies isn't asked for these: it takes a box of a pixel or so for parts of the
    sides.
    """
    boxes_text = text
    if _FOUR.search(phrase):  # numbers of the phrase itself, as in "the sign [1, 2, 3, 4]"
        boxes_text = text.replace(phrase, "")
    fours = [[_number(word) for word in four.groups()] for four in _FOUR.finditer(boxes_text)]
    # the answer is written again with its numbers, and compared
    if text.startswith("["):
        as_exported = [_in_json(phrase, fours, box_format.key)]
    else:
        as_exported = [_in_tags(phrase, fours, tags) for tags in TAGS.values()]
    if text not in as_exported:
        return []
    boxes = [box_format.to_pixels(four, original=size, sent=sent) for four in fours]
    return boxes if all(_is_inside(box, size) for box in boxes) else []


def _number(word: str) -> float:
    return int(word) if word.isdecimal() else float(word)


def _is_inside(box: Bbox, size: Size) -> bool:
    x1, y1, x2, y2 = box
    return 0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1]


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


def _picture_of(line: Line) -> Any:
    """Return the path of a line's picture; None for a line of text alone."""
    pictures = line.get("image") or line.get("images")
    if not pictures:
        has_turns = "conversations" in line or "messages" in line
        if has_turns:
            return None
        pictures = line["image"]  # raises KeyError: the line is no conversation
    if not isinstance(pictures, list):
        pictures = [pictures]
    if len(pictures) > 1:
        raise ValueError("several pictures, and it isn't said in which its boxes are")
    picture = pictures[0]
    return picture["path"] if isinstance(picture, Mapping) else picture


def _turns_of(line: Line) -> list[Turn]:
    """Return the turns of a line of any dialect; of what is said in parts, the texts."""
    turns = []
    for turn in line.get("conversations") or line["messages"]:
        speaker = turn.get("from") or turn["role"]
        said = turn["value"] if "value" in turn else turn["content"]
        if isinstance(said, list):
            texts = [str(part.get("text") or "") for part in said if part["type"] == "text"]
            said = "".join(texts)
        turns.append((speaker, said))
    return turns


def _with_objects(
    turns: Sequence[Turn], objects: Line, box_format: BoxFormat
) -> tuple[list[Turn], BoxFormat]:
    """Put the phrases and boxes of `objects` in place of their placeholders in the turns.

    {"ref": ["a dog"], "bbox": [[1, 2, 3, 4]]} goes into "<ref-object><bbox>". Returns the turns and
    the format that these boxes are in: pixels, or with `norm1` parts of the sides.
    """
    phrases = list(objects.get("ref") or ())
    boxes = list(objects.get("bbox") or ())
    _check_objects(turns, phrases, boxes)
    if objects.get("bbox_type") == "norm1":
        box_format = replace(box_format, scale=1)
    # Each turn takes the next ones, after those that the turns before have taken.
    phrases_left = iter(phrases)
    boxes_left = iter(boxes)
    filled = []
    for speaker, said in turns:
        filled.append((speaker, _without_placeholders(said, phrases_left, boxes_left)))
    return filled, box_format


def _check_objects(turns: Sequence[Turn], phrases: Sequence[Any], boxes: Sequence[Any]) -> None:
    """Raise ValueError unless there is one phrase or box for each placeholder."""
    placeholders = _PLACEHOLDER.findall("".join(said for _, said in turns))
    phrase_count = placeholders.count("<ref-object>")
    if phrase_count != len(phrases) or placeholders.count("<bbox>") != len(boxes):
        raise ValueError("not as many <ref-object> and <bbox> in its messages as in its objects")
    for box in boxes:
        if not is_box(box):
            raise ValueError(f"{box} is not a box [x1, y1, x2, y2]; points can't be read")


def _without_placeholders(text: str, phrases: Iterator[Any], boxes: Iterator[Any]) -> str:
    """Put the next phrase or box in place of each placeholder, as JSON or in Qwen2-VL's tags."""
    is_json = text.lstrip()[:1] in ("[", "{", "`")
    tags = TAGS["qwen2-vl"]

    def value_of(placeholder: re.Match[str]) -> str:
        if placeholder[0] == "<bbox>":
            box = next(boxes)
            return dump_text(box) if is_json else tags.box.format(*box)
        phrase = next(phrases)
        if not is_json:
            return tags.phrase.format(phrase)
        # in JSON the placeholder is inside of quotation marks already
        return dump_text(str(phrase))[1:-1]

    return _PLACEHOLDER.sub(value_of, text)


def _read(text: str, box_format: BoxFormat, size: Size, sent: Size) -> Reading:
    """Read an answer's boxes, also from tags inside of its sentences, as training data has them."""
    # `read_boxes` refuses these: next to tags a model may say in words that it was wrong.
    is_json = text.lstrip().startswith(("{", "["))
    if is_json or not has_tokens(text):
        return read_boxes(text, format=box_format, image_size=size, sent_size=sent)
    parsed = ParsedReply()
    read_tokens(text, parsed)
    return to_reading(parsed, box_format, size, sent, phrases={})  # each box has its own label


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


def phrase_of(question: str) -> str:
    """Return what is in the question's first tags, else after its first colon, else all of it."""
    text = question.replace("<image>", "")
    tagged = TAGGED_PHRASE.search(question) if "<" in text else None
    if tagged:
        return tagged[0]
    after_colon = text.partition(":")[2].strip()
    return after_colon or text.strip()
