"""The form in which boxes of phrases are asked for: as data, for all that is not what is asked."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Literal, TypeAlias, TypeVar, get_args

from dataflow_grounding._util.errors import SpecError, UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern, load_table
from dataflow_grounding._util.nearest import nearest
from dataflow_grounding.data.records import REMARK, JsonObject
from dataflow_grounding.data.remarks import joined_remarks
from dataflow_grounding.replies import Note
from dataflow_grounding.replies.forms import objects_of_lines
from dataflow_grounding.tasks.grounding import Found
from dataflow_grounding.tasks.prompts import load_prompt
from dataflow_grounding.tasks.request import (
    BOX,
    INTEGER,
    STRING,
    ReadReply,
    ReplyForm,
    Request,
    Schema,
    filled,
    list_of,
    object_of,
)
from dataflow_grounding.tasks.wording import WITH_FORMS

T = TypeVar("T")
ReplyAs: TypeAlias = Literal["schema", "json", "lines"]
BoxesIn: TypeAlias = Literal["objects", "lists"]
Thinking: TypeAlias = Literal["default", "low", "off"]

_KEY = lazy_pattern(r"[A-Za-z_][A-Za-z0-9_]{0,30}")  # what a box may be called: "bbox_2d"


@dataclass(frozen=True)
class AskingForm:
    """How boxes are asked for; each part may be left as it is."""

    name: str
    reply: ReplyAs = "schema"  # `json` and `lines`, one for each box, are asked for in words alone
    boxes: BoxesIn = "objects"  # `lists` has an object for each phrase, with all its boxes
    key: str | None = None  # of a box in JSON; None takes the box format's own
    # how much the model is to think first: `default` leaves it to it
    thinking: Thinking = "default"

    def __post_init__(self) -> None:
        _check_one_of("reply", self.reply, get_args(ReplyAs))
        _check_one_of("boxes", self.boxes, get_args(BoxesIn))
        _check_one_of("thinking", self.thinking, get_args(Thinking))
        if self.key is not None and not _KEY.fullmatch(str(self.key)):
            raise SpecError(f"asking.key should be a word such as bbox, not {self.key!r:.40}")
        if self.reply == "lines" and (self.key or self.boxes == "lists"):
            raise SpecError(
                "asking.reply lines has neither keys nor lists: leave key and boxes out"
            )

    def __bool__(self) -> bool:
        """Whether any of its parts differs from the usual one."""
        return self != AskingForm(self.name)

    @property
    def prompt_name(self) -> str:
        if self.reply == "lines":
            return f"{WITH_FORMS}_lines"
        return f"{WITH_FORMS}_lists" if self.boxes == "lists" else WITH_FORMS

    def of(self, request: Request[T]) -> Request[T]:
        """Return a request put in this form: the same object if that changes nothing."""
        form = request.form
        if self.thinking != "default":
            form = ReplyForm(thinking=self.thinking)
        if request.task == WITH_FORMS:  # other replies keep their form
            request = self._with_boxes_as_asked(request)
            if self.reply == "lines":
                form = replace(form, is_free=True, in_words="these lines")
            elif self.reply == "json":
                form = replace(form, is_free=True)
        if form is request.form:
            return request
        return replace(request, form=form)

    def _with_boxes_as_asked(self, request: Request[T]) -> Request[T]:
        """Return a request for boxes whose words, schema and reader are of this form."""
        usual_key = request.prompt.words["box_key"]
        key = self.key or usual_key
        if self.prompt_name == WITH_FORMS and key == usual_key:
            return request
        read, schema = request.read, request.schema
        if self.reply == "lines":  # the schema stays: it isn't sent with a free form
            read = partial(_read_lines, read, usual_key)
        else:
            schema = _schema_of(schema, usual_key, key, self.boxes)
            if key != usual_key:
                read = partial(_read_renamed, read, key, usual_key)
            if self.boxes == "lists":
                read = partial(_read_each_phrase, read)
        words = _with_key(request.prompt.words, key, is_named=self.reply != "lines")
        return replace(
            request,
            instructions=filled(load_prompt(self.prompt_name), words),
            schema=schema,
            read=read,
            prompt=replace(request.prompt, name=self.prompt_name, words=words),
        )


def form_named(name: str) -> AskingForm:
    """Return a form of the table that ships. Raises SpecError where none has this name."""
    table = load_table(__package__, "asking_forms.yaml")
    row = table.get(name)
    if row is None:
        known = f"{', '.join(table)}{nearest(name, table)}"
        raise SpecError(f"no form {name!r:.40} of asking: they are {known}")
    parts = {part: row[part] for part in row if part in _PARTS}  # without its why and source
    return AskingForm(name, **parts)


def forms_with_prompt(prompt_name: str) -> list[str]:
    """Return the names of the shipped forms that ask by a prompt, if it isn't their task's own."""
    if prompt_name == WITH_FORMS:
        return []
    names = load_table(__package__, "asking_forms.yaml")
    return [name for name in names if form_named(name).prompt_name == prompt_name]


def form_of(asking: "str | JsonObject | AskingForm") -> AskingForm:
    """Return a form by its name, or by its parts: `{from: json, thinking: off}`."""
    if isinstance(asking, AskingForm):
        return asking
    if isinstance(asking, str):
        return form_named(asking)
    parts = dict(asking)
    base = form_named(str(parts.pop("from", "auto")))
    unknown = [part for part in parts if part not in _PARTS]
    if unknown:
        raise SpecError(f"asking has no {unknown[0]!r:.40}: it has from, {', '.join(_PARTS)}")
    if parts.get("thinking") is False:  # how YAML reads off
        parts["thinking"] = "off"
    return replace(base, name="stated", **parts)


_PARTS = tuple(part.name for part in fields(AskingForm) if part.name != "name")


def _check_one_of(part: str, value: object, values: tuple[str, ...]) -> None:
    if value not in values:
        raise SpecError(f"asking.{part} {value!r:.40} is none of {', '.join(values)}")


def _with_key(words: Mapping[str, str], key: str, *, is_named: bool) -> dict[str, str]:
    """The words that fill a prompt, with another key for boxes, or none."""
    # `BoxFormat.instructions` has written this among the words.
    usual = f'under the key "{words["box_key"]}" '
    own = f'under the key "{key}" ' if is_named else ""
    box_format = words["box_format"].replace(usual, own)
    return {**words, "box_key": key, "box_format": box_format}


def _schema_of(schema: Schema, key: str, new_key: str, boxes: BoxesIn) -> Schema:
    """The schema of a reply whose boxes are under `new_key`, in place of `key`."""
    if boxes == "lists":  # an object for each phrase, with all its boxes
        item = object_of(**{"id": INTEGER, "label": STRING, new_key: list_of(BOX)})
        return object_of(objects=list_of(item))
    properties = schema["properties"]["objects"]["items"]["properties"]
    renamed = {new_key if name == key else name: part for name, part in properties.items()}
    return object_of(**{**schema["properties"], "objects": list_of(object_of(**renamed))})


def _read_renamed(
    read: Callable[[str], ReadReply[T]], key: str, usual_key: str, reply: str
) -> ReadReply[T]:
    """`{"label": "box", "box": […]}` becomes `{"label": "box", "bbox_2d": […]}`."""
    # only a key has a colon after it
    return read(re.sub(rf'"{key}"(?=\s*:)', f'"{usual_key}"', reply))


def _read_lines(read: Callable[[str], ReadReply[T]], key: str, reply: str) -> ReadReply[T]:
    """Read boxes in lines as if the reply had them as objects with the usual key."""
    objects, words = objects_of_lines(reply, key)
    if not objects:
        return read(reply)  # the model answered in its own form
    text = json.dumps({"objects": objects}, ensure_ascii=False)
    answer, notes = _read_each_phrase(read, text)
    remark = joined_remarks(words)
    return answer, [*notes, Note(REMARK, remark)] if remark else notes


def _read_each_phrase(read: Callable[[str], ReadReply[T]], reply: str) -> ReadReply[T]:
    """Refuse a reply that leaves a phrase out: lines and lists are to name each."""
    answer, notes = read(reply)
    all_found = answer if isinstance(answer, list) else []  # a check's answer is no list
    for number, found in enumerate(all_found, 1):
        if isinstance(found, Found) and found.status == "none" and not found.named:
            raise UnreadableReply(f"phrase {number} has neither a box nor none", "left out")
    return answer, notes
