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
from dataflow_grounding.data.records import Record, Update, dump_text, read_text
from dataflow_grounding.data.storage import FileStorage
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.extras.compat.dataflow_serving import DataFlowServing
from dataflow_grounding.images.image import find_image, open_image
from dataflow_grounding.operators import OPERATOR_REGISTRY, Operator, RegionMarker
from dataflow_grounding.operators.region_marker import prompt_for
from dataflow_grounding.replies import Note, read_object
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.tasks.prompts import load_prompt
from dataflow_grounding.tasks.request import STRING, SYSTEM, Request, Turn, filled, object_of

NO_REGIONS = prompt_for(0)
"""What ImageBboxGenerator writes for a picture without regions: there is nothing to ask."""

_ROLES = {"human": "user", "user": "user", "system": "system"}  # any other turn is the assistant's
_LEADING_TOKENS = re.compile(r"\s*(<image>\s*)*")
_ABOUT = ("", " about this picture", " about these pictures, which come in order")


@OPERATOR_REGISTRY.register()
class PromptedVQAGenerator(Operator):
    """Reads prompts or conversations, with images or without, and writes answers.

    A row is asked its prompt, or the last turn of its conversation: a list of turns,
    `{"from": "human", "value": …}` or `{"role": "user", "content": …}`; `<image>` before a text is
    left out. The column of pictures holds a path, a list of paths, or nothing: such a row is asked
    without one.

    Args:
        serving: Ours or DataFlow's.
        system_prompt: What the model is told before every prompt.
        prompt_template: Its `build_prompt()` gives the text of every conversation's first turn.

    Raises:
        SpecError: The template gives no text, or the serving is none.

    Example:
        >>> from dataflow_grounding.serving import OpenAIServing
        >>> from dataflow_grounding.extras.testing import CannedAnswers, LoopbackServer
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
        """Work through the rows.

        A key that is None is not read, and a prompt's goes before a conversation's.

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
        # A copy has the columns of this run, so that they don't outlast it.
        with_columns = copy.copy(self)
        with_columns.optional_keys = ()  # type: ignore[misc]
        with_columns.input_keys = columns  # type: ignore[misc]
        return super(PromptedVQAGenerator, with_columns).run(
            storage, output_answer_key=output_answer_key
        )

    def lacking(self, there: Collection[str]) -> list[str]:
        """Return the prompt's role where neither its column nor the conversation's is there."""
        roles_with_text = [role for role in self.reads() if role != "image"]
        if any(getattr(self.keys, role) in there for role in roles_with_text):
            return []
        return roles_with_text[-1:]

    def settings(self) -> None:
        """Return None: a finished run can't be recognized.

        It would be by settings, rows and pictures, and pictures that stand in lists are not among
        these. So its rows are read again, and its replies come from the store.
        """

    def look_over(self, record: Record) -> None:
        """Raises RecordError for what asks nothing, and for pictures that aren't there."""
        self._prompt_and_earlier_turns(record)
        for row, key in self._each_picture(record):
            find_image(row, key)

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds the answer; null, and no request, where there is no region to ask about."""
        prompt, earlier = self._prompt_and_earlier_turns(record)
        if prompt == NO_REGIONS:
            ask.note("nothing_to_ask", "a picture without regions")
            return {self.keys.answer: None}
        rows_and_keys = self._each_picture(record)
        limits = self.serving.image_limits
        pictures = await asyncio.to_thread(
            lambda: tuple(open_image(row, key, limits) for row, key in rows_and_keys)
        )
        request_input: dict[str, Any] = {"prompt": prompt}
        if earlier:
            request_input["conversation"] = earlier
        prompt_name = "prompted_conversation"
        if len(pictures) == 1 and not earlier:
            prompt_name = "prompted_vqa"
        about = _ABOUT[min(len(pictures), 2)]
        words = {"pictures": about, "system_prompt": self.system_prompt}
        request = Request(
            task="prompted_vqa",
            input=request_input,
            images=pictures,
            instructions=filled(load_prompt(prompt_name), words),
            schema=object_of(answer=STRING),
            read=_read_answer,
            text_only=not pictures,
            words=words,
            prompt_name=prompt_name,
        )
        return {self.keys.answer: await ask(self._as_turns(request, earlier))}

    def _as_turns(self, request: Request[str], earlier: list[dict[str, str]]) -> Request[str]:
        """Return the request with the earlier turns as chat turns, where the serving takes these.

        Turns of the system's at the beginning join the system message. Else it has them as data, in
        its input. So has a conversation in which user and assistant don't alternate: few endpoints
        take one.
        """
        turns = [Turn(turn["role"], turn["content"]) for turn in earlier]
        of_system = list(takewhile(lambda turn: turn.role == SYSTEM, turns))
        talk = turns[len(of_system) :]
        alternating = ["user", "assistant"] * (len(talk) // 2)
        is_in_turn = [turn.role for turn in talk] == alternating
        if not turns or not is_in_turn or not self.serving.takes_turns:
            return request
        if talk:
            talk[0] = replace(talk[0], images=request.images)
        return replace(
            request,
            input={"prompt": request.input["prompt"]},
            turns=(*of_system, *talk),
            formerly=request,  # a reply that was stored for the request with data still counts
        )

    def _prompt_and_earlier_turns(self, record: Record) -> tuple[str, list[dict[str, str]]]:
        """Return the prompt of a row, and the turns before it. Raises BrokenRow.

        A row's prompt goes before its conversation, whose prompt is the last turn.
        """
        columns = self.keys.by_role
        key = columns.get("conversation")
        if "prompt" in columns and (key is None or record.get(key) is None):
            return read_text(record, columns["prompt"]), []
        conversation = record.get(str(key))
        turns = []
        if isinstance(conversation, list):
            turns = [_as_role_and_content(turn) for turn in conversation]
        if not turns or not all(turns):
            wanted = "a list of turns, each {'from': 'human' or 'gpt', 'value': text}"
            raise BrokenRow(f"column {key!r} should be {wanted}")
        if self.first_turn is not None:
            turns[0]["content"] = self.first_turn
        *earlier, last = turns
        if last["role"] != "user" or not last["content"].strip():
            raise BrokenRow(
                f"column {key!r}: its last turn should be the user's, and ask something"
            )
        return last["content"], earlier

    def _each_picture(self, record: Record) -> list[tuple[Record, str]]:
        """Return for each picture of a record a copy that has this one alone, and its column.

        That is how pictures are opened: by a record with one path in a column.
        """
        key = self.keys.by_role.get("image", "")
        cell = record.get(key)
        paths = cell if isinstance(cell, list) else [cell]
        records_and_keys = []
        for path in paths:
            if path is not None and path != "":
                records_and_keys.append((record.updated({key: path}), key))
        return records_and_keys


def _as_role_and_content(turn: Any) -> dict[str, str]:
    """Return a turn of either spelling as endpoints know it; empty for what is no turn."""
    if not isinstance(turn, Mapping):
        return {}
    text = turn.get("value", turn.get("content"))
    if not isinstance(text, str):
        return {}
    role = _ROLES.get(turn.get("from", turn.get("role")), "assistant")
    return {"role": role, "content": _LEADING_TOKENS.sub("", text, count=1)}


def _read_answer(reply: str) -> tuple[str, list[Note]]:
    """Return the answer in the object that was asked for.

    Any other reply is the answer as a whole: a text in the model's own words, or an object that the
    user's prompt asked for. Raises UnreadableReply for an empty answer.
    """
    try:
        data, notes = read_object(reply, required="answer")
    except UnreadableReply as error:
        # An object that was cut off is no answer; prose that was cut off is one.
        if isinstance(error, TruncatedReply) and reply.lstrip().startswith(("{", "```")):
            raise
        data = {}
        notes = []
    # The note "wrapped" says that a bare list came, without the object around it.
    if data.keys() != {"answer"} or any(note.code == "wrapped" for note in notes):
        data = {"answer": reply}
        notes = [Note("own_words", "the reply is not the object that was asked for")]
    answer = data["answer"]
    if answer is None:
        text = ""
    elif isinstance(answer, str):
        text = answer.strip()
    else:
        text = dump_text(answer)
    if not text:
        raise UnreadableReply("there is no text in the answer.")
    return text, notes


@dataclass
class ExistingBBoxDataGenConfig:
    """What to draw, and from where to where.

    `max_boxes` None keeps all boxes. Without a path the storage's own file is read, or written.
    """

    max_boxes: int | None = 10
    input_jsonl_path: str | None = None
    output_jsonl_path: str | None = None


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
        """Work through the rows; return the name of the column with the pictures' paths.

        `keys` are RegionMarker's other columns.
        """
        step_storage = _StepWithOtherFiles(FileStorage.like(storage), self.cfg)
        with_folder = copy.copy(self)
        with_folder.output_dir = step_storage.cache_path
        return super(ImageBboxGenerator, with_folder).run(
            step_storage, input_image_key=input_image_key, input_bbox_key=input_bbox_key, **keys
        )


class _StepWithOtherFiles(FileStorage):
    """A storage's step that reads and writes the files of a config where these are named."""

    def __init__(self, storage: FileStorage, config: ExistingBBoxDataGenConfig) -> None:
        self.__dict__.update(vars(storage))
        # Images are looked for beside this file.
        self.first_entry_file_name = config.input_jsonl_path or storage.input_path
        self._writes = config.output_jsonl_path or storage.output_path

    def path_of(self, step: int) -> str:
        """The file that is read for its own step, the one that is written for the next."""
        return self.first_entry_file_name if step == self.operator_step else self._writes
