"""What is cut off before a reply is read: thinking, other turns, tokens of the template."""

from __future__ import annotations

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from tests.support.reading import read

ANSWER = '[{"label": "cat", "bbox_2d": [100, 200, 300, 400]}]'
DRAFT = '[{"label": "cat", "bbox_2d": [1, 2, 3, 4]}]'
BOX = (100, 200, 300, 400)


def boxes_of(reply: str) -> list[tuple[float, ...]]:
    return [box.bbox for box in read(reply, ["cat"]).boxes]


@pytest.mark.parametrize(
    "reply",
    [
        "<think>Maybe {draft}? No.</think>{answer}", "Maybe {draft}? No.</think>\n\n{answer}", "<think></think>{answer}",
        "<thinking>{draft}</thinking>{answer}", "<thought>{draft}</thought>\n{answer}", "<reasoning>{draft}</reasoning>{answer}",
        "<seed:think>{draft}</seed:think>{answer}", "◁think▷{draft}◁/think▷{answer}", "[THINK]{draft}[/THINK]{answer}",
        "<|begin_of_thought|>{draft}<|end_of_thought|>{answer}", "<unused94>thought\n{draft}<unused95>{answer}",
        "<|channel>thought\n{draft}<channel|>{answer}", "<think>a<think>b</think>{draft}</think>{answer}",
        "<think>{draft}</think>\n<answer>{answer}</answer>", "<answer>{answer}</answer>", "<answer>{answer}",
        "<|channel|>analysis<|message|>{draft}<|end|><|start|>assistant<|channel|>final<|message|>{answer}<|return|>",
        " to=self<|message|>{draft}<|eom|><|start|>assistant to=user<|message|>{answer}<|eot|>",
        "analysisI see {draft} assistantfinal{answer}", "<|im_start|>assistant\n{answer}<|im_end|>", "{answer}<|im_end|>",
        "<s>{answer}</s><pad><pad>", "<start_of_turn>model\n{answer}<end_of_turn>", "Assistant: {answer}",
        "User: <image>\nFind the cat.\nAssistant: {answer}", "<|User|>Where is [1, 2, 3, 4]?<|Assistant|>{answer}<｜end▁of▁sentence｜>",
        "<tool_call>{{\"name\": \"mark\", \"arguments\": {{\"objects\": {answer}}}}}</tool_call>",
        "{answer}<|im_end|>\n<|im_start|>user\nAnd {draft}?<|im_end|>\n<|im_start|>assistant\n{draft}<|im_end|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n{answer}<|eot_id|>", "json\n{answer}",
    ],
)  # fmt: skip
def test_what_follows_the_thinking_is_the_answer(reply: str) -> None:
    assert boxes_of(reply.format(draft=DRAFT, answer=ANSWER)) == [BOX]


@pytest.mark.parametrize(
    "reply",
    [
        "<think>{answer}", "<think>hm</think>", "{answer}<think>but is it?</think>", "<think>{answer}</think>",
        " to=self<|message|>{answer}", "<|channel|>analysis<|message|>{answer}", "<|im_start|>user\n{answer}<|im_end|>",
        "<answer>{draft}</answer><answer>{answer}</answer>", "<think>a</think>{draft}<think>b</think>{answer}",
        "<zorb>{draft}</zorb>{answer}", "", "  \n", "<|im_end|>",
    ],
)  # fmt: skip
def test_a_reply_without_one_answer_after_its_thinking_is_refused(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        boxes_of(reply.format(draft=DRAFT, answer=ANSWER))
