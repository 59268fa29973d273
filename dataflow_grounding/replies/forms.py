"""A reply in any known form: the forms are tried in order, and the first that fits is the answer.

They are JSON, a family's tokens, lines if they were asked for, and one sentence that says that
nothing is there. docs/replies.md has them on one page.

Words next to boxes are refused unless they can't change what the boxes mean. An addressed answer,
in which each box has the id of a phrase, is judged more leniently, and later (box_reader.py).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies.channels import Answer, answer_of, enclosed
from dataflow_grounding.replies.json_items import only_answer, read_values
from dataflow_grounding.replies.json_text import (
    CutArray,
    CutObject,
    JsonText,
    ends_answer,
    find_json,
    plain_key,
    strict_json,
)
from dataflow_grounding.replies.reading import Note, ParsedReply
from dataflow_grounding.replies.tables import find_table
from dataflow_grounding.replies.tokens import has_tokens, read_bare, read_caption, read_tokens
from dataflow_grounding.replies.words import (
    agrees_with_none,
    ids_of,
    names_any,
    objection,
    other_thing,
    points_back,
    says_none,
    tells_list,
    tells_picture,
    tells_place,
)

# The key of a list without its object: `bbox_2d: [1, 2, 3, 4]`.
_KEY_BEFORE = lazy_pattern(r"\b(\w{2,20})\s{0,3}[:=]\s{0,3}$")
# `1. the red cup: [10, 20, 30, 40]`, `2. a dog: none`, `3. a cat: (10, 20, 30, 40) (score: 0.9)`
_LINE = lazy_pattern(
    r"[\s*•-]*(?P<id>\d{1,9})\s*[.:)]\s*(?P<label>[^\[\]\n]*?)[\s:]*"
    r"(?:\[(?P<numbers>[^\[\]\n]*)\]|\((?P<in_round>\s*[\d.]+(?:[\s,;]+[\d.]+){3}\s*)\)"
    r"|(?P<none>none|(?<=[:：] )"
    r"(?:not (?:found|visible|present|there|detected)|n/a|absent|无|没有)))"
    r"(?:\s*\(\s*score\s*[:=]?\s*(?P<score>[\d.]+)\s*\))?[\s.,;。]*",
    re.IGNORECASE,
)
_FENCED = lazy_pattern(r"```(?:json)?[ \t]*\n(.*)\n[ \t]*```", re.DOTALL)  # and nothing else
_PADDING = 12  # with more characters after JSON, the model surely didn't go on with it
_EMPTY_ANSWER = lazy_pattern(r"\[\s*\]|\{\s*\}|\bnull\b", re.IGNORECASE)
_GOES_ON = lazy_pattern(r"\.{2,}|…+")  # which a model writes in place of the rest of a list
_EMPTY_BEFORE = lazy_pattern(r"\A\[\s*\]\s*(?=\[)")
_BLANK = " .,;:\r\n\t"  # around words
_LANGUAGE = lazy_pattern(r"\A\s*(?:json|python)\s*(?=[\[{])")


def parse_any(
    reply: str,
    value: Any,
    phrases: Mapping[int, str],
    box_key: str,
    *,
    to_pixels: bool,
    list_key: str = "",
) -> ParsedReply:
    """Parse a reply in any known form; `value` is the reply in strict JSON, or None."""
    parsed = ParsedReply()
    if value is None:
        fenced = _FENCED.fullmatch(reply.strip())
        value = strict_json(fenced[1]) if fenced else None
    if value is not None:
        read_values([value], parsed, phrases, box_key, list_key)
        parsed.addressed = parsed.names_phrases(phrases)
    else:
        reader = _FormReader(parsed, phrases, box_key, list_key, asked_in_pixels=to_pixels)
        reader.read(answer_of(reply))
    return parsed


def is_whole(reply: Any) -> bool:
    """Whether a reply that its server calls cut off is whole all the same."""
    # Some servers go on after the answer up to the token limit, with a template's tokens or blanks
    # (vllm-project/vllm issue 8020, jundot/omlx issue 2990).
    try:
        answer = enclosed(answer_of(reply))
        found = find_json(answer.text)
    except (UnreadableReply, TypeError):  # the latter for a reply that is no text
        return False
    rest = answer.text[found.end :] + answer.after
    is_one_value = len(found.values) == 1 and not found.truncated
    if not is_one_value or rest.strip():
        return False
    if ends_answer(found.values[0]):
        return True
    # The object of one box may be one of several, and the model may have gone on.
    index_of_end: int = max(reply.rfind("}"), reply.rfind("]"))
    return len(reply) - index_of_end > _PADDING


def parse_lines(reply: str, phrases: Mapping[int, str], box_key: str) -> ParsedReply:
    """Parse a reply that has a box on each line. Raises UnreadableReply where no line has."""
    objects = objects_of_lines(reply, box_key)
    if objects is None:
        raise UnreadableReply("no line of the reply is as asked", "no answer")
    parsed = ParsedReply()
    read_values([{"objects": objects}], parsed, phrases, box_key)
    return parsed


class _Words(NamedTuple):
    """The words next to the boxes of an answer."""

    before: str
    after: str


class _FormReader:
    """Reads an answer in the first form that fits."""

    def __init__(
        self,
        parsed: ParsedReply,
        phrases: Mapping[int, str],
        box_key: str,
        list_key: str,
        *,
        asked_in_pixels: bool,
    ) -> None:
        self.parsed = parsed
        self.phrases = phrases
        self.box_key = box_key
        self.list_key = list_key
        self.asked_in_pixels = asked_in_pixels
        self.texts = list(phrases.values())

    def read(self, text: str) -> None:
        answer = enclosed(text)
        has_no_words_around = not (answer.before + answer.after).strip(" .\n")
        if has_no_words_around and says_none(answer.text.strip(), self.texts):
            self.read_items([None])  # as if the reply were null: nothing is there
            return
        before, after = self.read_first_form(answer)
        self.check_single(before, after)
        # Only GLM puts an answer between tokens. It may say before them what its boxes are of: such
        # words change nothing, so they aren't checked.
        is_glm = answer.within == "tokens"
        if is_glm and self.tells_what_boxes_are_of(before):
            before = ""
        self.check_words(before, after)
        if self.parsed.truncated and not (self.parsed.boxes or self.parsed.absences):
            raise TruncatedReply("the reply is cut off before its first whole box", "cut off")

    def read_first_form(self, answer: Answer) -> _Words:
        """Add the boxes of the first form that fits; return the words next to them."""
        inside = answer.text.strip()
        if has_tokens(inside) and not inside.startswith(("{", "[")):
            words: list[str] | None = read_tokens(inside, self.parsed)
        else:
            words = read_caption(inside, self.parsed)
        if words is not None:  # those before the first box, then those after each
            before_first, after_each = words[:1], words[1:]
            before = " ".join([answer.before, *before_first])
            after = " … ".join([*after_each, answer.after])
            return _Words(before, after)
        table = find_table(inside)
        if table is not None:
            self.parsed.truncated = table.truncated
            self.read_items([table.items])
            return _Words(f"{answer.before} {table.before}", f"{table.after} {answer.after}")
        if read_bare(inside, self.parsed):
            return _Words(answer.before, answer.after)
        text = inside
        is_fence_alone = answer.within == "fence" and not (answer.before + answer.after).strip()
        if is_fence_alone:
            # Some models write "[] [{…}]", an empty list and then theirs. Next to other words, the
            # empty list may be an answer.
            text = _EMPTY_BEFORE.sub("", text)
        text = _LANGUAGE.sub("", text)
        return self.read_json_form(text, answer)

    def read_json_form(self, text: str, answer: Answer) -> _Words:
        found = find_json(text)
        is_one_value = self.read_json(found, text)
        self.parsed.addressed = is_one_value and self.parsed.names_phrases(self.phrases)
        before_json = text[: found.start]
        key = _KEY_BEFORE.search(before_json)  # `bbox_2d: [1, 2, 3, 4]`
        if key is not None and plain_key(key[1]) in ("bbox2d", "box2d", "bbox", "box", "boxes"):
            before_json = before_json[: key.start()]
        before = f"{answer.before} {before_json}"
        after_json = text[found.end :]
        if _GOES_ON.fullmatch(f"{after_json}{answer.after}".strip()) is not None:
            self.parsed.truncated = True  # "[{…}, {…}] ..."
        return _Words(before, " ".join([*found.comments, after_json, answer.after]))

    def read_items(self, values: Sequence[Any]) -> None:
        read_values(values, self.parsed, self.phrases, self.box_key, self.list_key)

    def check_single(self, before: str, after: str) -> None:
        """Refuse an answer with another next to it, which is empty, in tokens, or denies boxes."""
        for text in (before, after):
            if not text.strip():
                continue
            denies_boxes = bool(self.parsed.boxes) and says_none(text, self.texts)
            if _EMPTY_ANSWER.search(text) or has_tokens(text) or denies_boxes:
                words = " ".join(text.split())[:60]
                raise UnreadableReply(
                    f"the words next to the answer may change it: a further answer: {words!r}",
                    "several answers",
                )

    def tells_what_boxes_are_of(self, before: str) -> bool:
        """Whether words before GLM's tokens say no more than what the boxes in them are of."""
        if objection(before, to_pixels=self.asked_in_pixels) is not None:
            return False
        labels = [box.label for box in self.parsed.boxes if box.label]
        are_all_labelled = bool(labels) and len(labels) == len(self.parsed.boxes)
        if are_all_labelled:
            phrases_without_box = self.without_box(labels)
            return tells_list(before) and names_any(before, phrases_without_box) is None
        return len(self.texts) == 1 and tells_place(before, self.texts[0])

    def read_json(self, found: JsonText, text: str) -> bool:
        """Add the boxes of the JSON found in a text, and return whether it is one value."""
        if not found.values:
            begins = " ".join(text[:200].split())[:60]
            raise UnreadableReply(
                f"the reply is in no form that is known: it begins {begins!r}", "no answer"
            )
        self.parsed.truncated = found.truncated
        if found.repaired:
            self.parsed.notes.append(Note("repaired_json", "the reply is not quite JSON"))
        values = only_answer(found.values)
        self.read_items(values)
        # {"objects": [{…}, {…}]: a reply that lacks only its last brace has all boxes. But another
        # list could follow, unless each phrase has its box.
        answered_ids = {box.id for box in self.parsed.boxes}
        if answered_ids.issuperset(self.phrases) and _lacks_only_brace(found, text):
            self.parsed.truncated = False
        return len(values) == 1

    def check_words(self, before: str, after: str) -> None:
        """Refuse words that may turn an answer round, or name another thing than has a box."""
        # "`[1, 2, 3, 4]`": such a pair says nothing, but `objection` would refuse it.
        has_backticks_around = before.count("`") + after.count("`") == 2
        if has_backticks_around:
            before = before.replace("`", " ")
            after = after.replace("`", " ")
        if self.says_only_none() and self.agree_with_none(before, after):
            if tells_picture(before) or tells_picture(after):
                self.parsed.words = (before.strip(), after.strip())
            return
        why = self.objection_to(before.strip(_BLANK), after.strip(_BLANK))
        if why is None:
            return
        if self.parsed.addressed:  # judged by the reader of boxes, which knows the box format
            self.parsed.words = (before.strip(), after.strip())
            return
        words = " ".join(f"{before} {after}".split())[:60]
        raise UnreadableReply(
            f"the words next to the answer may change it: {why}: {words!r}", "words"
        )

    def says_only_none(self) -> bool:
        parsed = self.parsed
        is_more = parsed.boxes or parsed.points or parsed.dropped or parsed.truncated
        return bool(parsed.absences) and not is_more

    def agree_with_none(self, before: str, after: str) -> bool:
        """Whether the words next to an answer that nothing is there say the same."""
        return agrees_with_none(before, self.texts, may_be_neutral=True) and agrees_with_none(
            after, self.texts, may_be_neutral=False
        )

    def objection_to(self, before: str, after: str) -> str | None:
        """Return why the words next to the answer may change it; None where they can't."""
        for text in (before, after):
            why = objection(text, to_pixels=self.asked_in_pixels)
            if why is not None:
                return why
        if after and not self.parsed.boxes:
            # it may be that no picture came, or that it is black (sglang issue 6583)
            return "more is said after an answer without boxes"
        if points_back(after):
            return "they point back at it"
        word = self.word_of_other_thing(before, after)
        return None if word is None else f"{word!r} may name another thing than was asked for"

    def word_of_other_thing(self, before: str, after: str) -> str | None:
        """Return a word, next to the answer, that may name another thing than the boxes are of."""
        boxes = self.parsed.boxes
        labels = [box.label for box in boxes if box.label]
        are_all_labelled = bool(labels) and len(labels) == len(boxes)
        if self.parsed.tagged and are_all_labelled:
            # Boxes in tags, <ref>cup</ref><box>…</box>, may be inside a caption, and that may name
            # things that nobody asked for. Only phrases that got no box matter there.
            return names_any(f"{before} … {after}", self.without_box(labels))
        if boxes and not self.texts:
            # The caller gave no phrases, so every box is kept under its own label.
            return None
        things = labels
        is_one_box_of_one_phrase = len(self.texts) == len(boxes) == 1
        if not labels and is_one_box_of_one_phrase:
            things = self.texts
        # Words before the boxes may name what the boxes are of: "Here is the cup:". Of "The cup on
        # the plate:" the box may be that of the plate. Words after them may name nothing.
        return other_thing(before, things) or other_thing(after, [])

    def without_box(self, labels: Sequence[str]) -> list[str]:
        """Return the phrases that no label is equal to."""
        found = {phrase_id for label in labels for phrase_id in ids_of(label, self.phrases)}
        return [phrase for phrase_id, phrase in self.phrases.items() if phrase_id not in found]


