"""A VLM in this process: a model of Hugging Face transformers', on the machine's own GPU or CPU."""

import asyncio
import glob
import hashlib
import importlib.util
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dataflow_grounding.errors import EndpointRefused, MissingExtra, RequestRefused, ServerFault, SpecError, needs_extra
from dataflow_grounding.secrets import excerpt
from dataflow_grounding.serving.base import Reply, Serving, Usage, check_settings
from dataflow_grounding.serving.transport import PerLoop
from dataflow_grounding.tasks.request import Request
from dataflow_grounding.terminal import say

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

SAMPLES, SAMPLE_BYTES = 64, 2**16  # of each file of weights, evenly spread: any training changes nearly all of them

_turn = threading.Lock()
"""Held by the thread that has the processor: two that generate at once take twice the memory and no less time."""


class LocalServing(Serving):
    """A chat model with images, loaded by transformers when it is first asked (extra `local`).

    Requests that wait for each other are answered together, up to `max_workers` of them; where memory doesn't do for
    that, for half as many, and so on. Code that comes with a model is not run.

    Args:
        model_name: The model's name on the Hub, or a folder that `save_pretrained` wrote.
        max_workers: Most requests answered together.
        revision: Branch, tag or commit on the Hub.
        device: torch's name of where it runs, `cuda:1`; `auto` takes a GPU if there is one.
        dtype: torch's name of the numbers it counts in, `bfloat16`; `auto` is what its weights are saved in.
        processor: Settings of the model's processor, other than its own: `{"max_pixels": 1003520}`.
        temperature: What to sample at; 0 takes the likeliest token each time.
        max_tokens: Most tokens of one reply.
        num_gpus: How many GPUs each worker on Ray has for itself; parts of one are shared, 0 is for models on the CPU.
        box_format: How the model writes boxes; `auto` looks the model up by name.

    Raises:
        SpecError: For a setting that can't be.

    Example:
        >>> LocalServing("Qwen/Qwen3-VL-2B-Instruct", revision="main", device="cpu", num_gpus=0)
        LocalServing('Qwen/Qwen3-VL-2B-Instruct')
    """

    free = True

    def __init__(
        self,
        model_name: str,
        max_workers: int = 8,
        *,
        revision: str = "main",
        device: str = "auto",
        dtype: str = "auto",
        processor: Mapping[str, Any] | None = None,
        temperature: float = 0.3,
        max_tokens: int = 2048,
        num_gpus: float = 1,
        box_format: str = "auto",
    ) -> None:
        if not model_name:
            raise SpecError("no model is named: set vlm.local.model_name")
        check_settings(1, temperature, max_tokens=max_tokens, max_workers=max_workers)
        self.model, self.max_workers, self.box_format = model_name, max_workers, box_format
        self.revision, self.device, self.dtype, self.processor = revision, device, dtype, dict(processor or {})
        self.temperature, self.max_output_tokens, self.num_gpus = temperature, max_tokens, num_gpus
        self._loaded: _Model | None = None
        self._queue = PerLoop(_Queue)

    @cached_property
    def endpoint(self) -> str:  # type: ignore[override]
        """Where the model is: here, and which of those that are called so."""
        processor = f":{json.dumps(self.processor, sort_keys=True)}" if self.processor else ""  # it sets the frame
        return f"local:{self._digest[:12]}{processor}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}  # each process loads its own

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"

    @cached_property
    def _digest(self) -> str:
        """Tells apart what answers: the Hub's commit, or the folder's contents. Raises MissingExtra, SpecError."""
        if os.path.isdir(self.model):
            return _digest_of(self.model)
        with needs_extra("vlm.backend local", "local"):
            from huggingface_hub import hf_hub_download
        try:
            path = hf_hub_download(self.model, "config.json", revision=self.revision)
        except Exception as error:
            raise SpecError(f"can't have {self.model} ({self.revision}) from the Hub: {_said(error)}") from None
        return os.path.basename(os.path.dirname(path))

    def obstacles(self) -> list[str]:
        if not all(map(importlib.util.find_spec, ("torch", "transformers"))):
            return [str(MissingExtra("vlm.backend local", "local"))]
        try:
            return [] if self._digest else [f"{self.model} holds no model: it lacks config.json"]
        except SpecError as error:
            return [str(error)]

    def identity(self) -> dict[str, Any]:
        sampling = {"temperature": self.temperature, "max_tokens": self.max_output_tokens}
        return {**super().identity(), "revision": self._digest, "dtype": self.dtype, **sampling}

    async def answer(self, request: Request[Any]) -> Reply:
        pictures = [await asyncio.to_thread(image.sent_picture) for image in request.images]
        asked = _Asked(request, pictures, request.temperature(self.temperature) or 0.0, asyncio.Future())
        queue = self._queue.get()
        queue.waiting.append(asked)
        try:
            async with queue.turn:  # whoever's turn it is asks for all that wait
                while not asked.reply.done():
                    await queue.work(self._replies, self.max_workers)
            return await asked.reply
        finally:
            asked.reply.cancel()  # where nobody waits for it any more

    def _replies(self, batch: "Sequence[_Asked]") -> list[Reply | Exception]:
        """The reply to each, or what went wrong with it."""
        with _turn:
            try:
                self._loaded = self._loaded or _Model(self)
            except Exception as error:
                return [EndpointRefused(f"{self.model} can't be loaded: {_said(error)}")] * len(batch)
            return self._loaded.answers(batch)


@dataclass(eq=False)
class _Asked:
    """A request that waits for its reply."""

    request: Request[Any]
    pictures: "list[PillowImage]"
    temperature: float
    reply: "asyncio.Future[Reply]"


