"""A reply in any known form: the forms are tried in order, and the first that fits is the answer.

They are a family's tokens, JSON, lines if they were asked for, and one sentence that says that
nothing is there. docs/replies.md has them on one page. Words next to the answer are its remark:
they decide nothing, unless there is a second answer among them.
"""

import re
from collections.abc import Mapping, Sequence

from dataflow_grounding._util.errors import (
    RecordError,
    TruncatedReply,
    UnreadableReply,
)
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies.families import has_tokens, read_bare, read_tokens
from dataflow_grounding.replies.items import has_role, only_answer, read_values
from dataflow_grounding.replies.json_text import (
    ends_answer,
    find_json,
    strict_json,
)
from dataflow_grounding.replies.nothing import agrees_with_none, says_none
from dataflow_grounding.replies.reading import Note, ParsedReply
from dataflow_grounding.replies.refusals import is_refusal, refusal_of, saw_no_picture
from dataflow_grounding.replies.text import answer_of, enclosed

# The key of a list without its object: `bbox_2d: [1, 2, 3, 4]`.
_KEY_ALONE = lazy_pattern(r"\s*(\w{2,20})\s*[:=]\s*")
# `1. the red cup: [10, 20, 30, 40]`, `2. a dog: none`, `3. a cat: (10, 20, 30, 40) (score: 0.9)`
_LINE = lazy_pattern(
    r"[\s*•-]*(?P<id>\d{1,9})\s*[.:)]\s*(?P<label>[^\[\]\n]*?)[\s:]*"
    r"(?:\[(?P<numbers>[^\[\]\n]*)\]|\((?P<in_round>\s*[\d.]+(?:[\s,;]+[\d.]+){3}\s*)\)"
    r"|(?P<none>none|(?<=[:：] )"
    r"(?:not (?:found|visible|present|there|detected)|n/a|absent|无|没有)))"
    r"(?:\s*\(\s*score\s*[:=]?\s*(?P<score>[\d.]+)\s*\))?[\s.,;。]*",
    re.IGNORECASE,
)
_BEGINS_LINE = lazy_pattern(r"\s*\d")
_FENCED = lazy_pattern(r"```(?:json)?[ \t]*\n(.*)\n[ \t]*```", re.DOTALL)  # and nothing else
_PADDING = 12  # with more characters after JSON, the model surely didn't go on with it
# A further answer among the words: four numbers in a row, an empty list, null on a line, braces, or
# half a bracket.
_FURTHER_ANSWER = lazy_pattern(
    r"(?<![\d.])(?:[-+]?\d+(?:\.\d+)?[\s,;|()\[\]]+){3}[-+]?\d+|\[\s*\]|^\s*null\W*$"
    r"|[{}｛｝]|\[[^\]]*\Z|\A[^\[]*\]|\A\s*,\s*[\W\d]",
    re.IGNORECASE | re.MULTILINE,
)
_LANGUAGE = lazy_pattern(r"\A\s*(?:json|python)\s*(?=[\[{])")


