"""A model of Hugging Face transformers', loaded into this process: `LoadedModel`.

It answers several requests at once. Where memory doesn't suffice for them, they are halved.
"""

import importlib.util
import os
import re
from asyncio import Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dataflow_grounding._util.errors import (
    EndpointRefused,
    GroundingError,
    RequestRefused,
    ServerFault,
)
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding._util.terminal import say
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.serving.serving import Reply, Usage
from dataflow_grounding.tasks.request import Request

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage


@dataclass(eq=False)
class Asked:
    """A request that waits for its reply."""

    request: Request[Any]
    pictures: "list[PillowImage]"  # decoded, in the size that is sent
    temperature: float  # 0 for the likeliest token each time
    reply: "Future[Reply]"


class LoadedModel:
    """A model with its processor. ValueError: weights are missing, or an adapter can't be read."""

    def __init__(self, serving: Any) -> None:
        import torch

        device = _best_device() if serving.device == "auto" else serving.device
        say(f"Loading {serving.model} on {device}")
        _check_adapter(serving.model)
        self.processor, model = _load(serving)
        self.model = model.to(device).eval()
        self.name = serving.model
        self._max_output_tokens = serving.max_output_tokens
        self._torch = torch
        tokenizer = self.processor.tokenizer
        # Requests of a batch are filled up on the left, so that all replies begin at one place.
        tokenizer.padding_side = "left"
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        ends = model.generation_config.eos_token_id or tokenizer.eos_token_id  # one, or a list
        self._end_tokens = {ends} if isinstance(ends, int) else set(ends or ())
        # This raises where the model has no chat template.
        self.processor.apply_chat_template([{"role": "user", "content": _text_parts("?")}])
        # Makes a system message's content of a text; None for a template without such messages.
        self._system_content = self._system_message_form()
        self._special = _special_tokens(tokenizer)

    def _system_message_form(self) -> Callable[[str], Any] | None:
        """The chat template wants a list of parts, or a text, or takes no system messages: None."""
        forms: tuple[Callable[[str], Any], ...] = (_text_parts, str)
        for form in forms:
            if self._takes_system_messages_as(form):
                return form
        return None

    def answers(self, batch: "Sequence[Asked]") -> list[Reply | Exception]:
        """Return each one's reply or error. Requests that fail together are tried in halves."""
        try:
            return [*self._generate(batch)]
        except Exception as error:
            failure = self._failure_of(error)
        has_gpu_failed = isinstance(failure, EndpointRefused)  # nothing mends that in this process
        if has_gpu_failed or len(batch) == 1:
            return [failure] * len(batch)
        half = len(batch) // 2
        return [*self.answers(batch[:half]), *self.answers(batch[half:])]

    def _failure_of(self, error: Exception) -> GroundingError:
        # older versions of torch have no such class: an empty tuple then, of which nothing is one
        accelerator_error = getattr(self._torch, "AcceleratorError", ())
        if isinstance(error, accelerator_error):
            return EndpointRefused(f"{self.name}: the GPU failed: {message_of(error)}")
        if isinstance(error, self._torch.OutOfMemoryError | MemoryError):
            return ServerFault(f"{self.name}: {message_of(error)}")
        return RequestRefused(f"{self.name}: {message_of(error)}")

    def _generate(self, batch: "Sequence[Asked]") -> list[Reply]:
        inputs = self.processor.apply_chat_template(
            [self._conversation(asked) for asked in batch],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs={"padding": True},
        )
        with self._torch.inference_mode():
            inputs = inputs.to(self.model.device, dtype=self.model.dtype)
            written = self.model.generate(
                **inputs,
                max_new_tokens=self._max_output_tokens,
                stopping_criteria=[partial(self._stop_if_abandoned, batch)],
                **_sampling(batch[0].temperature),  # the same for the whole batch
            )
        input_tokens = inputs["attention_mask"].sum(dim=1).tolist()  # without the padding
        padded_length = inputs["input_ids"].shape[1]
        output_tokens = written[:, padded_length:].tolist()  # what follows the request
        replies = []
        for tokens, sent in zip(output_tokens, input_tokens, strict=True):
            replies.append(self._reply(tokens, input_tokens=sent))
        return replies

    def _stop_if_abandoned(self, batch: "Sequence[Asked]", tokens: Any, *_: Any) -> Any:
        """Called after each token: nobody waits for the batch where the run was interrupted."""
        nobody_waits = all(asked.reply.done() for asked in batch)
        return self._torch.full(
            (len(tokens),), nobody_waits, dtype=self._torch.bool, device=tokens.device
        )

    def _conversation(self, asked: Asked) -> list[JsonObject]:
        request = asked.request
        content: list[JsonObject] = [
            {"type": "image", "image": picture} for picture in asked.pictures
        ]
        # A caption may hold the text of a special token, such as `<|im_end|>`, which would mean
        # something to the model. The text is JSON, so the token's first character can be escaped:
        # `\u003c|im_end|>`.
        text = self._special.sub(_with_escaped_start, request.text)
        if self._system_content is None:  # the system prompt goes before the text
            content += _text_parts(f"{request.system}\n\n{text}")
            return [{"role": "user", "content": content}]
        content += _text_parts(text)
        system = {"role": "system", "content": self._system_content(request.system)}
        return [system, {"role": "user", "content": content}]

    def _takes_system_messages_as(self, form: Callable[[str], Any]) -> bool:
        """Some templates raise for one, leave it out, or print a list as Python's text."""
        sample = "of its own"
        messages = [
            {"role": "system", "content": form(sample)},
            {"role": "user", "content": _text_parts("?")},
        ]
        try:
            written = str(self.processor.apply_chat_template(messages))
        except Exception:
            return False
        is_printed_list = "'text'" in written  # [{'type': 'text', …}]
        return sample in written and not is_printed_list

    def _reply(self, tokens: list[int], input_tokens: int) -> Reply:
        ends = [index for index, token in enumerate(tokens) if token in self._end_tokens]
        if ends:
            finish_reason = "stop"
            text_tokens = tokens[: ends[0]]
            written = len(text_tokens) + 1  # the token that ends it counts
        else:  # it was cut off
            finish_reason = "length"
            text_tokens = tokens
            written = len(tokens)
        # Special tokens stay in the text: some models write boxes with them.
        text = self.processor.tokenizer.decode(text_tokens, skip_special_tokens=False)
        return Reply(text.strip(), finish_reason, Usage(input_tokens, 0, written))


