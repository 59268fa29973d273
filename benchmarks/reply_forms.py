"""A writer of replies: made-up items in every form that models write boxes in.

    from benchmarks.reply_forms import FORMS, draw_items, write

    items = draw_items(FORMS["PaliGemma"], random.Random(0))
    reply = write(FORMS["PaliGemma"], items)

What a reply says is known from its items, and where a box lies follows from its form's scale by a
formula that is here: nothing of the package is used to tell. Among the boxes are some that
begin at 0, some that end at the far edge, and the whole picture. A phrase may have several boxes or
none, and phrases are in a dozen languages.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import dataflow_grounding.replies

GRAMMAR: dict[str, Any] = yaml.safe_load(
    (Path(dataflow_grounding.replies.__file__).parent / "grammar.yaml").read_text("utf-8")
)
SIZE = (1280, 960)
"""Width and height of the picture in pixels."""
CELLS = 32
"""Rows, and columns, of Kosmos-2's grid."""

Box = tuple[int, int, int, int]
Numbers = tuple[float, ...]
Pixels = tuple[float, ...]
Found = frozenset[tuple[int, Pixels]]

PHRASES = [
    "red cup",
    "cup",
    "cup holder",
    "dog",
    "a black dog",
    "the person on the left",
    "traffic light",
    "no parking sign",
    "12 eggs",
    "O'Brien's mug",
    "salt & pepper",
    "bottle of water, half full",
    'the "EXIT" sign',
    "die rote Tasse",
    "Straßenschild",
    "chien noir",
    "perro blanco",
    "cachorro pequeno",
    "una bicicletta",
    "собака",
    "синий автомобиль",
    "红色的杯子",
    "交通灯",
    "犬",
    "赤い傘",
    "강아지",
    "빨간 우산",
    "كلب أسود",
    "कुत्ता",
    "หมา",
]
PLAIN = re.compile(r"[^\W\d_](?:[\w '’-]*\w)?")
"""A phrase of letters and blanks."""
NAMES = ["picture", "table", "text", "caption", "section header", "page footer", "list item"]
"""Of DocTags' elements, which has no others."""


@dataclass(frozen=True)
class Item:
    """A phrase and its boxes, x1, y1, x2, y2 in steps of a scale; none if it isn't there."""

    id: int
    phrase: str
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Scale:
    """What a box's numbers mean.

    Attributes:
        format: The name of the box format that is asked for.
        ends: Which step means the far edge, of x and of y.
        top: The highest step that is written, of x and of y.
        order: The order of the four numbers.
        unit: What a step is written as, 0.001 for fractions.
        offset: What is added to a number first.
        least: How many steps a side has at the least.
        grid: Whether a box is written as two cells of a grid, and a step is a cell.
    """

    format: str = "xyxy_1000"
    ends: tuple[int, int] = (1000, 1000)
    top: tuple[int, int] = (1000, 1000)
    order: str = "xyxy"
    unit: float = 1
    offset: float = 0
    least: int = 20
    grid: bool = False

    def numbers(self, box: Box) -> Numbers:
        """A box's numbers as they are written."""
        if self.grid:
            x1, y1, x2, y2 = box
            return y1 * CELLS + x1, y2 * CELLS + x2
        steps = in_order(box, self.order)
        return steps if self.unit == 1 else tuple(round(step * self.unit, 4) for step in steps)

    def pixels(self, numbers: Numbers) -> Pixels:
        """The box in pixels that numbers mean, inside the picture; corners may be the wrong way
        round.
        """
        if self.grid:
            first, last = (divmod(int(cell), CELLS) for cell in numbers)
            one_row_or_column = first[0] == last[0] or first[1] == last[1]
            inset = 0 if one_row_or_column else 0.5
            steps: Numbers = (
                first[1] + inset,
                first[0] + inset,
                last[1] + 1 - inset,
                last[0] + 1 - inset,
            )
        else:
            steps = tuple(step / self.unit for step in corners_of(numbers, self.order))
        across = [(step + self.offset) / self.ends[0] * SIZE[0] for step in steps[0::2]]
        down = [(step + self.offset) / self.ends[1] * SIZE[1] for step in steps[1::2]]
        x1, x2 = (min(max(x, 0), SIZE[0]) for x in sorted(across))
        y1, y2 = (min(max(y, 0), SIZE[1]) for y in sorted(down))
        return rounded((x1, y1, x2, y2))


