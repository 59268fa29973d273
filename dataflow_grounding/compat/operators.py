"""DataFlow's operators under their names: `PromptedVQAGenerator` and `ImageBboxGenerator`.

The latter is our RegionMarker. Both take the arguments that DataFlow's own take.
"""

import asyncio
import copy
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, ClassVar

from dataflow_grounding._util.errors import BrokenRow, SpecError, TruncatedReply, UnreadableReply
from dataflow_grounding.compat.dataflow_serving import DataFlowServing
from dataflow_grounding.data.records import Record, Update, dump_text, read_text
from dataflow_grounding.data.storage import FileStorage
from dataflow_grounding.engine.plan import Ask, outside_forward
from dataflow_grounding.images.image import Image, find_image, open_image
from dataflow_grounding.operators import OPERATOR_REGISTRY, Operator, RegionMarker
from dataflow_grounding.operators.region_marker import prompt_for
from dataflow_grounding.replies import Note, read_object
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.tasks.prompts import load_prompt
from dataflow_grounding.tasks.request import (
    STRING,
    SYSTEM,
    Prompt,
    Request,
    Turn,
    filled,
    object_of,
)

NO_REGIONS = prompt_for(0)
"""What ImageBboxGenerator writes for a picture without regions: there is nothing to ask."""

# By a turn's "from" or "role", its role at an endpoint; any other turn is the assistant's.
_ROLES = {"human": "user", "user": "user", "system": "system"}
# What comes before a turn's text: "<image>\n", "<image> <image>", or only space.
_LEADING_TOKENS = re.compile(r"\s*(<image>\s*)*")
# What the instructions say of the question's pictures.
_ABOUT_ONE = " about this picture"
_ABOUT_SEVERAL = " about these pictures, which come in order"
# With these, a reply that ends too early was to be an object, and not a text.
_BEGINNINGS_OF_OBJECTS = ("{", "```")
_OWN_WORDS = Note("own_words", "the reply is not the object that was asked for")


