"""A model of Hugging Face transformers', loaded: it answers several requests at once."""

import importlib.util
import os
import re
from asyncio import Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataflow_grounding._util.errors import EndpointRefused, RequestRefused, ServerFault
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding._util.terminal import say
from dataflow_grounding.serving.base import Reply, Usage
from dataflow_grounding.tasks.request import Request

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage


@dataclass(eq=False)
class Asked:
    """A request that waits for its reply."""

    request: Request[Any]
    pictures: "list[PillowImage]"
    temperature: float
    reply: "Future[Reply]"


class LoadedModel:
    """A model with its processor, loaded as a LocalServing states. Raises whatever transformers
    raises.
    """

    def __init__(self, given: Any) -> None:
        import torch
        import transformers

        device = _best_device() if given.device == "auto" else given.device
        say(f"Loading {given.model} on {device}")
        where: dict[str, Any] = {"revision": given.revision, "trust_remote_code": False}
        if os.path.exists(
            os.path.join(given.model, "adapter_config.json")
        ) and not importlib.util.find_spec("peft"):
            raise ValueError(
                "it has an adapter, which only peft reads: install that, or merge it into the"
                " weights"
            )
        self.processor = transformers.AutoProcessor.from_pretrained(
            given.model, **{**given.processor, **where}
        )
        kind = transformers.AutoModelForImageTextToText
        model, told = kind.from_pretrained(
            given.model, dtype=given.dtype, output_loading_info=True, **where
        )
        if lacking := [*told["missing_keys"], *told["mismatched_keys"]]:
            # transformers fills them with random numbers
            raise ValueError(
                f"its files have no weights for {len(lacking)} of its parts, such as {lacking[0]}"
            )
        self.model, self.name, self._most = (
            model.to(device).eval(),
            given.model,
            given.max_output_tokens,
        )
        self._torch, tokenizer = torch, self.processor.tokenizer
        tokenizer.padding_side = "left"  # so that all replies begin at once
        ends = model.generation_config.eos_token_id or tokenizer.eos_token_id
        self._ends = {ends} if isinstance(ends, int) else set(ends or ())
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        # raises where there is none
        self.processor.apply_chat_template([{"role": "user", "content": _words("?")}])
        self._system = next((form for form in (_words, str) if self._takes(form)), None)
        special = [
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special
        ]
        self._special = re.compile("|".join(map(re.escape, filter(str.strip, special))) or r"(?!)")

    def answers(self, batch: "Sequence[Asked]") -> list[Reply | Exception]:
        """The reply to each, or what went wrong with it; what fails together is tried in halves."""
        try:
            return [*self._generate(batch)]
        except Exception as error:
            if isinstance(error, getattr(self._torch, "AcceleratorError", ())):
                # nothing more works in this process
                return [EndpointRefused(f"{self.name}: the GPU failed: {said_by(error)}")] * len(
                    batch
                )
            out_of_memory = isinstance(error, self._torch.OutOfMemoryError | MemoryError)
            wrong = (ServerFault if out_of_memory else RequestRefused)(
                f"{self.name}: {said_by(error)}"
            )
        if len(batch) == 1:
            return [wrong]
        half = len(batch) // 2
        return [*self.answers(batch[:half]), *self.answers(batch[half:])]

    def _generate(self, batch: "Sequence[Asked]") -> list[Reply]:
        conversations = [self._conversation(one) for one in batch]
        form: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
        form |= {"add_generation_prompt": True, "processor_kwargs": {"padding": True}}
        asked = self.processor.apply_chat_template(conversations, **form)
        temperature = batch[0].temperature
        sampling: dict[str, Any] = {"do_sample": True, "temperature": temperature}
        if not temperature:
            sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}

        # nobody waits for any of them: the run was interrupted
        def left(tokens: Any, *_: Any) -> Any:
            nobody = all(one.reply.done() for one in batch)
            return self._torch.full(
                (len(tokens),), nobody, dtype=self._torch.bool, device=tokens.device
            )

        with self._torch.inference_mode():
            asked = asked.to(self.model.device, dtype=self.model.dtype)
            written = self.model.generate(
                **asked, max_new_tokens=self._most, stopping_criteria=[left], **sampling
            )
        sizes = asked["attention_mask"].sum(dim=1).tolist()
        replies = written[:, asked["input_ids"].shape[1] :].tolist()
        return [self._reply(tokens, size) for tokens, size in zip(replies, sizes, strict=True)]

    def _conversation(self, asked: Asked) -> list[dict[str, Any]]:
        request = asked.request
        content: list[dict[str, Any]] = [
            {"type": "image", "image": picture} for picture in asked.pictures
        ]
        # a caption may hold tokens that mean something to the model: in the input's JSON they can
        # be written otherwise
        text = self._special.sub(
            lambda found: f"\\u{ord(found[0][0]):04x}{found[0][1:]}", request.text
        )
        if self._system is None:
            return [{"role": "user", "content": content + _words(f"{request.system}\n\n{text}")}]
        system = {"role": "system", "content": self._system(request.system)}
        return [system, {"role": "user", "content": content + _words(text)}]

    def _takes(self, form: Callable[[str], Any]) -> bool:
        """Whether the template has a system message in this form: some refuse one, leave it out, or
        print a list.
        """
        messages = [
            {"role": "system", "content": form("of its own")},
            {"role": "user", "content": _words("?")},
        ]
        try:
            written = str(self.processor.apply_chat_template(messages))
        except Exception:
            return False
        return "of its own" in written and "'text'" not in written

    def _reply(self, tokens: list[int], sent: int) -> Reply:
        end = next((i for i, token in enumerate(tokens) if token in self._ends), None)
        # tokens of the model's own stay in the text: some write boxes with them
        text = self.processor.tokenizer.decode(tokens[:end], skip_special_tokens=False)
        usage = Usage(sent, 0, len(tokens) if end is None else end + 1)
        return Reply(text.strip(), "length" if end is None else "stop", usage)


def said_by(error: BaseException) -> str:
    """The beginning of what a library said, on one line."""
    return excerpt(str(error) or type(error).__name__, 300)


def _best_device() -> str:
    import torch

    return (
        "cuda"
        if torch.cuda.is_available()
        else "mps"
        if torch.backends.mps.is_available()
        else "cpu"
    )


def _words(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}]