def rounded(pixels: Sequence[float]) -> Pixels:
    """A box in pixels as it is compared."""
    return tuple(round(value, 3) for value in pixels)


def in_order(box: Box, order: str) -> Numbers:
    """A box's two corners in the order of a format."""
    x1, y1, x2, y2 = box
    if order == "yxyx":
        return y1, x1, y2, x2
    if order == "xywh":
        return x1, y1, x2 - x1, y2 - y1
    if order == "cxcywh":
        return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    return x1, y1, x2, y2


def corners_of(numbers: Numbers, order: str) -> Numbers:
    """The two corners that four numbers of a format mean."""
    a, b, c, d = numbers
    if order == "yxyx":
        return b, a, d, c
    if order == "xywh":
        return a, b, a + c, b + d
    if order == "cxcywh":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return a, b, c, d


THOUSANDTHS = Scale()
Y_FIRST = Scale("gemini", order="yxyx")
PIXELS = Scale("xyxy_px", SIZE, SIZE)
CORNER_AND_SIZE = Scale("xywh_px", SIZE, SIZE, "xywh")
MIDDLE_AND_SIZE = Scale("cxcywh_1", order="cxcywh", unit=0.001)
FRACTIONS = Scale("xyxy_1", unit=0.001)
OF_999 = Scale("deepseek-vl2", (999, 999), (999, 999))
FLORENCE = Scale("florence-2", top=(999, 999), offset=0.5)
PALIGEMMA = Scale("paligemma", (1024, 1024), (1023, 1023), "yxyx")
DOCTAGS = Scale("doctags", (500, 500), (499, 499))
KOSMOS = Scale("kosmos-2", (CELLS, CELLS), (CELLS - 1, CELLS - 1), least=1, grid=True)


@dataclass(frozen=True)
class Sheet:
    """What a writer writes from: the items, their scale, and dice for what doesn't matter."""

    items: Sequence[Item]
    scale: Scale
    dice: random.Random

    @property
    def present(self) -> list[Item]:
        """The items that have boxes."""
        return [item for item in self.items if item.boxes]

    def numbers(self, box: Box) -> list[float]:
        """A box's numbers as they are written."""
        return list(self.scale.numbers(box))

    def each(self) -> Iterator[tuple[Item, list[float]]]:
        """Each box, with its item."""
        for item in self.items:
            for box in item.boxes:
                yield item, self.numbers(box)


Writer = Callable[[Sheet], str]


@dataclass(frozen=True)
class Form:
    """One way of writing boxes.

    Attributes:
        write: Returns the reply.
        scale: What its numbers mean.
        phrases: The phrases that can be written in it.
        most_items: How many phrases are asked for at the most.
        most_boxes: How many boxes a phrase has at the most.
        is_stream: Whether one item follows the other and nothing says how many there are, so that a
            cut between two can't be told.
        between: What comes between two items of such a stream.
        ending: What comes after the last one.
        label_after: How a label follows its box, as in " {}"; "" where it goes before it. The box
            is whole if the reply is cut off within it.
        says_nothing: Whether it says that nothing of what was asked for is there.
        in_lines: Whether it is read only where lines were asked for.
        order: The order of its numbers where their names settle it; "" for the scale's.
        is_outline: Whether a box is written as the corners of an outline.
    """

    name: str
    write: Writer
    scale: Scale = THOUSANDTHS
    phrases: Sequence[str] = field(default_factory=lambda: PHRASES, repr=False)
    most_items: int = 4
    most_boxes: int = 3
    is_stream: bool = False
    between: str = ""
    ending: str = ""
    label_after: str = ""
    says_nothing: bool = False
    in_lines: bool = False
    order: str = ""
    is_outline: bool = False


def write(form: Form, items: Sequence[Item], seed: int = 0) -> str:
    """Return the items as a reply in a form; the same seed makes the same choices."""
    return form.write(Sheet(items, form.scale, random.Random(seed)))