@OPERATOR_REGISTRY.register()
class PromptedVQAGenerator(Operator):
    """Reads prompts or conversations, with images or without, and writes answers.

    A row is asked the last turn of its conversation, or else its prompt. A conversation is a list
    of turns, `{"from": "human", "value": …}` or `{"role": "user", "content": …}`; `<image>` before
    a turn's text is left out. The column of pictures holds a path, a list of paths, or nothing:
    such a row is asked without one.

    Args:
        serving: Ours or DataFlow's.
        system_prompt: The system message of every prompt.
        prompt_template: Its `build_prompt()` gives the text of every conversation's first turn.

    Raises:
        SpecError: The template gives no text, or the serving is none.

    Example:
        >>> from dataflow_grounding.serving import OpenAIServing
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> with LoopbackServer(CannedAnswers("It is red.")) as server:
        ...     asker = PromptedVQAGenerator(OpenAIServing(server.base_url, "any-model"))
        ...     asker({"image": "square.png", "prompt": "What colour is it?"})["answer"]
        'It is red.'
    """

    name = "prompted_vqa"
    tasks = ("prompted_vqa", "prompted_conversation")
    input_keys = {"conversation": "conversation", "prompt": "prompt", "image": "image"}
    output_keys = {"answer": "answer"}
    optional_keys: ClassVar[Collection[str]] = ("conversation", "prompt", "image")
    needs_image = False
    descriptions = {"zh": "读取提示词或对话(可附图像),生成回答。"}

    def __init__(
        self,
        serving: Any,
        system_prompt: str = "You are a helpful assistant.",
        prompt_template: Any = None,
    ) -> None:
        self.serving: Serving
        if isinstance(serving, Serving):
            self.serving = serving
        else:
            self.serving = DataFlowServing(serving)
        self.system_prompt = system_prompt
        self.first_turn: str | None = None
        if prompt_template is not None:
            self.first_turn = prompt_template.build_prompt()
        if not isinstance(self.first_turn, (str, type(None))):
            raise SpecError(
                "prompt_template.build_prompt() should give a text, not"
                f" {type(self.first_turn).__name__}"
            )

    def run(  # type: ignore[override]
        self,
        storage: Any,
        input_conversation_key: str = "conversation",
        input_prompt_key: str | None = None,
        input_image_key: str | None = None,
        input_video_key: str | None = None,
        output_answer_key: str = "answer",
    ) -> str:
        """Answer a storage's rows, and return the name of the column with the answers.

        Args:
            storage: Ours or DataFlow's, at the step to work on.
            input_conversation_key: The column of conversations, read without `input_prompt_key`.
            input_prompt_key: The column of prompts.
            input_image_key: The column of pictures; without it no picture is sent.
            input_video_key: Not supported.
            output_answer_key: The column to write.

        Raises:
            SpecError: Videos are wanted.
            PlanError: A column that is named isn't there.
        """
        if input_video_key is not None:
            raise SpecError(
                "input_video_key is not supported: only pictures are read, which input_image_key"
                " names"
            )
        if input_prompt_key:
            columns = {"prompt": input_prompt_key}
        else:
            columns = {"conversation": input_conversation_key}
        if input_image_key:
            columns["image"] = input_image_key
        operator = self._reading(columns)
        # `operator.run` would be this method again. `super` is asked instead of Operator, because a
        # user's class may have another base with a `run` in between.
        return super(PromptedVQAGenerator, operator).run(
            storage, output_answer_key=output_answer_key
        )

    def _reading(self, columns: dict[str, str]) -> "PromptedVQAGenerator":
        """Return a copy that reads these columns, so that they don't stay for the next run."""
        operator = copy.copy(self)
        operator.optional_keys = ()  # type: ignore[misc] # each of them has to be in the rows
        operator.input_keys = columns  # type: ignore[misc]
        return operator

    def lacking(self, columns: Collection[str]) -> list[str]:
        """Return the role of prompts or of conversations, if neither column is among `columns`."""
        columns_by_role = self.reads()  # {"prompt": "question", "image": "picture"}
        columns_by_role.pop("image", None)  # a row may be asked without pictures
        if any(column in columns for column in columns_by_role.values()):
            return []
        reads_prompts = "prompt" in columns_by_role
        return ["prompt"] if reads_prompts else ["conversation"]

    def settings(self) -> None:
        """Return None, so that a finished run is worked through again, with the stored replies."""
        # It isn't known whether the pictures in a row's list are still the same.

    def look_over(self, record: Record) -> None:
        """Raise RecordError where a row asks nothing, or a picture of it can't be found."""
        self._prompt_and_earlier_turns(record)
        for row in self._rows_of_pictures(record):
            find_image(row, self._image_key)

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Answer the row's question; the prompt NO_REGIONS isn't asked, and its answer is null."""
        prompt, earlier = self._prompt_and_earlier_turns(record)
        if prompt == NO_REGIONS:
            ask.note("nothing_to_ask", "a picture without regions")
            return {self.keys.answer: None}
        pictures = await asyncio.to_thread(self._open_pictures, record)
        request = self._request(prompt, earlier, pictures)
        return {self.keys.answer: await ask(self._as_turns(request, earlier))}

    def _open_pictures(self, record: Record) -> tuple[Image, ...]:
        limits = self.serving.image_limits
        rows = self._rows_of_pictures(record)
        return tuple(open_image(row, self._image_key, limits) for row in rows)

    def _request(
        self, prompt: str, earlier: list[dict[str, str]], pictures: tuple[Image, ...]
    ) -> Request[str]:
        """Return the question, with all earlier turns as a part of its input."""
        request_input: dict[str, Any] = {"prompt": prompt}
        if earlier:
            request_input["conversation"] = earlier
        # The prompt "prompted_vqa" speaks of "this picture", and of no earlier turns.
        is_of_one_picture_alone = len(pictures) == 1 and not earlier
        prompt_name = "prompted_vqa" if is_of_one_picture_alone else "prompted_conversation"
        if not pictures:
            about_pictures = ""
        elif len(pictures) == 1:
            about_pictures = _ABOUT_ONE
        else:
            about_pictures = _ABOUT_SEVERAL
        words = {"pictures": about_pictures, "system_prompt": self.system_prompt}
        return Request(
            task="prompted_vqa",
            input=request_input,
            images=pictures,
            instructions=filled(load_prompt(prompt_name), words),
            schema=object_of(answer=STRING),
            read=_read_answer,
            text_only=not pictures,
            prompt=Prompt(prompt_name, words),
        )

    def _as_turns(self, request: Request[str], earlier: list[dict[str, str]]) -> Request[str]:
        """Return a request that sends earlier turns as turns, if their order allows it."""
        # Endpoints take this order of roles: system, system, user, assistant, user, assistant. In
        # any other, earlier turns stay a part of the request's input.
        if not earlier or not self.serving.takes_turns:
            return request
        turns = [Turn(turn["role"], turn["content"]) for turn in earlier]
        system_turns = list(takewhile(lambda turn: turn.role == SYSTEM, turns))
        dialogue = turns[len(system_turns) :]
        roles = [turn.role for turn in dialogue]
        alternating = ["user", "assistant"] * (len(roles) // 2)
        if roles != alternating:
            return request
        if dialogue:  # its first turn has the pictures
            dialogue[0] = replace(dialogue[0], images=request.images)
        return replace(
            request,
            input={"prompt": request.input["prompt"]},
            turns=(*system_turns, *dialogue),
        )

    def _prompt_and_earlier_turns(self, record: Record) -> tuple[str, list[dict[str, str]]]:
        """Return what a row asks, and the turns before that."""
        columns = self.keys.by_role  # {"conversation": "dialogue", "image": "picture"}
        # The conversation goes before the prompt.
        column = columns.get("conversation")  # None after a `run` that reads prompts
        has_conversation = column is not None and record.get(column) is not None
        if "prompt" in columns and not has_conversation:
            return read_text(record, columns["prompt"]), []
        turns = _turns_in(record, column)
        if self.first_turn is not None:  # the template's text replaces that of the row
            turns[0]["content"] = self.first_turn
        *earlier, last = turns
        if last["role"] != "user" or not last["content"].strip():
            raise BrokenRow(
                f"column {column!r}: its last turn should be the user's, and ask something"
            )
        return last["content"], earlier

    @property
    def _image_key(self) -> str:
        return self.keys.by_role.get("image", "")

    def _rows_of_pictures(self, record: Record) -> list[Record]:
        """Return the record once for each of its pictures, as `open_image` takes it."""
        cell = record.get(self._image_key)
        paths = cell if isinstance(cell, list) else [cell]
        rows = []
        for path in paths:
            if path is not None and path != "":
                rows.append(record.updated({self._image_key: path}))
        return rows


def _turns_in(record: Record, column: str | None) -> list[dict[str, str]]:
    """Return the turns of a conversation, one or more. Raises BrokenRow where there is none."""
    conversation = record.get(str(column))
    turns = []
    if isinstance(conversation, list):
        turns = [_as_role_and_content(turn) for turn in conversation]
    if not turns or not all(turns):  # {} is no turn
        wanted = "a list of turns, each {'from': 'human' or 'gpt', 'value': text}"
        raise BrokenRow(f"column {column!r} should be {wanted}")
    return turns


def _as_role_and_content(turn: Any) -> dict[str, str]:
    """Return a turn as an endpoint takes it; {} for what is no object with a text."""
    if not isinstance(turn, Mapping):
        return {}
    # Of two spellings in one turn, `from` and `value` count.
    text = turn.get("value", turn.get("content"))
    if not isinstance(text, str):
        return {}
    speaker = turn.get("from", turn.get("role"))
    role = _ROLES.get(str(speaker), "assistant")  # str: a hostile row may have a list, no key
    return {"role": role, "content": _LEADING_TOKENS.sub("", text, count=1)}


def _read_answer(reply: str) -> tuple[str, list[Note]]:
    answer, notes = _answer_or_whole_reply(reply)
    if answer is None:
        text = ""
    elif isinstance(answer, str):
        text = answer.strip()
    else:
        text = dump_text(answer)  # an answer that is no text
    if not text:
        raise UnreadableReply("there is no text in the answer.")
    return text, notes


def _answer_or_whole_reply(reply: str) -> tuple[Any, list[Note]]:
    """Return the answer in a reply: that of the last object whose only key is "answer".

    The object may be in prose, a fence, a list or another object. Without one the whole reply is
    the answer, which is noted as `own_words`. Raises TruncatedReply where it begins as an object or
    a fence, and is cut off before "answer".
    """
    try:
        fields, notes = read_object(reply, required="answer")
    except TruncatedReply:
        if reply.lstrip().startswith(_BEGINNINGS_OF_OBJECTS):
            raise
        return reply, [_OWN_WORDS]
    except UnreadableReply:
        return reply, [_OWN_WORDS]
    # `read_object` takes a bare list, [1, 2], for the answer without its object
    is_bare_list = any(note.code == "wrapped" for note in notes)
    if fields.keys() != {"answer"} or is_bare_list:
        return reply, [_OWN_WORDS]
    return fields["answer"], notes


@dataclass
class ExistingBBoxDataGenConfig:
    """What to draw, and from where to where."""

    max_boxes: int | None = 10
    """Most boxes of a row; beyond it, the largest are drawn. None keeps all."""
    input_jsonl_path: str | None = None
    """The file to read; without it, the storage's own."""
    output_jsonl_path: str | None = None
    """The file to write; without it, the storage's own."""


