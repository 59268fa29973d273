"""Boxes that a model only considered, or took back, are none of its answer."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies import Reading, read_boxes, read_object

FIRST, LAST, DOG = (10, 20, 30, 40), (50, 60, 70, 80), (5, 6, 7, 8)
A, B, D = "[10, 20, 30, 40]", "[50, 60, 70, 80]", "[5, 6, 7, 8]"
CAT_A, CAT_B, DOG_D = (
    f'[{{"label": "{label}", "bbox_2d": {box}}}]'
    for label, box in (("cat", A), ("cat", B), ("dog", D))
)


def read(reply: str, phrases: Any = ("cat",)) -> Reading:
    return read_boxes(reply, format="xyxy_1000", image_size=(1000, 1000), phrases=phrases)


def found(reading: Reading) -> list[tuple[int | None, tuple[float, ...]]]:
    return [(box.id, box.bbox) for box in reading.boxes]


THOUGHT = f"The cat may be at {A}, I think, or it is {CAT_A}."
CHANNELS = [
    pytest.param("<think>", "</think>", id="think"),
    pytest.param("", "</think>", id="think, opened in the prompt"),
    pytest.param("<seed:think>", "</seed:think>", id="seed:think"),
    pytest.param(
        "<seed:think>so <seed:cot_budget_reflect>used 9 tokens</seed:cot_budget_reflect>",
        "</seed:think>",
        id="nested",
    ),
    pytest.param("<thoughts>", "</thoughts>", id="thoughts"),
    pytest.param("<scratchpad>", "</scratchpad>\n", id="scratchpad"),
    pytest.param("<reflection>", "</reflection>\n", id="reflection"),
    pytest.param("[THINK]", "[/THINK]", id="square brackets"),
    pytest.param("◁think▷", "◁/think▷", id="triangles"),
    pytest.param("<unused94>thought\n", "<unused95>", id="unused tokens"),
    pytest.param("<|channel>thought\n", "<channel|>", id="channel tokens"),
    pytest.param("<|turn>model\n<|channel>thought\n", "<channel|>", id="channel tokens in a turn"),
    pytest.param(
        "<|begin_of_thought|>",
        "<|end_of_thought|>\n<|begin_of_solution|>",
        id="begin_of and end_of",
    ),
    pytest.param("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>", id="START and END"),
    pytest.param("<|thinking|>", "<|answer|>", id="tokens without a partner"),
    pytest.param(
        " to=self<|message|>", "<|eom|><|start|>assistant to=user<|message|>", id="to=self"
    ),
    pytest.param(
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>",
        id="analysis",
    ),
    pytest.param(
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>commentary to=functions.mark<|message|>",
        id="a call",
    ),
    pytest.param("analysis", "assistantfinal", id="analysis without its tokens"),
    pytest.param(
        "<|im_start|>think\n", "<|im_end|>\n<|im_start|>answer\n", id="a message of its own"
    ),
    # Names that stand in no list.
    pytest.param("<zorb>", "</zorb>", id="a tag of any name"),
    pytest.param("<inner-voice>", "</inner-voice>\n\n", id="a tag of any name with a dash"),
    pytest.param("", "\n</zorb>\n", id="a tag of any name, opened in the prompt"),
    pytest.param("<|zorb|>", "<|/zorb|>", id="a token of any name"),
    pytest.param("<|zorb_start|>", "<|zorb_end|>", id="tokens of any name"),
    pytest.param(
        "<|start|>assistant<|channel|>zorb<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        id="a channel of any name",
    ),
    pytest.param(
        " to=critic<|message|>",
        "<|eom|><|start|>assistant to=user<|message|>",
        id="a recipient of any name",
    ),
]


@pytest.mark.parametrize(("opened", "closed"), CHANNELS)
@pytest.mark.parametrize(
    "answer",
    [
        CAT_B,
        f"```json\n{CAT_B}\n```",
        f"cat: {B}",
        f"<answer>{CAT_B}</answer>",
        "<ref>cat</ref><box>(50,60),(70,80)</box>",
        "<loc0061><loc0051><loc0082><loc0072> cat",
        '<point_box mention="cat"> (50,60) (70,80) </point_box>',
    ],
    ids=[
        "JSON",
        "fenced",
        "a line",
        "an answer tag",
        "ref and box",
        "location tokens",
        "point_box",
    ],
)
def test_what_stands_in_a_channel_that_is_closed_before_the_answer_is_not_read(
    opened: str, closed: str, answer: str
) -> None:
    reading = read(opened + THOUGHT + closed + answer)

    assert [tuple(round(side) for side in box.bbox) for box in reading.boxes] in (
        [LAST],
        [(50, 60, 70, 80)],
    )
    assert read_object(
        f'{opened}{{"objects": [1]}} I think{closed}{{"objects": []}}', required="objects"
    )[0] == {"objects": []}


@pytest.mark.parametrize(("opened", "closed"), CHANNELS)
def test_none_after_a_channel_is_none(opened: str, closed: str) -> None:
    assert read(opened + THOUGHT + closed + "[]").boxes == []
    assert read(opened + THOUGHT + closed + "No cat found.").boxes == []


@pytest.mark.parametrize(
    "opened",
    [
        "<think>",
        "<seed:think>",
        "<thoughts>",
        "[THINK]",
        "◁think▷",
        "<|channel>thought\n",
        " to=self<|message|>",
        "<|channel|>analysis<|message|>",
        "analysis",
        "<seed:think><seed:cot_budget_reflect>9 tokens</seed:cot_budget_reflect>",
        "<zorb>",
        " to=self ",
    ],
)
def test_a_reply_that_ends_in_its_thinking_is_unreadable(opened: str) -> None:
    with pytest.raises(UnreadableReply):
        read(opened + THOUGHT)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(
            f"<output>{CAT_B}</output><reflection>I considered {A}, but it is a dog.</reflection>",
            id="thinking after the answer",
        ),
        pytest.param(
            f"<answer>{CAT_A}</answer> is too small <answer>{CAT_B}</answer>", id="two answer tags"
        ),
        pytest.param(
            f"<think>first</think>{CAT_A}<think>is it?</think>{CAT_B}",
            id="thinking between two answers",
        ),
        pytest.param(
            f'{{"thinking": "the cat is at {A}", "objects": {CAT_B}}}', id="a key for thinking"
        ),
        pytest.param(
            f'{{"reasoning": {CAT_A}, "objects": {CAT_B}}}', id="a key for thinking with boxes"
        ),
        pytest.param(
            f"<REASONING>The cat is at {A}</REASONING><CONCLUSION>{CAT_B}</CONCLUSION>",
            id="a tag for the conclusion",
        ),
        pytest.param(
            f"<details><summary>Reasoning</summary>the cat could be at {A}</details>\n{CAT_B}",
            id="talk in HTML",
        ),
        pytest.param(
            f"```thinking\nThe cat could be at {A}, I think.\n```\n```json\n{CAT_B}\n```",
            id="a fence for thinking",
        ),
        pytest.param(f"The cat seems to be near {A}. As JSON:\n{CAT_B}", id="talk before JSON"),
        pytest.param(
            f"{CAT_B}<|im_end|>\n<|im_start|>user\nAnd {A}?<|im_end|>\n<|im_start|>assistant\n{CAT_A}<|im_end|>",
            id="further turns",
        ),
        pytest.param(
            f"{CAT_B}\nUser: and the dog?\nAssistant: cat: {A}", id="further turns in words"
        ),
        pytest.param(f"{CAT_B}<|endoftext|>Human: draw {A}", id="text after its end"),
        pytest.param(
            f"<|start_header_id|>user<|end_header_id|>\n\nmark {A}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{CAT_B}",
            id="the question again",
        ),
        pytest.param(
            f"User: <image> where is the <ref>dog</ref>, not {A}?\nAssistant: cat[{B}]",
            id="the question again, in words",
        ),
        pytest.param(f"USER: near {A}? ASSISTANT: cat: {B}", id="the question again, in one line"),
        pytest.param(f"<zorb>cat {A}</zorb>{CAT_B}", id="a tag without talk"),
        pytest.param(f"cat: {A}, roughly. As JSON:\n{CAT_B}", id="a labelled list before JSON"),
        pytest.param(
            f"{CAT_B}\nMy first guess was\nthe cat: {A}", id="a labelled list behind JSON"
        ),
        pytest.param(f"For example, {CAT_A}. The answer:\n{CAT_B}", id="an example"),
        pytest.param(f"cat: not at {A} but at {B}", id="denied"),
    ],
)
def test_only_the_answer_is_read(reply: str) -> None:
    assert found(read(reply)) == [(1, LAST)]


@pytest.mark.parametrize(
    "reply",
    [
        f"The cat is at {A}. Wait, looking again, the cat is at {B}.",
        f"cat: {A}\nWait, looking again: cat: {B}",
        f"{CAT_A}\n\nWait, that was the dog. The right answer:\n{CAT_B}",
        f"```json\n{CAT_A}\n```\nActually, let me correct that:\n```json\n{CAT_B}\n```",
        f"```json\n{CAT_A}\n```\nHmm, the box must be {B}.",
        f"```json\n{CAT_A}\n```\nRefined:\n```json\n{CAT_B}\n```",
        f"```json\n{CAT_A}\n```\nThe box of the cat:\n```json\n{CAT_B}\n```",
        f"{CAT_A}\nIt may also be put like this, tighter:\n{CAT_B}".replace("also ", ""),
        f"Thought: the cat is maybe at {A}.\nAnswer: {B}",
        f"The cat is near {A}, behind the sofa. Therefore the box is {B}.",
        f"**Thinking:** the cat is maybe at {A}.\n\n**Final answer:** {B}",
        f"猫在{A}。等等，重新看，应该在{B}。",
        "<box>(10,20),(30,40)</box> Wait, <box>(50,60),(70,80)</box>",
        "<ref>cat</ref><box>(10,20),(30,40)</box>. No, rather: <ref>cat</ref><box>(50,60),(70,80)</box>",
        "cat: 10, 20, 30, 40\nCorrection: cat: 50, 60, 70, 80",
        f'[{{"label": "cat", "bbox_2d": {A}}} Wait, once more: {CAT_B}',
    ],
)
def test_of_two_answers_to_one_question_the_last_counts_and_a_note_says_so(reply: str) -> None:
    for phrases in (["cat"], []):
        reading = read(reply, phrases)

        assert [box.bbox for box in reading.boxes] == [LAST]
        assert reading.count("superseded") == 1
        assert reading.doubtful


def test_an_answer_in_another_scale_may_be_taken_back() -> None:
    pixels, dog_out = CAT_A.replace("40", "1900"), DOG_D.replace("8", "1800")
    again = "\nWait, from 0 to 1000 that is:\n"

    assert found(read(f"{pixels}{again}{CAT_B}")) == [(1, LAST)]
    reading = read(f"{CAT_A[:-1]}, {dog_out[1:]}{again}{CAT_B[:-1]}, {DOG_D[1:]}", ["cat", "dog"])
    assert found(reading) == [(1, LAST), (2, DOG)]
    for reply in (
        # the cat's box stands, and in the other scale
        f"{CAT_A[:-1]}, {dog_out[1:]}{again}{DOG_D}",
        f"{CAT_B}{again}{pixels}",
        pixels,
    ):
        with pytest.raises(UnreadableReply, match="the coordinates go from"):
            read(reply, ["cat", "dog"])


@pytest.mark.parametrize(
    ("reply", "boxes"),
    [
        pytest.param(f"cats: {A} and {B}", [(1, FIRST), (1, LAST)], id="two in a line"),
        pytest.param(f"[{A}, {B}]", [(1, FIRST), (1, LAST)], id="two in a list"),
        pytest.param(f"- cat: {A}\n- cat: {B}", [(1, FIRST), (1, LAST)], id="two in lines"),
        pytest.param(f"{CAT_A[1:-1]}\n{CAT_B[1:-1]}", [(1, FIRST), (1, LAST)], id="two objects"),
        pytest.param(
            f"The cat is at {A}. Actually, there is another cat at {B}.",
            [(1, FIRST), (1, LAST)],
            id="another one",
        ),
        pytest.param(
            f"A cat:\n```json\n{CAT_A}\n```\nAnother cat:\n```json\n{CAT_B}\n```",
            [(1, FIRST), (1, LAST)],
            id="another block",
        ),
        pytest.param(
            f"```json\n{CAT_A}\n```\n```json\n{DOG_D}\n```",
            [(1, FIRST), (2, DOG)],
            id="blocks of different things",
        ),
        pytest.param(
            f"Cats:\n{CAT_A}\nDogs:\n{DOG_D}",
            [(1, FIRST), (2, DOG)],
            id="lists of different things",
        ),
        pytest.param(
            f"cat: {A}\ndog: {D}\nWait, again: cat: {B}",
            [(2, DOG), (1, LAST)],
            id="one of two corrected",
        ),
        pytest.param(
            f"```json\n{CAT_A}\n```\nSo the cat is at {A}.", [(1, FIRST)], id="repeated in prose"
        ),
        pytest.param(f"{CAT_A}\nSo the cat is at {A}.", [(1, FIRST)], id="JSON repeated in prose"),
        pytest.param(f"{CAT_A}\nThat is, again:\n{CAT_A}", [(1, FIRST)], id="repeated as JSON"),
        pytest.param(
            f"cat: {A}\ndog: {D}\nTherefore, the boxes are {A} and {D}.",
            [(1, FIRST), (2, DOG)],
            id="all once more",
        ),
        pytest.param(
            '[{"label": "cat", "bbox_2d": [10,20,30,40], "note": "Hm. Wait, no"}, {"label": "cat", "bbox_2d": [50,60,70,80],}]',
            [(1, FIRST), (1, LAST)],
            id="words in a string",
        ),
        pytest.param(
            f"{CAT_A}\nLet me double-check: yes, good.", [(1, FIRST)], id="checked and found right"
        ),
    ],
)
def test_what_is_no_correction_counts(reply: str, boxes: list[Any]) -> None:
    reading = read(reply, ["cat", "dog"] if "dog" in reply.lower() else ["cat"])

    assert found(reading) == boxes


@pytest.mark.parametrize(
    "reply",
    [
        f"{CAT_A}\nWait, there is no cat.",
        f"{CAT_A}\nWait, looking again I see nothing there.\n[]",
        f'{CAT_A}\nCorrection:\n{{"cat": null}}',
    ],
)
def test_a_box_that_is_taken_back_for_none_is_none(reply: str) -> None:
    assert read(reply).boxes == []


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (f"{CAT_A}\nWait, that is not a cat at all.", "takes back"),
        (f"{CAT_A}\nHmm, I am not sure about this.", "takes back"),
        (f"cat: {A}\ndog: {D}\nWait, it is at {B}.", "unclear what"),
        (f"cat: {A}\nWait, {B[:-5]}", ""),
        (f"cat: {A} wait " * 60, "corrects itself"),
        ("For example, " + CAT_A, "example"),
    ],
)
def test_a_correction_that_says_nothing_certain_is_unreadable(reply: str, told: str) -> None:
    with pytest.raises(UnreadableReply) as error:
        read(reply, ["cat", "dog"] if "dog" in reply else ["cat"])

    assert told in str(error.value)


@pytest.mark.parametrize(
    "reply",
    [
        f'<tool_call>\n{{"name": "mark", "arguments": {{"objects": {CAT_B}}}}}\n</tool_call>',
        f'<|python_tag|>{{"name": "mark", "parameters": {{"objects": {CAT_B}}}}}<|eom_id|>',
        f'[TOOL_CALLS][{{"name": "mark", "arguments": {{"objects": {CAT_B}}}}}]',
        '<|tool_call>call:mark{objects:[{label:<|"|>cat<|"|>,bbox_2d:[50,60,70,80]}]}<tool_call|>',
        f"<result>{CAT_B}</result>",
        f"<zorb>{CAT_B}</zorb>",
        f"<zorb>cat: {B}</zorb>",
        f"Sure.<|zorb|>{CAT_B}",
        f"[ANSWER]\n{CAT_B}",
        f"<|im_start|>assistant\n{CAT_B}<|im_end|>",
        f"<start_of_turn>model\n{CAT_B}<end_of_turn>",
        f"<｜Assistant｜>{CAT_B}<｜end▁of▁sentence｜>",
        f"Assistant: cat[{B}]",
        f"ASSISTANT: cat: {B}",
        f"**Assistant:** {CAT_B}",
        f"\\boxed{{{B}}}",
        "<cat>[50, 60, 70, 80]</cat>",
        '<zorb mood="good">\n' + CAT_B + "\n</zorb>",
    ],
)
def test_a_tag_around_the_whole_answer_hides_nothing(reply: str) -> None:
    assert [box.bbox for box in read(reply).boxes] == [LAST]


def test_tags_in_the_strings_of_json_are_text() -> None:
    for label in ("<think>", "</think>", "<|im_end|>", "Wait, 5 more", "<answer>"):
        reply = f'[{{"label": "{label}", "bbox_2d": {A}}}, {{"label": "b", "bbox_2d": {B}}}]'
        for text in (reply, f"```json\n{reply}\n```"):
            assert [box.label for box in read(text, ()).boxes] == [label, "b"]


CONSIDERED = [
    "candidates",
    "proposals",
    "discarded",
    "false_positives",
    "not_matching",
    "previous",
    "example",
    "uncertain",
    "other_objects",
]


@pytest.mark.parametrize("considered", CONSIDERED)
def test_of_boxes_under_sibling_keys_those_under_a_word_for_the_answer_count(
    considered: str,
) -> None:
    for answer in ("objects", "final", "answer", "refined"):
        for boxes in (CAT_A, f"[{CAT_A[1:-1]}, {CAT_B[1:-1]}]"):
            reading = read(f'{{"{considered}": {boxes}, "{answer}": {CAT_B}}}')
            assert found(reading) == [(1, LAST)]
            assert found(read(f'{{"{answer}": {CAT_B}, "{considered}": {boxes}}}')) == [(1, LAST)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("initial", "second"),
        ("before", "after"),
        ("discarded", "kept"),
        ("coarse", "fine"),
        ("objects", "detections"),
    ],
)
def test_of_boxes_under_sibling_keys_that_say_nothing_none_counts(one: str, other: str) -> None:
    with pytest.raises(UnreadableReply, match="one thing under"):
        read(f'{{"{one}": {CAT_A}, "{other}": {CAT_B}}}')
    reading = read(
        f'{{"{one}": [{CAT_A[1:-1]}, {DOG_D[1:-1]}], "{other}": {CAT_B}}}', ["cat", "dog"]
    )
    assert found(reading) == [(2, DOG)]
    assert reading.unread == [1]


def test_sibling_keys_that_are_labels_or_ids_or_agree_all_count() -> None:
    for reply in (
        f'{{"cat": {CAT_A}, "dog": {DOG_D}}}',
        f'{{"animals": {CAT_A}, "others": {DOG_D}}}',
        f'{{"1": [{{"bbox": {A}}}], "2": [{{"bbox": {D}}}]}}',
        f'{{"first": {CAT_A}, "again": [{CAT_A[1:-1]}, {DOG_D[1:-1]}]}}',
    ):
        assert set(found(read(reply, ["cat", "dog"]))) == {(1, FIRST), (2, DOG)}


def test_a_part_without_a_name_is_no_further_thing() -> None:
    assert found(read(f'[{{"label": "cat", "bbox": {A}, "children": [{{"bbox": {B}}}]}}]')) == [
        (1, FIRST)
    ]


@pytest.mark.parametrize(
    "reply",
    [
        f"**Thinking:** The cat could be {A}.\n\n**Answer:** {B}",
        f"### Analysis\nThe dog occupies {A}.\n### Answer\n{B}",
        f"~~{A}~~ {B}",
        f"~~{CAT_A}~~\n{CAT_B}",
        f"1. cat: {B}\n\nExcluded: cat: {A} (reflection)",
        f"## Reasoning\ncat: {A}\n## Result\n{B}",
        f"{CAT_B}\nI excluded {CAT_A}, a reflection.",
    ],
)
def test_sections_and_words_that_set_a_box_aside_are_heeded(reply: str) -> None:
    assert found(read(reply)) == [(1, LAST)]


@pytest.mark.parametrize(
    "reply",
    [
        "**cat**: (100, 20, 300, 40",
        "The cat is at (100, 20, 300, 40",
        '{"draft": [{"label": "cat", "bbox": [500, 50, 600, 60',
        "cat: [100, 20, 300, 40",
        '{"analysis": {"candidates": [{"label": "cat", "bbox": [500, 50, 600, 60',
        '{"reasoning": "The cat seems to be at [500, 50, 600, 60',
    ],
)
def test_a_number_at_the_end_without_its_closing_bracket_is_never_kept(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        read(reply)
    reading = read(f"dog: (5, 6, 7, 8)\n{reply}", ["cat", "dog"]) if reply[0] not in "{" else None
    assert reading is None or (found(reading) == [(2, DOG)] and reading.doubtful)
