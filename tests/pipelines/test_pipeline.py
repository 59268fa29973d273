"""Pipelines: step by step, streaming and stage by stage leave the same bytes; plans are checked
before anything is sent.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pandas
import pytest
from PIL import Image

from dataflow_grounding import (
    BBoxVisualizer,
    ExpressionExtractor,
    FileStorage,
    Operator,
    PhraseGrounder,
    Pipeline,
    RunOptions,
    Serving,
    operator,
)
from dataflow_grounding._util.errors import InputError, PlanError
from dataflow_grounding._util.terminal import say
from dataflow_grounding.engine.summary import Summary
from tests.support.answering import EveryWord

QUIET = RunOptions(progress=False)
Calls = list[tuple[Any, dict[str, str]]]


@operator(reads=["caption"], writes=["words"])
def count(record: dict[str, Any]) -> dict[str, Any]:
    if "uncountable" in record["caption"]:
        raise ValueError("can't\ncount")
    return {"words": len(record["caption"].split())}


@operator
def shorten(record: dict[str, Any]) -> dict[str, Any]:
    """Says nothing of its columns, and changes one that later steps read."""
    return {"caption": record["caption"].partition(",")[0], "pair": (1, 2), 3: None}


class Vandal(Operator):
    """Changes its record in place."""

    name = "vandal"
    input_keys = {"expressions": "expressions"}
    output_keys = {"seen": "seen"}

    async def annotate(self, record: Any, ask: Any) -> dict[str, Any]:
        record["expressions"].append("spoilt")
        record["caption"] = "spoilt"
        return {"seen": [1]}


class Undeclared(Operator):
    """A class that names no columns, as in a quick script."""

    name = "undeclared"

    async def annotate(self, record: Any, ask: Any) -> dict[str, Any]:
        return {"texts": [expression["text"] for expression in record["expressions"]]}


PHOTO = {"input_image_key": "photo"}
EXTRACT = {
    **PHOTO,
    "input_caption_key": "text",
    "output_expressions_key": "e",
    "output_cleaned_caption_key": "c",
}
SECOND = {"output_expressions_key": "again", "output_cleaned_caption_key": "c2"}


def calls_of(name: str, serving: Serving, folder: Path) -> Calls:
    """The steps of one kind of pipeline."""
    extract, ground, draw = (
        ExpressionExtractor(serving),
        PhraseGrounder(serving),
        BBoxVisualizer(folder / "boxed"),
    )
    renamed_ground = {**PHOTO, "input_expressions_key": "e", "output_key": "boxed"}
    kinds: dict[str, Calls] = {
        "three steps": [(extract, {}), (ground, {}), (draw, {})],
        "custom between": [(extract, {}), (count, {}), (ground, {}), (draw, {})],
        "side by side": [
            (extract, {}),
            (extract, SECOND),
            (ground, {}),
            (ground, {"input_expressions_key": "again", "output_key": "b2"}),
        ],
        "undeclared columns": [(shorten, {}), (extract, {}), (Undeclared(), {}), (count, {})],
        "changed in place": [(extract, {}), (Vandal(), {}), (ground, {})],
        "renamed, custom first": [
            (Length(), {"input_text_key": "text"}),
            (extract, EXTRACT),
            (ground, renamed_ground),
        ],
    }
    return kinds[name]


class Length(Operator):
    """How long a text is."""

    name = "length"
    input_keys = {"text": "text"}
    output_keys = {"length": "length"}

    async def annotate(self, record: Any, ask: Any) -> dict[str, Any]:
        return {self.keys.length: len(record[self.keys.text])}


ROWS: list[dict[str, Any]] = [
    {"image_path": "a/x.png", "caption": "red dog, and more", "n": 1.0, "image_id": 0},
    {"image_path": "b/x.png", "caption": "a cat", "extra": {"deep": [None]}},
    {"image_path": "b/x.png", "caption": "a bad caption"},
    {"image_path": "gone.png", "caption": "nobody"},
    {"image_path": "b/x.png", "caption": "bad phrase"},
    {"image_path": "b/x.png", "caption": "uncountable cats"},
    {"image_path": "b/x.png", "caption": "a cat"},
    {"image_path": "b/x.png", "caption": ""},
    {"image_path": "a/x.jpg", "caption": "the last, at last"},
]


def storage_of(folder: Path, where: str = "cache", **more: Any) -> FileStorage:
    return FileStorage(str(folder / "in.jsonl"), str(folder / where), "s", **more)


def pipeline_of(
    folder: Path, calls: Calls, where: str = "cache", name: str | None = "demo", **more: Any
) -> Pipeline:
    class Made(Pipeline):
        def __init__(self) -> None:
            self.storage = storage_of(folder, where, **more)

        def forward(self) -> None:
            for step, keys in calls:
                step.run(self.storage.step(), **keys)

    Made.name = name
    return Made()


def workspace(folder: Path, rows: list[dict[str, Any]]) -> Path:
    for name in ("a/x.png", "b/x.png", "a/x.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), "red" if name[0] == "a" else "blue").save(folder / name)
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def forward(pipeline: Pipeline, options: RunOptions = QUIET, **more: Any) -> Summary:
    summary = pipeline.forward(options=options, **more)
    assert isinstance(summary, Summary)
    return summary


Made = TypeVar("Made", bound=Pipeline)


def both_ways(made: Callable[[str], Made]) -> Iterator[Made]:
    """Pipelines made for a folder's name: one as it is, one compiled."""
    yield made("eager")
    pipeline = made("compiled")
    pipeline.compile()
    yield pipeline


