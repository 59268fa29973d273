"""Inputs made from public bug reports, with the outcome that is right; where they are at hand."""

from __future__ import annotations

import base64
import io
import json
import re
import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import PIL.Image
import pytest

from dataflow_grounding import read_boxes
from dataflow_grounding._util.errors import ImageBroken, InputError, UnreadableReply
from dataflow_grounding.data.bad_entries import BadEntries
from dataflow_grounding.data.records import Record
from dataflow_grounding.formats import find_format, read, write
from dataflow_grounding.images.image import open_image
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.faults import Fault
from tests.support.streams import streamed
from tests.support.workplace import Workplace, command

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "cases"
CASES = FOLDER / "cases.jsonl"
Case = dict[str, Any]
LATER = 5
"""The round from which on cases are played by a script of their own, next to them."""
# Which of two answers counts is said in words of English: docs/replies.md refuses these.
TWO_ANSWERS = ("r06b", "h07")


# What can't be read is left out without an option, and the exit code says so.
NO_OPTION = ("fb07", "fc05")
# A picture with an object that can't be read is left out whole, and its line is named.
WITHOUT_PICTURE = {"fx27": {"exit": 2, "records": 0, "said": "138"}}
# Broken when they were written down, and mended since.
MENDED = (
    *("fx18", "fx20", "fx30", "fx30b", "fx40", "fx42", "fx62", "fx64", "fx66", "fx69", "rx11"),
    *("hx09", "hx21"),
)
# The words alone that hx12 expects have changed: refusals by an error are asked again by the next
# run, and `--retry-failed` isn't about them.
OTHER_WORDS = {"hx12": {"exit": 4, "said": "context", "most": 24}}
NOT_HERE = pytest.param({}, marks=pytest.mark.skip(reason="the cases are not here"))


def rows() -> list[Case]:
    if not CASES.is_file():
        return []
    with CASES.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def cases(*kinds: str) -> list[Any]:
    early = [row for row in rows() if row.get("round", 0) < LATER and row["kind"] in kinds]
    return [pytest.param(row, id=row["id"]) for row in early] or [NOT_HERE]


def later_cases() -> list[Any]:
    """Those that were right when they were written down, and those that were mended since."""
    later = [row for row in rows() if row.get("round", 0) >= LATER]
    held = [row for row in later if row["held"] or row["id"] in MENDED]
    return [pytest.param(row, id=row["id"]) for row in held] or [NOT_HERE]


def in_this_process(*arguments: object, timeout: float = 0) -> CompletedProcess[str]:
    """What the script takes a new interpreter for."""
    done = command([*map(str, arguments)])
    return CompletedProcess(arguments, done.code, done.out, done.err)


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """The script of round 6, which plays round 5's cases too, by the functions of `script["t"]`."""
    script = runpy.run_path(str(FOLDER / "replay6.py"))
    script["gemini"].__globals__["forked"] = in_this_process
    script["t"].cli = in_this_process
    return script


@pytest.mark.slow
@pytest.mark.parametrize("case", later_cases())
def test_a_later_case(script: dict[str, Any], case: Case, tmp_path: Path) -> None:
    if case["id"] in NO_OPTION:
        asked = {name: value for name, value in case["input"].items() if name != "options"}
        rights = [{**right, "exit": right["exit"] or 1} for right in case["right"]]
        case = {**case, "input": asked, "right": rights}
    if case["id"] in WITHOUT_PICTURE:
        case = {**case, "right": [WITHOUT_PICTURE[case["id"]]]}
    if case["id"] in OTHER_WORDS:
        case = {**case, "right": [OTHER_WORDS[case["id"]]]}
    outcome = getattr(script["t"], case["kind"])(case["input"], tmp_path)
    assert any(script["matches"](right, outcome, tmp_path) for right in case["right"]), outcome