def _lacks_only_brace(found: JsonText, text: str) -> bool:
    """{"objects": [{…}, {…}] does; {"objects": [{…}, {… doesn't."""
    value = found.values[0]
    if not isinstance(value, CutObject) or not value.pairs or not text.rstrip().endswith("]"):
        return False
    _, last = value.pairs[-1]
    is_whole_list = isinstance(last, list) and not isinstance(last, CutArray)
    return is_whole_list and ends_answer(last)


def objects_of_lines(reply: str, box_key: str) -> list[dict[str, Any]] | None:
    """Return a reply's lines as objects, or None if no line is as asked."""
    answer = enclosed(answer_of(reply))
    objects: list[dict[str, Any]] = []
    other_texts = [answer.before, answer.after]  # all that is no such line
    for line in answer.text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            other_texts.append(line)
        else:
            objects.append(_object_of_line(match, box_key))
    if not objects:
        return None
    for text in other_texts:
        why = objection(text)
        if why is not None:
            raise UnreadableReply(f"a line is no box and not none: {text[:60]!r}", "unknown line")
    absent = {item["id"] for item in objects if item[box_key] is None}
    found = {item["id"] for item in objects if item[box_key] is not None}
    contradictory = absent & found
    if contradictory:
        raise UnreadableReply(f"phrase {min(contradictory)} has a box and none", "contradiction")
    return objects


def _object_of_line(line: re.Match[str], box_key: str) -> dict[str, Any]:
    """{"id": 1, "label": "a cup", "bbox": ["10", "20", …]} of "1. a cup: [10, 20, …]"."""
    numbers = None  # for "2. a dog: none"
    within = line["numbers"] if line["in_round"] is None else line["in_round"]
    if within is not None:
        # too few are refused later, where objects are read
        numbers = [part for part in re.split(r"[\s,;]+", within) if part]
    fields = {"id": int(line["id"]), "label": line["label"].strip(" *:"), box_key: numbers}
    return {**fields, "score": line["score"]} if line["score"] else fields