def without_lines(files: dict[str, bytes]) -> dict[str, Any]:
    """The failures without the line in their step's own input, which step by step is another
    file's.
    """
    failures = [json.loads(line) for line in files["s_failures.jsonl"].splitlines()]
    told = sorted(json.dumps({**failure, "line": 0}) for failure in failures)
    return {**files, "s_failures.jsonl": told}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("custom between", None),
        ("side by side", "demo"),
        ("undeclared columns", None),
        ("changed in place", "demo"),
        ("renamed, custom first", None),
    ],
)
def test_all_ways_to_run_leave_the_same_files(tmp_path: Path, kind: str, name: str | None) -> None:
    rows = ROWS
    if kind.startswith("renamed"):
        rows = [{"photo": row["image_path"], "text": row["caption"]} for row in ROWS]
    workspace(tmp_path, rows)
    results, counts = [], []
    for way in ("eager", "streamed", "staged"):
        pipeline = pipeline_of(tmp_path, calls_of(kind, EveryWord(), tmp_path), way, name)
        if way != "eager":
            pipeline.compile()
        summary = forward(pipeline, RunOptions(progress=False, stream=way != "staged"))
        results.append(without_lines(files_of(tmp_path / way)))
        counts.append((summary.records, summary.done, summary.failed, dict(summary.failures)))
        assert summary.exit_code == 1
    assert results[0] == results[1] == results[2]
    assert counts[0] == counts[1] == counts[2]
    steps = len(calls_of(kind, EveryWord(), tmp_path))
    done = len(results[0][f"s_step{steps}.jsonl"].splitlines())
    assert counts[0][:3] == (len(rows), done, len(rows) - done)


class Looking(Pipeline):
    """Looks, between its steps, at the first one's file in a `way` of its own."""

    def __init__(self, folder: Path, storage: Any, way: Any) -> None:
        self.storage = storage
        self.serving = EveryWord()
        self.extract = ExpressionExtractor(self.serving)
        self.way = way
        self.asked: list[int] = []

    def forward(self) -> None:
        say("forward() is called")
        self.asked.append(self.serving.asked)
        self.extract.run(self.storage.step())
        self.asked.append(self.serving.asked)
        if self.way is not None:
            [row] = self.way(self.storage)
            assert row["expressions"]
        self.asked.append(self.serving.asked)
        count.run(self.storage.step())


def read_by_path(storage: Any) -> Any:
    return [json.loads(line) for line in Path(storage.path_of(1)).read_text().splitlines()]


