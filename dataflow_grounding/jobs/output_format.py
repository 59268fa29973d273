"""`workflow.output_format`: what a run writes besides its step files."""

import os
from collections.abc import Callable, Sequence
from typing import TypeAlias

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.data.results_folder import LEGACY_STATE
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.spec.user_code import in_one_line, named

Writer: TypeAlias = Callable[[Step], None]
"""It is called after a run with each step whose file is there."""

FORMATS = {"unified": "unified", "jsonl": "unified", "legacy": "legacy", "both": "legacy"}
"""`workflow.output_format` → what it is. TAO's code calls `unified` `jsonl`."""


def writer_of(name: str, folders: Sequence[str]) -> Writer:
    """Return what writes an output format's further files, next to those of the steps. It also
    removes what an earlier run in a legacy format has left, unless this format is legacy, too.
    """
    key = "workflow.output_format"
    if FORMATS.get(name) == "unified":  # it has no further files
        return _remove_legacy
    writer: Writer
    if FORMATS.get(name) == "legacy":
        from dataflow_grounding.formats.legacy_files import write_legacy  # few runs do

        writer = write_legacy
    else:  # a function of the user's own, as "module:function"
        writer = named(name, key, FORMATS, folders)
        if not callable(writer):
            raise SpecError(f"{key} {name!r} should name a function that takes a step")

    def write(step: Step) -> None:
        if name not in FORMATS:
            _remove_legacy(step)
        failed = f"{key} {name} failed; the annotations are written"
        # what a user's own writer raises becomes a SpecError that begins so
        with in_one_line(f"{failed}, so fix it and run the same command again"):
            writer(step)

    return write


def _remove_legacy(step: Step) -> None:
    folder = os.path.dirname(step.storage.output_path)
    if os.path.exists(os.path.join(folder, LEGACY_STATE)):
        from dataflow_grounding.formats.legacy_files import remove_legacy  # few folders have any

        remove_legacy(step)
