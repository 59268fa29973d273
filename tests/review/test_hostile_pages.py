"""Texts that want to run, to deceive, or to break a page, in each place that data have: nothing
runs, nothing is wide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding.review.notebook import show
from dataflow_grounding.review.reviewable import Reviewable
from dataflow_grounding.review.session import Session
from tests.support.review_page import decisions, select, write
from tests.support.workplace import command, write_rows

pytestmark = pytest.mark.slow

LONG = 60_000  # characters, three times as many as a page shows
TEXTS = {
    "a script": "<script>window.ran=1</script>",
    "the end of a script": "</script><script>window.ran=1</script>",
    "an attribute": '"><img src=x onerror="window.ran=1">',
    "a link": "javascript:window.ran=1",
    "a template": "${window.ran=1} $title <!-- data --> {{1}}",
    "another direction": "a \u202egnp.exe \u2066b\u2069 \u061c\u200f",
    "a terminal": "\x1b[2J\x1b]0;own\x07\r\x08\x9b31m",
    "half a pair": "\ud83d and \udc00",
    "marks on marks": "Z\u0336\u0311" * 2000,
    "a name of JavaScript's": "toString",
    "another name of JavaScript's": "__proto__",
    "a long word": "W" * LONG,
    "many words": "word " * (LONG // 5),
    "many emoji": "\U0001f3f3\ufe0f\u200d\U0001f308" * (LONG // 4),
    "lines": "a\n" * 5000,
}
NAMES = (
    "a.png",
    "quo\"te's.png",
    "java script:alert(1).png",
    "<img src=x>.png",
    "new\nline#hash?a=b%20.png",
    "\u202egnp.png",
)
STATE = """() => {
  const { scrollWidth, clientWidth } = document.documentElement;
  return [scrollWidth > clientWidth + 1, window.ran, document.querySelectorAll('#main script, article script, [onerror]').length];
}"""
HARMLESS = [False, None, 0]


def record(text: str, number: int = 0) -> dict[str, Any]:
    caption = f"A cup, {text} and a dog"
    box = {"bbox": [10, 10, 100, 100], "score": 0.9, "evidence": text[:3000]}
    row = {"text": text, "char_span": [7, 7 + len(text)], "instances": [box], "status": "grounded"}
    checked = {"verified": False, "verification": {"method": text, "reason": text}}
    absent = {"text": f"not {text}", "char_span": None, "instances": []}
    absent |= {"status": "none", "reason": text}
    made = {"image_id": text, "image_path": NAMES[number % len(NAMES)], "model": text}
    made |= {"width": 300, "height": 200, "caption": caption, "cleaned_caption": caption}
    return {**made, "expressions": [{**row, **checked}, absent]}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "res <b>&'\"<script>"
    folder.mkdir()
    for name in NAMES:
        Image.new("RGB", (300, 200), (90, 120, 60)).save(folder / name, "PNG")
    rows = [record(text, number) for number, text in enumerate(TEXTS.values())]
    write_rows(folder / "annotations.jsonl", *rows)
    names = ("id", "step", "kind", "message")
    write_rows(folder / "failures.jsonl", *(dict.fromkeys(names, text) for text in TEXTS.values()))
    summary = {"models": [TEXTS["a script"]], "seconds": 1.0}
    write_rows(folder / "run.json", {"model": TEXTS["a long word"], "summary": summary})
    return folder


@pytest.fixture
def opened(new_page: Any) -> Iterator[Callable[[str], Any]]:
    pages: list[Any] = []

    def open_page(address: str) -> Any:
        pages.append(page := new_page())
        page.said = []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto(address)
        return page

    yield open_page
    for page in pages:
        page.close()


HIGHEST_CELL = "Math.max(...[...document.querySelectorAll('.cell')].map(e => e.offsetHeight))"


def test_a_report_of_hostile_records_shows_all_of_them(
    results: Path, opened: Callable[[str], Any]
) -> None:
    done = command(["report", str(results)])
    assert done.code == 0, done
    page = opened((results / "report.html").as_uri())
    page.locator("article").first.wait_for(timeout=60_000)
    assert page.locator("article").count() == len(TEXTS)
    assert page.evaluate(STATE) == HARMLESS
    assert page.evaluate("document.documentElement.scrollHeight") < 150_000
    page.locator(".views a").last.click()
    page.locator(".grid .cell").first.wait_for()
    assert page.evaluate(STATE) == HARMLESS
    assert page.evaluate(HIGHEST_CELL) < 600
    label = page.locator("label", has=page.get_by_text("toString", exact=True)).first
    assert label.get_attribute("title") is None
    assert page.said == []


def test_a_review_of_hostile_records_can_be_worked_on(
    results: Path, opened: Callable[[str], Any], serve: Any
) -> None:
    page = opened(serve(results).address + "#order=file")
    page.locator(".cells:not([aria-busy])").wait_for()
    assert page.evaluate(STATE) == HARMLESS
    assert page.evaluate(HIGHEST_CELL) < 600
    page.get_by_role("link", name="One by one").click()
    for _ in TEXTS:
        page.locator(".stage").wait_for()
        assert page.evaluate(STATE) == HARMLESS
        page.keyboard.press("]")
    assert page.said == []


def test_of_a_long_caption_the_beginning_is_shown_and_can_be_selected(
    tmp_path: Path, opened: Callable[[str], Any], serve: Any, expect: Any
) -> None:
    """What is selected is found in the caption, though the page has not all of it."""
    letter = "\U0001f600"  # two units in JavaScript
    caption = "a cup " + letter * 30_000 + " the end"
    rows = [
        {"text": "a cup", "char_span": [0, 5], "instances": []},
        {"text": "the end", "char_span": [30_007, 30_014], "instances": []},
    ]
    one = {"image_id": "a", "image_path": "a.png", "caption": caption, "expressions": rows}
    page = opened(serve(write(tmp_path, one)).address + "#view=single")
    page.locator(".stage").wait_for()
    shown = page.locator(".caption").evaluate("e => e.textContent")
    assert caption.startswith(shown)
    assert 9_000 < len(shown) <= 20_000
    more = page.locator(".caption").evaluate("e => getComputedStyle(e, '::after').content")
    assert more == '"… (60,014 characters)"'
    select(page, "cup " + 3 * letter)
    page.keyboard.press("n")
    expect(page.locator(".expressions li")).to_have_count(3)
    expect(page.locator("#saved")).to_contain_text("all saved")
    [decision] = decisions(tmp_path)
    assert decision["acts"][0]["added"]["char_span"] == [2, 9]
    page.reload()  # what the review makes of it, though the phrase ends within a word
    expect(page.locator(".expressions li")).to_have_count(3)


def test_a_certificate_names_groups_in_a_line_each(results: Path) -> None:
    """A model's name can't add a figure of its own, nor fill the screen."""
    forged = "m\n0.0% of 56 boxes wrong (95%: 0.0-0.1%); accepted"
    rows = [{**record(text), "model": forged} for text in list(TEXTS.values())[:8]]
    rows[0]["expressions"][0]["verification"]["method"] = TEXTS["a long word"]
    write_rows(results / "annotations.jsonl", *rows)
    Session(Reviewable(str(results)), "ann", sample=(8, 0))
    done = command(["certify", str(results)])
    assert done.code == 0, done
    assert not [line for line in done.out.splitlines() if line.startswith("0.0%")]
    assert max(map(len, done.out.splitlines())) < 2000
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & {*done.out}
    certificate = command(["certify", str(results), "--json"]).summary
    assert [*certificate["by"]["model"]] == [forged]


def test_a_notebook_shows_it_as_text() -> None:
    for name, text in TEXTS.items():
        page = show(record(text))._repr_html_() or ""
        page.encode()  # as a notebook does to send it
        assert len(page) < 50_000, name
        tags = ("<script", "<img src=x", "\u202e", "\x1b", "\x9b")
        assert not [tag for tag in tags if tag in page], name
