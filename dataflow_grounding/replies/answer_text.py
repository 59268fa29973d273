"""The parts of a reply that are its answers: without thinking, echoed prompt, role words and
fences.
"""

import re
from typing import NamedTuple

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._channels import spoken
from dataflow_grounding.replies._talk import statements
from dataflow_grounding.replies.json_text import strict_json
from dataflow_grounding.replies.vocabulary import words

_ANSWER = lazy_pattern(
    r"(<(?:final_)?answer>|<\|begin_of_answer\|>)|</(?:final_)?answer>|<\|end_of_answer\|>",
    re.IGNORECASE,
)
_GLM_BOX, _GLM_BOX_END = "<|begin_of_box|>", "<|end_of_box|>"
_CONTROL = lazy_pattern("|".join([*map(re.escape, words("control")), "<｜[^｜>\n]{1,40}｜>"]))
_ESCAPED_JSON = lazy_pattern(r'"?\s*(?:[\[{]\s*)+\\+["n]')
_LANGUAGE = lazy_pattern(r"[ \t]*(?:[A-Za-z0-9_+-]+[ \t]*)?(?:\n|(?=[\[{]))")
_STRUCK = lazy_pattern(r"~~[^~]{1,2000}(?:~~|\Z)")
_YAML_LIST = lazy_pattern(r":[ \t]*\n((?:[ \t]*- +[\d.]{1,20}[ \t]*\n){4})(?![ \t]*- +\d)")
_FENCED = lazy_pattern(r"```[a-z]{0,10}[ \t]*\n(.*)\n[ \t]*```", re.DOTALL)


class AnswerText(NamedTuple):
    """`text`, the `blocks` in its fences, the `talk` outside them, and the `cue` that takes back an
    earlier answer.
    """

    text: str
    blocks: list[str]
    talk: list[str]
    cue: str = ""


def answers_of(reply: str) -> list[AnswerText]:
    """Return the answers in a model's reply, in order. Raises UnreadableReply for none or an
    unfinished thought.
    """
    if not reply.strip():
        raise UnreadableReply("the reply is empty")
    if strict_json(reply) is not None:  # whatever its strings hold
        return [AnswerText(reply, [], [""])]
    fenced = _FENCED.fullmatch(reply.strip())
    if fenced is not None and strict_json(fenced[1]) is not None:
        return [AnswerText(reply, [fenced[1]], ["", ""])]
    behind_echoes = (part.rpartition("</input>")[2] for part in spoken(reply))
    return [
        _in_parts(_repaired(inside)) for part in behind_echoes for inside in _inside_answers(part)
    ]


def corrected(answer: AnswerText) -> list[AnswerText]:
    """Return an answer, or the answers that it has where it corrects itself."""
    parts = statements(answer.text) if len(answer.talk) != 1 or answer.talk[0] else []
    return [_in_parts(text, cue) for cue, text in parts] if len(parts) > 1 else [answer]


def without_control_tokens(text: str) -> str:
    """Return `text` without the tokens that begin and end turns and texts."""
    return _CONTROL.sub(" ", text)


def _in_parts(text: str, cue: str = "") -> AnswerText:
    parts = text.split("```")
    blocks = [
        _LANGUAGE.sub("", part, count=1) if _LANGUAGE.match(part) else part for part in parts[1::2]
    ]
    return AnswerText(text, blocks, parts[0::2], cue)


def _inside_answers(text: str) -> list[str]:
    """Return what is in tags that say that it is the answer, the last of them closed or not;
    without any, the text.
    """
    _, *parts = _ANSWER.split(text)
    inside = zip(parts[0::2], parts[1::2], [*parts[2::2], None], strict=False)
    return [part for opens, part, follows in inside if opens and not follows and part.strip()] or [
        text
    ]


def _repaired(text: str) -> str:
    # GLM puts its answer between these two tokens; the rest is talk. Gemma has a token for a
    # quotation mark.
    parts = [part.partition(_GLM_BOX_END)[0] for part in text.split(_GLM_BOX)[1:]]
    text = "\n".join(parts) if any(re.search(r"\d", part) for part in parts) else text
    text = _YAML_LIST.sub(
        lambda match: f": [{', '.join(match[1].replace('-', ' ').split())}]\n", text
    )
    text = _STRUCK.sub(" ", text.replace('<|"|>', '"'))
    return (
        text.replace("\\n", "\n").replace('\\"', '"')
        if _ESCAPED_JSON.match(text.lstrip())
        else text
    )
