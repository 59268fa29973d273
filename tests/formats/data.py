"""Records for the tests of formats: texts that readers stumble over, several boxes, nothing there,
turned pictures.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import PIL.Image
from hypothesis import strategies as st

from dataflow_grounding.english.spans import clean_caption, find_spans
from dataflow_grounding.formats import write
from dataflow_grounding.review.reviewable import Reviewable
from dataflow_grounding.review.session import Session
from tests.support.labelled import saved
from tests.support.reviewing import asked_for
from tests.support.workplace import Done
from tests.support.workplace import command as in_process

PHRASES = (
    "a red mug",
    "A red mug",
    "the mug",
    "two small plates",
    "a cat 🐈",
    "das große Schild",
    "a sign with <image> on it",
    "car . red",
    "der İstanbuler Turm",
    'a "quoted" word',
    "one, two: three; four",
    "红色的杯子",
    "a <bbox> tag",
    "a/b",
    "<ref>x</ref>",
    "x & y <z>",
    "e\u0301clair",
)
SIZES = ((64, 48), (640, 427), (1024, 31))


def record(
    name: str, size: tuple[int, int], expressions: list[dict[str, Any]], **more: Any
) -> dict[str, Any]:
    """A record as a run writes it; the caption has the phrases in it, unless they are
    `unplaced`.
    """
    image_id = more.pop("image_id", Path(name).with_suffix("").as_posix())
    said = [one["text"] for one in expressions if not one.pop("unplaced", False)]
    caption = clean_caption(more.pop("caption", " and ".join(said) + "."))
    spans = find_spans([one["text"] for one in expressions], caption)
    for number, (one, span) in enumerate(zip(expressions, spans, strict=True)):
        one.setdefault("expression_id", f"{image_id}#{number}")
        one |= {"char_span": list(span) if span else None, "instances": one.get("instances", [])}
        one.setdefault("status", "grounded" if one["instances"] else "none")
    return {
        "image_id": image_id,
        "image_path": name,
        "width": size[0],
        "height": size[1],
        "caption": caption,
        "cleaned_caption": caption,
        "expressions": expressions,
        **more,
    }


def draw(folder: Path, records: Iterable[Mapping[str, Any]], turn: int = 1) -> None:
    """The pictures of the records, of their sizes; `turn` is the EXIF orientation."""
    for row in records:
        path = folder / str(row["image_path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (row["width"], row["height"]) if turn < 5 else (row["height"], row["width"])
        exif = PIL.Image.Exif()
        exif[0x0112] = turn
        PIL.Image.new("RGB", size, "#886644").save(path, exif=exif)


def run_of(folder: Path, rows: list[dict[str, Any]], turn: int = 1) -> Path:
    """A folder with annotations and pictures, as an import leaves it."""
    draw(folder, rows, turn)
    saved(folder / "annotations.jsonl", rows)
    return folder


def exported(
    folder: Path, format: str, rows: list[dict[str, Any]], turn: int = 1, **options: Any
) -> Path:
    """An export of records, in a folder called as the format is, of `pictures`."""
    draw(folder / "pictures", rows, turn)
    out = folder / format
    shutil.rmtree(out, ignore_errors=True)  # no export replaces what a test has changed
    write(rows, format, str(out), folders=[str(folder / "pictures")], **options)
    return out


def command(*arguments: object) -> Done:
    """The command line within this process."""
    return in_process([str(argument) for argument in arguments])


def succeeds(*arguments: object) -> Done:
    """A command that ends well."""
    done = command(*arguments)
    assert done.code == 0, done
    return done


def told(*arguments: object) -> str:
    """All that a command says that ends well."""
    done = succeeds(*arguments)
    return done.out + done.err


def refused(*arguments: object) -> str:
    """The one line of a command that is refused."""
    done = command(*arguments)
    assert done.code == 2, done
    [line] = done.err.splitlines()
    return line


def facts_of(*arguments: object, code: int = 0) -> dict[str, Any]:
    """What a command says with --json."""
    done = command(*arguments, "--json")
    assert done.code == code, done
    facts: dict[str, Any] = json.loads(done.out)
    return facts


def records_of(results: Path) -> list[dict[str, Any]]:
    """The records of a results folder, or the rows of a file of JSON lines."""
    file = results / "annotations.jsonl" if results.is_dir() else results
    return [json.loads(line) for line in file.read_text("utf-8").split("\n") if line]


def review(results: Path, change: Callable[[list[dict[str, Any]]], object] = len) -> None:
    """Decide as a person does who changes the boxes of the first phrase and accepts them."""
    session = Session(Reviewable(str(results)), "ann")
    view = session.view(0)
    shown = view["expressions"][0]
    boxes = [
        {"bbox": box["bbox"], "from": number, "verified": True}
        for number, box in enumerate(shown["instances"])
    ]
    change(boxes)
    after = {"instances": boxes, "status": "grounded" if boxes else "none", "verified": True}
    decision = {"uid": "1", "record": view["key"], **asked_for(view, shown["id"], after)}
    [answer] = session.decide([decision])["answers"]
    assert not answer["error"]


def boxes_of(row: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The boxes of each phrase of a record."""
    return {
        expression["text"]: [instance["bbox"] for instance in expression["instances"]]
        for expression in row["expressions"]
    }


