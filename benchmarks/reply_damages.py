"""Damaged replies: the answer is the same boxes, fewer that are marked, or a refusal.

Replies in every form of reply_forms.py lose a digit, a bracket, a tag or their end, or get a second
box, a key, a word or a sentence. A reading is wrong if it has a box that neither the reply nor the
damaged text states, or if a phrase has lost a box and nothing says so: neither a note nor `unread`
nor `unsure`. Some damage can't be told from another reply: a digit less is another number, and a
stream that is cut between two items is a shorter stream. There what the damaged text states counts
as right, too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from benchmarks.reply_forms import (
    FORMS,
    SIZE,
    Form,
    Found,
    Item,
    beginnings,
    draw_items,
    rounded,
    truth_of,
    write,
)
from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.replies import Reading, read_boxes
from dataflow_grounding.replies.box_reader import to_reading
from dataflow_grounding.replies.reader import parse_reply

UNTELLABLE = {
    "underscored": "nothing follows its last number, which may be cut to another one",
    "Florence-2, quads": "the first half of a quadrangle is a box",
}
"""Forms in which a cut can't be told from another reply, and why."""

TURNING = [
    "not",
    "no",
    "without",
    "maybe",
    "wait",
    "wrong",
    "example",
    "pixels",
    "nicht",
    "不",
    "或",
]
"""Words that may turn the meaning of a sentence round."""
SENTENCES = [
    "But that is the dog.",
    "This is not the one.",
    "The first box is wrong.",
    "Wait, let me check again.",
    "There is no cup in the image.",
    "The coordinates are in pixels.",
    "The numbers are y first.",
    "I hope this helps!",
    "Let me know if you need anything else.",
    "Correction: swap the last two.",
    "The dog is at [10, 20, 300, 400].",
    "The dog is at <box>(10,20),(300,400)</box>.",
    "Add 100 to each.",
    "Is that right?",
    "其实不是这个。",
    "これは違います。",
    "Das ist keine Tasse.",
    "They belong to another picture.",
    "The boxes are examples.",
]
SIBLINGS = [
    '"frame": 2',
    '"page": 3',
    '"image": 2',
    '"offset": [10, 20]',
    '"unit": "px"',
    '"format": "xywh"',
    '"order": "yxyx"',
    '"scale": 0.5',
    '"crop": [0, 0, 500, 500]',
    '"tile": "left"',
    '"rotated": true',
    '"timestamp": 3.5',
    '"note": "not this one"',
    '"comment": "the box is of the dog, wrong"',
    '"found": false',
    '"missing": true',
    '"count": 70',
    '"status": "failed"',
    '"error": "low resolution"',
    '"corrected_bbox": [10, 20, 300, 400]',
    '"false_positive": true',
    '"image_width": 77',
    '"normalized": 1',
    '"parent": {"bbox": [1, 2, 3, 4]}',
    '"points": [[1, 2], [3, 4]]',
]
JUNK = [
    '"?"',
    "true",
    "2",
    '"see above"',
    '"behind the dog"',
    '{"note": "there"}',
    "[1, 2, 3]",
    "[[1, 2], 3]",
    '"partly hidden"',
    "NaN",
    '["a", "b", "c", "d"]',
]
# A number, also in a token; not the digit of a key such as bbox_2d or x1.
NUMBER = re.compile(
    r"(?:(?<=<loc)|(?<![A-Za-z0-9.])(?<!box_)(?<!point_))\d+(?:\.\d+)?(?![A-Za-z\d])"
)
NUMBER_TOKEN = re.compile(r"<(?:loc_?|patch_index_)?\d+(?:\.\d+)?>")
SEPARATOR = re.compile(r"[,，_;]\s*|(?<=\d) (?=\d)")
PAIR = re.compile(
    r"""(?P<quote>["']?)(?P<key>[\w ]+)(?P=quote):\s*"""
    r"""(?P<value>"[^"\\]*"|'[^']*'|[\[(][^\[\](){}]*[\])]|[\w.]+),?\s*"""
)
BOX_PAIR = re.compile(
    r'"?(?:bbox_2d|box_2d|bbox)"?:\s*(?:\[[\d., ]+\]|\([\d., ]+\)|"[\d., ]+"),?\s*'
)
LIST = re.compile(r"\[\d+(?:\.\d+)?(?:,\s*\d+(?:\.\d+)?){3}\]")
TAG = re.compile(r"</?[^<>\s\d]+(?:\s[^<>]*)?>")


