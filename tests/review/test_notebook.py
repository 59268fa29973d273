"""Records in a notebook: in a real kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.review.notebook import show
from tests.support.review_page import RECORD
from tests.support.workplace import HANGING, REPOSITORY

pytestmark = pytest.mark.slow

CELL = (
    "import json\nfrom dataflow_grounding.review.notebook import show\n"
    "show(json.loads(open('out/annotations.jsonl').readline()), image_root='out')"
)


def test_a_kernel_shows_a_record(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    where = {"metadata": {"path": str(results.parent)}}
    nbclient.NotebookClient(notebook, timeout=HANGING, resources=where).execute()
    shown = notebook.cells[0].outputs[-1]
    assert "<img" in shown["data"]["text/html"]
    assert "<td>two dogs</td>" in shown["data"]["text/html"]


def test_show_takes_any_record() -> None:
    assert show({"expressions": ["a mug"]}).counts() == (1, 0)
    assert "a mug" in (show({"image": "gone.png", "expressions": ["a mug"]})._repr_html_() or "")
    assert show({})._repr_html_() is not None


def test_show_takes_a_row_of_a_table_and_refuses_a_table() -> None:
    import pandas as pd

    frame = pd.DataFrame([RECORD, {"image_id": "b"}])
    assert show(frame.iloc[0]).counts() == show(RECORD).counts()
    for wrong in (None, "file", frame):
        with pytest.raises(InputError, match="a row should be a dict"):
            show(wrong)  # type: ignore[arg-type]
