"""Task `prompted_vqa`: a free answer to a prompt about a picture."""

from __future__ import annotations

from dataflow_grounding.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.images import Image
from dataflow_grounding.prompts import load_prompt
from dataflow_grounding.replies import read_object
from dataflow_grounding.tasks.request import Request
from dataflow_grounding.tasks.schema import STRING, object_of


def prompted_vqa(image: Image, prompt: str, system_prompt: str = "") -> Request[str]:
    """Ask what `prompt` asks; the answer is a text, in JSON or bare."""
    return Request(
        task="prompted_vqa",
        input={"prompt": prompt},
        images=(image,),
        instructions=load_prompt("prompted_vqa").replace("{system_prompt}", system_prompt),
        schema=object_of(answer=STRING),
        read=_read,
    )


def _read(reply: str) -> tuple[str, list[str]]:
    notes: list[str] = []
    answer: object = reply
    try:
        data, notes = read_object(reply, required="answer")
        answer = data["answer"]
    except TruncatedReply:
        raise
    except UnreadableReply:
        notes = ["own_words: the reply is a text, not the object that was asked for"]
    text = answer.strip() if isinstance(answer, str) else ""
    if not text:
        raise UnreadableReply("there is no text in the answer.")
    return text, notes
