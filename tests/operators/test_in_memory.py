"""Operators on records in memory: pictures that are no files, rows that fail, and
what comes back.
"""

from __future__ import annotations

import copy
import io
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from PIL import Image

from dataflow_grounding import (
    BBoxVisualizer,
    BoxRefiner,
    EmbeddedServing,
    ExpressionExtractor,
    GroundingError,
    Merger,
    OpenAIServing,
    PhraseGrounder,
    RegionMarker,
    Serving,
    operator,
)
from dataflow_grounding._util.errors import (
    BrokenRow,
    ImageBroken,
    ImageMissing,
    RecordError,
    RunStopped,
)
from dataflow_grounding.compat import PromptedVQAGenerator
from dataflow_grounding.testing import CannedAnswers, LoopbackServer, ReceivedRequest
from tests.support.endpoint import serving_of

PIXELS = numpy.arange(30 * 40 * 3, dtype=numpy.uint8).reshape(30, 40, 3)
DIGEST = "1bf7c41ce23237b58666f5017826d163"  # of PIXELS


class Seeing:
    """Boxes the left half of what it is shown, and remembers the pictures' sizes."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        self.sizes += request.image_sizes
        phrases = request.input["phrases"]
        return {"objects": [{"id": p["id"], "bbox_2d": [0, 0, 500, 1000]} for p in phrases]}


@pytest.fixture
def model(server: LoopbackServer) -> tuple[Serving, Seeing]:
    server.answers = seeing = Seeing()
    return serving_of(server), seeing


def file_of(picture: Image.Image, format: str = "PNG", **settings: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **settings)
    return out.getvalue()


def turned() -> Image.Image:
    """A picture 40 wide and 30 high, stored on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return Image.open(io.BytesIO(file_of(Image.new("RGB", (30, 40), "red"), "JPEG", exif=exif)))


def closed() -> Image.Image:
    picture = turned()
    picture.close()
    return picture


GIVEN: dict[str, Callable[[], Any]] = {
    "bytes": lambda: file_of(Image.fromarray(PIXELS)),
    "a PIL image": lambda: Image.fromarray(PIXELS),
    "a PIL image that EXIF turns": turned,
    "CMYK": lambda: Image.fromarray(PIXELS).convert("CMYK"),
    "16 bits": lambda: Image.new("I;16", (40, 30), 9),
    "an array": lambda: PIXELS,
    "a grey array": lambda: PIXELS[..., 0],
    "an array with alpha": lambda: numpy.full((30, 40, 4), 128, "uint8"),
    "what datasets stores": lambda: {"bytes": file_of(Image.fromarray(PIXELS)), "path": "a.png"},
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_a_picture_in_memory_is_asked_about_and_given_back(
    given: Any, model: tuple[Serving, Seeing]
) -> None:
    picture = given()
    row = {"image_path": picture, "expressions": ["a mug"]}
    record = PhraseGrounder(model[0], check_every=None)(row)
    assert record["image_path"] is picture
    assert model[1].sizes == [(40, 30)]
    assert (record["width"], record["height"]) == (40, 30)
    assert record["expressions"][0]["instances"][0]["bbox"] == [0, 0, 20, 30]
    assert record.draw().size == (40, 30)


def test_operators_chain_on_a_picture_in_memory(
    model: tuple[Serving, Seeing], tmp_path: Path
) -> None:
    row = {"photo": PIXELS, "expressions": ["a mug"]}
    grounded = PhraseGrounder(model[0], check_every=None)(row, input_image_key="photo")
    record = BoxRefiner(model[0], check_every=None)(grounded, input_image_key="photo")
    drawn = BBoxVisualizer(tmp_path)(record, input_image_key="photo")
    assert drawn["photo"] is PIXELS
    assert row == {"photo": PIXELS, "expressions": ["a mug"]}, "what was given stays as it was"
    again = pickle.loads(pickle.dumps(drawn))
    assert again.draw().size == copy.deepcopy(drawn).draw().size == (40, 30)
    assert drawn["image_with_bbox"] == str(tmp_path / f"{record['image_id']}.jpg")


@pytest.mark.slow
def test_exact_pixels_reach_the_operator_and_ids_are_the_same_everywhere() -> None:
    seen = []

    @operator
    def look(record: Any) -> dict[str, Any]:
        with Image.open(record["image_path"]) as picture:
            seen.append(numpy.array(picture))
        return {"name": Path(record["image_path"]).name}

    pictures = (PIXELS, Image.fromarray(PIXELS), file_of(Image.fromarray(PIXELS)))
    from_array, from_image, from_bytes = look([{"image_path": picture} for picture in pictures])
    assert all((pixels == PIXELS).all() for pixels in seen)
    assert from_array["name"] == from_image["name"] == f"{DIGEST}.png"
    assert from_bytes["name"] != from_array["name"], "of a file, its bytes count"
    grounder = PhraseGrounder(EmbeddedServing())
    row = {"image_path": PIXELS, "expressions": ["the sky"]}
    ids = [record["expressions"][0]["expression_id"] for record in grounder([row, row])]
    assert ids == [f"{DIGEST}#0", f"{DIGEST}@2#0"]
    assert grounder({**row, "image_id": "mine"})["image_id"] == "mine"


@pytest.mark.slow
def test_the_folder_of_pictures_is_gone_when_the_process_is(tmp_path: Path) -> None:
    script = """
import os, numpy
from dataflow_grounding import operator
show = operator(lambda record: {"at": record["image_path"]})
path = show({"image_path": numpy.zeros((4, 4), "uint8")})["at"]
if os.fork() == 0:
    raise SystemExit
os.wait()
print(os.path.exists(path), path)
"""
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"True {tmp_path}/"), (
        "a process that is forked off leaves its parent's alone"
    )
    assert list(tmp_path.iterdir()) == []


