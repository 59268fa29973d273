"""`benchmarks.side_by_side`: what scripts as people have them lose, and what ours do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.side_by_side.__main__ import OR, WHOSE, measured
from benchmarks.side_by_side.planted import BEYOND, NO_FAULT, PLANTED, Planted
from benchmarks.side_by_side.trial import SCRIPTS, WAYS, Way, can_mount, trial
from tests.support.workplace import REPOSITORY

PAGE = (REPOSITORY / "docs" / "side_by_side.md").read_text(encoding="utf-8")
MOST_LINES = 10
MOST_OF_THEIRS = 5
MOST_LOST_OF_OURS = 1


def code_lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def in_table(fault: Planted) -> list[str]:
    """The page's cells of a fault: theirs of each way, and ours of all."""
    [row] = re.findall(rf"^\| {re.escape(fault.name)} \|(.*)\|$", PAGE, re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]


def is_held(cell: str) -> bool:
    """Whether the page says that nothing is lost, in any of the ways that share the cell."""
    return {*cell.split(OR)} <= {"held", "told"}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_ours_is_short_and_stands_on_the_page_as_it_runs(way: Way) -> None:
    script = SCRIPTS / "ours" / f"{way.name}.py"
    assert len(code_lines(script)) <= MOST_LINES
    assert f"```python\n{script.read_text(encoding='utf-8')}```" in PAGE


def test_the_page_has_a_row_for_each_fault() -> None:
    for fault in [NO_FAULT, *PLANTED, *BEYOND]:
        assert len(in_table(fault)) == len(WAYS) + 1


def test_on_the_page_theirs_hold_five_at_most_and_ours_all_but_one_at_least() -> None:
    for place in range(len(WAYS) + 1):
        held = [is_held(in_table(fault)[place]) for fault in PLANTED]
        if place < len(WAYS):
            assert sum(held) <= MOST_OF_THEIRS
        else:
            assert sum(held) >= len(PLANTED) - MOST_LOST_OF_OURS


@pytest.mark.slow
@pytest.mark.sampled(1)
@pytest.mark.parametrize("fault", [NO_FAULT, *PLANTED], ids=lambda fault: fault.name)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_each_way_holds_and_loses_what_the_page_says(way: Way, fault: Planted) -> None:
    """All by all is the benchmark's, and takes minutes."""
    if fault.fills and not can_mount():
        pytest.skip("a full disk needs the right to mount one")
    cells = measured([way], [fault], workers=2)
    *theirs, ours = in_table(fault)
    for whose, cell in zip(WHOSE, (theirs[WAYS.index(way)], ours), strict=True):
        outcome = cells[fault.name, way.name, whose]
        if outcome.held != is_held(
            cell
        ):  # under load an answer may come as the run ends: once more
            outcome = trial(way, whose, fault)
        assert outcome.held == is_held(cell), (fault.name, whose, outcome)


@pytest.mark.slow
def test_a_trial_sees_what_is_wrong_what_is_lost_and_what_is_paid_twice() -> None:
    named = {fault.name: fault for fault in PLANTED}
    by_name = {way.name: way for way in WAYS}
    wrong = trial(by_name["tao_step"], "theirs", named["empty answer"])
    assert (wrong.wrong, wrong.lost, wrong.twice, wrong.codes) == (1, 0, 0, (0, 0))
    lost = trial(by_name["qwen_cookbook"], "theirs", named["thinking aloud"])
    assert (lost.wrong, lost.lost, lost.codes) == (0, 24, (1, 1))
    twice = trial(by_name["from_vlm"], "theirs", named["key revoked"])
    assert (twice.wrong, twice.lost, twice.twice, twice.codes) == (0, 0, 12, (1, 0))
