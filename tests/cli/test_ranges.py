"""Numbers between bounds on the command line: NaN is in no range."""

from __future__ import annotations

import pytest

from tests.support.workplace import command


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "x", "--format", "odvg", "-o", "y", "--min-score"],
        ["convert", "/dev/null", "--from", "coco", "--to", "odvg", "-o", "y", "--min-score"],
        ["eval", "x", "--gold", "y", "--iou"],
        ["eval", "x", "--gold", "y", "--score-cut"],
        ["generate", "-e", "x", "--budget-usd"],
    ],
)
@pytest.mark.parametrize("number", ["nan", "-NaN"])
def test_nan_is_in_no_range(arguments: list[str], number: str) -> None:
    done = command([*arguments[:-1], f"{arguments[-1]}={number}"])
    assert (done.code, f"{number} is not in" in done.err) == (2, True), done.err
