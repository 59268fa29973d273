"""Whether an endpoint holds replies to a schema, found out by a question.

An endpoint that accepts a schema may ignore it, as `transformers serve` and LiteLLM in front of
some providers do. The question's schema allows one value alone, which is in no prompt: a reply has
it only where the schema is kept to.
"""

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding.engine.reply_line import line_of, read_line
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies import Note
from dataflow_grounding.replies.json_text import strict_json
from dataflow_grounding.replies.text import answer_of, enclosed
from dataflow_grounding.serving.serving import Serving, reply_of
from dataflow_grounding.tasks.request import Prompt, Request, object_of

KEPT = "kept"
FREE = "ignored or refused: a reply came as free text"
OTHER_JSON = "not kept: a reply came as JSON of another form"
NOT_KNOWN = "not known"

_TASK = "reply_form"
_VALUE = {"seal": "kept-4711"}
_SCHEMA = object_of(seal={"type": "string", "enum": ["kept-4711"]})
# A model that wants to write a plain word, but is held to JSON, may write blanks up to its token
# limit. So the question allows JSON. OpenAI also refuses a request for JSON whose text doesn't have
# the word "JSON" in it.
_INSTRUCTIONS = (
    "What color is the square in the picture? Answer with one word, in plain text. Only if you"
    " can't write plain text, write JSON with that word."
)
_SYSTEM = "You look at a picture and answer a question about it."
_LONGEST = 300  # characters of an error


async def schema_kept(serving: Serving, image: Image) -> str:
    """Ask once; return KEPT, FREE, OTHER_JSON, or NOT_KNOWN with the reason."""
    request = Request(
        task=_TASK,
        input={},
        images=(image,),
        instructions=_INSTRUCTIONS,
        schema=_SCHEMA,
        read=_read,
        prompt=Prompt(system=_SYSTEM),
    )
    try:
        reply = await reply_of(serving, request)
        # Read as a run reads a stored reply: one that was cut off, say, is no answer.
        line = line_of("doctor", request, serving, reply, check=True)
        said, _ = read_line(request, line, attempts=1)
    except RecordError as error:
        return f"{NOT_KNOWN}: {excerpt(str(error), _LONGEST)}"
    except Exception as error:
        # A serving of the user's own may answer certain tasks alone, and raise anything.
        return f"{NOT_KNOWN}: {type(error).__name__}: {excerpt(str(error), _LONGEST)}"
    return said


def _read(reply: str) -> tuple[str, list[Note]]:
    """Return what the reply tells of the schema; there are no notes."""
    answer = enclosed(answer_of(reply))
    value = strict_json(answer.text)
    text_around = (answer.before + answer.after).strip()
    if value is None or text_around:
        return FREE, []
    return (KEPT if value == _VALUE else OTHER_JSON), []
