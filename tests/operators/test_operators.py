"""Operators alone: on one record, a list, a DataFrame, a file; their keys, their descriptions,
custom ones.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import (
    OPERATOR_REGISTRY,
    ExpressionExtractor,
    FileStorage,
    GroundingError,
    Operator,
    PhraseGrounder,
    Serving,
    open_image,
    operator,
    read_expressions,
    with_answers,
)
from dataflow_grounding._util.errors import (
    BudgetExceeded,
    OperatorFailed,
    PlanError,
    RecordError,
)
from dataflow_grounding.data.rows import read_records
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.plain_questions import sign_of_life
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.operators import facts_of
from dataflow_grounding.serving import Reply
from dataflow_grounding.tasks import Found, Request, expression_extraction
from dataflow_grounding.testing import LoopbackServer
from tests.support.endpoint import serving_of
from tests.support.steps import storage_in


class Small(Serving):
    """A user's own serving: a model's name and one method."""

    model = "small"
    box_format = "xyxy_px"

    async def answer(self, request: Request[Any]) -> str:
        if request.task == "expression_extraction":
            mug = {"text": "a red mug", "noun_chunk": "mug"}
            return json.dumps({"cleaned_caption": "A red mug.", "expressions": [mug]})
        box = {"id": 1, "label": "a red mug", "bbox_2d": [1, 2, 30, 20], "score": 0.5}
        return json.dumps({"objects": [box]})


@pytest.fixture
def photo(tmp_path: Path) -> str:
    path = tmp_path / "photo.png"
    Image.new("RGB", (40, 30), "red").save(path)
    return str(path)


def test_one_record_gets_the_update_merged_in(photo: str) -> None:
    given = {"image_path": photo, "caption": "A red   mug.", "mine": [1]}
    record = PhraseGrounder(Small())(ExpressionExtractor(Small())(given))
    given_still = {"image_path": photo, "caption": "A red   mug.", "mine": [1]}
    assert given == given_still
    assert record["mine"] == [1]
    assert (record["width"], record["height"], record["cleaned_caption"]) == (40, 30, "A red mug.")
    # the folder says nothing on another machine
    name = os.path.basename(photo).removesuffix(".png")
    assert record["image_id"] == name
    assert record["expressions"] == [
        {
            "expression_id": f"{name}#0",
            "text": "a red mug",
            "char_span": [0, 9],
            "caption_span": [0, 11],
            "noun_chunk": "mug",
            "instances": [{"bbox_id": f"{name}#0.0", "bbox": [1, 2, 30, 20], "score": 0.5}],
            "status": "grounded",
        }
    ]


SHIPPED = [cls for _, cls in OPERATOR_REGISTRY if cls.__module__.startswith("dataflow_grounding.")]


@pytest.mark.parametrize("shipped", SHIPPED)
def test_a_column_is_named_by_its_role_or_by_its_default(shipped: Any) -> None:
    """`output_expressions_key`, which an extractor takes, was refused by a grounder."""
    operator = shipped.__new__(shipped)
    for role, column in shipped.output_keys.items():
        bound = operator.bound(**{f"output_{column}_key": "x"})
        assert bound.writes() == {**shipped.output_keys, role: "x"}
    for role, column in shipped.input_keys.items():
        meant = column if column in shipped.input_keys else role  # a role's own name goes first
        assert operator.bound(**{f"input_{column}_key": "x"}).reads()[meant] == "x"
    if shipped.output_keys:
        assert "x" in operator.bound(output_key="x").writes().values()
    assert operator.writes() == shipped.output_keys, "keys of one run are not those of the next"


@pytest.mark.parametrize("argument", ["input_imagekey", "image_key", "output_caption_key", "key"])
def test_a_wrong_key_names_the_right_ones(argument: str, photo: str) -> None:
    with pytest.raises(
        PlanError, match=r"ExpressionExtractor takes no .* input_image_key, .*input_caption_key"
    ):
        ExpressionExtractor(Small())({"image_path": photo}, **{argument: "x"})


@pytest.mark.parametrize(
    "storage", [None, "file.jsonl", object()], ids=["none", "a path", "an object"]
)
def test_what_is_no_storage_is_refused(storage: Any) -> None:
    with pytest.raises(GroundingError, match=r"storage\.step\(\)"):
        ExpressionExtractor(Small()).run(storage)
    with pytest.raises(GroundingError, match=r"storage\.step\(\)"):
        ExpressionExtractor(Small()).run(FileStorage("in.jsonl"))


@pytest.mark.parametrize("shipped", SHIPPED)
def test_the_registry_describes_its_operators_in_two_languages(shipped: Any) -> None:
    assert shipped.__name__ in OPERATOR_REGISTRY
    assert shipped.__name__ in list(OPERATOR_REGISTRY.keys())
    assert shipped.get_desc("en").isascii()
    assert any("\u4e00" <= letter <= "\u9fff" for letter in shipped.get_desc("zh"))
    assert shipped.get_desc() == shipped.get_desc("en") == shipped.get_desc("fr")
    assert shipped.__name__ in str(OPERATOR_REGISTRY)


def test_own_operators_join_the_registry() -> None:
    @OPERATOR_REGISTRY.register()
    class Joined(Operator):
        """Does nothing."""

        async def annotate(self, record: Any, ask: Any) -> dict[str, Any]:
            return {}

    assert OPERATOR_REGISTRY.get("Joined") is Joined
    assert Joined.get_desc("zh") == "Does nothing."
    with pytest.raises(KeyError):
        OPERATOR_REGISTRY.get("Nobody")


def test_the_engine_adds_the_size_and_the_doubt_to_what_an_operator_returns() -> None:
    class CupFinder(Operator):
        """Finds the cup."""

        name = "cups"
        input_keys = {"image": "image_path", "expressions": "expressions"}
        output_keys = {"output": "expressions"}

        async def annotate(self, record: Any, ask: Any) -> dict[str, Any]:
            expressions = read_expressions(record, self.keys.expressions)
            found = [Found("none", [], own_doubt="a saucer, perhaps") for _ in expressions]
            facts = facts_of(record, open_image(record, self.keys.image), ask, None)
            return {**facts, self.keys.output: with_answers(expressions, found, ask)}

    row = {"image_path": "example_data/images/coffee.jpg", "expressions": ["the cup"]}
    record = CupFinder()(row)
    added = ["image_id", "width", "height", "doubtful", "doubt"]
    assert list(record) == ["image_path", "expressions", *added]
    assert (record["doubtful"], record["doubt"]) == (True, "a saucer, perhaps")
    assert record["expressions"][0]["doubtful"] is True
    again = CupFinder()({**record, "expressions": [], "suspect_boxes": True})
    assert (again["doubtful"], again["doubt"], again["suspect_boxes"]) == (False, None, False)


@operator
def shout(record: dict[str, Any]) -> dict[str, Any]:
    """The caption in capitals."""
    return {"loud": record["caption"].upper()}


class Length(Operator):
    """How long the caption is."""

    name = "length"
    input_keys = {"caption": "caption"}
    output_keys = {"length": "length"}

    async def annotate(self, record: Any, ask: Any) -> dict[str, Any]:
        return {self.keys.length: len(record[self.keys.caption])}


class Plus:
    """A callable object."""

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        return {"plus": 1}


class Later:
    """An object whose call is async."""

    async def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"later": 2}


def with_default(record: dict[str, Any], limit: int = 3) -> dict[str, Any]:
    return {"limit": limit}


async def later(record: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"later": True}


OTHER_COLUMNS = {"input_caption_key": "text", "output_key": "n"}
CUSTOM: dict[str, tuple[Any, dict[str, str], dict[str, Any]]] = {
    "decorated": (shout, {}, {"loud": "AB"}),
    "a class": (Length(), {}, {"length": 2}),
    "a class with other columns": (Length(), OTHER_COLUMNS, {"n": 3}),
    "an async function": (operator(later), {}, {"later": True}),
    "a function with a default": (operator(with_default), {}, {"limit": 3}),
    "a partial": (operator(functools.partial(with_default, limit=9)), {}, {"limit": 9}),
    "an object": (operator(Plus()), {}, {"plus": 1}),
    "an async object": (operator(Later()), {}, {"later": 2}),
    "a function that returns a coroutine": (operator(lambda r: later(r)), {}, {"later": True}),
}


@pytest.mark.parametrize(("custom", "keys", "update"), CUSTOM.values(), ids=CUSTOM)
def test_custom_operators(
    custom: Any, keys: dict[str, str], update: dict[str, Any], tmp_path: Path
) -> None:
    row = {"caption": "ab", "text": "abc"}
    assert custom(row, **keys) == {**row, **update}
    storage = storage_in(tmp_path, row)
    column = custom.run(storage.step(), **keys)
    assert column == keys.get("output_key", column)
    assert storage.step().read("dict") == [{**row, **update}]


def test_an_operator_without_a_serving_can_not_ask() -> None:
    @operator
    async def without_serving(record: Any, ask: Any) -> Any:
        return await ask(sign_of_life())

    with pytest.raises(OperatorFailed, match="no serving"):
        without_serving({})


def test_a_function_asks_the_serving_that_its_decorator_is_given(
    photo: str, tmp_path: Path, server: LoopbackServer
) -> None:
    serving = serving_of(server)

    @operator(reads=["image_path", "caption"], writes=["seen"], serving=serving)
    async def see(record: Any, ask: Any) -> dict[str, Any]:
        image = open_image(record, "image_path", serving.image_limits)
        answer = await ask(expression_extraction(image, record["caption"]))
        return {"seen": [text for text, _ in answer.expressions]}

    assert see({"image_path": photo, "caption": "A red mug"})["seen"]
    assert server.count() == 1
    rows = [{"image_path": photo, "caption": f"A red mug {letter}"} for letter in "abcd"]

    def run() -> int:
        """Run the step over the file; return how many requests the endpoint had so far."""
        see.run(storage_in(tmp_path, *rows).step())
        return server.count()

    with holding(current_options, RunOptions(max_requests=2)), pytest.raises(BudgetExceeded):
        run()
    assert server.count() == 3
    assert run() == 5  # the other two, and none of what is stored
    assert run() == 5


class Ending(BaseException):
    """As libraries raise that want to be caught by nobody."""


def ends(record: Any) -> Any:
    raise Ending("over")


BAD: dict[str, tuple[Any, str]] = {
    "raises": (lambda record: 1 / 0, "ZeroDivisionError"),
    "raises in two lines": (lambda record: {}["a\nb"], "KeyError"),
    "raises what is no Exception": (ends, "Ending in ends: over"),
    "returns nothing": (lambda record: None, "should return a dict"),
    "returns a list": (lambda record: [1], "should return a dict"),
    "returns NaN": (lambda record: {"x": float("nan")}, "JSON"),
    "returns a set": (lambda record: {"x": {1}}, "set"),
    "returns itself": (lambda record: (record.update(me=record), record)[1], "ircular"),
}


@pytest.mark.parametrize(("function", "says"), BAD.values(), ids=BAD)
def test_a_custom_operator_that_fails_fails_its_record_in_one_line(
    function: Any, says: str
) -> None:
    bad = operator(function)
    with pytest.raises(OperatorFailed, match=says) as caught:
        bad({"a": 1})
    assert "\n" not in str(caught.value)
    failures = bad([{"a": 1}, {"a": 2}], on_error="keep").failures
    assert [type(error) for _, error in failures] == [OperatorFailed] * 2


def test_an_operators_own_error_is_the_cause() -> None:
    half = operator(lambda record: {"half": record["n"] / 0})
    with pytest.raises(OperatorFailed) as failed:
        half({"n": 1})
    _, failure = half([{"n": 1}, {"n": 2}], on_error="keep").failures[1]
    for error in (failed.value, failure):
        assert isinstance(error.__cause__, ZeroDivisionError)


def test_a_record_changed_in_place_is_the_operators_own() -> None:
    @operator
    def vandal(record: dict[str, Any]) -> dict[str, Any]:
        record["deep"]["list"].append("mine")
        record.clear()
        return {"ok": True}

    row = {"deep": {"list": []}}
    assert vandal(row) == {"deep": {"list": []}, "ok": True}
    assert row == {"deep": {"list": []}}


class Broken(Serving):
    """Answers nothing that can be used."""

    model = "broken"
    box_format = "xyxy_px"

    def __init__(self, answer: Any) -> None:
        self.what = answer

    async def answer(self, request: Request[Any]) -> Any:
        if isinstance(self.what, Exception):
            raise self.what
        return self.what


NO_TEXT: Any = Reply(None)  # type: ignore[arg-type]  # as an SDK's content may be


@pytest.mark.parametrize("answer", ["", "I can't.", KeyError("x"), None, NO_TEXT, 5], ids=repr)
def test_a_serving_that_goes_wrong_fails_the_record(answer: Any, photo: str) -> None:
    row = {"image_path": photo, "caption": "x", "expressions": ["x"]}
    with pytest.raises(RecordError):
        ExpressionExtractor(Broken(answer))(row)
    with pytest.raises(RecordError):  # it is never the answer that there is none
        PhraseGrounder(Broken(answer), check_every=None)(row)


class Mute(Exception):
    """Has no words: its own `__str__` fails."""

    def __str__(self) -> str:
        raise ValueError("no words")


# Of these, a Future carries no StopIteration, and a task ends at a GeneratorExit and a SystemExit.
RAISED = [StopIteration, StopAsyncIteration, GeneratorExit, SystemExit, MemoryError, Mute]


def _raises_for_two(error: type[BaseException], is_async: bool) -> Any:
    def half(record: dict[str, Any]) -> dict[str, Any]:
        if record["n"] == 2:
            raise error
        return {"half": record["n"] / 2}

    async def later(record: dict[str, Any]) -> dict[str, Any]:
        return half(record)

    return operator(reads=["n"], writes=["half"])(later if is_async else half)


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize("error", RAISED)
def test_an_error_that_no_future_carries_fails_its_record_alone(
    error: type[BaseException], is_async: bool, tmp_path: Path
) -> None:
    half = _raises_for_two(error, is_async)
    rows = [{"n": n} for n in range(4)]
    done = half(rows, on_error="keep")
    assert [row["half"] for row in done] == [0, 0.5, None, 1.5]
    [(place, failure)] = done.failures
    assert (place, type(failure)) == (2, OperatorFailed)
    assert error.__name__ in str(failure)
    assert f"{__file__}:" in str(failure)

    storage = storage_in(tmp_path, *rows)
    half.run(storage.step())
    assert [row["n"] for row in storage.step().read("dict")] == [0, 1, 3]
    [line] = read_records(storage.failures_path)
    assert line["kind"] == "operator_failed"


# docs/extending.md: "Any other column fails the record"
COLUMNS: dict[str, tuple[dict[str, Any], str]] = {
    "the user's own": ({"count": 1, "caption": "mine"}, "returned column 'caption'"),
    "a new one": ({"count": 1, "other": 2}, "returned column 'other'"),
    "none": ({}, "returned no column 'count'"),
}


def counting(update: dict[str, Any]) -> Any:
    """What a step gives for a row that declares `count`, and returns this."""

    @operator(reads=["caption"], writes=["count"])
    def count_words(record: dict[str, Any]) -> dict[str, Any]:
        return update

    return count_words([{"caption": "theirs"}], on_error="keep")


@pytest.mark.parametrize(("update", "says"), COLUMNS.values(), ids=COLUMNS)
def test_a_function_returns_the_columns_that_it_declares(update: dict[str, Any], says: str) -> None:
    done = counting(update)
    assert done[0]["caption"] == "theirs"
    [(_, failure)] = done.failures
    assert isinstance(failure, OperatorFailed)
    assert f"count_words {says}" in str(failure)


def test_a_function_may_return_what_the_engine_fills_in() -> None:
    done = counting({"count": 1, "width": 5})
    assert (done[0]["count"], done.failures) == (1, [])


def test_a_column_that_the_record_has_may_be_left_as_it_is() -> None:
    @operator(reads=["caption"], writes=["caption"])
    def mended(record: dict[str, Any]) -> dict[str, Any]:
        return {"caption": record["caption"] + "."} if record["caption"][-1] != "." else {}

    rows = [{"caption": "a dog"}, {"caption": "a cat."}]
    assert [row["caption"] for row in mended(rows)] == ["a dog.", "a cat."]


def test_an_annotate_that_is_not_async_is_told_what_to_write() -> None:
    class Plain(Operator):
        name = "plain"
        output_keys = {"x": "x"}

        def annotate(self, record: Any, ask: Any) -> Any:
            return {"x": 1}

    line = r"^annotate of plain isn't async: write async def annotate\(self, record, ask\)$"
    with pytest.raises(OperatorFailed, match=line):
        Plain()({"n": 1})


@pytest.mark.slow
def test_a_users_class_with_the_name_of_a_shipped_one_stays() -> None:
    script = """
from dataflow_grounding import OPERATOR_REGISTRY, Operator
@OPERATOR_REGISTRY.register()
class DoubleChecker(Operator): pass
mine = DoubleChecker
assert OPERATOR_REGISTRY.get("DoubleChecker") is mine
from dataflow_grounding import DoubleChecker
assert DoubleChecker is not mine
assert OPERATOR_REGISTRY.get("DoubleChecker") is mine
"""
    subprocess.run([sys.executable, "-c", script], check=True)