def read_by_pandas(storage: Any) -> Any:
    return pandas.read_json(storage._path(1), lines=True).to_dict("records")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "kind", "asked"),
    [
        (None, FileStorage, [0, 0, 0]),
        (lambda storage: copy.copy(storage).step().read("dict"), FileStorage, [0, 0, 1]),
        (read_by_path, FileStorage, [0, 0, 1]),
        (read_by_pandas, None, [0, 0, 1]),
    ],
    ids=["not", "read", "path", "another library's storage"],
)
def test_forward_is_called_once_and_what_it_looks_at_is_there(
    tmp_path: Path, way: Any, kind: Any, asked: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace(tmp_path, ROWS[:1])
    storage = (kind or TheirStorage)(str(tmp_path / "in.jsonl"), str(tmp_path / "cache"))
    pipeline = Looking(tmp_path, storage, way)
    assert forward(pipeline).done == 1
    assert (pipeline.asked, pipeline.serving.asked) == (asked, 1)
    assert capsys.readouterr().err.count("forward() is called") == 1
    assert pipeline.storage is storage


def test_a_file_that_forward_opens_too_early_is_told(tmp_path: Path) -> None:
    workspace(tmp_path, ROWS[:1])
    storage = storage_of(tmp_path)
    too_early = tmp_path / "cache" / "s_step1.jsonl"
    pipeline = Looking(tmp_path, storage, lambda _: too_early.read_text())
    with pytest.raises(PlanError, match=r"step0_expression_extraction has.*path_of\(1\)"):
        forward(pipeline)
    assert pipeline.serving.asked == 0


def test_no_step_is_called_behind_a_look_at_nothing(tmp_path: Path) -> None:
    workspace(tmp_path, [ROWS[3]])
    storage = storage_of(tmp_path)
    pipeline = Looking(tmp_path, storage, read_by_path)
    assert forward(pipeline).exit_code == 4
    assert len(pipeline.asked) == 2


WRONG_KEY = ({}, {"input_sentence_key": "loud"}, "Length takes no input_sentence_key")
THEIR_WRONG_KEY = ({"input_ky": "caption"}, {}, r"Elsewhere.run\(\): got an unexpected keyword")


@pytest.mark.parametrize(("their_keys", "keys", "said"), [WRONG_KEY, THEIR_WRONG_KEY])
@pytest.mark.parametrize("is_theirs", [False, True])
def test_a_wrong_key_of_or_after_another_librarys_operator_is_refused_before_a_step_is_paid_for(
    tmp_path: Path, is_theirs: bool, their_keys: dict[str, str], keys: dict[str, str], said: str
) -> None:
    workspace(tmp_path, ROWS[:1])
    kind: Any = TheirStorage if is_theirs else FileStorage
    serving = EveryWord()

    class Wrong(Pipeline):
        def __init__(self) -> None:
            self.storage = kind(str(tmp_path / "in.jsonl"), str(tmp_path / "cache"))
            self.theirs = Elsewhere()

        def forward(self) -> None:
            ExpressionExtractor(serving).run(self.storage.step())
            self.theirs.run(self.storage.step(), **their_keys)
            Length().run(self.storage.step(), **keys)

    with pytest.raises(PlanError, match=said):
        forward(Wrong())
    assert serving.asked == 0


def test_another_librarys_operator_is_given_that_librarys_storage(tmp_path: Path) -> None:
    workspace(tmp_path, ROWS[:1])
    given: list[Any] = []

    class Strict(Elsewhere):
        def run(self, storage: Any, input_key: str = "caption", output_key: str = "upper") -> str:
            given.append(storage)
            return super().run(storage, input_key, output_key)

    class Theirs(Pipeline):
        def __init__(self) -> None:
            self.storage = TheirStorage(str(tmp_path / "in.jsonl"), str(tmp_path / "cache"))
            self.theirs = Strict()

        def forward(self) -> None:
            count.run(self.storage.step())
            self.theirs.run(copy.copy(self.storage).step())

    assert forward(Theirs()).done == 1
    assert [type(storage) for storage in given] == [TheirStorage]


class Unplanned(Pipeline):
    """Asks about a record, and has an operator of another library in a list."""

    def __init__(self, folder: Path, serving: Serving) -> None:
        self.storage = storage_of(folder)
        self.extract = ExpressionExtractor(serving)
        self.others = [Elsewhere()]
        self.row = {**ROWS[0], "image_path": str(folder / "a/x.png")}

    def forward(self) -> None:
        self.others[0].run(self.storage.step())
        self.extract(self.row)
        count.run(self.storage.step())


@pytest.mark.slow
def test_what_is_no_step_is_done_once(tmp_path: Path) -> None:
    workspace(tmp_path, ROWS[:1])
    serving = EveryWord()
    pipeline = Unplanned(tmp_path, serving)
    assert forward(pipeline).done == 1
    assert (serving.asked, len(files_of(tmp_path / "cache"))) == (1, 3)


@pytest.mark.slow
def test_resume_step_begins_with_what_is_there(tmp_path: Path) -> None:
    workspace(tmp_path, [ROWS[0], ROWS[1]])
    calls = calls_of("three steps", EveryWord(), tmp_path)
    forward(pipeline_of(tmp_path, calls))
    whole = files_of(tmp_path / "cache")
    step1 = tmp_path / "cache" / "s_step1.jsonl"
    step1.write_text(step1.read_text().replace("red", "RED"))
    for pipeline in both_ways(lambda _: pipeline_of(tmp_path, calls)):
        forward(pipeline, resume_step=1)
        now = files_of(tmp_path / "cache")
        assert b"RED" in now["s_step3.jsonl"]
        assert now["s_step3.jsonl"].replace(b"RED", b"red") == whole["s_step3.jsonl"]
    os.remove(tmp_path / "cache" / "s_step2.jsonl")
    with pytest.raises(InputError, match=r"s_step2\.jsonl"):
        forward(pipeline_of(tmp_path, calls), resume_step=2)
    for wrong in (3, -1):
        with pytest.raises(PlanError, match="steps 0 to 2"):
            forward(pipeline_of(tmp_path, calls), resume_step=wrong)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["eager", "staged"])
