"""Operator: a definition of each class, written from what went wrong with it."""

from collections.abc import Mapping, Sequence
from typing import Any

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.data.records import Record, Update, read_text
from dataflow_grounding.operators.base import OPERATOR_REGISTRY, Ask, Operator, facts_of, open_image
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.tasks.definitions import class_definition

ERRORS = ("false", "missed", "right")
"""The `error` of a crop: it shows a box that is wrong, a thing without one, a box that is right."""


@OPERATOR_REGISTRY.register()
class DefinitionWriter(Operator):
    """Writes a class's definition from crops of its errors.

    A record is a class: `image_path` is a sheet of numbered crops, `crops` says what each of them
    is: `{"id": 1, "error": "false", "is": "bowl"}`. `phrases` and a former `definition` may be
    left out. What it writes is a proposal: `tune` keeps it only where it helps on other pictures.

    Args:
        serving: The model that is asked.

    Example:
        >>> from dataflow_grounding import DefinitionWriter, OpenAIServing
        >>> from dataflow_grounding.extras.testing import CannedAnswers, LoopbackServer
        >>> row = {"image_path": "square.png", "class": "cup"}
        >>> row["crops"] = [{"id": 1, "error": "false", "is": "bowl"}]
        >>> says = '{"definition": "Cups have a handle; bowls do not count."}'
        >>> with LoopbackServer(CannedAnswers(says)) as server:
        ...     serving = OpenAIServing(server.base_url, "any-model")
        ...     DefinitionWriter(serving)(row)["definition"]
        'Cups have a handle; bowls do not count.'
    """

    name = "class_definition"
    tasks = ("class_definition",)
    input_keys = {"image": "image_path", "class": "class", "crops": "crops"}
    output_keys = {"definition": "definition"}
    descriptions = {"zh": "根据误检和漏检的裁剪图,为类别撰写定义。"}

    def __init__(self, serving: Serving) -> None:
        self.serving: Serving = self.checked_serving(serving)

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds `definition`, one to three sentences in one line.

        Raises RecordError: BrokenRow where the class, its crops, phrases or former definition can't
        be read.
        """
        sheet = open_image(record, self.keys.image, self.serving.image_limits)
        label = read_text(record, self.input_keys["class"])
        crops = _read_crops(record)
        phrases = _read_phrases(record, label)
        former = record.get("definition") or ""
        if not isinstance(former, str):
            raise BrokenRow("'definition' should be a text")
        definition = await ask(class_definition(sheet, label, phrases, crops, former))
        return {**facts_of(record, sheet, ask, self.serving), self.keys.definition: definition}


def _read_phrases(record: Record, label: str) -> Sequence[str]:
    """Return the record's `phrases`; without any, the class alone.

    Raises BrokenRow where they are no list of texts.
    """
    phrases = record.get("phrases") or [label]
    if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
        raise BrokenRow("'phrases' should be a list of texts")
    return phrases


def _read_crops(record: Record) -> list[Mapping[str, Any]]:
    """Return what the record says of each crop, as it stands there.

    Raises BrokenRow without any, and for one without a whole number as `id` and one of ERRORS.
    """
    crops = record.get("crops")
    if not isinstance(crops, list) or not crops:
        raise BrokenRow("'crops' should be a list of what each crop is")
    for crop in crops:
        is_crop = isinstance(crop, dict) and isinstance(crop.get("id"), int)
        if not is_crop or crop.get("error") not in ERRORS:
            raise BrokenRow(
                f"a crop should have an id and an error out of {', '.join(ERRORS)}: {crop!r:.100}"
            )
    return crops