@OPERATOR_REGISTRY.register()
class ImageBboxGenerator(RegionMarker):
    """Draws the boxes of each row, or regions that OpenCV proposes, into
    `{cache_path}/{n}_bbox_vis.jpg`.
    """

    name = "image_bbox"

    def __init__(self, config: ExistingBBoxDataGenConfig | None = None) -> None:
        self.cfg = config or ExistingBBoxDataGenConfig()
        super().__init__(max_boxes=self.cfg.max_boxes)

    def run(
        self,
        storage: Any,
        input_image_key: str = "image",
        input_bbox_key: str = "bbox",
        **keys: str,
    ) -> str:
        """Draw the boxes of all rows; return the name of the column with the pictures' paths.

        Args:
            storage: Ours or DataFlow's. The config's paths go before its files.
            input_image_key: The column of pictures.
            input_bbox_key: The column of boxes.
            **keys: RegionMarker's other columns, such as `output_prompt_key="question"`.
        """
        # In a pipeline's forward(), the earlier steps are run when a storage is asked for a file.
        # That isn't needed here, where only the file's name is asked for.
        with outside_forward():
            step_storage = _StepWithOtherFiles(FileStorage.like(storage), self.cfg)
        # The folder is for this run alone: the next may be of another storage.
        with_folder = copy.copy(self)
        with_folder.output_dir = step_storage.cache_path
        return super(ImageBboxGenerator, with_folder).run(
            step_storage, input_image_key=input_image_key, input_bbox_key=input_bbox_key, **keys
        )


class _StepWithOtherFiles(FileStorage):
    """A storage's step that reads and writes the files of a config where these are named."""

    def __init__(self, storage: FileStorage, config: ExistingBBoxDataGenConfig) -> None:
        self.__dict__.update(vars(storage))  # a copy of that step, whose files are replaced below
        # Relative paths of images are also looked for next to this file.
        self.first_entry_file_name = config.input_jsonl_path or storage.input_path
        self._path_to_write = config.output_jsonl_path or storage.output_path

    def path_of(self, step: int) -> str:
        """Return the file to read for the storage's own step, for any other the one to write."""
        if step == self.operator_step:
            return self.first_entry_file_name
        return self._path_to_write
