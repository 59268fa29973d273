"""Our servings for the operators of DataFlow and DataFlow-MM, and `APIVLMServing_openai`."""

import os
from collections.abc import Sequence
from typing import Any

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.compat.operators import PromptedVQAGenerator
from dataflow_grounding.data.records import Record
from dataflow_grounding.serving.openai_compatible import OpenAIServing
from dataflow_grounding.serving.serving import Serving

HELPFUL = "You are a helpful assistant."
"""The system prompt where a call gives none."""

# A text that ends so is the path of a picture, be there a file or not.
PICTURE_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_NO_VIDEOS = "only pictures are read: give a video's frames as pictures"
_NO_AUDIO = "only pictures are read"
# Arguments that are not supported → why, and what to do instead.
WHY_NOT = {
    "model": "a serving asks the model that it was made with",
    "json_schema": "an answer is a text; say in the prompt how it should be written",
    "video_inputs": _NO_VIDEOS,
    "video_list": _NO_VIDEOS,
    "audio_inputs": _NO_AUDIO,
    "audio_list": _NO_AUDIO,
}


class ServingForDataFlow:
    """Any serving of ours, for operators of DataFlow and DataFlow-MM.

    Each input takes a request, retried and paced as everywhere; one that fails raises its
    GroundingError for the call. An answer is None where ImageBboxGenerator's prompt says that there
    are no regions: nothing is sent for it.

    Args:
        serving: Who answers.

    Example:
        >>> from dataflow_grounding import OpenAIServing
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> with LoopbackServer(CannedAnswers("It is red.")) as server:
        ...     serving = ServingForDataFlow(OpenAIServing(server.base_url, "any-model"))
        ...     serving.generate_from_input_one_image(["square.png"], ["What colour is it?"])
        ['It is red.']
    """

    def __init__(self, serving: Serving) -> None:
        self.serving = serving

    def start_serving(self) -> None:
        """Nothing to start."""

    def cleanup(self) -> None:
        """Nothing to give back: connections are closed after each call."""

    def generate_from_input(
        self,
        user_inputs: Sequence[str],
        system_prompt: str | None = None,
        image_inputs: Sequence[Any] | None = None,
        video_inputs: Sequence[Any] | None = None,
        audio_inputs: Sequence[Any] | None = None,
        json_schema: Any = None,
    ) -> list[str | None]:
        """Return a text for each input, in order.

        Args:
            user_inputs: With `image_inputs`, DataFlow-MM's prompts. Without them, paths of
                pictures, as DataFlow takes them: `system_prompt` is asked of each. Where none is a
                path of a file or picture, they are prompts about no picture.
            system_prompt: The question about pictures at paths, by default "Describe the image in
                detail."; else the system message of each prompt, by default "You are a helpful
                assistant."
            image_inputs: The pictures of each prompt: a path, a list of paths, or None.
            video_inputs, audio_inputs, json_schema: Not supported.

        Raises:
            ValueError: `image_inputs` are more or fewer than the prompts, or paths are mixed with
                prompts.
            SpecError: What is not supported is given.
            GroundingError: An input can't be answered.
        """
        _refuse(
            video_inputs=video_inputs, audio_inputs=audio_inputs, json_schema=json_schema or None
        )
        paths = [text for text in user_inputs if _names_picture(text)]
        are_prompts = image_inputs is not None or not paths
        if are_prompts:  # as DataFlow-MM calls this method
            rows = [{"prompt": text} for text in user_inputs]
            return self._texts(rows, image_inputs, system_prompt or HELPFUL)
        # as DataFlow calls it, with paths
        if len(paths) != len(user_inputs):
            raise ValueError(
                "user_inputs should be prompts, or paths of pictures: give these as image_inputs"
            )
        prompt = system_prompt or "Describe the image in detail."
        return self.generate_from_input_one_image(paths, [prompt] * len(paths))

    def generate_from_input_one_image(
        self,
        image_paths: Sequence[str],
        text_prompts: Sequence[str],
        system_prompt: str = "",
        model: str | None = None,
        timeout: float | None = None,
        json_schema: Any = None,
    ) -> list[str | None]:
        """Return a text for each picture and its prompt, in order.

        Args:
            image_paths: A path for each prompt.
            text_prompts: As many prompts.
            system_prompt: The system message of each; by default none.
            model: None, or the serving's own: no other is supported.
            timeout: Ignored: the serving's own counts.
            json_schema: Not supported.

        Raises:
            ValueError: There are more paths than prompts, or fewer, or one is None or "".
            SpecError: What is not supported is given.
            GroundingError: A prompt can't be answered.
        """
        other_model = None if model == self.serving.model else model
        _refuse(model=other_model, json_schema=json_schema or None)
        if not all(image_paths):
            raise ValueError("image_paths should hold a path for every prompt")
        return self._texts([{"prompt": text} for text in text_prompts], image_paths, system_prompt)

    def generate_from_input_messages(
        self,
        conversations: Sequence[Any],
        image_list: Sequence[Any] | None = None,
        video_list: Sequence[Any] | None = None,
        audio_list: Sequence[Any] | None = None,
        system_prompt: str = HELPFUL,
    ) -> list[str | None]:
        """Return a text for each conversation, in answer to its last turn.

        Args:
            conversations: Lists of turns, `{"role": "user", "content": …}` or
                `{"from": "human", "value": …}`.
            image_list: Each conversation's pictures: a path, a list of paths, or None; None for no
                pictures at all.
            video_list, audio_list: Not supported.
            system_prompt: The system message of each.

        Raises:
            ValueError: `image_list` has more entries than there are conversations, or fewer.
            SpecError: Videos or audio are given.
            GroundingError: A conversation can't be answered.
        """
        _refuse(video_list=video_list, audio_list=audio_list)
        rows = [{"conversation": turns} for turns in conversations]
        return self._texts(rows, image_list, system_prompt)

    def _texts(
        self, rows: Sequence[dict[str, Any]], pictures: Sequence[Any] | None, system_prompt: str
    ) -> list[str | None]:
        if pictures is not None and len(pictures) != len(rows):
            raise ValueError(
                f"prompts and pictures should have the same length, not {len(rows)} and"
                f" {len(pictures)}"
            )
        asker = PromptedVQAGenerator(self.serving, system_prompt)
        records = []
        for number, row in enumerate(rows):
            picture = pictures[number] if pictures else None
            records.append(Record({**row, "image": picture}))
        # If one record fails, the whole call does. So all of them are checked, and a wrong one is
        # refused, before the first request is sent and paid for.
        for record in records:
            asker.look_over(record)
        return [row["answer"] for row in asker(records, on_error="raise")]


