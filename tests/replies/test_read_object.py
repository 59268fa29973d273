from __future__ import annotations

from typing import Any

import pytest

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.replies import read_object

FOUND = {
    "the object": ('{"expressions": [{"text": "a cat"}]}', [{"text": "a cat"}]),
    "fenced": (
        'Sure:\n```json\n{"expressions": [{"text": "a cat"}]}\n```\nDone.',
        [{"text": "a cat"}],
    ),
    "after thinking": (
        "<think>{'expressions': []}</think>{'expressions': [{'text': 'a cat'}],}",
        [{"text": "a cat"}],
    ),
    "within another object": (
        '{"result": {"expressions": [{"text": "a cat"}]}}',
        [{"text": "a cat"}],
    ),
    "in a list of one": ('[{"expressions": [{"text": "a cat"}]}]', [{"text": "a cat"}]),
    "the key in other letters": ('{"Expressions": [{"text": "a cat"}]}', [{"text": "a cat"}]),
    "a bare list": ('[{"text": "a cat"}]', [{"text": "a cat"}]),
    "a bare list of texts": ('["a cat"]', ["a cat"]),
    "an empty list": ("[]", []),
    "an item a line": (
        '{"id": 1, "text": "a cat"}\n{"id": 2, "text": "a dog"}',
        [{"id": 1, "text": "a cat"}, {"id": 2, "text": "a dog"}],
    ),
    "quotation marks within": (
        '{"expressions": [{"text": "a “cat”, the "red" one"}]}',
        [{"text": 'a “cat”, the "red" one'}],
    ),
}


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