@dataclass(frozen=True)
class Reply:
    """A reply as it was written, and what it says."""

    form: Form
    items: Sequence[Item]
    seed: int
    text: str

    @property
    def phrases(self) -> dict[int, str]:
        """What was asked for."""
        return {item.id: item.phrase for item in self.items}

    @cached_property
    def truth(self) -> Found:
        """The boxes that it has."""
        return truth_of(self.form, self.items)


@dataclass(frozen=True)
class Damaged:
    """A damaged text, and what else it may plainly state."""

    text: str
    stated: tuple[Found, ...] = ()


Damage = Callable[[Reply, random.Random], "Damaged | None"]


def draw_reply(form: Form, dice: random.Random) -> Reply:
    """Draw a reply in a form."""
    items = draw_items(form, dice)
    seed = dice.randrange(1000)
    return Reply(form, items, seed, write(form, items, seed))


def read(reply: Reply, text: str) -> Reading:
    """Read a text as an answer to what the reply was asked for."""
    name = reply.form.scale.format
    if not reply.form.in_lines:
        return read_boxes(text, format=name, image_size=SIZE, phrases=reply.phrases)
    asked = find_box_format(name, "")
    parsed = parse_reply(text, asked, reply.phrases, in_lines=True)
    return to_reading(parsed, asked, SIZE, SIZE, reply.phrases)


def found_in(reading: Reading) -> Found:
    """The boxes of a reading as they are compared."""
    return frozenset((box.id or 0, rounded(box.bbox)) for box in reading.boxes)


def compared(reading: Reading, truth: Found, ids: set[int]) -> str:
    """Return "same", "marked" or "wrong" for a reading where this is right."""
    found = found_in(reading)
    if not found <= truth:
        return "wrong"
    known = {phrase_id for phrase_id, _ in found}
    silent = ids - known - set(reading.unread) - set(reading.unsure)
    lost = {phrase_id for phrase_id, _ in truth - found}
    if lost & silent:
        return "wrong"  # a phrase has a box, and the reading says that there is none
    is_noted = reading.count("truncated") or reading.count("dropped")
    if lost & known - set(reading.unread) and not is_noted:
        return "wrong"  # a phrase has lost one of its boxes without a word
    return "marked" if lost else "same"


def verdict(reply: Reply, damaged: Damaged) -> tuple[str, str]:
    """Return "same", "marked", "refused" or "wrong", and what came of it."""
    try:
        reading = read(reply, damaged.text)
    except UnreadableReply as error:
        return "refused", str(error)
    except Exception as error:  # of a reader nothing else may come
        return "wrong", f"{type(error).__name__}: {error}"
    outcomes = [
        compared(reading, truth, set(reply.phrases)) for truth in (reply.truth, *damaged.stated)
    ]
    for outcome in ("same", "marked"):
        if outcome in outcomes:
            return outcome, ""
    found = [(box.id, box.label, box.numbers) for box in reading.boxes]
    notes = [str(note) for note in reading.notes]
    return "wrong", f"{found}, unread {reading.unread}, unsure {[*reading.unsure]}, {notes}"


def without(text: str, start: int, end: int) -> str:
    """A text without a piece."""
    return text[:start] + text[end:]


def any_match(pattern: re.Pattern[str], text: str, dice: random.Random) -> re.Match[str] | None:
    """Any match of a pattern; None without one."""
    matches = list(pattern.finditer(text))
    return dice.choice(matches) if matches else None