def parts_of(xml: str) -> list[str]:
    """What an XML text says, without the space between its parts."""
    return [part.strip() for part in xml.replace(">", ">\n").splitlines() if part.strip()]


@st.composite
def boxes(draw: st.DrawFn, size: tuple[int, int]) -> list[float]:
    """A box inside a picture of this size, at least 1 px each way, up to three decimals."""
    found = []
    for side in size:
        start = draw(st.integers(0, (side - 1) * 1000 - 1))
        end = draw(st.integers(start + 1000, side * 1000))
        found.append((start, end))
    whole = draw(st.booleans())
    (x1, x2), (y1, y2) = found
    if whole:
        return [x1 // 1000, y1 // 1000, -(-x2 // 1000), -(-y2 // 1000)]
    return [n / 1000 for n in (x1, y1, x2, y2)]


@st.composite
def expressions(draw: st.DrawFn, size: tuple[int, int]) -> dict[str, Any]:
    """An expression of any status."""
    status = draw(st.sampled_from(["grounded"] * 6 + ["none", "none", "ambiguous", "unsupported"]))
    one: dict[str, Any] = {"text": draw(st.sampled_from(PHRASES)), "status": status}
    if status == "grounded":
        found = draw(st.lists(boxes(size), min_size=1, max_size=3, unique_by=tuple))
        scores = st.one_of(st.none(), st.integers(0, 100).map(lambda n: n / 100))
        one["instances"] = [{"bbox": box, "score": draw(scores)} for box in found]
    if draw(st.integers(0, 3)) == 0:
        one["verified"] = draw(st.booleans())
    if draw(st.integers(0, 5)) == 0:
        one["unplaced"] = True
    return one


@st.composite
def data_sets(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A few records of different pictures; now and then with ids of their own."""
    rows = []
    for number in range(draw(st.integers(1, 4))):
        size = draw(st.sampled_from(SIZES))
        own = {"image_id": f"picture {number}"} if draw(st.integers(0, 3)) == 0 else {}
        found = draw(
            st.lists(expressions(size), max_size=4, unique_by=lambda one: str(one["text"]))
        )
        rows.append(record(f"some/p{number}.png", size, found, **own))
    # that any format can say
    sure = {"text": "a red mug", "instances": [{"bbox": [1, 2, 30, 40], "score": None}]}
    return [*rows, record("some/sure.png", SIZES[0], [sure])]


def hostile() -> Iterator[dict[str, Any]]:
    """What goes through every format: repeated phrases, emoji, tags of trainers, nothing there,
    several boxes.
    """
    box, other = [1.5, 2.25, 40.0, 30.0], [10, 5, 64, 48]
    both = [{"bbox": box, "score": 0.5}, {"bbox": other, "score": None}]
    one = [{"bbox": other, "score": 1.0}]
    yield record(
        "a b/ü x.png", (64, 48), [{"text": "a red mug", "instances": both}, {"text": "a dog"}]
    )
    yield record("v1.2.png", (64, 48), [{"text": text, "instances": one} for text in PHRASES])
    yield record("empty.png", (64, 48), [], caption="Nothing is here.", background=True)
    yield record("none.png", (64, 48), [{"text": "a dog"}])
    twice = [{"text": "a red mug", "instances": one}, {"text": "a red mug", "instances": both}]
    yield record("twice.png", (64, 48), twice, caption="A red mug beside a red mug.")
