from __future__ import annotations

from typing import Any

import pytest

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.replies import read_object


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        pytest.param('{"expressions": [{"text": "a cat"}]}', [{"text": "a cat"}], id="the object"),
        pytest.param(
            'Sure:\n```json\n{"expressions": [{"text": "a cat"}]}\n```\nDone {1}.',
            [{"text": "a cat"}],
            id="fenced",
        ),
        pytest.param(
            "<think>{'expressions': []}</think>{'expressions': [{'text': 'a cat'}],}",
            [{"text": "a cat"}],
            id="after thinking",
        ),
        pytest.param(
            '{"result": {"expressions": [{"text": "a cat"}]}}',
            [{"text": "a cat"}],
            id="within another object",
        ),
        pytest.param(
            '[{"expressions": [{"text": "a cat"}]}]', [{"text": "a cat"}], id="in a list of one"
        ),
        pytest.param(
            '{"Expressions": [{"text": "a cat"}]}',
            [{"text": "a cat"}],
            id="the key in other letters",
        ),
        pytest.param('[{"text": "a cat"}]', [{"text": "a cat"}], id="a bare list"),
        pytest.param('["a cat"]', ["a cat"], id="a bare list of texts"),
        pytest.param("[]", [], id="an empty list"),
        pytest.param(
            '{"id": 1, "text": "a cat"}\n{"id": 2, "text": "a dog"}',
            [{"id": 1, "text": "a cat"}, {"id": 2, "text": "a dog"}],
            id="an item a line",
        ),
        pytest.param(
            '{"expressions": []} no: {"expressions": [{"text": "a cat"}]}',
            [{"text": "a cat"}],
            id="the last of two",
        ),
        pytest.param(
            '{"expressions": [{"text": "a “cat”, the "red" one"}]}',
            [{"text": 'a “cat”, the "red" one'}],
            id="quotation marks within",
        ),
    ],
)
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
    ("reply", "value"),
    [
        ('{"expressions": ["a cup"], "expressions": []}', ["a cup"]),
        ('{"expressions": [], "expressions": ["a cup"]}', ["a cup"]),
        ('{"expressions": ["a cup"], "expressions": null}', ["a cup"]),
        ('{"expressions": ["a cup"], "x": 1, "Expressions": ["a dog"]}', ["a cup", "a dog"]),
        ('{"expressions": ["a cup"], "expressions": ["a cup"]}', ["a cup"]),
        ('[{"answer": {"expressions": ["a cup"], "expressions": ["a dog"]}}]', ["a cup", "a dog"]),
        ("{expressions: ['a cup'], expressions: []}", ["a cup"]),
        ('{"expressions": "a cup", "expressions": "a dog"}', "a dog"),
    ],
)
def test_a_key_that_stands_there_twice_loses_nothing_unsaid(reply: str, value: Any) -> None:
    found, notes = read_object(reply, required="expressions")
    assert found["expressions"] == value
    assert [note.text for note in notes if note.code == "repeated_key"] == [
        "'expressions' stands there 2 times"
    ]


@pytest.mark.slow
def test_a_reply_of_nothing_but_the_same_key_is_read() -> None:
    reply = "{" + ", ".join(f'"expressions": [{{"text": "cup {n}"}}]' for n in range(50_000)) + "}"
    assert len(read_object(reply, required="expressions")[0]["expressions"]) == 50_000


def test_of_several_fenced_answers_the_last_one_counts() -> None:
    reply = '```json\n{"boxes": [1]}\n```\nCorrected:\n```json\n{"boxes": [2]}\n```'
    assert read_object(reply, required="boxes")[0] == {"boxes": [2]}


def test_lists_under_any_key_that_is_there_twice_are_one() -> None:
    reply = '{"phrases": [1], "boxes": [2], "boxes": [3], "boxes": [2], "note": "a", "note": null}'
    found, _ = read_object(reply, required="phrases")
    assert found == {"phrases": [1], "boxes": [2, 3], "note": "a"}


@pytest.mark.slow
def test_many_repeated_keys_are_read_in_linear_time() -> None:
    """In a time that is quadratic in them it would not come to an end."""
    keys = "".join(f'"k{n}": {n}, ' for n in range(150_000))
    reply = "{" + keys + '"boxes": [], ' * 150_000 + '"boxes": [1]}'
    assert read_object(reply, required="boxes")[0]["boxes"] == [1]