def with_number(reply: Reply, old: float, new: float) -> tuple[Found, ...]:
    """What a reply says if one of its numbers is another one: each box that may have it."""
    order = reply.form.order or reply.form.scale.order
    scale = replace(reply.form.scale, order=order)
    truths: list[Found] = []
    for item in reply.items:
        for box in item.boxes:
            numbers = list(scale.numbers(box))
            own = item.id, scale.pixels(tuple(numbers))
            for place, number in enumerate(numbers):
                if number != old:
                    continue
                changed = (*numbers[:place], new, *numbers[place + 1 :])
                truths.append((reply.truth - {own}) | {(item.id, scale.pixels(changed))})
    return tuple(truths)


def drop_digit(reply: Reply, dice: random.Random) -> Damaged | None:
    """Drop a digit of a number: that is another number, or none."""
    match = any_match(NUMBER, reply.text, dice)
    if match is None or reply.form.is_outline:
        return None
    at = dice.choice([i for i in range(*match.span()) if reply.text[i] != "."])
    left = without(match[0], at - match.start(), at - match.start() + 1)
    text = without(reply.text, at, at + 1)
    if not left.strip("."):
        return Damaged(text)
    return Damaged(text, with_number(reply, float(match[0]), float(left)))


def number_or_token(text: str, dice: random.Random) -> re.Match[str] | None:
    """Any number of a text, with its own token around it if it has one."""
    return any_match(NUMBER_TOKEN, text, dice) or any_match(NUMBER, text, dice)


def drop_number(reply: Reply, dice: random.Random) -> Damaged | None:
    """Drop a whole number, with what parts it from the next."""
    match = number_or_token(reply.text, dice)
    if match is None or reply.form.is_outline:
        return None
    end = match.end()
    after = SEPARATOR.match(reply.text, end)
    if after is not None:
        return Damaged(without(reply.text, match.start(), after.end()))
    before = re.search(r"[,，_; ]\s*$", reply.text[: match.start()])
    start = match.start() if before is None else before.start()
    return Damaged(without(reply.text, start, end))


def add_number(reply: Reply, dice: random.Random) -> Damaged | None:
    """Write another number next to one."""
    match = number_or_token(reply.text, dice)
    if match is None or reply.form.is_outline:
        return None
    other = re.sub(
        r"\d+", lambda digits: f"{dice.randrange(999):0{len(digits[0])}d}", match[0], count=1
    )
    between = SEPARATOR.match(reply.text, match.end())
    separator = between[0] if between else ", "
    if match[0].startswith("<"):
        separator = ""
    at = match.start()
    return Damaged(reply.text[:at] + other + separator + reply.text[at:])


def dropper(marks: str) -> Damage:
    """Drops one of some characters."""
    pattern = re.compile(f"[{re.escape(marks)}]")

    def drop_mark(reply: Reply, dice: random.Random) -> Damaged | None:
        match = any_match(pattern, reply.text, dice)
        return Damaged(without(reply.text, *match.span())) if match else None

    return drop_mark


def adder(marks: str) -> Damage:
    """Adds one of some characters: anywhere, or next to a mark or a digit."""

    def add_mark(reply: Reply, dice: random.Random) -> Damaged | None:
        at = dice.randint(0, len(reply.text))
        match = any_match(re.compile(r"[^\w\s]"), reply.text, dice)
        if match is not None and dice.random() < 0.6:
            at = dice.choice(match.span())
        return Damaged(reply.text[:at] + dice.choice(marks) + reply.text[at:])

    return add_mark


def without_phrase(reply: Reply, phrase: str) -> tuple[Found, ...]:
    """What a reply says without the boxes of a phrase, if it is one."""
    ids = [phrase_id for phrase_id, text in reply.phrases.items() if text == phrase]
    return tuple(frozenset(one for one in reply.truth if one[0] != own) for own in ids)


def drop_pair(reply: Reply, dice: random.Random) -> Damaged | None:
    """Drop a key and its value; where the key is a phrase, that is a reply without it."""
    match = any_match(PAIR, reply.text, dice)
    if match is None or reply.form.in_lines:  # of lines it would be a whole item
        return None
    return Damaged(without(reply.text, *match.span()), without_phrase(reply, match["key"]))


