"""DataFlow's `PromptedVQAGenerator`: a free answer to each row's prompt about its picture."""

from __future__ import annotations

from typing import Any

from dataflow_grounding.compat.dataflow_serving import DataFlowServing
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.errors import SpecError, TruncatedReply, UnreadableReply
from dataflow_grounding.images import open_image
from dataflow_grounding.operators import OPERATOR_REGISTRY, Operator
from dataflow_grounding.prompts import load_prompt
from dataflow_grounding.records import Record, Update, read_text
from dataflow_grounding.replies import Note, read_object
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.tasks.request import STRING, Request, object_of


@OPERATOR_REGISTRY.register()
class PromptedVQAGenerator(Operator):
    """Asks each row's prompt about its picture; `serving` may be ours or DataFlow's."""

    name = "prompted_vqa"
    input_keys = {"image": "image", "prompt": "prompt"}
    output_keys = {"answer": "answer"}
    descriptions = {"en": "Reads prompts and images and writes answers.", "zh": "读取提示词与图像,生成回答。"}

    def __init__(self, serving: Any, system_prompt: str = "You are a helpful assistant.") -> None:
        self.serving: Serving = serving if isinstance(serving, Serving) else DataFlowServing(serving)
        self.system_prompt = system_prompt

    def run(self, storage: Any, **keys: str | None) -> str:
        """Work through the rows. Raises SpecError for DataFlow's keys of videos and conversations."""
        for other in ("input_video_key", "input_conversation_key"):
            if keys.pop(other, None):
                raise SpecError(f"{other} is not supported: give input_image_key and input_prompt_key")
        return super().run(storage, **{name: key for name, key in keys.items() if key is not None})

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds the answer."""
        request = Request(
            task="prompted_vqa",
            input={"prompt": read_text(record, self.keys.prompt)},
            images=(open_image(record, self.keys.image, self.serving.image_limits),),
            instructions=load_prompt("prompted_vqa").replace("{system_prompt}", self.system_prompt),
            schema=object_of(answer=STRING),
            read=_read,
        )
        return {self.keys.answer: await ask(request)}


def _read(reply: str) -> tuple[str, list[Note]]:
    try:
        data, notes = read_object(reply, required="answer")
    except TruncatedReply:
        raise
    except UnreadableReply:
        note = Note("own_words", "the reply is a text, not the object that was asked for")
        data, notes = {"answer": reply}, [note]
    text = data["answer"].strip() if isinstance(data["answer"], str) else ""
    if not text:
        raise UnreadableReply("there is no text in the answer.")
    return text, notes