@pytest.mark.parametrize("case", cases("reply"))
def test_a_reply(case: Case) -> None:
    asked = case["input"]
    right = case["right"]

    def read() -> Any:
        return read_boxes(
            asked["reply"],
            format=asked["format"],
            phrases=asked["phrases"],
            image_size=asked["image_size"],
        )

    if right.get("unreadable") or case["id"] in TWO_ANSWERS:
        with pytest.raises(UnreadableReply):
            read()
        return
    reading = read()
    if right.get("doubtful"):
        assert reading.doubtful
    else:
        boxes = [[box.id, *(round(edge, 6) for edge in box.bbox)] for box in reading.boxes]
        assert boxes == right["boxes"]


def strikes(case: Case) -> Callable[[ReceivedRequest], bool]:
    """Which requests a case's `when` means."""
    when = case["input"]["when"]
    groundings = 0

    def strike(request: ReceivedRequest) -> bool:
        nonlocal groundings
        is_grounding = request.task == "phrase_grounding"
        groundings += is_grounding
        if when == "every request":
            return True
        if "json_schema" in when:
            return bool(
                (request.settings.get("response_format") or {}).get("type") == "json_schema"
            )
        if when == "every grounding request":
            return is_grounding
        numbers = [int(number) for number in re.findall(r"\d+", when)] or [3, 3]
        return is_grounding and numbers[0] <= groundings <= numbers[1]

    return strike


def fault_of(case: Case, request: ReceivedRequest) -> Fault:
    given = case["input"]
    answer = json.dumps(EchoAnswers("xyxy_px")(request))
    headers = given.get("headers") or {}
    if given["body"] == "§SSE§":
        body = streamed(answer).decode()
    else:
        body = json.dumps(given["body"], ensure_ascii=False)
        body = body.replace("§ANSWER§", json.dumps(answer)[1:-1])
    return Fault(given["status"], body=body.encode(), headers=headers)


@pytest.mark.parametrize("case", cases("http", "gemini"))
def test_an_answer(workplace: Workplace, case: Case) -> None:
    if case.get("id") == "h19":
        pytest.skip("a finding of lint: tests/evaluation/figures/test_lint.py")
    workplace.many(80 if case["id"] == "h20" else 10)
    strike = strikes(case)

    def rule(request: ReceivedRequest) -> Fault | None:
        return fault_of(case, request) if strike(request) else None

    with LoopbackServer(faults=[rule]) as server:
        settings: dict[str, Any] = {"vlm.openai.base_url": server.base_url}
        if case["kind"] == "gemini":
            del workplace.settings["vlm.openai.base_url"]
            settings = {
                "vlm.backend": "gemini",
                "vlm.gemini.api_key": "none",
                "vlm.gemini.base_url": server.address,
            }
        done = workplace.run(**settings)
        sent = len(server.requests)
    right = case["right"]
    if case["id"] in TWO_ANSWERS:
        assert (done.code, "none of 30 replies" in done.err) == (4, True), done
    elif right.startswith(("all ten records", "tries json_object")):
        assert done.code == 0, done
        assert done.summary["done"] == 10
    elif right.startswith("refused"):
        assert done.summary["failures"] == {"refused": 1}, done
    elif right.startswith("a run none of whose"):
        assert (done.code, 8 <= sent <= 50) == (4, True), done
    else:  # it stops and says it
        # four requests in three forms are ten refusals; then a plain question is asked in these
        assert (done.code, sent <= 15) == (4, True), done
        assert "image input" in done.err or "maximum context" in done.err


# Files of other tools