def draw_items(form: Form, dice: random.Random) -> list[Item]:
    """Draw items that can be written in a form."""
    count = dice.randint(1, min(form.most_items, len(form.phrases)))
    phrases = dice.sample(list(form.phrases), count)
    items: list[Item] = []
    for phrase_id, phrase in enumerate(phrases, start=1):
        many = 0 if form.says_nothing else dice.choice((0, 1, 1, 1, 1, 2, 3))
        many = min(many, form.most_boxes)
        boxes = dict.fromkeys(draw_box(form.scale, dice) for _ in range(many))
        items.append(Item(phrase_id, phrase, tuple(boxes)))
    if not form.says_nothing and not any(item.boxes for item in items):
        items[0] = Item(1, phrases[0], (draw_box(form.scale, dice),))
    return items


def draw_box(scale: Scale, dice: random.Random) -> Box:
    """Draw a box: each edge may lie on the picture's, and one in twenty is all of it."""
    if dice.random() < 0.05:
        return 0, 0, scale.top[0], scale.top[1]
    sides: list[tuple[int, int]] = []
    for top in scale.top:
        low = 0 if dice.random() < 0.15 else dice.randint(0, top - scale.least)
        high = top if dice.random() < 0.1 else dice.randint(low + scale.least, top)
        sides.append((low, high))
    (x1, x2), (y1, y2) = sides
    return x1, y1, x2, y2


def truth_of(form: Form, items: Sequence[Item]) -> Found:
    """What a reply with these items says: ids and boxes in pixels."""
    return frozenset(
        (item.id, form.scale.pixels(form.scale.numbers(box)))
        for item in items
        for box in item.boxes
    )


def beginnings(form: Form, items: Sequence[Item], seed: int = 0) -> Iterator[tuple[str, Found]]:
    """The whole replies of fewer boxes that a stream may be cut into, and what each says."""
    for last, item in enumerate(items):
        for kept in range(len(item.boxes) + 1):
            fewer = [*items[:last], Item(item.id, item.phrase, item.boxes[:kept])]
            text = write(form, fewer, seed).removesuffix(form.ending)
            yield text, truth_of(form, fewer)


def js(value: Any) -> str:
    """A value in JSON, in its own letters."""
    return json.dumps(value, ensure_ascii=False)


def objects(sheet: Sheet, key: str = "bbox_2d", label: str = "label") -> list[dict[str, Any]]:
    """One object for each box, with an id and a label."""
    return [{"id": item.id, label: item.phrase, key: row} for item, row in sheet.each()]


def named(sheet: Sheet, key: str = "bbox_2d") -> list[dict[str, Any]]:
    """One object for each box, with a label alone."""
    return [{"label": item.phrase, key: row} for item, row in sheet.each()]


def as_asked(sheet: Sheet) -> str:
    """As the prompt asks for it."""
    return js({"objects": objects(sheet)})


def with_y_first(sheet: Sheet) -> str:
    return js({"objects": objects(sheet, "box_2d")})


def in_any_wrapper(sheet: Sheet) -> str:
    return js({sheet.dice.choice(GRAMMAR["keys"]["wrapper"].split()): objects(sheet)})


def in_two_wrappers(sheet: Sheet) -> str:
    return js({"result": {"detections": objects(sheet), "count": len(objects(sheet))}})


def bare_list(sheet: Sheet) -> str:
    return js(named(sheet))


def indented(sheet: Sheet) -> str:
    return json.dumps(objects(sheet), ensure_ascii=False, indent=2)


def fenced(sheet: Sheet) -> str:
    return f"```json\n{js(named(sheet))}\n```"


def fenced_with_words(sheet: Sheet) -> str:
    after = "Let me know if you need anything else."
    return f"Here are the boxes:\n```json\n{js(objects(sheet))}\n```\n{after}"


def object_a_line(sheet: Sheet) -> str:
    return "\n".join(js(item) for item in objects(sheet))


def joined_by_commas(sheet: Sheet) -> str:
    return ", ".join(js(item) for item in named(sheet))


def python_literals(sheet: Sheet) -> str:
    rows = [
        {"label": item.phrase, "bbox_2d": tuple(row), "score": None, "visible": True}
        for item, row in sheet.each()
    ]
    return repr(rows)


def loose_json(sheet: Sheet) -> str:
    """Unquoted keys, single quotes, leading zeros, trailing commas."""
    rows: list[str] = []
    for item, row in sheet.each():
        numbers = ", ".join(f"{number:03d}" for number in map(int, row))
        rows.append(f"{{label: {item.phrase!r}, bbox_2d: [{numbers},],}}")
    return "[" + ", ".join(rows) + ",]"


