"""Records in a notebook: in a real kernel, and the page of a cell in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.places.workplace import REPOSITORY
from dataflow_grounding._util.errors import InputError
from dataflow_grounding.extras.review.notebook import review, show
from dataflow_grounding.extras.review.session import page_file
from tests.review.test_review import RECORD, decisions, results, saved

pytestmark = pytest.mark.slow

assert results  # a fixture
HOSTILE = "</script><script>parent.hacked = 1</script><img src=x onerror='parent.hacked = 1'>"
CELLS = (
    "import json\nfrom dataflow_grounding.extras.review.notebook import review, show\n"
    "show(json.loads(open('out/annotations.jsonl').readline()), image_root='out')",
    "widget = review('out')\nwidget",
    "import sys\nsys.modules['anywidget'] = None\nreview('out')",
)


def test_a_kernel_shows_records_and_the_page_of_a_review(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("anywidget")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    where = {"metadata": {"path": str(results.parent)}}
    nbclient.NotebookClient(notebook, timeout=120, allow_errors=True, resources=where).execute()
    shown, page, lacking = (cell.outputs[-1] for cell in notebook.cells)
    assert "<img" in shown["data"]["text/html"]
    assert "<td>two dogs</td>" in shown["data"]["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in page["data"]
    assert "pip install 'dataflow-grounding[notebook]'" in lacking["evalue"]


def in_a_cell(browser: Any, widget: Any) -> Any:
    """A page that shows the widget as a notebook does, its messages carried to and fro here."""
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    answers: list[Any] = []
    widget.send = lambda content, buffers=None: answers.append(json.loads(json.dumps(content)))

    def asked(content: Any) -> list[Any]:
        answers.clear()
        widget._handle_custom_msg(content, [])
        return answers

    page.expose_function("asked", asked)
    page.set_content("<div id=cell></div>")
    page.add_script_tag(
        content=page_file("notebook.js").replace("export default", "window.widget =")
    )
    page.evaluate(
        """page => {
          const heard = [];
          const send = async (content) => (await asked(content)).forEach((answer) => heard.forEach((say) => say(answer)));
          const model = { get: () => page, on: (_, say) => heard.push(say), off: () => heard.splice(0), send };
          window.end = widget.render({ model, el: document.getElementById("cell") });
        }""",
        widget.page,
    )
    return page


@pytest.mark.parametrize("of_a_list", [False, True])
def test_a_review_in_a_cell(browser: Any, results: Path, of_a_list: bool) -> None:
    pytest.importorskip("anywidget")
    record = {**RECORD, "image_id": HOSTILE, "image_path": str(results / "a.png")}
    (results / "annotations.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    widget = review([record] if of_a_list else str(results), who="ann")
    page = in_a_cell(browser, widget)
    frame = page.frame_locator("iframe[title=Review]")
    frame.locator(".cell").first.wait_for()
    assert frame.locator(".cell").count() == 3
    frame.locator(".cell").nth(1).click()
    frame.locator(".cells:not([aria-busy])").wait_for()
    page.keyboard.press("Enter")
    saved(frame)
    frame.get_by_role("button", name="One by one").click()
    frame.locator(".stage").wait_for()
    inner = page.frames[1]
    assert inner.evaluate("document.querySelector('.stage image').href.baseVal").startswith(
        "data:image/jpeg"
    )
    assert HOSTILE in inner.locator("body").inner_text()
    assert page.evaluate("window.hacked") is None
    if not frame.locator("input[name=below]").is_visible():  # the cell is narrow
        frame.locator("summary", has_text="Filters").click()
    frame.locator("input[name=below]").fill("x")
    frame.locator("input[name=below]").press("Tab")
    frame.locator("#refused", has_text="'below' should be a score").wait_for()
    folder = Path(widget.results) if not of_a_list else Path(widget.results).parent
    lines = decisions(folder)
    assert {line["action"] for line in lines} == {"accept", "reject"}
    assert {line["who"] for line in lines} == {"ann"}
    [mended] = widget.reviewed()
    verdicts = [box["verified"] for row in mended["expressions"] for box in row["instances"]]
    assert sorted(verdicts) == [False, True, True]
    assert "<img" in mended._repr_html_()
    page.evaluate("end()")
    page.close()


def test_show_takes_any_record() -> None:
    assert show({"expressions": ["a mug"]}).counts() == (1, 0)
    assert "a mug" in (show({"image": "gone.png", "expressions": ["a mug"]})._repr_html_() or "")
    assert show({})._repr_html_() is not None


def test_what_a_notebook_has_at_hand_is_taken_or_refused_in_a_line(results: Path) -> None:
    pytest.importorskip("anywidget")
    import numpy as np
    import pandas as pd

    frame = pd.DataFrame([RECORD, {"image_id": "b", "width": np.int64(9), "score": float("nan")}])
    assert show(frame.iloc[0]).counts() == show(RECORD).counts()
    assert [row["image_id"] for row in review(frame).reviewed()] == ["a", "b"]
    assert review(results).results == str(results)
    for wrong in (None, "file", frame):
        with pytest.raises(InputError, match="a row should be a dict"):
            show(wrong)  # type: ignore[arg-type]
    for wrong in (None, RECORD, 5):
        with pytest.raises(
            InputError, match="records should be a folder, a file, a list or a DataFrame"
        ):
            review(wrong)  # type: ignore[arg-type]


def test_a_broken_picture_hides_no_other_record(results: Path) -> None:
    pytest.importorskip("anywidget")
    (results / "cut.png").write_bytes((results / "a.png").read_bytes()[:200])
    widget = review(
        [{**RECORD, "image_path": name, "image_id": name} for name in ("cut.png", "a.png")],
        str(results),
    )
    answers: list[Any] = []
    widget.send = lambda content, buffers=None: answers.append(content)
    widget._handle_custom_msg({"id": 1, "path": "next?mode=grid&place=0&most=9", "body": ""}, [])
    shown = [view["missing"] for view in answers[0]["said"]["records"].values()]
    assert shown == ["The image file can't be read.", ""]
