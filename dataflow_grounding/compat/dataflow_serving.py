"""A serving of DataFlow's for our operators.

DataFlow's servings are called by one of three methods, which take pictures as files and return
texts. `DataFlowServing` makes such calls of our requests.
"""

import asyncio
import os
import tempfile
from typing import Any

from dataflow_grounding._util.errors import RequestRefused, ServerFault, SpecError
from dataflow_grounding._util.secrets import excerpt, learn, learn_address
from dataflow_grounding.images.image import Image, ImageLimits
from dataflow_grounding.serving.client_errors import fault_of_client
from dataflow_grounding.serving.serving import Reply, Serving
from dataflow_grounding.tasks import Request
from dataflow_grounding.tasks.request import Turn

MESSAGES = "generate_from_input_messages"
ONE_IMAGE = "generate_from_input_one_image"
PATHS = "generate_from_input"
METHODS = (MESSAGES, ONE_IMAGE, PATHS)
"""Of a serving that has several, the first one is called."""

# By the media type of a picture, how the name of its file ends.
_ENDINGS = {"image/jpeg": ".jpg", "image/png": ".png"}


class DataFlowServing(Serving):
    """A serving of DataFlow-MM or of DataFlow as ours.

    It is asked for one reply at a time, up to its `max_workers` at once, so that each is stored
    when it comes. It returns only texts: no tokens are counted, and a reply that was cut off can
    only be recognized by its JSON.
    """

    image_limits = ImageLimits(media_types=("image/jpeg", "image/png"))

    def __init__(self, serving: Any, *, box_format: str = "auto") -> None:
        """Wrap a serving; `box_format` says how its model writes boxes, `auto` by its name.

        Raises SpecError where it has none of the methods that are called.
        """
        method = next((name for name in METHODS if callable(getattr(serving, name, None))), None)
        if method is None:
            raise SpecError(
                f"{type(serving).__name__} is not a serving: it has no {' or '.join(METHODS)}"
            )
        # Keys that are learnt are blotted out of all that is shown.
        learn(getattr(serving, "api_key", None), os.environ.get("DF_API_KEY"))
        self._serving = serving
        self._method = method
        self.takes_turns = method == MESSAGES
        self.model = str(getattr(serving, "model_name", None) or type(serving).__name__)
        self.endpoint = learn_address(
            str(getattr(serving, "api_url", None) or f"dataflow:{type(serving).__name__}")
        )
        self.max_workers = int(getattr(serving, "max_workers", None) or 10)
        self.box_format = box_format

    async def answer(self, request: Request[Any]) -> Reply:
        """Return the text that the serving replies with, or raise what kept it from one."""
        count = len(request.images)
        takes_one_picture = self._method != MESSAGES
        if takes_one_picture and count != 1:
            raise RequestRefused(
                f"{self.model} takes one picture, and a {request.task} request has"
                f" {count or 'none'}"
            )
        return Reply(await asyncio.to_thread(self._generate, request))

    def _generate(self, request: Request[Any]) -> str:
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for number, image in enumerate(request.images):
                paths.append(_as_file(image, folder, number))
            try:
                texts = self._texts(request, paths)
            except Exception as error:  # anything that the client beneath it raises
                where = f"{self.model} ({type(error).__name__})"
                said = f"{where}: {excerpt(str(error), 200)}"
                raise fault_of_client(error, where) or ServerFault(said) from None
        text = texts[0] if texts else None
        # Some servings return a text on what went wrong in place of a reply.
        if not isinstance(text, str) or text.startswith("Error:"):
            raise ServerFault(f"{self.model} gave no reply: {excerpt(str(text), 200)}")
        return text

    def _texts(self, request: Request[Any], paths: list[str]) -> Any:
        """Return what the serving returns: a list of one text if all is well, or anything else."""
        if self._method == MESSAGES:
            turns = [_turn_in_both_spellings(message) for message in request.messages]
            generate = self._serving.generate_from_input_messages
            return generate(
                conversations=[turns],
                image_list=[paths] if paths else None,
                system_prompt=request.system,
            )
        if self._method == ONE_IMAGE:
            return self._serving.generate_from_input_one_image(
                paths, [request.text], request.system
            )
        # This oldest method takes one text for each picture, and no system message.
        return self._serving.generate_from_input(paths, f"{request.system}\n\n{request.text}")


def _turn_in_both_spellings(message: Turn) -> dict[str, str]:
    """Return a turn for DataFlow-MM's servings of endpoints, and for those of local models."""
    speaker = "human" if message.role == "user" else "gpt"
    return {
        # what servings of endpoints read
        "role": message.role,
        "content": message.text,
        # what those of local models read, with an `<image>` for each picture
        "from": speaker,
        "value": "<image>" * len(message.images) + message.text,
    }


def _as_file(image: Image, folder: str, number: int) -> str:
    """Return the path of a file with the picture as it is sent, its own or a new one."""
    # Servings go by the ending of its name.
    ending = _ENDINGS.get(image.sent_media_type, "")  # any ending will do for another type
    if image.as_is and image.path.endswith(ending):
        return image.path
    path = os.path.join(folder, f"picture{number}{ending}")
    with open(path, "wb") as file:
        file.write(image.sent_bytes())
    return path