def in_comments(sheet: Sheet) -> str:
    rows = [f"{{box_2d: {row}, label: {js(item.phrase)}}}" for item, row in sheet.each()]
    return "# [" + ",\n# ".join(rows) + "]"


def commented(sheet: Sheet) -> str:
    rows = [f"// found\n{js(item)}" for item in named(sheet)]
    return "[" + ",\n".join(rows) + "\n]"


def numbers_as_strings(sheet: Sheet) -> str:
    rows = [
        {"id": str(item.id), "label": item.phrase, "bbox_2d": [f"{number:g}" for number in row]}
        for item, row in sheet.each()
    ]
    return js(rows)


def one_string(sheet: Sheet) -> str:
    rows = [
        {"label": item.phrase, "bbox_2d": ", ".join(f"{number:g}" for number in row)}
        for item, row in sheet.each()
    ]
    return js(rows)


def seed_string(sheet: Sheet) -> str:
    rows = [
        {"category": item.phrase, "bbox": "<bbox>" + " ".join(map(str, row)) + "</bbox>"}
        for item, row in sheet.each()
    ]
    return js(rows)


def corner_writer(order: str, names: Sequence[str]) -> Writer:
    """Writes a box as four keys."""

    def write_corners(sheet: Sheet) -> str:
        rows: list[dict[str, Any]] = []
        for item in sheet.present:
            for box in item.boxes:
                corners = zip(names, in_order(box, order), strict=True)
                rows.append({"label": item.phrase, **dict(corners)})
        return js(rows)

    return write_corners


def object_as_box(sheet: Sheet) -> str:
    names = ("x_min", "y_min", "x_max", "y_max")
    rows = [
        {"label": item.phrase, "bbox": dict(zip(names, row, strict=True))}
        for item, row in sheet.each()
    ]
    return js({"objects": rows})


def pairs_as_box(sheet: Sheet) -> str:
    return js([{**row, "bbox": [row["bbox"][:2], row["bbox"][2:]]} for row in named(sheet, "bbox")])


def boxes_of_an_object(sheet: Sheet) -> str:
    rows = [
        {"id": item.id, "label": item.phrase, "bbox_2d": [sheet.numbers(box) for box in item.boxes]}
        for item in sheet.present
    ]
    return js({"objects": rows})


def any_label_key(sheet: Sheet) -> str:
    return js(named_by(sheet, sheet.dice.choice(GRAMMAR["keys"]["label"].split())))


def any_box_key(sheet: Sheet) -> str:
    return js(named(sheet, sheet.dice.choice(GRAMMAR["keys"]["box"].split())))


def named_by(sheet: Sheet, label: str) -> list[dict[str, Any]]:
    """One object for each box, with its label under another key."""
    return [{label: item.phrase, "bbox_2d": row} for item, row in sheet.each()]


def with_score(sheet: Sheet) -> str:
    rows = [{**row, "score": 0.9, "evidence": "seen"} for row in objects(sheet)]
    return js({"objects": rows, "count": len(rows)})


def parallel_lists(sheet: Sheet) -> str:
    rows = list(sheet.each())
    return js({"bboxes": [row for _, row in rows], "labels": [item.phrase for item, _ in rows]})


def phrases_as_keys(sheet: Sheet) -> str:
    fields: dict[str, Any] = {}
    for item in sheet.items:
        boxes = [sheet.numbers(box) for box in item.boxes]
        fields[item.phrase] = boxes or sheet.dice.choice((None, [], "none", "not found"))
        if len(boxes) == 1 and sheet.dice.random() < 0.5:
            fields[item.phrase] = boxes[0]
    return js(fields)


def ids_as_keys(sheet: Sheet) -> str:
    fields: dict[str, Any] = {}
    for phrase_id, item in enumerate(sheet.items, start=1):
        boxes = [sheet.numbers(box) for box in item.boxes]
        fields[str(phrase_id)] = boxes or None
    return js(fields)


def phrases_as_keys_of_items(sheet: Sheet) -> str:
    fields: dict[str, Any] = {}
    for item in sheet.items:
        rows = [{"bbox_2d": sheet.numbers(box)} for box in item.boxes]
        fields[item.phrase] = rows or {"bbox_2d": None}
    return js({"objects": fields})


