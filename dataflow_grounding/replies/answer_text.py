"""The part of a reply that is its answer: without thinking, echoed prompt, role words and fences."""

from __future__ import annotations

import re
from typing import NamedTuple

from dataflow_grounding.errors import UnreadableReply

_THINK_END = re.compile(r"</(?:think|thinking|thought|reasoning)>|◁/think▷|\[/THINK\]", re.IGNORECASE)
_THINK_START = re.compile(r"<(?:think|thinking|thought|reasoning)>|◁think▷|\[THINK\]", re.IGNORECASE)
_CHANNEL = re.compile(r"<\|channel\|>\s{0,9}final[^<\n]{0,40}(?:<\|constrain\|>[^<\n]{0,40})?<\|message\|>")
_ANSWER = re.compile(r"<answer>|<\|begin_of_answer\|>", re.IGNORECASE)
_ANSWER_END = re.compile(r"</answer>|<\|end_of_answer\|>", re.IGNORECASE)
_GLM_BOX, _GLM_BOX_END = "<|begin_of_box|>", "<|end_of_box|>"
_CONTROL = re.compile(
    r"<\|(?:endoftext|im_end|im_start|eot_id|end_of_text|begin_of_text|end|return|end▁of▁sentence|Assistant|assistant|user|User)\|>"
    r"|<｜[^｜>\n]{1,40}｜>|</?s>|<pad>|<eos>|<bos>|<end_of_turn>|<start_of_turn>|<\|end_of_box\|>|<\|begin_of_box\|>"
)
_ESCAPED_JSON = re.compile(r'\s*"?\s*(?:[\[{]\s*)+\\+["n]')
_LANGUAGE = re.compile(r"[ \t]*[A-Za-z0-9_+-]*[ \t]*(?:\n|(?=[\[{]))")


class Answer(NamedTuple):
    """`text`: the answer; `blocks`: what stands in its fences; `talk`: what stands outside of them."""

    text: str
    blocks: list[str]
    talk: str


def answer_of(reply: str) -> Answer:
    """Return the answer in a model's reply; raises UnreadableReply when the reply is empty or ends while it still thinks."""
    if not reply.strip():
        raise UnreadableReply("the reply is empty")
    text = _after_last(_THINK_END, reply)
    if _THINK_START.search(text):
        text = text[: _THINK_START.search(text).start()]  # type: ignore[union-attr]
        if not text.strip():
            raise UnreadableReply("the reply ends before the thinking does")
    text = _after_last(_CHANNEL, text)
    echo = text.rfind("</input>")
    text = text[echo + len("</input>") :] if echo >= 0 else text
    text = _inside_answer(text)
    boxed = _boxed(text)
    text = boxed if boxed is not None else text
    if _ESCAPED_JSON.match(text):
        text = text.replace("\\n", "\n").replace('\\"', '"')
    parts = text.split("```")
    blocks = [_LANGUAGE.sub("", part, count=1) if _LANGUAGE.match(part) else part for part in parts[1::2]]
    return Answer(text, blocks, "".join(parts[0::2]))


def without_control_tokens(text: str) -> str:
    """Return `text` without the tokens that begin and end turns and texts."""
    return _CONTROL.sub(" ", text)


def _after_last(pattern: re.Pattern[str], text: str) -> str:
    end = 0
    for match in pattern.finditer(text):
        end = match.end()
    return text[end:]


def _inside_answer(text: str) -> str:
    after = _after_last(_ANSWER, text)
    end = _ANSWER_END.search(after)
    inside = after[: end.start()] if end else after
    return inside if inside.strip() else text


def _boxed(text: str) -> str | None:
    # GLM puts its answer between these two tokens; whatever stands around them is talk.
    parts = [part.partition(_GLM_BOX_END)[0] for part in text.split(_GLM_BOX)[1:]]
    return "\n".join(parts) if any(re.search(r"\d", part) for part in parts) else None