class _Queue:
    """What waits in one event loop."""

    def __init__(self) -> None:
        self.waiting: list[_Asked] = []
        self.turn = asyncio.Lock()

    async def work(self, answers: "Callable[[Sequence[_Asked]], list[Reply | Exception]]", most: int) -> None:
        """Have the first answered, and of those behind it as many as are sampled at the same temperature."""
        wanted = [one for one in self.waiting if not one.reply.done()]
        batch = [one for one in wanted if one.temperature == wanted[0].temperature][:most]
        replies = await asyncio.to_thread(answers, batch)
        for one, reply in zip(batch, replies, strict=True):
            if one.reply.done():  # its task was cancelled meanwhile
                continue
            if isinstance(reply, Reply):
                one.reply.set_result(reply)
            else:
                one.reply.set_exception(reply)
        self.waiting = [one for one in self.waiting if not one.reply.done()]


class _Model:
    """A loaded model with its processor. Raises whatever transformers raises."""

    def __init__(self, given: LocalServing) -> None:
        import torch
        import transformers

        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        device = ("cuda" if cuda else "mps" if mps else "cpu") if given.device == "auto" else given.device
        say(f"Loading {given.model} on {device}")
        where: dict[str, Any] = {"revision": given.revision, "trust_remote_code": False}
        self.processor = transformers.AutoProcessor.from_pretrained(given.model, **where, **given.processor)
        model = transformers.AutoModelForImageTextToText.from_pretrained(given.model, dtype=given.dtype, **where)
        self.model, self.name, self._most = model.to(device).eval(), given.model, given.max_output_tokens
        self._torch, tokenizer = torch, self.processor.tokenizer
        tokenizer.padding_side = "left"  # so that all replies begin at once
        ends = model.generation_config.eos_token_id or tokenizer.eos_token_id
        self._ends = {ends} if isinstance(ends, int) else set(ends or ())
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        self._has_system = "of its own" in self._rendered([{"role": "system", "content": _words("of its own")}])

    def answers(self, batch: "Sequence[_Asked]") -> list[Reply | Exception]:
        """The reply to each, or what went wrong with it; what fails together is tried in halves."""
        try:
            return [*self._generate(batch)]
        except Exception as error:
            if isinstance(error, getattr(self._torch, "AcceleratorError", ())):  # nothing more works in this process
                return [EndpointRefused(f"{self.name}: the GPU failed: {_said(error)}")] * len(batch)
            out_of_memory = isinstance(error, self._torch.OutOfMemoryError | MemoryError)
            wrong = (ServerFault if out_of_memory else RequestRefused)(f"{self.name}: {_said(error)}")
        if len(batch) == 1:
            return [wrong]
        half = len(batch) // 2
        return [*self.answers(batch[:half]), *self.answers(batch[half:])]

    def _generate(self, batch: "Sequence[_Asked]") -> list[Reply]:
        conversations = [self._conversation(one) for one in batch]
        form: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
        form |= {"add_generation_prompt": True, "processor_kwargs": {"padding": True}}
        form |= {"sanitize_control_tokens": True}  # a caption may hold some
        asked = self.processor.apply_chat_template(conversations, **form)
        temperature = batch[0].temperature
        sampling: dict[str, Any] = {"do_sample": True, "temperature": temperature}
        if not temperature:
            sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        with self._torch.inference_mode():
            asked = asked.to(self.model.device, dtype=self.model.dtype)
            written = self.model.generate(**asked, max_new_tokens=self._most, **sampling)
        sizes = asked["attention_mask"].sum(dim=1).tolist()
        replies = written[:, asked["input_ids"].shape[1] :].tolist()
        return [self._reply(tokens, size) for tokens, size in zip(replies, sizes, strict=True)]

    def _conversation(self, asked: _Asked) -> list[dict[str, Any]]:
        request = asked.request
        content: list[dict[str, Any]] = [{"type": "image", "image": picture} for picture in asked.pictures]
        if self._has_system:
            system = [{"role": "system", "content": _words(request.system)}]
            return [*system, {"role": "user", "content": content + _words(request.text)}]
        return [{"role": "user", "content": content + _words(f"{request.system}\n\n{request.text}")}]

    def _rendered(self, messages: list[dict[str, Any]]) -> str:
        import jinja2

        try:
            return str(self.processor.apply_chat_template([*messages, {"role": "user", "content": _words("?")}]))
        except jinja2.TemplateError:  # some say so, others leave it out
            return ""

    def _reply(self, tokens: list[int], sent: int) -> Reply:
        end = next((i for i, token in enumerate(tokens) if token in self._ends), None)
        # tokens of the model's own stay in the text: some write boxes with them
        text = self.processor.tokenizer.decode(tokens[:end], skip_special_tokens=False)
        usage = Usage(sent, 0, len(tokens) if end is None else end + 1)
        return Reply(text.strip(), "length" if end is None else "stop", usage)


def _words(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}]


def _digest_of(folder: str) -> str:
    """Of a model's files: small ones whole, SAMPLES of the others. Empty where it isn't a model's folder."""
    if not os.path.exists(os.path.join(folder, "config.json")):
        return ""
    digest = hashlib.sha256()
    for path in sorted(filter(os.path.isfile, glob.glob(os.path.join(glob.escape(folder), "*")))):
        size = os.path.getsize(path)
        digest.update(f"{os.path.basename(path)}:{size};".encode())
        with open(path, "rb") as file:
            for place in range(0, size, max(SAMPLE_BYTES, size // SAMPLES)):
                file.seek(place)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def _said(error: BaseException) -> str:
    return excerpt(str(error) or type(error).__name__, 200)