def drop_key(reply: Reply, dice: random.Random) -> Damaged | None:
    """Drop a key, or the letters of one."""
    match = any_match(PAIR, reply.text, dice)
    if match is None:
        return None
    end = dice.choice((match.start("value"), match.end("key")))
    return Damaged(without(reply.text, match.start(), end))


def changed_value(value: str, reply: Reply, dice: random.Random) -> str:
    """Another value of the same kind."""
    if value[0] in "\"'":
        return (
            value[0]
            + dice.choice([*reply.phrases.values(), "dog"]).replace(value[0], "")
            + value[0]
        )
    return re.sub(r"\d+", lambda digits: str(dice.randrange(1, 900)), value, count=1)


def repeat_key(reply: Reply, dice: random.Random) -> Damaged | None:
    """Write a key a second time, with another value."""
    match = any_match(PAIR, reply.text, dice)
    if match is None:
        return None
    other = changed_value(match["value"], reply, dice)
    if other == match["value"]:
        return None
    quote = match["quote"]
    pair = f"{quote}{match['key']}{quote}: {other}"
    closing = reply.text.find("}", match.end())
    if closing >= 0 and dice.random() < 0.4:
        return Damaged(f"{reply.text[:closing]}, {pair}{reply.text[closing:]}")
    return Damaged(f"{reply.text[: match.start()]}{pair}, {reply.text[match.start() :]}")


def second_box(reply: Reply, dice: random.Random) -> Damaged | None:
    """Write another box in an item, under another key; in tags, one more pair of numbers."""
    low = dice.randrange(300)
    numbers = [low, low + 7, low + 300, low + 411]
    pair = any_match(re.compile(r"\)(?=</box>|<\|box_end)"), reply.text, dice)
    if pair is not None:
        return Damaged(f"{reply.text[: pair.end()]},({low},{low + 7}){reply.text[pair.end() :]}")
    match = any_match(BOX_PAIR, reply.text, dice)
    if match is None:
        return None
    x1, y1, x2, y2 = numbers
    others = [f'"{key}": {numbers}' for key in ("box", "bbox", "rect", "bounding_box", "box_2d")]
    others += [f'"x1": {x1}, "y1": {y1}, "x2": {x2}, "y2": {y2}', f'"boxes": [{numbers}]']
    others += [
        f'"x": {x1}, "y": {y1}, "w": {x2}, "h": {y2}',
        '"polygon": [[1, 2], [3, 2], [3, 9]]',
    ]
    other = dice.choice(others)
    if other.split(":")[0] in match[0]:
        return None
    at = match.start()
    return Damaged(f"{reply.text[:at]}{other}, {reply.text[at:]}")


def junk_for_box(reply: Reply, dice: random.Random) -> Damaged | None:
    """Put something that is no box where one is."""
    match = any_match(LIST, reply.text, dice)
    if match is None:
        return None
    return Damaged(reply.text[: match.start()] + dice.choice(JUNK) + reply.text[match.end() :])


def change_id(reply: Reply, dice: random.Random) -> Damaged | None:
    """Write another id at an item."""
    match = any_match(re.compile(r'(?<="id": )"?\d+|^\d+(?=\. )', re.MULTILINE), reply.text, dice)
    if match is None:
        return None
    other = re.sub(r"\d+", lambda digits: str(dice.randint(0, 5)), match[0])
    return Damaged(reply.text[: match.start()] + other + reply.text[match.end() :])


def drop_letter(reply: Reply, dice: random.Random) -> Damaged | None:
    """Drop a letter: of a key, a label, a tag or a word.

    It isn't all of a word: Florence-2's `cat<4>犬<4>` without its second label is a reply in which
    the cat has two boxes.
    """
    letters = re.compile(r"(?<=[^\W\d_])[^\W\d_]|[^\W\d_](?=[^\W\d_])")
    match = any_match(letters, reply.text, dice)
    return Damaged(without(reply.text, *match.span())) if match else None


def cut_head(reply: Reply, dice: random.Random) -> Damaged | None:
    """Cut the beginning off; of a stream that is a shorter one."""
    if reply.form.is_stream or reply.form.name in UNTELLABLE:
        return None
    return Damaged(reply.text[dice.randrange(len(reply.text)) :])


