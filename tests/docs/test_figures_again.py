"""Every figure of the documentation comes from a command, and one command runs them all."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from benchmarks.all import APART, FIGURES, Measured, measure
from tests.support.workplace import REPOSITORY

NAMED = re.compile(r"python -m benchmarks\.(\w+)")
WITH_OPTIONS = re.compile(r"python -m benchmarks\.(\w+ [^`#\n]*)")


def test_all_has_every_benchmark_that_a_page_names() -> None:
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    named = set()
    with_options = set()
    for page in pages:
        if "_site" not in page.parts:
            text = page.read_text("utf-8")
            named.update(NAMED.findall(text))
            with_options.update(map(str.strip, WITH_OPTIONS.findall(text)))
    run = {one.arguments.split()[0] for one in FIGURES}
    assert named - run - set(APART) == set()
    # Whoever runs all of them gets each page's own: with its options, or with all of its parts.
    run_with_options = {one.arguments for one in FIGURES}
    for command in with_options:
        name, *options = command.split()
        if not options:
            continue
        is_part = options[0] in ("--part", "--way") and name in run_with_options
        assert command in run_with_options or is_part or name in APART, command
    for one in FIGURES:
        assert (REPOSITORY / "docs" / f"{one.page}.md").exists(), one.page
        module = REPOSITORY / "benchmarks" / one.arguments.split()[0]
        assert module.with_suffix(".py").exists() or module.is_dir(), one.arguments


def test_one_that_fails_is_named_and_one_that_is_there_is_kept(tmp_path: Path) -> None:
    fails = Measured("measures", "no_such_benchmark")
    assert "exit code 1: see " in measure(fails, tmp_path)
    assert not (tmp_path / "no_such_benchmark.txt").exists()
    (tmp_path / "start.txt").write_text("figures")
    assert "kept from before" in measure(Measured("measurements/performance", "start"), tmp_path)
    lacking = Measured("review", "review_speed", "/nowhere/chromium")
    assert "left out: needs /nowhere/chromium" in measure(lacking, tmp_path)


def test_what_would_run_is_listed() -> None:
    line = [sys.executable, "-m", "benchmarks.all", "--page", "certificate", "--list"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.split() == ["certificate", "certificate"]
    line[-2:] = ["nothing"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 1
    assert "no figures of nothing: there are bench, better_boxes, calibration" in done.stderr
