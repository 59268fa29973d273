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


WORDS = [
    "There are no errors. Summary: 2 of 2 expressions match.",
    '1. "the red car" matches region 1.\n2. "the blue car" matches region 2.',
    "### Analysis\n- Region 1 is a red car [100, 120, 300, 420], not a van.",
    "I mixed up the two region ids.",
    "图中有1个杯子，没有2个。",
]


@pytest.mark.parametrize("words", WORDS)
def test_words_next_to_an_answer_are_its_remark(words: str) -> None:
    for reply in (f"{words}\n{ANSWER}", f"{ANSWER}\n{words}"):
        fields, notes = read_object(reply, required="expressions")
        assert fields == {"expressions": ["a cup"]}
        assert notes == [("remark", " ".join(words.split()))]


def test_keys_that_were_not_asked_for_are_a_remark() -> None:
    text = {"type": "string"}
    item = {"type": "object", "properties": {"id": {"type": "integer"}, "text": text}}
    schema = {"type": "object", "properties": {"items": {"type": "array", "items": item}}}
    reply = '{"Items": [{"id": 1, "text": "a cup", "why": "red"}, {"id": 2, "note": ""}], "sure": false}'
    notes = read_object(reply, required="items", schema=schema)[1]
    assert notes == [("remark", '"why": "red" … "sure": false')]
    assert read_object(reply, required="items")[1] == []


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
        'More: {\n```json\n{"expressions": [1]}\n```',
        '{"expressions": [1]}\nMore: [',
        'No image was provided.\n{"expressions": [1]}',
        '```json\n{"expressions": [1]}\n```\nCorrected:\n```json\n{"expressions": [2]}\n```',
        '{"a": {"expressions": [1]}, "b": {"expressions": [2]}}',
    ],
)
def test_of_several_answers_none_is_taken(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        read_object(reply, required="expressions")