def word_before(reply: Reply, dice: random.Random) -> Damaged:
    """Put a word that can turn an answer round before it."""
    word = dice.choice(TURNING)
    return Damaged(
        f"{dice.choice((word, word.title()))}{dice.choice((' ', ': ', chr(10)))}{reply.text}"
    )


def word_after(reply: Reply, dice: random.Random) -> Damaged:
    """Put such a word after an answer."""
    word = dice.choice(TURNING)
    return Damaged(f"{reply.text}{dice.choice((' ', chr(10), ' (', '. '))}{word}")


def word_within(reply: Reply, dice: random.Random) -> Damaged | None:
    """Put such a word somewhere in an answer: at a blank, a tag or a quotation mark."""
    match = any_match(re.compile(r"\s|(?<=[>\"'])|(?=[<\"'])"), reply.text, dice)
    if match is None:
        return None
    return Damaged(
        f"{reply.text[: match.start()]} {dice.choice(TURNING)} {reply.text[match.end() :]}"
    )


def with_sentence(reply: Reply, dice: random.Random, place: str) -> Damaged | None:
    """Put a sentence next to an answer, in the `place` that a template says."""
    sentence = dice.choice(SENTENCES)
    stated: tuple[Found, ...] = ()
    if "10" in sentence and not reply.form.scale.grid:
        if reply.form.says_nothing:
            return None  # it is an answer of its own
        box = reply.form.scale.pixels((10, 20, 300, 400))
        ids = [phrase_id for phrase_id, text in reply.phrases.items() if text.endswith("dog")]
        stated = tuple(reply.truth | {(phrase_id, box)} for phrase_id in ids)
    gap = dice.choice((" ", chr(10), chr(10) * 2))
    return Damaged(place.format(reply=reply.text, gap=gap, sentence=sentence), stated)


def change_tag(reply: Reply, dice: random.Random) -> Damaged | None:
    """Drop a tag, misspell it, write it twice, or close where it opens."""
    match = any_match(TAG, reply.text, dice)
    if match is None:
        return None
    tag = match[0]
    letters = [i for i, char in enumerate(tag) if char.isalpha()]
    at = dice.choice(letters) if letters else 1
    others = ["", without(tag, at, at + 1), tag[:at] + "q" + tag[at + 1 :], tag * 2]
    others.append("</" + tag[1:] if tag[1] != "/" else "<" + tag[2:])
    return Damaged(reply.text[: match.start()] + dice.choice(others) + reply.text[match.end() :])


def sibling_key(reply: Reply, dice: random.Random) -> Damaged | None:
    """Write a key next to a box, or next to the boxes, that may change them."""
    match = any_match(re.compile(r"\{(?=[\"\w'])"), reply.text, dice)
    if match is None:
        return None
    at = match.end()
    return Damaged(f"{reply.text[:at]}{dice.choice(SIBLINGS)}, {reply.text[at:]}")


def cut_tail(reply: Reply, dice: random.Random) -> Damaged | None:
    """Cut the end off, at any byte."""
    if reply.form.name in UNTELLABLE:
        return None
    [damaged] = cuts(reply, [dice.randrange(len(reply.text.encode()))])
    return damaged


def cuts(reply: Reply, places: Iterable[int]) -> Iterator[Damaged]:
    """Cut a reply off after each of these numbers of bytes.

    A stream that is cut between two items is a whole reply of fewer.
    """
    form = reply.form
    labels = [form.label_after.format(phrase) for phrase in reply.phrases.values()]
    shorter = []
    if form.is_stream:
        for whole, truth in beginnings(form, reply.items, reply.seed):
            label = next((label for label in labels if whole.endswith(label)), "")
            shorter.append((whole, label, truth))
    for at in places:
        text = reply.text.encode()[:at].decode(errors="replace")
        stated = [
            truth
            for whole, label, truth in shorter
            if is_within(text, whole, form.between)
            or is_within(text, whole.removesuffix(label), label)
        ]
        yield Damaged(text, tuple(stated))


def is_within(text: str, before: str, piece: str) -> bool:
    """Whether a text ends right after `before`, or within the piece that follows it."""
    return text.startswith(before) and piece.startswith(text[len(before) :])


