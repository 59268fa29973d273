"""`workflow.output_format`: what is written of each step besides its annotations."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from dataflow_grounding.engine.plan import Step
from dataflow_grounding.errors import SpecError
from dataflow_grounding.formats.legacy_files import remove_legacy, write_legacy
from dataflow_grounding.spec.user_code import named

Writer: TypeAlias = Callable[[Step], None]
"""Called after a run with each step whose annotations are there; reads `step.storage.output_path`, writes beside it."""

OUTPUT_FORMATS: dict[str, tuple[Writer, ...]] = {
    "unified": (remove_legacy,),
    "jsonl": (remove_legacy,),
    "legacy": (write_legacy,),
    "both": (write_legacy,),
}
"""`jsonl` is the name of `unified` in TAO's code."""


def writers_of(name: str, folders: Sequence[str]) -> tuple[Writer, ...]:
    """The writers of the format that a spec names, a user's own as `module:function`. Raises SpecError."""
    if name in OUTPUT_FORMATS:
        return OUTPUT_FORMATS[name]
    writer = named(name, "workflow.output_format", OUTPUT_FORMATS, folders)
    if not callable(writer):
        raise SpecError(f"workflow.output_format {name!r} should name a function that takes a step")
    return (remove_legacy, writer)
