"""Records in a notebook."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.review.notebook import show
from tests.support.review_page import RECORD


def test_a_record_is_shown_with_its_picture_and_phrases(results: Path) -> None:
    page = show(RECORD, image_root=str(results))._repr_html_() or ""
    assert "<img" in page
    assert "<td>two dogs</td>" in page


def test_show_takes_any_record() -> None:
    assert show({"expressions": ["a mug"]}).counts() == (1, 0)
    assert "a mug" in (show({"image": "gone.png", "expressions": ["a mug"]})._repr_html_() or "")
    assert show({})._repr_html_() is not None


@pytest.mark.slow
def test_show_takes_a_row_of_a_table_and_refuses_a_table() -> None:
    import pandas as pd

    frame = pd.DataFrame([RECORD, {"image_id": "b"}])
    assert show(frame.iloc[0]).counts() == show(RECORD).counts()
    for wrong in (None, "file", frame):
        with pytest.raises(InputError, match="a row should be a dict"):
            show(wrong)  # type: ignore[arg-type]
