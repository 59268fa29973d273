"""`workflow.output_format`: what a run writes besides its step files."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.results_names import LEGACY_STATE
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.spec.user_code import in_one_line, named

_KEY = "workflow.output_format"

Writer: TypeAlias = Callable[[Step], None]
"""It is called after a run with each step whose file is there."""

FORMATS = {"unified": "unified", "jsonl": "unified", "legacy": "legacy", "both": "legacy"}
"""`workflow.output_format` → what it is. TAO's code calls `unified` `jsonl`."""


def writer_of(name: str, folders: Sequence[str]) -> Writer:
    """Return what writes a format's further files; unless it is legacy, it removes legacy ones."""
    if FORMATS.get(name) == "unified":  # it has no further files
        return _remove_legacy
    if FORMATS.get(name) == "legacy":
        from dataflow_grounding.formats.legacy_files import write_legacy  # few runs do

        return partial(_write, name, write_legacy)
    writer = named(name, _KEY, FORMATS, folders)  # the user's own, as "module:function"
    if not callable(writer):
        raise SpecError(f"{_KEY} {name!r} should name a function that takes a step")

    def write_in_place_of_legacy(step: Step) -> None:
        _remove_legacy(step)
        _write(name, writer, step)

    return write_in_place_of_legacy


def _write(name: str, writer: Writer, step: Step) -> None:
    failed = f"{_KEY} {name} failed; the annotations are written"
    # what a user's own writer raises becomes a SpecError that begins so
    with in_one_line(f"{failed}, so fix it and run the same command again"):
        writer(step)


def _remove_legacy(step: Step) -> None:
    folder = os.path.dirname(step.storage.output_path)
    if os.path.exists(os.path.join(folder, LEGACY_STATE)):
        from dataflow_grounding.formats.legacy_files import remove_legacy  # few folders have any

        remove_legacy(step)
