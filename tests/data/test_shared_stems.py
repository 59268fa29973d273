"""Pictures that would share a label file are told before they are labelled."""

from __future__ import annotations

from dataflow_grounding.data.shared_stems import SharedStems


def test_names_that_differ_in_their_ending_are_told_once() -> None:
    stems = SharedStems()
    for path in ("a.jpg", "b.jpg", "a.png", "./a.jpg", "a.png"):
        stems.add(path)
    [remark] = stems.remarks()
    assert remark.endswith("before export: 1 (a.jpg and a.png)")