def rows_of_lists(sheet: Sheet) -> str:
    return js([[item.phrase, *row] for item, row in sheet.each()])


def polygons(sheet: Sheet) -> str:
    """An outline of eight corners, as of a sign, whose box is the item's."""
    rows: list[dict[str, Any]] = []
    for item in sheet.present:
        for x1, y1, x2, y2 in item.boxes:
            x, y = (x2 - x1) // 4, (y2 - y1) // 4
            corners = [[x1 + x, y1], [x2 - x, y1], [x2, y1 + y], [x2, y2 - y]]
            corners += [[x2 - x, y2], [x1 + x, y2], [x1, y2 - y], [x1, y1 + y]]
            rows.append({"label": item.phrase, "polygon": corners})
    return js(rows)


def flat_quads(sheet: Sheet) -> str:
    rows = [
        {
            "label": item.phrase,
            "quad": [row[0], row[1], row[2], row[1], row[2], row[3], row[0], row[3]],
        }
        for item, row in sheet.each()
    ]
    return js(rows)


def json_in_a_string(sheet: Sheet) -> str:
    return js({"name": "mark", "arguments": js({"objects": objects(sheet)})})


def braces_left_out(sheet: Sheet) -> str:
    pairs = [f'"label": {js(item.phrase)}, "bbox_2d": {row}' for item, row in sheet.each()]
    return "{" + ", ".join(pairs) + "}"


def full_width(sheet: Sheet) -> str:
    rows: list[str] = []
    for item, row in sheet.each():
        rows.append(f"｛“label”：“{item.phrase}”，“bbox_2d”：［{'，'.join(map(str, row))}］｝")
    return "｛“objects”：［" + "，".join(rows) + "］｝"


def after_thinking(sheet: Sheet) -> str:
    thought = "Not at [1, 2, 3, 4]. Wait, the dog is at [5, 6, 700, 800]."
    return f"<think>{thought}</think>\n{as_asked(sheet)}"


def in_answer_tags(sheet: Sheet) -> str:
    return f"<think>I look for it.</think><answer>{js(objects(sheet))}</answer>"


def harmony(sheet: Sheet) -> str:
    begin = "<|channel|>analysis<|message|>Perhaps [1, 2, 3, 4]<|end|><|start|>assistant"
    return f"{begin}<|channel|>final<|message|>{as_asked(sheet)}<|return|>"


def absent_writer(key: str, value: Any) -> Writer:
    """Writes each absent item as an object with a value under a key."""

    def write_absent(sheet: Sheet) -> str:
        rows = objects(sheet)
        for item in sheet.items:
            if not item.boxes:
                rows.append({"id": item.id, "label": item.phrase, key: value})
        return js({"objects": rows})

    return write_absent


def one_box(sheet: Sheet) -> str:
    """Boxes alone, of the only phrase."""
    rows = [row for _, row in sheet.each()]
    return js(rows[0] if len(rows) == 1 else rows)


def key_and_list(sheet: Sheet) -> str:
    return f"bbox_2d: {one_box(sheet)}"


def words_and_list(sheet: Sheet) -> str:
    return f"The {sheet.items[0].phrase} is at {one_box(sheet)}"


def underscored(sheet: Sheet) -> str:
    return "_".join(map(str, sheet.numbers(sheet.items[0].boxes[0])))


def pairs(row: Sequence[float]) -> str:
    """A box as (x1,y1),(x2,y2)."""
    return f"({row[0]},{row[1]}),({row[2]},{row[3]})"


def qwen(sheet: Sheet) -> str:
    parts: list[str] = []
    for item in sheet.present:
        boxes = [f"<box>{pairs(sheet.numbers(box))}</box>" for box in item.boxes]
        parts.append(f"<ref>{item.phrase}</ref>" + "".join(boxes))
    return "".join(parts)


def seed_with_labels(sheet: Sheet) -> str:
    rows = [(item.phrase, " ".join(map(str, row))) for item, row in sheet.each()]
    return "\n".join(f"<bbox>{numbers}</bbox> {phrase}" for phrase, numbers in rows)


def qwen_with_words(sheet: Sheet) -> str:
    parts = [f"<ref>{item.phrase}</ref><box>{pairs(row)}</box>" for item, row in sheet.each()]
    return "Here it is: " + " and ".join(parts) + "."