def parse_any(
    reply: str,
    value: object,
    phrases: Mapping[int, str],
    box_key: str,
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
        _FormReader(parsed, phrases, box_key, list_key).read(answer_of(reply))
    return parsed


def is_whole(reply: str) -> bool:
    """Whether the JSON of a reply is closed that its server calls cut off."""
    # Some servers go on after the answer up to the token limit, with a template's tokens or blanks
    # (vllm-project/vllm issue 8020, jundot/omlx issue 2990), and some models with words.
    try:
        found = find_json(enclosed(answer_of(reply)).text)
    except UnreadableReply:
        return False
    if not found.values or found.truncated:
        return False
    if len(found.values) == 1 and ends_answer(found.values[0]):
        return True
    # The object of one box may be one of several, and the model may have gone on.
    index_of_end = max(reply.rfind("}"), reply.rfind("]"))
    return len(reply) - index_of_end > _PADDING


def parse_lines(reply: str, phrases: Mapping[int, str], box_key: str) -> ParsedReply | None:
    """Parse a reply that has a box on each line; None where no line has."""
    objects, words = objects_of_lines(reply, box_key)
    if not objects:
        return None
    parsed = ParsedReply(remarks=words)
    read_values([{"objects": objects}], parsed, phrases, box_key)
    return parsed


class _FormReader:
    """Reads an answer in the first form that fits."""

    def __init__(
        self, parsed: ParsedReply, phrases: Mapping[int, str], box_key: str, list_key: str
    ) -> None:
        self.parsed = parsed
        self.phrases = phrases
        self.box_key = box_key
        self.list_key = list_key
        self.texts = list(phrases.values())

    def read(self, text: str) -> None:
        answer = enclosed(text)
        inside = answer.text.strip()
        before, after = "", ""  # the words next to the boxes
        if says_none(inside, self.texts):
            self.read_items([None])  # as if the reply were null: nothing is there
        elif has_tokens(inside) and not inside.startswith(("{", "[")):
            # the words before the first box, then those after each
            before, *after_each = [*read_tokens(inside, self.parsed, self.phrases), ""]
            after = " … ".join(filter(str.strip, after_each))
        elif not read_bare(inside, self.parsed):
            before, after = self.read_json(_LANGUAGE.sub("", inside))
        before = f"{answer.before} {before}"
        after = " … ".join(filter(str.strip, [after, answer.after]))
        self.check_words(before, after)
        words = [text for text in (before, after) if any(map(str.isalnum, text))]
        self.parsed.remarks[:0] = words
        if self.parsed.truncated and not (self.parsed.boxes or self.parsed.absences):
            raise TruncatedReply("the reply is cut off before its first whole box", "cut off")

    def read_items(self, values: Sequence[object]) -> None:
        read_values(values, self.parsed, self.phrases, self.box_key, self.list_key)

    def read_json(self, text: str) -> tuple[str, str]:
        """Add the boxes of the JSON in a text, and return the words before and after it."""
        found = find_json(text)
        if not found.values:
            raise _no_answer(text)
        self.parsed.truncated = found.truncated
        if found.repaired:
            self.parsed.notes.append(Note("repaired_json", "the reply is not quite JSON"))
        values = only_answer(found.values)
        self.read_items(values)
        self.parsed.addressed = len(values) == 1 and self.parsed.names_phrases(self.phrases)
        before = text[: found.start]
        key = _KEY_ALONE.fullmatch(before)  # `bbox_2d: [1, 2, 3, 4]`
        if key is not None and has_role(key[1], "box"):
            before = ""
        return before, " ".join(filter(str.strip, [*found.comments, text[found.end :]]))

    def check_words(self, before: str, after: str) -> None:
        """Refuse an answer with a further one in the words next to it, or where no picture came."""
        for text in (before, after):
            further = _FURTHER_ANSWER.search(text)
            if further is not None or has_tokens(text):
                near = " ".join(text[further.start() if further else 0 :].split())[:60]
                raise UnreadableReply(
                    f"there is a further answer next to the first: {near!r}", "several answers"
                )
        if saw_no_picture(before):
            raise _no_answer(before)
        if self.says_only_none():
            # Next to it may be only more of the same, after a line such as "Here it is:".
            is_introduction = before.rstrip().endswith((":", "：")) and not is_refusal(before)
            for text in ("" if is_introduction else before, after):
                if not agrees_with_none(text, self.texts):
                    near = " ".join(text.split())[:60]
                    raise UnreadableReply(
                        f"more is said next to an answer without boxes: {near!r}", "more is said"
                    )

    def says_only_none(self) -> bool:
        parsed = self.parsed
        is_more = parsed.boxes or parsed.points or parsed.dropped or parsed.truncated
        return bool(parsed.absences) and not is_more


def _no_answer(text: str) -> RecordError:
    if is_refusal(text):
        return refusal_of(text)
    begins = " ".join(text[:200].split())[:60]
    return UnreadableReply(
        f"the reply is in no form that is known: it begins {begins!r}", "no answer"
    )


def objects_of_lines(reply: str, box_key: str) -> tuple[list[dict[str, object]], list[str]]:
    """Return a reply's lines as objects, none if no line is as asked, and its other lines."""
    answer = enclosed(answer_of(reply))
    objects: list[dict[str, object]] = []
    other_texts = [answer.before, answer.after]  # all that is no such line
    for line in answer.text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            other_texts.append(line)
        else:
            objects.append(_object_of_line(match, box_key))
    if not objects:
        return [], []
    for text in other_texts:
        if _BEGINS_LINE.match(text) or _FURTHER_ANSWER.search(text):
            raise UnreadableReply(f"a line is no box and not none: {text[:60]!r}", "unknown line")
    absent = {str(item["id"]) for item in objects if item[box_key] is None}
    found = {str(item["id"]) for item in objects if item[box_key] is not None}
    contradictory = absent & found
    if contradictory:
        raise UnreadableReply(f"phrase {min(contradictory)} has a box and none", "contradiction")
    return objects, other_texts


def _object_of_line(line: re.Match[str], box_key: str) -> dict[str, object]:
    """{"id": 1, "label": "a cup", "bbox": ["10", "20", …]} of "1. a cup: [10, 20, …]"."""
    numbers = None  # for "2. a dog: none"
    within = line["numbers"] if line["in_round"] is None else line["in_round"]
    if within is not None:
        # too few are refused later, where objects are read
        numbers = [part for part in re.split(r"[\s,;]+", within) if part]
    fields = {"id": int(line["id"]), "label": line["label"].strip(" *:"), box_key: numbers}
    return {**fields, "score": line["score"]} if line["score"] else fields
