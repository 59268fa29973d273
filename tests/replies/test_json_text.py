from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies.json_text import find_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=6), children, max_size=4)
    ),
    max_leaves=20,
)
containers = st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=6), values, max_size=4)


@pytest.mark.slow
@given(containers, st.sampled_from([None, 2]), st.booleans())
def test_json_is_read_as_json_also_with_talk_before_it(
    value: Any, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)

    for before in ("", "Here it is: "):
        scan = find_json(before + text)
        assert [found.value for found in scan.items] == [value]
        assert (scan.broken, scan.truncated) == (False, False)


@pytest.mark.slow
@given(containers)
def test_a_text_cut_anywhere_gives_nothing_that_was_not_in_it(value: Any) -> None:
    text = json.dumps(value)
    whole = set(map(repr, _leaves(value)))

    for end in range(len(text)):
        for found in find_json("x" + text[:end]).items:
            assert set(map(repr, _leaves(found.value))) <= whole | {"None"}


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for child in value.values() for leaf in _leaves(child)]
    if isinstance(value, list):
        return [leaf for child in value for leaf in _leaves(child)]
    return [value]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param(
            "{'a': None, 'b': True, 'c': (1, 2)}", {"a": None, "b": True, "c": [1, 2]}, id="Python"
        ),
        pytest.param("{a: b c, d: 1}", {"a": "b c", "d": 1}, id="bare words"),
        pytest.param("[1, 2,, 3,]", [1, 2, 3], id="commas too many"),
        pytest.param('{"a": 1 "b": 2}', {"a": 1, "b": 2}, id="commas too few"),
        pytest.param('{"a": }', {"a": None}, id="a missing value"),
        pytest.param('{"a": 1, "a": 2}', {"a": 2}, id="a repeated key: the last counts"),
        pytest.param("[007, +1, .5, 1.]", [7, 1, 0.5, 1.0], id="numbers that JSON does not know"),
        pytest.param("[NaN, -Infinity]", [None, None], id="numbers that are none"),
        pytest.param('{"a": "say "hi" now"}', {"a": 'say "hi" now'}, id="quotation marks within"),
        pytest.param('{"a": "two\nlines"}', {"a": "two\nlines"}, id="a raw line break"),
        pytest.param("{“a”: “b”}", {"a": "b"}, id="curly quotation marks"),
        pytest.param('["\\ud83d\\ude00", "\\ud83d"]', ["😀", "\ufffd"], id="surrogates"),
        pytest.param(
            '{"a": 1, // one\n /* two */ "b": 2 # three\n}', {"a": 1, "b": 2}, id="comments"
        ),
        pytest.param('{"a": [1, 2}', {"a": [1, 2]}, id="a bracket that is missing"),
        pytest.param('[{"a": 1}]]', [{"a": 1}], id="a bracket too many"),
        pytest.param('{"a": "b", "c": "d', {"a": "b", "c": None}, id="cut off in a string"),
        pytest.param("[12, 34", [12], id="cut off in a number"),
    ],
)
def test_what_is_nearly_json_is_read_as_meant(text: str, value: Any) -> None:
    assert find_json("x " + text).items[0].value == value


def test_deep_nesting_is_refused_and_not_a_recursion_error() -> None:
    for text in ("[" * 100_000, "[" * 150 + "]" * 150, '{"a":' * 100_000):
        with pytest.raises(UnreadableReply, match="nested"):
            find_json(text)