DAMAGES: dict[str, Damage] = {
    "a digit dropped": drop_digit,
    "a number dropped": drop_number,
    "a number added": add_number,
    "a bracket dropped": dropper("[](){}［］｛｝"),
    "a bracket added": adder("[](){}"),
    "a quotation mark dropped": dropper("\"'“”`"),
    "a quotation mark added": adder("\"'“`"),
    "a comma dropped": dropper(",，;"),
    "a comma added": adder(",;"),
    "a colon dropped": dropper(":："),
    "a colon added": adder(":"),
    "a key and its value dropped": drop_pair,
    "a key dropped": drop_key,
    "a key twice": repeat_key,
    "a second box": second_box,
    "no box in its place": junk_for_box,
    "an id changed": change_id,
    "a letter dropped": drop_letter,
    "a turning word before": word_before,
    "a turning word after": word_after,
    "a turning word within": word_within,
    "a sentence before": partial(with_sentence, place="{sentence}{gap}{reply}"),
    "a sentence after": partial(with_sentence, place="{reply}{gap}{sentence}"),
    "a tag changed": change_tag,
    "a key next to a box": sibling_key,
    "the beginning cut off": cut_head,
    "the end cut off": cut_tail,
}


def damaged_replies(replies: int, seed: int) -> Iterator[tuple[str, Reply, Damaged]]:
    """Draw damaged replies: the damage's name, the reply, and what became of it."""
    forms = list(FORMS.values())
    number = 0
    made = 0
    while made < replies:
        dice = random.Random(f"{seed}/{number}")
        name = list(DAMAGES)[number % len(DAMAGES)]
        form = forms[number // len(DAMAGES) % len(forms)]
        number += 1
        reply = draw_reply(form, dice)
        damaged = DAMAGES[name](reply, dice)
        if damaged is not None and damaged.text != reply.text:
            made += 1
            yield name, reply, damaged


KINDS = {
    "blanks": " ",
    "line ends": "\n",
    "words": "the cat is here ",
    "digits": "12345 ",
    "one number": "7",
    "opening brackets": "[",
    "opening braces": '{"a":',
    "quotation marks": '"',
    "backslashes": '\\"',
    "fences": "```\n",
    "boxes": "[10, 20, 30, 40], ",
    "objects": '{"label": "cat", "bbox_2d": [10, 20, 30, 40]}, ',
    "loose objects": "{label: 'cat', bbox_2d: (10, 20, 30, 40)}, ",
    "cut objects": '{"label": "cat", "bbox_2d": [10, 20, ',
    "comments": "// cat\n",
    "tags": "<ref>cat</ref><box>(10,20),(30,40)</box>",
    "opening tags": "<box>",
    "open brackets": "<a",
    "location tokens": "cat<loc_1><loc_2><loc_3><loc_4>",
    "location tokens alone": "<loc0001>",
    "thinking": "<think>no </think>",
    "opening thoughts": "<think>",
    "answer tags": "<answer>[]</answer>",
    "messages": "<|start|>assistant<|message|>",
    "lines": "1. cat: [10, 20, 30, 40]\n",
    "glued": "cat[[10, 20, 30, 40]]\n",
    "refusals": "There is no cat in the image. ",
    "Chinese": "没有找到任何物体",
    "HTML": '<p data-bbox="1 2 3 4">',
}
"""Pieces of which long texts are made."""
AROUND = [
    "{}",
    '[{{"label": "{}", "bbox_2d": [1, 2, 300, 400]}}',
    "<ref>cat</ref><box>{}",
    "```json\n{}",
]
"""What is around them."""


def long_text(piece: str, around: str, length: int) -> str:
    """A text of about `length` characters that repeats one piece."""
    return around.format(piece * (length // len(piece)))


def read_any(text: str, phrases: Sequence[str] = ("cat", "dog")) -> None:
    """Read a text that nobody asked for."""
    try:
        read_boxes(text, format="xyxy_1000", image_size=SIZE, phrases=phrases)
    except UnreadableReply:
        pass