def test_when_no_record_gets_through_the_rest_is_not_tried_and_old_results_stay(
    tmp_path: Path, way: str
) -> None:
    workspace(tmp_path, [ROWS[0]])
    calls = calls_of("three steps", EveryWord(), tmp_path)
    forward(pipeline_of(tmp_path, calls))
    before = files_of(tmp_path / "cache")
    workspace(tmp_path, [ROWS[3], ROWS[3]])
    pipeline = pipeline_of(tmp_path, calls)
    if way == "staged":
        pipeline.compile()
    summary = forward(pipeline, RunOptions(progress=False, stream=False))
    assert (summary.done, summary.failed, summary.exit_code) == (0, 2, 4)
    after = files_of(tmp_path / "cache")
    assert len(after.pop("s_failures.jsonl").splitlines()) == 2
    assert after == {name: data for name, data in before.items() if name != "s_failures.jsonl"}


def constant(number: int) -> Any:
    """A custom step with a value from around it."""
    return operator(lambda record: {"limit": number})


@pytest.mark.slow
def test_what_a_custom_step_has_by_default_and_from_around_it_is_part_of_it(tmp_path: Path) -> None:
    workspace(tmp_path, [ROWS[0]])
    by_default = [operator(lambda record, n=n: {"limit": n}) for n in (5, 6)]
    for number, custom in enumerate([*by_default, *map(constant, (7, 8))], 5):
        forward(pipeline_of(tmp_path, [(custom, {})]))
        assert b'"limit": %d' % number in files_of(tmp_path / "cache")["s_step1.jsonl"]


@operator(reads=["expression"])
def misspelt(record: dict[str, Any]) -> dict[str, Any]:
    return {}


@operator(reads=["image_id", "width", "height"], writes=["area"])
def area(record: dict[str, Any]) -> dict[str, Any]:
    return {"area": record["width"] * record["height"]}


@operator(reads=["caption"], writes=["caption"])
def mend(record: dict[str, Any]) -> dict[str, Any]:
    return {"caption": record["caption"] + "!"}


Plan = Callable[[Serving], Calls]