def message_of(error: BaseException) -> str:
    """Return the beginning of an error's message on one line; its class's name without any."""
    return excerpt(str(error) or type(error).__name__, 300)


def _sampling(temperature: float) -> JsonObject:
    if temperature:
        return {"do_sample": True, "temperature": temperature}
    # The model's own settings for sampling are unset: transformers would warn that they have no
    # effect.
    return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


def _load(serving: Any) -> tuple[Any, Any]:
    """The processor and the model."""
    import transformers

    from_hub: JsonObject = {"revision": serving.revision, "trust_remote_code": False}
    # `from_hub` comes second and replaces settings of the user's: these can't have code run that
    # comes with a model.
    processor = transformers.AutoProcessor.from_pretrained(
        serving.model, **{**serving.processor, **from_hub}
    )
    model, loading_info = transformers.AutoModelForImageTextToText.from_pretrained(
        serving.model, dtype=serving.dtype, output_loading_info=True, **from_hub
    )
    _check_weights(loading_info)
    return processor, model


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def _check_adapter(model: str) -> None:
    has_adapter = os.path.exists(os.path.join(model, "adapter_config.json"))
    if has_adapter and not importlib.util.find_spec("peft"):
        raise ValueError(
            "it has an adapter, which only peft reads: install that, or merge it into the weights"
        )


def _check_weights(loading_info: JsonObject) -> None:
    """transformers fills parts without weights with random numbers, and only warns."""
    without_weights = [*loading_info["missing_keys"], *loading_info["mismatched_keys"]]
    if without_weights:
        raise ValueError(
            f"its files have no weights for {len(without_weights)} of its parts, such as"
            f" {without_weights[0]}"
        )


def _special_tokens(tokenizer: Any) -> re.Pattern[str]:
    patterns = []
    for token in tokenizer.added_tokens_decoder.values():
        if token.special and token.content.strip():
            patterns.append(re.escape(token.content))
    matches_nothing = r"(?!)"
    return re.compile("|".join(patterns) or matches_nothing)


def _with_escaped_start(token: re.Match[str]) -> str:
    text = token[0]
    return f"\\u{ord(text[0]):04x}{text[1:]}"


def _text_parts(text: str) -> list[JsonObject]:
    return [{"type": "text", "text": text}]