def qwen2(sheet: Sheet) -> str:
    parts: list[str] = []
    for item, row in sheet.each():
        label = f"<|object_ref_start|>{item.phrase}<|object_ref_end|>"
        parts.append(f"{label}<|box_start|>{pairs(row)}<|box_end|>")
    return "".join(parts) + "<|im_end|>"


def internvl(sheet: Sheet) -> str:
    parts: list[str] = []
    for item in sheet.present:
        boxes = [sheet.numbers(box) for box in item.boxes]
        parts.append(f"<ref>{item.phrase}</ref><box>{boxes}</box>")
    return "\n".join(parts)


def internvl_glued(sheet: Sheet) -> str:
    parts = [f"{item.phrase}{[sheet.numbers(box) for box in item.boxes]}" for item in sheet.present]
    return "\n".join(parts)


def minicpm(sheet: Sheet) -> str:
    parts: list[str] = []
    for item, row in sheet.each():
        parts.append(f"<ref>{item.phrase}</ref><box>{' '.join(map(str, row))}</box>")
    return "".join(parts)


def deepseek(sheet: Sheet) -> str:
    parts: list[str] = []
    for item in sheet.present:
        boxes = [sheet.numbers(box) for box in item.boxes]
        parts.append(f"<|ref|>{item.phrase}<|/ref|><|det|>{boxes}<|/det|>")
    return "".join(parts) + "<｜end▁of▁sentence｜>"


def unlimited_ocr(sheet: Sheet) -> str:
    return "\n".join(f"<|det|>{item.phrase} {row}<|/det|>" for item, row in sheet.each())


def glm(sheet: Sheet) -> str:
    return f"Here: <|begin_of_box|>{js(objects(sheet))}<|end_of_box|>."


def rex_omni(sheet: Sheet) -> str:
    parts: list[str] = []
    for item in sheet.present:
        label = f"<|object_ref_start|>{item.phrase}<|object_ref_end|>"
        groups = ["".join(f"<{n}>" for n in sheet.numbers(box)) for box in item.boxes]
        parts.append(f"{label}<|box_start|>{','.join(groups)}<|box_end|>")
    return ", ".join(parts)


def isaac(sheet: Sheet) -> str:
    parts: list[str] = []
    for item, (x1, y1, x2, y2) in sheet.each():
        mention = item.phrase.replace("&", "&amp;").replace('"', "&quot;")
        parts.append(f'<point_box mention="{mention}"> ({x1},{y1}) ({x2},{y2}) </point_box>')
    return " ".join(parts)


def isaac_collection(sheet: Sheet) -> str:
    parts: list[str] = []
    for item in sheet.present:
        mention = item.phrase.replace("&", "&amp;").replace('"', "&quot;")
        parts.append(f'<collection mention="{mention}">')
        for x1, y1, x2, y2 in map(sheet.numbers, item.boxes):
            parts.append(f"<point_box> ({x1},{y1}) ({x2},{y2}) </point_box>")
        parts.append("</collection>")
    return "".join(parts)


def mineru(sheet: Sheet) -> str:
    parts: list[str] = []
    for item, row in sheet.each():
        numbers = " ".join(f"{int(number):03d}" for number in row)
        parts.append(f"<|box_start|>{numbers}<|box_end|><|ref_start|>{item.phrase}<|ref_end|>")
    return "".join(parts)


def florence(sheet: Sheet) -> str:
    parts = ["</s><s>"]
    for item in sheet.present:
        parts.append(item.phrase)
        parts += [f"<loc_{n}>" for box in item.boxes for n in sheet.numbers(box)]
    return "".join(parts) + "</s>"


def florence_quads(sheet: Sheet) -> str:
    """Four corners all around, of which the box is the item's."""
    parts: list[str] = []
    for item in sheet.present:
        x1, y1, x2, y2 = item.boxes[0]
        x, y = (x2 - x1) // 4, (y2 - y1) // 4
        corners = (x1 + x, y1, x2, y1 + y, x2 - x, y2, x1, y2 - y)
        parts.append(item.phrase + "".join(f"<loc_{n}>" for n in corners))
    return "".join(parts)


def paligemma(sheet: Sheet) -> str:
    parts: list[str] = []
    for item, row in sheet.each():
        parts.append("".join(f"<loc{int(n):04d}>" for n in row) + f" {item.phrase}")
    return " ; ".join(parts)