def records_of(case: Case, folder: Path) -> tuple[list[Case], list[str]]:
    """What is read of a case's files, and what is left out."""
    given = case["input"]
    name = given["format"]
    for path, content in given["files"].items():
        file = folder / path
        file.parent.mkdir(exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        file.write_text(text, encoding="utf-8")
    picture = folder / "a.png" if name == "labelme" else folder / "images" / "a.png"
    picture.parent.mkdir(exist_ok=True)
    PIL.Image.new("RGB", (640, 480), "#886644").save(picture)
    (first, *_) = given["files"]
    source = folder / first if name in ("coco", "label-studio") else folder
    made = find_format(name)
    made.bad = BadEntries()
    root = picture.parent if name in ("coco", "labelme") else folder
    rows = list(read(str(source), made, image_root=str(root)))
    return rows, [*+made.passed_over, *made.bad.named]


def boxes_in(rows: list[Case]) -> list[tuple[Any, ...]]:
    return [
        (expression["text"], *(round(edge, 2) for edge in instance["bbox"]))
        for row in rows
        for expression in row["expressions"]
        for instance in expression["instances"]
    ]


BOXES = {
    "f02": [("cup", 5, 5, 35, 35)],
    "f04": [("cup", 10, 20, 110, 70)],
    "f06": [],
    # The label is the phrase. The words that a relation leads to are a place of the user's own,
    # which goes back.
    "f07": [("cup", 64, 48, 192, 144)],
    "f07b": [("cup", 64, 48, 192, 144)],
    "f07c": [("cup", 64, 48, 192, 144)],
    "f09": [("cup", 100, 90, 150, 140)],
    "f10": [("cup", 100, 90, 150, 140)],
    "f12": [("cup", 100, 90, 150, 140)],
    "f14": [("a", 635.64, 355.42, 640, 363.5)],
    "f16": [("yes", 288, 192, 352, 288), ("no", 96, 72, 160, 120)],
    "f18": [("Car", 10, 20, 200, 220)],
}
LEFT_OUT = {
    "f10": "values of imagePath, of which only the last part is found",
    "f06": "tasks without an annotation",
}
REFUSED = {"f08": "tasks", "f15": "labels/a.txt, line 2: "}
# f10 names ..\img\a.png. Nothing is there, and a.png is next to the file, where X-AnyLabeling looks,
# too: `import` says so.
PICTURES = {"f10": "a.png", "f12": "a.png"}


@pytest.mark.parametrize("case", cases("file"))
def test_a_file(case: Case, tmp_path: Path) -> None:
    own_id = case["id"]
    if own_id in REFUSED:
        with pytest.raises(InputError, match=REFUSED[own_id]):
            records_of(case, tmp_path)
        return
    rows, left_out = records_of(case, tmp_path)
    assert boxes_in(rows) == BOXES[own_id]
    if own_id == "f04":  # the message names the picture
        with pytest.raises(InputError, match="write that"):
            write(rows, "coco", str(tmp_path / "out"), folders=[str(tmp_path / "images")])
    if own_id in PICTURES:
        assert [row["image_path"] for row in rows] == [PICTURES[own_id]]
    if own_id in LEFT_OUT:
        assert LEFT_OUT[own_id] in left_out


# Captions


@pytest.mark.parametrize("case", cases("caption"))
def test_a_caption(workplace: Workplace, server: LoopbackServer, case: Case) -> None:
    workplace.picture()
    workplace.rows([{"image_path": "a.jpg", "caption": case["input"]["caption"]}])
    done = workplace.run(**{"vlm.openai.base_url": server.base_url})
    assert done.code == 0, done
    (row,) = workplace.annotations()
    spans = [expression["char_span"] for expression in row["expressions"]]
    texts = [expression["text"] for expression in row["expressions"]]
    assert texts
    assert [row["cleaned_caption"][slice(*span)].lower() for span in spans] == [
        text.lower() for text in texts
    ]


# Pictures


def ramp(most: float, kind: Any) -> Any:
    """640 x 480 values from 0 on the left to `most` on the right."""
    return np.tile(np.linspace(0, most, 640), (480, 1)).astype(kind)


def save_transparent(path: Path) -> None:
    picture = PIL.Image.new("RGBA", (640, 480), (0, 0, 200, 255))
    picture.paste((200, 0, 0, 0), (400, 0, 640, 480))
    picture.save(path)


def save_turned(path: Path, orientation: int) -> None:
    """Upright it is 480 x 640, with a red half on the left or at the top, as it is stored."""
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    picture = PIL.Image.new("RGB", (640, 480), (0, 0, 200))
    picture.paste((200, 0, 0), (0, 0, 320, 480))
    picture.save(path, exif=exif)


def save_frames(path: Path) -> None:
    first = PIL.Image.new("RGB", (640, 480), (200, 0, 0))
    first.save(path, save_all=True, append_images=[PIL.Image.new("RGB", (640, 480), (0, 0, 200))])


RED = (200, 0, 0)
BLUE = (0, 0, 200)
WHITE = (255, 255, 255)
Save = Callable[[Path], object]


def array(most: float, kind: str) -> Save:
    return lambda path: PIL.Image.fromarray(ramp(most, kind)).save(path)


def plain(mode: str = "RGB", color: Any = RED, format: str | None = None) -> Save:
    return lambda path: PIL.Image.new("RGB", (640, 480), color).convert(mode).save(path, format)


SAVED: dict[str, list[tuple[str, Save, dict[tuple[int, int], Any]]]] = {
    "p01": [("a.png", save_transparent, {(100, 100): BLUE, (500, 100): WHITE})],
    "p02": [(name, array(4080, "uint16"), {(639, 9): WHITE}) for name in ("a.png", "a.tiff")],
    "p02b": [("a.tiff", array(1, "float32"), {(639, 9): WHITE})],
    "p02e": [
        ("a.png", array(65535, "uint16"), {(639, 9): WHITE, (320, 9): (127, 127, 127)}),
        ("b.tiff", array(2**31 - 1, "int32"), {(639, 9): WHITE}),
    ],
    "p06": [
        (f"{kind}{turn}.{kind}", partial(save_turned, orientation=turn), {(100, 100): RED})
        for kind in ("jpg", "png", "webp")
        for turn in (0, 6, 9)
    ],
    "p08": [
        *((f"a.{kind}", save_frames, {(9, 9): RED}) for kind in ("gif", "webp", "png", "tiff")),
        ("cmyk.jpg", plain("CMYK"), {(9, 9): RED}),
        ("named.jpg", plain(format="PNG"), {(9, 9): RED}),
        ("one.png", plain("1", WHITE), {(9, 9): WHITE}),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("case", cases("image"))
def test_a_picture(case: Case, tmp_path: Path) -> None:
    if case["id"] == "p04":
        path = tmp_path / "a.jpg"
        PIL.Image.effect_noise((640, 480), 90).convert("RGB").save(path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
        with pytest.raises(ImageBroken):
            open_image(Record({"image": str(path)}), "image").encoded()
        return
    for name, save, pixels in SAVED[case["id"]]:
        path = tmp_path / name
        save(path)
        sent = open_image(Record({"image": str(path)}), "image").encoded()
        picture = PIL.Image.open(io.BytesIO(base64.b64decode(sent)))
        turned = case["id"] == "p06" and "6" in name
        assert picture.size == ((480, 640) if turned else (640, 480))
        assert picture.mode in ("RGB", "L", "1")
        for place, colour in pixels.items():
            found = picture.convert("RGB").getpixel(place)
            assert found == pytest.approx(colour, abs=6), (name, place)


# Specs


@pytest.mark.parametrize("case", cases("spec"))
def test_a_spec(workplace: Workplace, server: LoopbackServer, case: Case) -> None:
    workplace.picture()
    workplace.rows([{"image_path": "a.jpg", "caption": "A red cup."}])
    ((key, text),) = case["input"].items()
    key = "data.classes" if key == "classes" else key
    path = workplace.spec(**{"vlm.openai.base_url": server.base_url, key: "§"})
    path.write_text(path.read_text().replace('"§"', text).replace('"\\u00a7"', text))
    done = command(["generate", "-e", str(path), "--json", "--no-report"])
    if case["id"] == "s01":
        assert (done.code, "true is not a text" in done.err) == (2, True), done
    else:
        assert done.code == 0, done
