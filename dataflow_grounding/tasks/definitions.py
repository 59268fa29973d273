"""The task `class_definition`: what counts as a class, written from errors."""

from collections.abc import Mapping, Sequence
from typing import Any

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies import Note, read_object
from dataflow_grounding.tasks.regions import text_of
from dataflow_grounding.tasks.request import STRING, Request, about, is_cut_off, object_of

LONGEST_DEFINITION = 600
"""Characters of a definition; it goes into every question about its class."""


def class_definition(
    sheet: Image,
    label: str,
    phrases: Sequence[str],
    crops: Sequence[Mapping[str, Any]],
    definition: str = "",
) -> Request[str]:
    """Make the request for a definition of a class.

    Args:
        sheet: A picture of numbered crops.
        label: The class.
        phrases: What it is asked for with.
        crops: Of each crop its `id`, its `error` (`false`, `missed` or `right`) and, of a false
            one, what it `is`.
        definition: What was said of the class so far.
    """
    known: dict[str, Any] = {"class": label, "phrases": [*phrases], "crops": [*crops]}
    if definition:
        known["definition"] = definition

    def read(reply: str) -> tuple[str, list[Note]]:
        """Return the definition in a reply, single-spaced.

        Raises:
            TruncatedReply: The reply is cut off.
            UnreadableReply: It has no text under "definition", or too long a one.
        """
        data, notes = read_object(reply, required="definition")
        if is_cut_off(notes):
            raise TruncatedReply("the definition is cut off.")
        text = " ".join(text_of(data["definition"]).split())
        if not text:
            raise UnreadableReply('"definition" is not a text.')
        if len(text) > LONGEST_DEFINITION:
            raise UnreadableReply(f'"definition" has more than {LONGEST_DEFINITION} characters.')
        return text, notes

    return about("class_definition", sheet, known, object_of(definition=STRING), read)