WANTED = "should be a path, the bytes of an image file, a PIL image or a NumPy array of uint8"
BAD: dict[str, tuple[Any, str]] = {
    "nothing": (None, f"{WANTED}, not None"),
    "a number": (5, "not int"),
    "a list": (["a.png"], "not list"),
    "a folder": ("/", "is a folder"),
    "an empty text": ("", "should be the path"),
    "no bytes": (b"", "of 0 bytes' is empty"),
    "bytes of nothing": (b"no picture", "of 10 bytes' is not a readable image"),
    "a truncated JPEG": (file_of(Image.effect_noise((200, 200), 90), "JPEG")[:-90], "is cut off"),
    "a closed picture": (closed(), "JpegImageFile can't be read: Operation on closed image"),
    "floating-point pixels": (Image.new("F", (4, 4)), "convert it to RGB"),
    "an empty picture": (Image.new("RGB", (0, 4)), "0×4 pixels is empty"),
    "floats": (numpy.zeros((4, 4)), "array of float64 is not a picture: give uint8, 0 to 255"),
    "objects": (numpy.array([object()]), "array of object is not a picture"),
    "an empty array": (numpy.zeros((0, 4), "uint8"), r"\(0, 4\) is not a picture: give H×W"),
    "colors first": (numpy.zeros((3, 8, 9), "uint8"), r"its colors first: transpose\(1, 2, 0\)"),
    "two colors": (numpy.zeros((8, 9, 2), "uint8"), r"H×W×3 \(RGB\) or H×W×4 \(RGBA\)"),
}


@pytest.mark.parametrize(("given", "says"), BAD.values(), ids=BAD)
def test_what_is_not_a_picture_is_said_in_one_sentence(given: Any, says: str) -> None:
    grounder = PhraseGrounder(EmbeddedServing())
    with pytest.raises(RecordError, match=says) as caught:
        grounder({"image_path": given, "expressions": ["the sky"]})
    assert "\n" not in str(caught.value)
    rows = [{"image_path": one, "expressions": ["the sky"]} for one in (PIXELS, given, PIXELS)]
    done = grounder(rows)
    assert [place for place, _ in done.failures] == [1]
    assert len(done) == 2


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (None, "not None"),
        ("a.jpg", "not str"),
        ([None], "row 0 is NoneType"),
        (pandas.Series(["a cat", "a dog"]), "row 0 is str"),
    ],
    ids=lambda data: type(data).__name__,
)
def test_what_is_not_a_record_is_said_too(data: Any, what: str) -> None:
    wanted = r"PhraseGrounder takes a record \(a dict\), a list of records or a DataFrame"
    with pytest.raises(GroundingError, match=f"{wanted}.*{what}"):
        PhraseGrounder(EmbeddedServing())(data)


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    """Four rows, the second and the fourth without a picture."""
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    paths = [str(tmp_path / name) for name in ("a.png", "gone.png", "a.png", "lost.png")]
    return [
        {"image_path": path, "expressions": ["the sky"], "n": n} for n, path in enumerate(paths)
    ]


