from __future__ import annotations

from typing import Any

import pytest

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.replies import read_object

FOUND = {
    "the object": ('{"expressions": [{"text": "a cat"}]}', [{"text": "a cat"}]),
    "fenced": ('Sure:\n```json\n{"expressions": [{"text": "a cat"}]}\n```\nDone.', [{"text": "a cat"}]),
    "after thinking": (
        "<think>{'expressions': []}</think>{'expressions': [{'text': 'a cat'}],}",
        [{"text": "a cat"}],
    ),
    "within another object": ('{"result": {"expressions": [{"text": "a cat"}]}}', [{"text": "a cat"}]),
    "in a list of one": ('[{"expressions": [{"text": "a cat"}]}]', [{"text": "a cat"}]),
    "the key in other letters": ('{"Expressions": [{"text": "a cat"}]}', [{"text": "a cat"}]),
    "a bare list": ('[{"text": "a cat"}]', [{"text": "a cat"}]),
    "a bare list of texts": ('["a cat"]', ["a cat"]),
    "an empty list": ("[]", []),
    "an item a line": (
        '{"id": 1, "text": "a cat"}\n{"id": 2, "text": "a dog"}',
        [{"id": 1, "text": "a cat"}, {"id": 2, "text": "a dog"}],
    ),
    "after numbers in brackets": (
        'Region 1 (2 cats) at [100, 120, 300, 420].\n{"expressions": [{"text": "a cat"}]}',
        [{"text": "a cat"}],
    ),
    "in tags, with words after them": ('<answer>{"expressions": []}</answer>\nNo corrections were needed.', []),
    "a key twice, with the same value": (
        '{"expressions": [{"id": 1, "id": 1}], "expressions": [{"id": 1, "id": 1}]}',
        [{"id": 1}],
    ),
    # liustack/modlens issue 45
    "a brace too many": ('{"expressions": [{"text": "a cat"}]}}', [{"text": "a cat"}]),
    "closed too early": (
        '{"cleaned_caption": {"text": "A cat."}}, "expressions": [{"text": "a cat"}]}',
        [{"text": "a cat"}],
    ),
    "quotation marks within": (
        '{"expressions": [{"text": "a “cat”, the "red" one"}]}',
        [{"text": 'a “cat”, the "red" one'}],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("reply", "value"), FOUND.values(), ids=FOUND)
def test_the_object_is_found(reply: str, value: Any) -> None:
    assert read_object(reply, required="expressions")[0]["expressions"] == value


def test_what_was_done_is_noted() -> None:
    assert read_object('{"caption": "x"}', required="caption")[1] == []
    assert read_object("{'caption': 'x'}", required="caption")[1][0].code == "repaired_json"
    assert read_object('[{"text": "x"}]', required="captions")[1][0].code == "wrapped"
    assert (
        read_object('{"captions": [{"text": "x"}, {"te', required="captions")[1][0].code
        == "truncated"
    )


@pytest.mark.parametrize(
    ("reply", "error", "told"),
    [
        ("", UnreadableReply, "empty"),
        ("I can't.", UnreadableReply, "no JSON"),
        ('{"other": 1}', UnreadableReply, "'caption'"),
        ('{"answers": [' + '{"caption": "x"}, ' * 9 + "[]]}", UnreadableReply, "'caption'"),
        ('{"note": "so', TruncatedReply, "cut off"),
        ("[" * 200, UnreadableReply, "nested"),
    ],
)
def test_no_such_object_is_an_error(reply: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        read_object(reply, required="caption")


@pytest.mark.parametrize(
    "reply",
    [
        '{"expressions": ["a cup"], "expressions": []}',
        '{"expressions": ["a cup"], "x": 1, "Expressions": ["a dog"]}',
        '[{"answer": {"expressions": ["a cup"], "expressions": ["a dog"]}}]',
        "{expressions: ['a cup'], expressions: []}",
        '{"expressions": ["a cup"], "expressions": ["a dog"], "not',
        "{" + '"expressions": [], ' * 150_000 + '"expressions": [1]}',
    ],
    ids=lambda reply: reply[:40],
)
def test_a_key_that_is_there_twice_is_refused(reply: str) -> None:
    with pytest.raises(UnreadableReply, match="an object has 'expressions' twice"):
        read_object(reply, required="expressions")


@pytest.mark.parametrize(
    "reply",
    [
        '{"expressions": [{"id": 1, "matches": true, "matches": false}]}',
        '{"note": {"matches": true, "matches": false}, "expressions": []}',
        "{expressions: [{'matches': True, 'matches': False}]}",
        '{"matches": true, "id": 1, "matches": false}',
    ],
)
def test_a_key_that_an_item_has_twice_with_other_values_is_refused(reply: str) -> None:
    with pytest.raises(UnreadableReply, match="an object has 'matches' twice"):
        read_object(reply, required="expressions")


ANSWER = '```json\n{"expressions": ["a cup"]}\n```'


HARMLESS = [
    "Both expressions match their regions; no changes were necessary.",
    "There are no errors. Summary: 2 of 2 expressions match.",
    "There are no mistakes, and none of the ids is wrong.",
    "I did not find anything incorrect. Nothing was swapped.",
    "The second one is not wrong.",
    "I did not mix up the two.",
    '1. "the red car" matches region 1.\n2. "the blue car" matches region 2.',
    "### Analysis\n- Region 1 is a red car [100, 120, 300, 420], not a van.",
    "I checked regions 1, 2, 3, 4 and 5.",
    'The sign says "My mistake".',
    "A sign that says 'I'm sorry' is next to it.",
    "The man is confused by the map.",
    "If I was wrong about anything, tell me.",
    "I kept the misspelled sign as it is.",
    'I corrected a small typo in the caption ("cpu" → "cup").',
    "The following is the corrected caption and the expressions:",
    "The answer is not wrong.",
    "These are default icons.",
    "Is that all? Yes, all 3.",
    "图中有1个杯子，没有2个。",
]


@pytest.mark.parametrize("words", HARMLESS)
def test_words_that_do_no_harm_are_skipped(words: str) -> None:
    for reply in (f"{words}\n{ANSWER}", f"{ANSWER}\n{words}"):
        assert read_object(reply, required="expressions")[0]["expressions"] == ["a cup"]


DENYING = ['{"checks": [{"matches": false}]}', '{"checks": [{"verdict": "Other."}]}']


@pytest.mark.parametrize(
    "words",
    [
        "The second expression is wrong, so I corrected it.",
        "I noticed that the ids were swapped, and exchanged them.",
        "Region 2 actually shows a van instead of a car.",
        "The second box is not a fork.",
        "The second does not match.",
        "第二个表达不对，我已更正。",
        "Der zweite Ausdruck ist falsch.",
    ],
)
def test_a_judge_who_denies_something_may_say_so_next_to_its_answer(words: str) -> None:
    for answer in DENYING:
        assert read_object(f"{answer}\n{words}", required="checks")
    affirming = '{"checks": [{"matches": true, "verdict": "right"}]}'
    assert read_object(f"{words}\n{affirming}", required="checks")
    with pytest.raises(UnreadableReply, match="may change it"):
        read_object(f"{affirming}\n{words}", required="checks")


SLIPS = [
    "I mixed up the two region ids.",
    "I confused left and right.",
    "I think I accidentally exchanged the two.",
    "I've mislabeled the second one.",
    "I got them backwards.",
    "I made an error in the second one.",
    "My mistake: 1 and 2 are one.",
    "The answer above is wrong.",
    "Please ignore the above.",
    "Sorry, I swapped the two.",
    "Region 2 is empty; I described the nearest car instead.",
    "These are guesses.",
    "I had to guess.",
    "Disregard this.",
    "**Correction**: the second is a van.",
    "Wait, the second one is a dog.",
    "Both match.\nActually, the second one is a dog.",
    "我把两个框弄混了。",
    "以上有误。",
    "間違えました。",
    "Ich habe die beiden vertauscht.",
    "J'ai inversé les deux.",
    "Me equivoqué.",
]


@pytest.mark.parametrize("words", SLIPS)
def test_an_answer_that_the_model_takes_back_is_refused(words: str) -> None:
    for answer in (ANSWER, ANSWER.replace('"a cup"', '{"matches": false}')):
        with pytest.raises(UnreadableReply, match="may change it"):
            read_object(f"{answer}\n{words}", required="expressions")
    # Before an answer it takes back what it thought until then.
    assert read_object(f"{words}\n{ANSWER}", required="expressions")


@pytest.mark.parametrize(
    "words",
    [
        "These are made up.",
        "I could not view the image.",
        "The image itself is unavailable.",
        "I could see no image.",
        "I assumed that everything is right.",
        "The outlines are illegible, so these are defaults.",
        "This is for another image.",
        "More: {",
        "More: [",
    ],
)
def test_an_answer_that_is_none_is_refused(words: str) -> None:
    for reply in (f"{words}\n{ANSWER}", f"{ANSWER}\n{words}"):
        with pytest.raises(UnreadableReply, match="may change it"):
            read_object(reply, required="expressions")


def test_words_in_comments_and_words_without_end_are_judged_too() -> None:
    for reply in (
        '{"expressions": ["a cup"] // I mixed up the two\n}',
        f"{'The table is long. ' * 2_000}\n{ANSWER}",
    ):
        with pytest.raises(UnreadableReply, match="may change it"):
            read_object(reply, required="expressions")


@pytest.mark.slow
@pytest.mark.parametrize("words", [". " * 9_000, "i have " * 2_700, "[]" * 9_000, '"' * 19_000])
def test_many_words_take_no_longer_than_they_are(words: str) -> None:
    """A search that is quadratic in their length would take minutes."""
    read_object(f"{ANSWER}\n{words}", required="expressions")


@pytest.mark.parametrize(
    "reply",
    [
        '{"expressions": []} no: {"expressions": [{"text": "a cat"}]}',
        '{"expressions": []}\n{"expressions": ["a cat"]}',
        '{"ground_truth": {"expressions": [1]}, "prediction": {"text": "x"}}',
        'Example: {"expressions": [1]}',
        '{"expressions": [1]} Sorry, that is for another image.',
        '```example\n{"expressions": [1]}\n```',
        '```json\n{"expressions": [1]}\n```\nCorrected:\n```json\n{"expressions": [2]}\n```',
        '{"a": {"expressions": [1]}, "b": {"expressions": [2]}}',
    ],
)
def test_of_several_answers_none_is_taken(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        read_object(reply, required="expressions")