def _names_picture(text: str) -> bool:
    return text.lower().endswith(PICTURE_ENDINGS) or os.path.isfile(text)


def _refuse(**arguments: Any) -> None:
    """Raise SpecError for the first argument that asks for something, or has an entry that does:
    None and [] don't.
    """
    for name, value in arguments.items():
        entries = value if isinstance(value, (list, tuple)) else [value]
        if any(entry is not None and entry != [] for entry in entries):
            raise SpecError(f"{name} is not supported: {WHY_NOT[name]}")


class APIVLMServing_openai(ServingForDataFlow, OpenAIServing):
    """OpenAIServing with the arguments of DataFlow-MM's class of this name, in order.

    It takes DataFlow's `temperature`, too.

    Args:
        api_url: Address of the endpoint.
        key_name_of_api_key: The environment variable with its key.
        model_name: The model's name at the endpoint.
        image_io: Not supported.
        send_request_stream: Not heeded: a reply comes whole either way.
        max_workers: Most requests in flight.
        timeout: Seconds for one request.
        temperature: What to sample at; None leaves it to the model.
        box_format: How the model writes boxes; `auto` looks the model up by name.

    Raises:
        SpecError: The key is not set, or `image_io` is given.
    """

    def __init__(
        self,
        api_url: str = "https://api.openai.com/v1",
        key_name_of_api_key: str = "DF_API_KEY",
        model_name: str = "o4-mini",
        image_io: Any = None,
        send_request_stream: bool = False,
        max_workers: int = 10,
        timeout: int = 1800,
        *,
        temperature: float | None = None,
        box_format: str = "auto",
    ) -> None:
        if image_io is not None:
            how = "pictures are read from their paths. Give max_workers by its name"
            raise SpecError(f"image_io is not supported: {how}")
        if not os.environ.get(key_name_of_api_key):
            raise SpecError(f"no API key: set the environment variable {key_name_of_api_key}")
        OpenAIServing.__init__(
            self,
            api_url,
            model_name,
            key_name_of_api_key,
            max_workers,
            timeout,
            temperature=temperature,
        )
        ServingForDataFlow.__init__(self, serving=self)
        self.api_url = api_url
        self.model_name = model_name
        self.box_format = box_format