def kosmos(sheet: Sheet) -> str:
    parts: list[str] = []
    for item in sheet.present:
        cells = [sheet.numbers(box) for box in item.boxes]
        patches = [f"<patch_index_{a:04.0f}><patch_index_{b:04.0f}>" for a, b in cells]
        between = "</delimiter_of_multi_objects/>"
        parts.append(f"<phrase>{item.phrase}</phrase><object>{between.join(patches)}</object>")
    return "<grounding>" + " and ".join(parts)


def doctags(sheet: Sheet) -> str:
    parts: list[str] = []
    for item, row in sheet.each():
        name = item.phrase.replace(" ", "_")
        parts.append(f"<{name}>" + "".join(f"<loc_{n}>" for n in row) + f"</{name}>")
    return "<doctag>" + "\n".join(parts) + "</doctag>"


def html_boxes(sheet: Sheet) -> str:
    parts: list[str] = []
    for item, row in sheet.each():
        parts.append(f'<p data-label="{item.phrase}" data-bbox="{" ".join(map(str, row))}"></p>')
    return "".join(parts)


def lines(sheet: Sheet) -> str:
    rows: list[str] = []
    for item in sheet.items:
        boxes = [str(sheet.numbers(box)) for box in item.boxes] or ["none"]
        rows += [f"{item.id}. {item.phrase}: {box}" for box in boxes]
    return "\n".join(rows)


def empty_answer(sheet: Sheet) -> str:
    return sheet.dice.choice(
        ['{"objects": []}', "[]", "null", "```json\n[]\n```", '{"detections": [], "count": 0}']
    )


def word_for_none(sheet: Sheet) -> str:
    return str(sheet.dice.choice(GRAMMAR["none_words"]))


def sentence_of_none(sheet: Sheet) -> str:
    return sheet.dice.choice(
        [
            "There are no matching objects in the image.",
            "I cannot see any of these objects.",
            "No objects detected.",
            "Nothing found.",
            "图中没有找到任何物体。",
            "Es gibt keine passenden Objekte.",
            "Je ne vois aucun objet.",
            "No se ve ningún objeto en la imagen.",
        ]
    )


def sentence_with_phrase(sheet: Sheet) -> str:
    phrase = sheet.items[0].phrase
    return sheet.dice.choice(
        [
            f"There is no {phrase} in the image.",
            f"The {phrase} is not visible in this picture.",
            f"Unfortunately, I could not find any {phrase}.",
        ]
    )


