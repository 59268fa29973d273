"""A task: a question of your own to the model, and the operator that asks it.

operator = ThingCounter(serving, thing="person")
operator.run(storage.step(), input_image_key="image_path", output_count_key="people")
"""

from __future__ import annotations

import json

from dataflow_grounding import (
    OPERATOR_REGISTRY,
    Ask,
    Image,
    Note,
    Operator,
    Record,
    Request,
    Serving,
    UnreadableReply,
    Update,
    open_image,
)

INSTRUCTIONS = """\
Count the things named in "thing" that can be seen in the picture, cut ones at its edge included.
Reply with one JSON object, nothing before or after it: {"count": 3}"""
SCHEMA = {
    "type": "object",
    "properties": {"count": {"type": "integer"}},
    "required": ["count"],
    "additionalProperties": False,
}


def count_of(image: Image, thing: str) -> Request[int]:
    """Asks how many of a thing are in a picture."""
    return Request(
        task="count",
        input={"thing": thing},
        images=(image,),
        instructions=INSTRUCTIONS,
        schema=SCHEMA,
        read=_read,
    )


def _read(reply: str) -> tuple[int, list[Note]]:
    """The count, and no notes. An UnreadableReply is asked again, its message told to the model."""
    try:
        count = json.loads(reply)["count"]
    except (ValueError, TypeError, KeyError):
        raise UnreadableReply('there is no JSON object with "count".') from None
    if type(count) is not int or count < 0:
        raise UnreadableReply('"count" should be a whole number, 0 or more.')
    return count, []


@OPERATOR_REGISTRY.register()
class ThingCounter(Operator):
    """Counts one kind of thing in each picture: `thing` as a noun in the singular."""

    name = "thing_counter"
    tasks = ("count",)  # `check` says whether the serving can answer them
    input_keys = {"image": "image_path"}
    output_keys = {"count": "count"}

    def __init__(self, serving: Serving, thing: str) -> None:
        self.serving = serving
        self.thing = thing

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """One question, one number."""
        image = open_image(record, self.keys.image, self.serving.image_limits)
        return {self.keys.count: await ask(count_of(image, self.thing))}
