"""The answers in a reply, without thinking, echoed prompt, roles and fences."""

import re
from typing import NamedTuple

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._channels import parts_for_user
from dataflow_grounding.replies._talk import split_at_corrections
from dataflow_grounding.replies.json_text import strict_json
from dataflow_grounding.replies.vocabulary import words

# A tag or token that opens or closes an answer. The group is kept where a text is split: the tag if
# it opens one, else None.
_ANSWER = lazy_pattern(
    r"(<(?:final_)?answer>|<\|begin_of_answer\|>)|</(?:final_)?answer>|<\|end_of_answer\|>",
    re.IGNORECASE,
)
# GLM's tokens around an answer
_GLM_BOX = "<|begin_of_box|>"
_GLM_BOX_END = "<|end_of_box|>"
# A token that begins or ends a turn or a text: "<|im_end|>".
_CONTROL = lazy_pattern("|".join([*map(re.escape, words("control")), "<｜[^｜>\n]{1,40}｜>"]))
# The beginning of JSON that is escaped: `{\"label\": …`, `[\n …`.
_ESCAPED_JSON = lazy_pattern(r'"?\s*(?:[\[{]\s*)+\\+["n]')
# The language behind the mark that opens a fence, "json", up to the new line or a bracket.
_LANGUAGE = lazy_pattern(r"[ \t]*(?:[A-Za-z0-9_+-]+[ \t]*)?(?:\n|(?=[\[{]))")
_STRUCK = lazy_pattern(r"~~[^~]{1,2000}(?:~~|\Z)")  # ~~struck out~~
# YAML's list of four numbers behind a key; the group is its lines.
_YAML_LIST = lazy_pattern(
    r":[ \t]{0,9}\n((?:[ \t]{0,40}[-*][ \t]{1,3}[-+]?[\d.]{1,20}[ \t]{0,9}(?:\n|\Z)){4})"
    r"(?![ \t]{0,40}[-*][ \t]{1,3}[-+]?\d)"
)
# A text that is one fence and nothing else; the group is what is in it.
_FENCED = lazy_pattern(r"```[a-z]{0,10}[ \t]*\n(.*)\n[ \t]*```", re.DOTALL)


class AnswerText(NamedTuple):
    """One answer in a reply.

    Attributes:
        text: All of it.
        blocks: What is in its fences.
        talk: What is outside of them: before each, and behind the last one. It has one text more
            than `blocks`, or as many where the last fence isn't closed.
        cue: The words that take back an earlier answer; "" for none.
    """

    text: str
    blocks: list[str]
    talk: list[str]
    cue: str = ""


def answers_of(reply: str) -> list[AnswerText]:
    """Return the answers in a model's reply, in order: one where nothing parts them.

    A reply that is JSON and nothing else, perhaps in a fence, is one answer, whatever its strings
    hold.

    Raises:
        UnreadableReply: There are none, or the reply ends in the middle of a thought.
    """
    if not reply.strip():
        raise UnreadableReply("the reply is empty")
    if strict_json(reply) is not None:
        return [AnswerText(reply, [], [""])]
    fenced = _FENCED.fullmatch(reply.strip())
    if fenced is not None and strict_json(fenced[1]) is not None:
        return [AnswerText(reply, [fenced[1]], ["", ""])]
    answers: list[AnswerText] = []
    for part in parts_for_user(reply):
        behind_echo = part.rpartition("</input>")[2]
        for text in _contents_of_answer_tags(behind_echo):
            answers.append(_split_at_fences(_repair(text)))
    return answers


def split_corrected_answer(answer: AnswerText) -> list[AnswerText]:
    """Return an answer cut where it corrects itself, as answers in order.

    Any other answer, and one that is JSON and nothing else, is the only item.
    """
    if len(answer.talk) == 1 and not answer.talk[0]:
        return [answer]
    parts = split_at_corrections(answer.text)
    if len(parts) == 1:
        return [answer]
    return [_split_at_fences(part.text, part.cue) for part in parts]


def without_control_tokens(text: str) -> str:
    """Return a text with a blank for each token that begins or ends a turn or a text."""
    return _CONTROL.sub(" ", text)


def _split_at_fences(text: str, cue: str = "") -> AnswerText:
    """Return a text as an answer, with what is in its fences and what is outside of them.

    The name of a language that begins a fence is left out. `cue` are the words that take back an
    earlier answer.
    """
    parts = text.split("```")
    blocks: list[str] = []
    for part in parts[1::2]:
        language = _LANGUAGE.match(part)
        blocks.append(part if language is None else part[language.end() :])
    return AnswerText(text, blocks, parts[0::2], cue)


def _contents_of_answer_tags(text: str) -> list[str]:
    """Return what is in tags such as <answer>; without any, the text is the only item.

    What the next tag doesn't close is left out, but for the last one, which the text's end may cut
    off. Blank ones are left out, too.
    """
    # The pattern's group keeps tags that open. So tags and texts take turns; a tag that closes is
    # None, and before the first tag stands a text.
    pieces = _ANSWER.split(text)
    opening_tags = pieces[1::2]
    contents = pieces[2::2]
    answers: list[str] = []
    for i, content in enumerate(contents):
        opens_again = i + 1 < len(opening_tags) and opening_tags[i + 1]
        if opening_tags[i] and not opens_again and content.strip():
            answers.append(content)
    return answers or [text]


def _repair(text: str) -> str:
    """Return an answer's text with what is nearly JSON turned into JSON.

    YAML's lists of four numbers become arrays, escaped JSON is unescaped, and what is struck out is
    left out. Of a text with GLM's tokens only what is between them is returned.
    """
    text = _contents_of_glm_boxes(text)
    text = _YAML_LIST.sub(_as_array, text)
    text = text.replace('<|"|>', '"')  # Gemma's token for a quotation mark
    text = _STRUCK.sub(" ", text)
    if _ESCAPED_JSON.match(text.lstrip()):
        text = text.replace("\\n", "\n").replace('\\"', '"')
    return text


def _contents_of_glm_boxes(text: str) -> str:
    """Return what stands between GLM's tokens for an answer, each on a line, if any has a digit.

    Any other text is returned as it is.
    """
    contents: list[str] = []
    for part in text.split(_GLM_BOX)[1:]:
        contents.append(part.partition(_GLM_BOX_END)[0])
    if any(re.search(r"\d", content) for content in contents):
        return "\n".join(contents)
    return text


def _as_array(match: re.Match[str]) -> str:
    """Return a match of YAML's list of four numbers as an array of JSON: ": [1, 2, 3, 4]"."""
    # without the item's mark alone: a number may have a minus
    numbers = [item.strip()[1:].strip() for item in match[1].split("\n")[:4]]
    return f": [{', '.join(numbers)}]\n"