def plan(*makers: Any, **keys: str) -> Plan:
    """A plan of steps of these operators, of which the last has the keys."""

    def made(serving: Serving) -> Calls:
        calls: Calls = [(make(serving), {}) for make in makers]
        return [*calls[:-1], (calls[-1][0], keys)]

    return made


def misspelling(_: Serving) -> Any:
    return misspelt


OTHER_COLUMN = "'expression', which nobody provides; is it 'expressions'"
OVERWRITTEN = "overwrite column 'expressions' of step0_expression_extraction"
TWO = (ExpressionExtractor, PhraseGrounder)
WRONG: dict[str, tuple[Plan, str]] = {
    "a column that nobody provides": (
        plan(misspelling),
        "step0_misspelt reads column 'expression'",
    ),
    "with the nearest one": (plan(ExpressionExtractor, misspelling), OTHER_COLUMN),
    "a key that names such a column": (plan(*TWO, input_expressions_key="e"), "nobody provides"),
    "too early": (plan(PhraseGrounder, ExpressionExtractor), "'expressions'"),
    "an input column overwritten": (
        plan(*TWO, output_key="n"),
        "overwrite column 'n' of the input",
    ),
    "a step's column overwritten": (plan(ExpressionExtractor, ExpressionExtractor), OVERWRITTEN),
    "a wrong key": (plan(*TWO, output_boxes_key="x"), "takes no output_boxes_key"),
}


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize(("calls", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_plan_is_refused_before_the_first_step_is_paid_for(
    tmp_path: Path, calls: Plan, says: str, is_compiled: bool
) -> None:
    workspace(tmp_path, ROWS)
    serving = EveryWord()
    pipeline = pipeline_of(tmp_path, calls(serving))
    with pytest.raises(PlanError, match=says):
        pipeline.compile() if is_compiled else forward(pipeline)
    assert serving.asked == 0
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_right_plans_are_not_refused(tmp_path: Path) -> None:
    workspace(tmp_path, ROWS[:2])
    serving = EveryWord()
    extract = ExpressionExtractor(serving)
    boxed, grounded = PhraseGrounder(serving), PhraseGrounder(serving)
    plans: list[Calls] = [
        [(extract, {}), (area, {})],
        [(mend, {}), (extract, {})],
        [(shorten, {}), (misspelt, {})],
        [(extract, {}), (boxed, {"output_key": "boxed"}), (grounded, {})],
    ]
    for number, calls in enumerate(plans):
        pipeline = pipeline_of(tmp_path, calls, f"cache{number}")
        assert len(pipeline.compile()) == len(calls)
        assert forward(pipeline).done == 2


def test_a_step_that_would_overwrite_what_it_reads_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "cache" / "mine_step1.jsonl"
    (tmp_path / "cache" / ".ckpt").mkdir(parents=True)
    own.write_text('{"n": 1}\n')
    step = FileStorage(str(own), str(tmp_path / "cache"), "mine").step()
    with pytest.raises(InputError, match="would overwrite its input"):
        operator(reads=["n"], writes=["m"])(lambda record: {"m": record["n"]}).run(step)


class OnOneStep(Pipeline):
    def __init__(self, storage: FileStorage) -> None:
        self.storage = storage
        self.extract = ExpressionExtractor(EveryWord())

    def forward(self) -> None:
        step = self.storage.step()
        self.extract.run(step)
        area.run(step)


@pytest.mark.parametrize("is_compiled", [False, True])
def test_two_operators_on_one_step_are_refused(tmp_path: Path, is_compiled: bool) -> None:
    workspace(tmp_path, ROWS)
    pipeline = OnOneStep(storage_of(tmp_path))
    says = (
        r"expression_extraction and area both write .*step1\.jsonl: run each on a step of its own"
    )
    with pytest.raises(PlanError, match=says):
        (pipeline.compile if is_compiled else pipeline.run)()
    for _ in range(2):  # once more is no second writer
        with pytest.raises(PlanError, match=says):
            pipeline.run()


class Fallback(OnOneStep):
    """The second operator takes the place of a first one that can't be run."""

    def forward(self) -> None:
        step = self.storage.step()
        try:
            self.extract.run(step, input_caption_key="nobody has this")
        except PlanError:
            self.extract.run(step)
        self.extract.run(step)  # once more: the same columns


@pytest.mark.slow
def test_a_second_try_on_a_step_is_no_second_writer(tmp_path: Path) -> None:
    workspace(tmp_path, ROWS[:2])
    pipeline = Fallback(storage_of(tmp_path))
    assert forward(pipeline).done
    pipeline.storage.reset()
    assert forward(pipeline).done


def test_a_pipeline_without_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="calls no operator"):
        pipeline_of(tmp_path, []).compile()
    with pytest.raises(InputError, match="no input file"):
        pipeline_of(tmp_path, [(count, {})]).compile()


def idle(_: Any) -> None:
    pass


async def awaited(_: Any) -> None:
    raise AssertionError("never runs")


def in_parts(_: Any) -> Any:
    yield


def by_a_thread(pipeline: Any) -> None:
    step = pipeline.storage.step()
    thread = threading.Thread(target=count.run, args=[step])
    thread.start()
    thread.join()


@pytest.mark.parametrize("compiled", [True, False])
def test_a_forward_that_calls_another_pipelines_alone(tmp_path: Path, compiled: bool) -> None:
    workspace(tmp_path, ROWS[:2])

    class Outer(Pipeline):
        def __init__(self) -> None:
            self.inner = pipeline_of(tmp_path, [(count, {})])

        def forward(self) -> None:
            self.inner.forward()

    pipeline = Outer()
    if compiled:
        pipeline.inner.compile()
        assert len(pipeline.compile()) == 1
        assert not (tmp_path / "cache").exists(), "compiling runs nothing"
    assert forward(pipeline).done == 2


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (idle, "calls no operator"),
        (awaited, "is async, or has a yield"),
        (in_parts, "is async, or has a yield"),
        (by_a_thread, "calls count in a thread of its own"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_forward_that_hides_its_steps_is_refused(
    tmp_path: Path, body: Any, said: str, compiled: bool
) -> None:
    """Each ended with exit 0: "0 images", or one of two steps done."""
    workspace(tmp_path, ROWS[:2])

    class Hiding(Pipeline):
        def __init__(self) -> None:
            self.storage = storage_of(tmp_path)

        forward = body

    pipeline = Hiding()
    with pytest.raises(PlanError, match=said):
        pipeline.compile() if compiled else forward(pipeline)
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_two_storages(tmp_path: Path) -> None:
    """Two inputs of other columns, and a third storage that goes on where the first ends."""
    workspace(tmp_path, ROWS[:2])
    (tmp_path / "other.jsonl").write_text(json.dumps({"text": "abc"}) + "\n")

    class Two(Pipeline):
        def __init__(self, way: str) -> None:
            where = tmp_path / way
            root = str(tmp_path)
            self.first = FileStorage(f"{root}/in.jsonl", str(where / "1"), "s", image_root=root)
            self.second = FileStorage(f"{root}/other.jsonl", str(where / "2"), "s")
            self.third = FileStorage(str(where / "1" / "s_step2.jsonl"), str(where / "3"), "s")

        def forward(self) -> None:
            ExpressionExtractor(EveryWord()).run(self.first.step())
            Length().run(self.second.step())
            count.run(self.first.step())
            Length().run(self.third.step(), input_text_key="cleaned_caption")

    results = []
    for two in both_ways(Two):
        for _ in range(2):
            assert forward(two).failed == 0
        folders = (two.first.cache_path, two.second.cache_path, two.third.cache_path)
        results.append([files_of(Path(folder)) for folder in folders])
    assert results[0] == results[1]
    assert [sorted(files) for files in results[0]] == [
        ["s_failures.jsonl", "s_step1.jsonl", "s_step2.jsonl"],
        *[["s_failures.jsonl", "s_step1.jsonl"]] * 2,
    ]


@pytest.mark.slow
def test_compile_does_not_eat_a_pipe(tmp_path: Path) -> None:
    workspace(tmp_path, [])
    rows = [{"caption": "a b", "number": number} for number in range(120)]
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(
        target=lambda: (tmp_path / "pipe").write_text("".join(json.dumps(r) + "\n" for r in rows))
    )
    writer.start()

    class Piped(Pipeline):
        def __init__(self) -> None:
            self.storage = FileStorage(str(tmp_path / "pipe"), str(tmp_path / "cache"), "s")

        def forward(self) -> None:
            count.run(self.storage.step())
            Length().run(self.storage.step(), input_text_key="caption")

    piped = Piped()
    piped.compile()
    assert forward(piped).done == 120
    writer.join()
    found = map(json.loads, files_of(tmp_path / "cache")["s_step2.jsonl"].splitlines())
    assert [record["number"] for record in found] == list(range(120))


class Elsewhere:
    """An operator as another library writes them: a DataFrame in, a DataFrame out."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self, storage: Any, input_key: str = "caption", output_key: str = "upper") -> str:
        self.runs += 1
        frame = storage.read("dataframe")
        frame[output_key] = frame[input_key].str.upper()
        storage.write(frame)
        return output_key


class Mixed(Pipeline):
    """Ours, theirs, ours."""

    name = "mixed"

    def __init__(self, folder: Path, way: str) -> None:
        self.storage = storage_of(folder, way)
        self.extractor = ExpressionExtractor(EveryWord())
        self.theirs = Elsewhere()

    def forward(self) -> None:
        self.extractor.run(self.storage.step())
        key = self.theirs.run(storage=self.storage.step(), input_key="caption", output_key="loud")
        count.run(self.storage.step())
        Length().run(self.storage.step(), input_text_key=key)


@pytest.mark.slow
def test_operators_of_other_libraries_run_in_their_turn(tmp_path: Path) -> None:
    workspace(tmp_path, [*ROWS[:2], ROWS[3]])
    results = []
    for way in ("eager", "compiled"):
        mixed = Mixed(tmp_path, way)
        theirs = mixed.theirs
        if way == "compiled":
            assert [step.label for step in mixed.compile()][1] == "step1_Elsewhere"
            assert theirs.runs == 0
            assert mixed.theirs is theirs
        summary = forward(mixed)
        assert (summary.done, summary.failed, theirs.runs) == (2, 1, 1)
        results.append(files_of(tmp_path / way))
    assert results[0] == results[1]
    last = [json.loads(line) for line in results[0]["s_step4.jsonl"].splitlines()]
    assert [(record["loud"], record["length"]) for record in last] == [
        ("RED DOG, AND MORE", 17),
        ("A CAT", 5),
    ]


@pytest.mark.slow
def test_the_file_of_an_operator_from_elsewhere_is_the_result_where_it_comes_last(
    tmp_path: Path,
) -> None:
    class EndsElsewhere(Mixed):
        def forward(self) -> None:
            self.extractor.run(self.storage.step())
            assert self.theirs.run(self.storage.step()) == "upper", "its default"
            assert self.theirs.run(self.storage.step(), "caption", "loud") == "loud"

    workspace(tmp_path, [*ROWS[:2], ROWS[3]])
    for pipeline in both_ways(lambda way: EndsElsewhere(tmp_path, way)):
        for _ in range(2):
            summary = forward(pipeline)
            assert summary.annotations == pipeline.storage.path_of(3)
            assert (summary.done, summary.failed, summary.exit_code) == (2, 1, 1)
            assert summary.expressions["total"] == 6
            assert isinstance(pipeline.theirs, Elsewhere)


@pytest.mark.slow
def test_an_operator_from_elsewhere_that_writes_nothing_leaves_the_result_as_it_was(
    tmp_path: Path,
) -> None:
    class Looks(Elsewhere):
        def run(self, storage: Any, input_key: str = "caption", output_key: str = "upper") -> str:
            return str(len(storage.read()))

    class EndsWithLook(Mixed):
        def __init__(self, way: str) -> None:
            super().__init__(tmp_path, way)
            self.theirs = Looks()

        def forward(self) -> None:
            self.extractor.run(self.storage.step())
            self.theirs.run(self.storage.step())

    workspace(tmp_path, ROWS[:2])
    for pipeline in both_ways(EndsWithLook):
        assert forward(pipeline).annotations == pipeline.storage.path_of(1)


class TheirStorage:
    """A storage with the attributes of DataFlow's."""

    def __init__(self, first_entry_file_name: str, cache_path: str) -> None:
        self.first_entry_file_name, self.cache_path = first_entry_file_name, cache_path
        self.file_name_prefix, self.cache_type, self.operator_step = "theirs", "jsonl", -1

    def step(self) -> TheirStorage:
        self.operator_step += 1
        return copy.copy(self)

    def _path(self, step: int) -> str:
        return (
            os.path.join(self.cache_path, f"theirs_step{step}.jsonl")
            if step
            else self.first_entry_file_name
        )

    def read(self, output_type: str) -> Any:
        return pandas.read_json(self._path(self.operator_step), lines=True)

    def write(self, frame: Any) -> None:
        frame.to_json(self._path(self.operator_step + 1), orient="records", lines=True)


@pytest.mark.slow
def test_our_operators_run_on_a_storage_of_theirs(tmp_path: Path) -> None:
    workspace(tmp_path, ROWS[:2])
    storage = TheirStorage(str(tmp_path / "in.jsonl"), str(tmp_path / "cache"))
    count.run(storage.step())
    Elsewhere().run(storage.step())
    ExpressionExtractor(EveryWord()).run(storage.step())
    frame = storage.step().read("dataframe")
    assert frame["words"].tolist() == [4, 2]
    assert frame["upper"].tolist() == ["RED DOG, AND MORE", "A CAT"]
    assert [len(expressions) for expressions in frame["expressions"]] == [4, 2]


@pytest.mark.slow
def test_a_pipeline_may_go_on_where_its_parent_ends(tmp_path: Path) -> None:
    workspace(tmp_path, [*ROWS[:2], ROWS[5]])

    class Parent(Pipeline):
        def __init__(self, way: str) -> None:
            self.storage = storage_of(tmp_path, way)

        def forward(self) -> None:
            count.run(self.storage.step())

    class Child(Parent):
        def forward(self) -> None:
            super().forward()
            ExpressionExtractor(EveryWord()).run(self.storage.step())

    results = []
    for way in ("eager", "compiled"):
        child = Child(way)
        if way == "compiled":
            assert len(child.compile()) == len(child.compile()) == 2
            assert not (tmp_path / way).exists(), "compiling runs nothing"
        summary = forward(child)
        assert (summary.done, summary.failed) == (2, 1)
        results.append(files_of(tmp_path / way))
    assert results[0] == results[1]
    assert len(Parent("parent").compile()) == 1


def test_a_copy_of_a_pipeline_runs_on_its_own_storage(tmp_path: Path) -> None:
    workspace(tmp_path, [*ROWS[:2]])
    pipeline = pipeline_of(tmp_path, [(count, {})])
    for copied in (copy.copy(pipeline), copy.deepcopy(pipeline)):
        copied.storage = storage_of(tmp_path, "copy")
        assert forward(copied).done == 2
        assert (tmp_path / "copy").exists()
        shutil.rmtree(tmp_path / "copy")


@pytest.mark.slow
def test_every_type_of_cache_gives_the_same_annotations(tmp_path: Path) -> None:
    workspace(
        tmp_path, [{"image_path": row["image_path"], "caption": row["caption"]} for row in ROWS[:2]]
    )
    found = []
    for cache_type in ("jsonl", "json", "csv", "parquet"):
        calls = calls_of("three steps", EveryWord(), tmp_path)
        pipeline = pipeline_of(tmp_path, calls, cache_type, cache_type=cache_type)
        assert forward(pipeline).done == 2
        storage = FileStorage(str(tmp_path / cache_type / f"s_step3.{cache_type}"))
        found.append(
            [
                (row["image_id"], str(row["width"]), row["cleaned_caption"], row["expressions"])
                for row in storage.step().read("dict")
            ]
        )
    assert found == [found[0]] * 4