def test_rows_that_fail_are_left_out_and_told_once(
    rows: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    done = PhraseGrounder(EmbeddedServing())(rows)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "2 of 4 rows failed and are left out. Row 1: no image" in told
    assert "on_error='keep'" in told
    assert [record["n"] for record in done] == [0, 2]
    assert [(place, type(error)) for place, error in done.failures] == [
        (1, ImageMissing),
        (3, ImageMissing),
    ]
    assert PhraseGrounder(EmbeddedServing())(iter(rows[:1])).failures == []
    kept = PhraseGrounder(EmbeddedServing())(rows, on_error="keep", output_key="boxed")
    assert [record["boxed"] is None for record in kept] == [False, True, False, True]
    assert capsys.readouterr().err == ""


def test_no_other_row_is_begun_once_an_operator_has_stopped_the_run() -> None:
    begun = []

    @operator(reads=["n"], writes=["m"])
    def stops(record: dict[str, Any]) -> dict[str, Any]:
        begun.append(record["n"])
        if record["n"] == 0:
            raise RunStopped("no more")
        return {"m": 1}

    with pytest.raises(RunStopped, match="no more"):
        stops([{"n": n} for n in range(200)])
    assert len(begun) < 20


def test_the_first_that_fails_is_raised_and_no_other_row_begun() -> None:
    begun = []

    @operator
    async def picky(record: Any) -> dict[str, Any]:
        begun.append(record["n"])
        if record["n"] == 1:
            raise BrokenRow("one is bad")
        return {}

    with pytest.raises(BrokenRow, match=r"^row 1: one is bad$"):
        picky([{"n": n} for n in range(200)], on_error="raise")
    assert len(begun) < 20
    with pytest.raises(ImageBroken, match=r"^row 0: 'image_path of 1 bytes"):
        PhraseGrounder(EmbeddedServing())(
            [{"image_path": b"x", "expressions": ["a"]}] * 2, on_error="raise"
        )
    with pytest.raises(
        GroundingError, match="on_error should be 'drop', 'raise' or 'keep', not 'skip'"
    ):
        picky([], on_error="skip")  # type: ignore[call-overload]


TWICE = ["x", "x", "y", "z"]
LEVELS = pandas.MultiIndex.from_product([["a", "b"], [1, 2]])


@pytest.mark.parametrize(
    ("index", "on_error"),
    [(TWICE, "drop"), (TWICE, "keep"), ([7, 5, 3, 1], "drop"), (LEVELS, "drop")],
    ids=["texts, one of them twice", "failed ones are kept", "numbers", "two levels"],
)
def test_a_dataframe_keeps_index_order_and_types(
    rows: list[dict[str, Any]], index: Any, on_error: Any
) -> None:
    frame = pandas.DataFrame(rows, index=index)
    frame["n"] = frame["n"].astype("Int64")
    frame["kind"] = pandas.Categorical(list("abab"))
    frame["at"] = pandas.to_datetime(["2020-01-01"] * 4)
    before = frame.copy()
    done = PhraseGrounder(EmbeddedServing())(frame, on_error=on_error)
    kept = [0, 1, 2, 3] if on_error == "keep" else [0, 2]
    untouched = ["image_path", "n", "kind", "at"]
    pandas.testing.assert_frame_equal(done[untouched], frame.iloc[kept][untouched])
    assert [value is None for value in done["expressions"]] == [place in (1, 3) for place in kept]
    failures = json.loads(json.dumps(done.attrs["failures"]))
    assert [(f["place"], f["kind"]) for f in failures] == [
        (1, "image_missing"),
        (3, "image_missing"),
    ]
    assert "gone.png" in failures[0]["error"]
    label = frame.index[1]
    assert failures[0]["index"] == (list(label) if isinstance(label, tuple) else label)
    pandas.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("kind", [list, pandas.DataFrame])
def test_failures_of_several_operators_add_up(rows: list[dict[str, Any]], kind: Any) -> None:
    @operator(writes=["checked"])
    def check(record: dict[str, Any]) -> dict[str, Any]:
        if record["n"] == rows[2]["n"]:
            raise ValueError("the third one")
        return {"checked": True}

    first = PhraseGrounder(EmbeddedServing())(kind(rows))
    done = check(first)
    assert len(done) == 1
    if kind is list:
        assert [place for place, _ in done.failures] == [1, 3, 2]
        assert [place for place, _ in first.failures] == [1, 3]
    else:
        assert [failure["index"] for failure in done.attrs["failures"]] == [1, 3, 2]
        assert [failure["index"] for failure in first.attrs["failures"]] == [1, 3]


def test_a_dataframe_in_which_every_row_fails_raises_or_is_kept_with_the_columns(
    rows: list[dict[str, Any]],
) -> None:
    grounder = PhraseGrounder(EmbeddedServing())
    frame = pandas.DataFrame(rows[1:2])
    with pytest.raises(ImageMissing, match=r"all 1 row failed\. Row 0: .*gone\.png.*'keep'"):
        grounder(frame)
    with pytest.raises(ImageMissing, match=r"row 0: .*gone\.png"):
        grounder(frame, on_error="raise")
    kept = grounder(frame, output_key="boxed", on_error="keep")
    assert kept["boxed"].isna().tolist() == [True]
    assert [failure["place"] for failure in kept.attrs["failures"]] == [0]
    none = grounder(frame[:0], output_key="boxed")
    assert (len(none), "boxed" in none) == (0, True)


def test_a_dataframe_may_hold_pictures() -> None:
    data = file_of(Image.fromarray(PIXELS))
    given = [PIXELS, Image.fromarray(PIXELS), data, {"bytes": data, "path": None}]
    frame = pandas.DataFrame(
        {"image_path": given, "expressions": [["the sky"]] * 4, "n": [1, 2, 3, 2**53 + 1]}
    )
    done = PhraseGrounder(EmbeddedServing())(frame)
    assert all(one is other for one, other in zip(done["image_path"], given, strict=True))
    assert done["n"].tolist() == [1, 2, 3, 2**53 + 1]
    assert (done["width"] == 40).all()
    assert done["width"].dtype == "int64"


def test_rows_that_can_not_be_asked_for_cost_nothing_not_even_a_calibration(
    tmp_path: Path, server: LoopbackServer
) -> None:
    Image.new("RGB", (60, 40), "navy").save(tmp_path / "a.png")
    given = {"image_path": str(tmp_path / "a.png"), "expressions": ["a cat"]}
    operator = PhraseGrounder(OpenAIServing(server.base_url, "a-model-nobody-knows"))
    with pytest.raises(RecordError, match=r"gone\.png"):
        operator({"image_path": "gone.png", "expressions": ["a cat"]})
    gone = [{**given, "image_path": f"gone{number}.png"} for number in range(2)]
    assert len(operator(gone, on_error="keep").failures) == 2
    assert server.count() == 0


def frame_of(row: dict[str, Any]) -> Any:
    return pandas.DataFrame([row, row])


SHAPES: dict[str, Any] = {
    "a DataFrame": frame_of,
    "a list": lambda row: [row, dict(row)],
    "a list of a DataFrame's rows": lambda row: [pandas.Series(row)],
    "a record": lambda row: row,
    "a row of a DataFrame": pandas.Series,
}
A_LIST = SHAPES["a list"]
CAPTIONED = {"image_path": "a.png", "capton": "A cat."}
MEANT = r"needs column 'caption', and there is only 'image_path', 'capton': .* input_caption_key='capton'$"
UNNAMED = {"file": "a.png", "words": "A cat."}
OTHER_IMAGE = {"image": "a.png", "caption": "A cat."}
CAPTAIN = {"input_caption_key": "captain"}
LACKING: list[tuple[Any, dict[str, str], dict[str, str], str]] = [
    *((shaped, CAPTIONED, {}, MEANT) for shaped in SHAPES.values()),
    (A_LIST, UNNAMED, {}, "needs column 'image_path' and 'caption'.* input_image_key=…, input_cap"),
    (A_LIST, OTHER_IMAGE, {}, "is only 'image', 'caption': .* input_image_key='image'$"),
    (A_LIST, CAPTIONED, CAPTAIN, "needs column 'captain', .* input_caption_key='capton'$"),
]


@pytest.mark.parametrize(("shaped", "row", "columns", "says"), LACKING)
def test_a_column_that_no_row_has_is_named_before_anything_is_sent(
    shaped: Any,
    row: dict[str, str],
    columns: dict[str, str],
    says: str,
    tmp_path: Path,
    server: LoopbackServer,
) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    row = {name: value.replace("a.png", str(tmp_path / "a.png")) for name, value in row.items()}
    operator = ExpressionExtractor(OpenAIServing(server.base_url, "a-model-nobody-knows"))
    with pytest.raises(GroundingError, match=says) as caught:
        operator(shaped(row), **columns)
    assert server.count() == 0
    assert "\n" not in str(caught.value)


def test_columns_that_one_row_has_or_that_are_not_needed_may_lack(tmp_path: Path) -> None:
    rows = [{"image_path": PIXELS, "expressions": ["the sky"]}, {"image_path": PIXELS}]
    grounder = PhraseGrounder(EmbeddedServing())
    assert [place for place, _ in grounder(rows).failures] == [1]
    assert grounder([]) == []
    assert len(grounder(pandas.DataFrame())) == 0
    is_sure = operator(reads=["doubtful"])(lambda record: {"sure": not record.get("doubtful")})
    assert is_sure({})["sure"]
    assert dict(operator(lambda record: {})({7: "a"})) == {"7": "a"}
    region = {"bbox": [1, 2, 20, 20], "type": "mug", "description": "the mug"}
    [merged] = Merger(EmbeddedServing())([{"image_path": PIXELS, "regions": [region]}])
    assert merged["expressions"]
    assert RegionMarker(str(tmp_path))({"image": PIXELS})["type"] == "without_bbox"


def test_a_prompt_or_a_conversation_is_needed(server: LoopbackServer) -> None:
    server.answers = CannedAnswers("It is red.")
    asker = PromptedVQAGenerator(serving_of(server))
    for row in ({"prompt": "What?"}, {"conversation": [{"from": "human", "value": "What?"}]}):
        assert asker([row])[0]["answer"] == "It is red."
    before = server.count()
    meant = r"needs column 'prompt', .*: name yours with input_prompt_key='promt'"
    with pytest.raises(GroundingError, match=meant):
        asker([{"image": PIXELS, "promt": "What?"}])
    assert server.count() == before


def test_who_lacks_phrases_is_told_which_column_has_them_or_what_to_call() -> None:
    grounder = PhraseGrounder(EmbeddedServing())
    with pytest.raises(GroundingError, match=r"input_expressions_key='wanted'$"):
        grounder([{"image_path": PIXELS, "id": 7, "wanted": ["the sky"]}])
    with pytest.raises(GroundingError, match="CaptionGrounder find it in captions"):
        grounder([{"image_path": PIXELS, "caption": "The sky."}])


NAN = float("nan")
MARKS = (NAN, pandas.NaT, pandas.NA, numpy.datetime64("NaT"), None)


@pytest.mark.parametrize(
    ("missing", "shaped"),
    [*((mark, frame_of) for mark in MARKS), *((NAN, shaped) for shaped in SHAPES.values())],
)
def test_pandas_marks_for_a_missing_value_are_no_text(
    missing: Any, shaped: Any, tmp_path: Path
) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    row = {
        "image_path": str(tmp_path / "a.png"),
        "caption": "The sky.",
        "note": missing,
        "image_id": missing,
    }
    extractor = ExpressionExtractor(EmbeddedServing())
    for spoilt, says in (
        ({"caption": missing}, "'caption' should be a text, not missing"),
        ({"image_path": missing}, "image_path should be a path, .* not None"),
    ):
        with pytest.raises(BrokenRow, match=says):
            extractor(shaped({**row, **spoilt}), on_error="raise")
    done = extractor(shaped(row))
    first = done if isinstance(done, dict) else done.iloc[0] if hasattr(done, "iloc") else done[0]
    assert [e["text"] for e in first["expressions"]] == ["The sky"]
    assert first["image_id"] == "a"
    assert pandas.isna(first["note"]), "as it was given"


def test_what_the_operator_does_not_touch_comes_back_as_it_was_given() -> None:
    own = {
        "vector": numpy.arange(3),
        "at": pandas.Timestamp("2020-01-01"),
        "nested": {"n": float("nan"), "t": (1, 2)},
    }
    grounder = PhraseGrounder(EmbeddedServing())
    first = grounder([{"image_path": PIXELS, "expressions": ["the sky"], **own}])
    for record in (first[0], grounder(first)[0], grounder(first[0])):
        assert all(record[name] is value for name, value in own.items())