PLAIN_PHRASES = [phrase for phrase in PHRASES if PLAIN.fullmatch(phrase)]
ENGLISH = ["red cup", "cup", "dog", "black dog", "traffic light", "cup holder"]
UNMARKED = [phrase for phrase in PHRASES if not set(phrase) & set("<>\"'&,;")]
NO_DIGITS = [phrase for phrase in UNMARKED if not re.search(r"\d", phrase)]
CORNERS = [
    Form(
        f"corners {' '.join(names.split())}",
        corner_writer(order, names.split()),
        order=order,
    )
    for order, sets in GRAMMAR["corners"].items()
    for names in sets
]
_ALL = [
    Form("as asked", as_asked),
    Form("as asked, y first", with_y_first, Y_FIRST),
    Form("as asked, pixels", as_asked, PIXELS),
    Form("as asked, corner and size", as_asked, CORNER_AND_SIZE),
    Form("as asked, middle and size", as_asked, MIDDLE_AND_SIZE),
    Form("as asked, fractions", as_asked, FRACTIONS),
    Form("any wrapper key", in_any_wrapper),
    Form("two wrappers", in_two_wrappers),
    Form("bare list", bare_list),
    Form("indented", indented),
    Form("fenced", fenced),
    Form("fenced, with words", fenced_with_words),
    Form("object a line", object_a_line, is_stream=True, between="\n"),
    Form("objects joined by commas", joined_by_commas, is_stream=True, between=", "),
    Form("Python literals", python_literals),
    Form("loose JSON", loose_json),
    Form("all a comment", in_comments),
    Form("commented", commented),
    Form("numbers as strings", numbers_as_strings),
    Form("numbers in one string", one_string),
    Form("Seed's string", seed_string),
    *CORNERS,
    Form("object as a box", object_as_box),
    Form("pairs as a box", pairs_as_box),
    Form("boxes of an object", boxes_of_an_object),
    Form("any label key", any_label_key),
    Form("any box key", any_box_key),
    Form("with score and count", with_score),
    Form("parallel lists", parallel_lists),
    Form("phrases as keys", phrases_as_keys),
    Form("phrases as keys of items", phrases_as_keys_of_items),
    Form("ids as keys", ids_as_keys),
    Form("rows", rows_of_lists),
    Form("polygons", polygons, is_outline=True),
    Form("flat quads", flat_quads, is_outline=True),
    Form("JSON in a string", json_in_a_string),
    Form("braces left out", braces_left_out),
    Form("full-width", full_width, phrases=UNMARKED),
    Form("after thinking", after_thinking),
    Form("answer tags", in_answer_tags),
    Form("harmony", harmony),
    Form("absent: null", absent_writer("bbox_2d", None)),
    Form("absent: empty list", absent_writer("bbox_2d", [])),
    Form("absent: none", absent_writer("bbox_2d", "none")),
    Form("absent: not found", absent_writer("found", False)),
    Form("absent: status", absent_writer("status", "not_found")),
    Form("one box", one_box, most_items=1),
    Form("one box, pixels", one_box, PIXELS, most_items=1),
    Form("key and list", key_and_list, most_items=1),
    Form("words and list", words_and_list, phrases=ENGLISH, most_items=1, most_boxes=1),
    Form("underscored", underscored, FRACTIONS, most_items=1, most_boxes=1),
    Form("Qwen-VL", qwen, is_stream=True),
    Form(
        "Seed, with labels",
        seed_with_labels,
        phrases=ENGLISH,
        is_stream=True,
        between="\n",
        label_after=" {}",
    ),
    Form("Qwen-VL, with words", qwen_with_words, is_stream=True, between=" and ", ending="."),
    Form("Qwen2-VL", qwen2, is_stream=True, ending="<|im_end|>"),
    Form("InternVL", internvl, is_stream=True, between="\n"),
    Form("InternVL, glued", internvl_glued, phrases=PLAIN_PHRASES, is_stream=True, between="\n"),
    Form("MiniCPM-V", minicpm, is_stream=True),
    Form("DeepSeek-VL2", deepseek, OF_999, is_stream=True, ending="<｜end▁of▁sentence｜>"),
    Form("Unlimited-OCR", unlimited_ocr, phrases=NO_DIGITS, is_stream=True, between="\n"),
    Form("GLM", glm),
    Form("Rex-Omni", rex_omni, OF_999, is_stream=True, between=", "),
    Form("Isaac", isaac, is_stream=True, between=" "),
    Form(
        "Isaac, collections",
        isaac_collection,
        is_stream=True,
        between="</collection>",
        ending="</collection>",
    ),
    Form("MinerU", mineru, is_stream=True, label_after="<|ref_start|>{}<|ref_end|>"),
    Form("Florence-2", florence, FLORENCE, UNMARKED, is_stream=True, ending="</s>"),
    Form(
        "Florence-2, quads",
        florence_quads,
        FLORENCE,
        UNMARKED,
        most_boxes=1,
        is_stream=True,
        is_outline=True,
    ),
    Form(
        "PaliGemma",
        paligemma,
        PALIGEMMA,
        UNMARKED,
        is_stream=True,
        between=" ; ",
        label_after=" {}",
    ),
    Form("Kosmos-2", kosmos, KOSMOS, is_stream=True, between=" and "),
    Form("DocTags", doctags, DOCTAGS, NAMES, is_stream=True, between="\n", ending="</doctag>"),
    Form("HTML", html_boxes, phrases=NO_DIGITS, is_stream=True, between="</p>", ending="</p>"),
    Form("lines", lines, phrases=PHRASES, is_stream=True, between="\n", in_lines=True),
    Form("nothing: empty", empty_answer, says_nothing=True),
    Form("nothing: a word", word_for_none, says_nothing=True),
    Form("nothing: a sentence", sentence_of_none, says_nothing=True),
    Form(
        "nothing: the phrase",
        sentence_with_phrase,
        phrases=ENGLISH,
        most_items=1,
        says_nothing=True,
    ),
]
FORMS = {form.name: form for form in _ALL}
"""Name → form."""
