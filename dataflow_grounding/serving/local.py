"""A VLM in this process: a model of Hugging Face transformers', on the machine's own GPU or CPU.

`LocalServing` collects requests that wait at the same time, and has the model answer them together.
"""

import asyncio
import glob
import hashlib
import importlib.util
import json
import os
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from dataflow_grounding._util.errors import (
    EndpointRefused,
    GroundingError,
    MissingExtra,
    SpecError,
    needs_extra,
)
from dataflow_grounding._util.loop_thread import kept_open, on_loop
from dataflow_grounding._util.settings import setting
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.serving._local_model import Asked, LoadedModel, message_of
from dataflow_grounding.serving.serving import Reply, Serving, check_settings
from dataflow_grounding.tasks.request import Request

# Seconds for which further requests are waited for: those that were just answered are followed by
# the next ones of the run.
LINGER = 0.03
# Samples of each large file that a model's digest reads, evenly spread. Any training changes nearly
# all of the weights, and so the samples.
SAMPLES = 64
SAMPLE_BYTES = 2**16  # the size of a sample

_one_generates = threading.Lock()
"""Held by the thread in which a model generates.

Two that generate at once would take twice the memory and no less time.
"""


class LocalServing(Serving):
    """A chat model with images, loaded by transformers when it is first asked (extra `local`).

    Requests that wait at the same time are answered together, up to `max_workers` of them; where
    memory doesn't suffice for that, half as many, and so on. Code that comes with a model is not
    run.

    Args:
        model_name: The model's name on the Hub, or a folder that `save_pretrained` wrote.
        max_workers: Most requests answered together.
        revision: Branch, tag or commit on the Hub.
        device: torch's name of the device that it runs on, `cuda:1`; `auto` takes a GPU if there is
            one.
        dtype: torch's name of the type of its numbers, `bfloat16`; `auto` is the type in which its
            weights are saved.
        processor: Settings of the model's processor, other than its own: `{"max_pixels": 1003520}`.
        temperature: What to sample at; 0 takes the likeliest token each time.
        max_tokens: Most tokens of one reply.
        num_gpus: How many GPUs each worker on Ray has for itself; parts of one are shared, 0 is for
            models on the CPU.
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
        processor: JsonObject | None = None,
        temperature: float = 0.3,
        max_tokens: int = 2048,
        num_gpus: float = 1,
        box_format: str = "auto",
    ) -> None:
        if not model_name:
            raise SpecError("no model is named: set vlm.local.model_name")
        folder = os.path.expanduser(model_name)
        if model_name.startswith((".", "/", "~")) and not os.path.isdir(folder):
            raise SpecError(f"vlm.local.model_name: there is no folder {model_name}")
        no_limit = 1  # any time that passes the check: a model in this process has no time limit
        check_settings(no_limit, temperature, max_tokens=max_tokens, max_workers=max_workers)
        self.model = folder
        self.max_workers = max_workers
        self.box_format = box_format
        self.revision = revision
        self.device = device
        self.dtype = dtype
        self.processor = dict(processor or {})
        self.temperature = temperature
        self.max_output_tokens = max_tokens
        self.num_gpus = num_gpus
        self._loaded: LoadedModel | None = None

    @cached_property
    def endpoint(self) -> str:  # type: ignore[override]
        """What replaces an address:

        - `local:3f9c…` with a digest of commit or files, which tells models of the same name apart,
        - `local:3f9c…:{"max_pixels": 1003520}` with the processor's settings, which change the size
          in which a model sees pictures,
        - `local:` where the folder holds no model,
        - `local` where the digest can't be had.
        """
        processor = ""
        if self.processor:
            processor = f":{json.dumps(self.processor, sort_keys=True)}"
        try:
            return f"local:{self._digest[:12]}{processor}"
        except GroundingError:  # `obstacles` reports the error
            return Serving.endpoint

    def __getstate__(self) -> dict[str, object]:
        """Return the state for another process, which loads the model again."""
        return {**self.__dict__, "_loaded": None}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"

    @cached_property
    def _digest(self) -> str:
        """The Hub's commit, or a digest of the files; empty for a folder that holds no model."""
        if os.path.isdir(self.model):
            return _digest_of(self.model)
        with needs_extra(f"{setting('vlm.backend')} local", "local"):
            from huggingface_hub import hf_hub_download
        try:
            path: str = hf_hub_download(self.model, "config.json", revision=self.revision)
        except Exception as error:
            raise SpecError(
                f"can't have {self.model} ({self.revision}) from the Hub: {message_of(error)}"
            ) from None
        folder_of_commit = os.path.dirname(path)  # …/snapshots/COMMIT/config.json
        return os.path.basename(folder_of_commit)

    def obstacles(self) -> list[str]:
        """Return what prevents it from answering: libraries or the model are missing.

        A model that is not a folder is looked for on the Hub, which takes half a minute to give up
        without a network.
        """
        if not all(map(importlib.util.find_spec, ("torch", "transformers"))):
            return [str(MissingExtra(f"{setting('vlm.backend')} local", "local"))]
        try:
            digest = self._digest
        except SpecError as error:
            return [str(error)]
        return [] if digest else [f"{self.model} holds no model: it lacks config.json"]

    def facts(self) -> JsonObject:
        return {"dtype": self.dtype, "takes": "what its chat template has"}

    def identity(self) -> JsonObject:
        sampling = {"temperature": self.temperature, "max_tokens": self.max_output_tokens}
        return {**super().identity(), "revision": self._digest, "dtype": self.dtype, **sampling}

    @on_loop
    async def answer(self, request: Request[Any]) -> Reply:
        """Return the model's reply. Requests wait in a queue. The one that holds the queue's `turn`
        has the model answer one batch after the other, until it is answered itself. Then the next
        has its turn, and returns at once if one of these batches had it, too.
        """
        pictures = [await asyncio.to_thread(image.sent_picture) for image in request.images]
        temperature = request.temperature(self.temperature) or 0.0
        asked = Asked(request, pictures, temperature, asyncio.Future())
        queue = kept_open(self, _Queue)
        queue.waiting.append(asked)
        try:
            async with queue.turn:
                while not asked.reply.done():
                    await queue.work(self._replies, self.max_workers)
            return await asked.reply
        finally:
            # If this task was cancelled, nobody waits for the reply: the queue then leaves it out.
            # After a reply, `cancel` does nothing.
            asked.reply.cancel()

    def _replies(self, batch: "Sequence[Asked]") -> list[Reply | Exception]:
        """Runs in a thread. If the model can't be loaded, all get EndpointRefused: a run stops."""
        with _one_generates:
            try:
                self._loaded = self._loaded or LoadedModel(self)
            except Exception as error:
                advice = ""
                if isinstance(error, ImportError):
                    advice = ": pip install 'dataflow-grounding[local]'"
                refusal = EndpointRefused(
                    f"{self.model} can't be loaded{advice}: {message_of(error)}"
                )
                return [refusal] * len(batch)
            return self._loaded.answers(batch)


class _Queue:
    """The requests that wait; the holder of `turn` has them answered."""

    def __init__(self) -> None:
        self.waiting: list[Asked] = []
        self.turn = asyncio.Lock()

    async def work(
        self, answers: "Callable[[Sequence[Asked]], list[Reply | Exception]]", max_batch: int
    ) -> None:
        """Have one batch answered: the first request that waits, and others of its temperature, up
        to `max_batch`. At least one has to wait already.
        """
        await self._wait_for_others(max_batch)
        batch = self._next_batch(max_batch)
        replies = await asyncio.to_thread(answers, batch)
        for asked, reply in zip(batch, replies, strict=True):
            if asked.reply.done():  # its task was cancelled meanwhile
                continue
            if isinstance(reply, Reply):
                asked.reply.set_result(reply)
            else:
                asked.reply.set_exception(reply)
        self.waiting = self._unanswered()

    async def _wait_for_others(self, max_batch: int) -> None:
        """Wait until no request has joined for LINGER seconds, or a batch is full."""
        have_others_joined = True
        while have_others_joined and len(self.waiting) < max_batch:
            count_before = len(self.waiting)
            await asyncio.sleep(LINGER)
            have_others_joined = len(self.waiting) > count_before

    def _next_batch(self, max_batch: int) -> list[Asked]:
        """A model generates at one temperature for a whole batch: that of the first that waits."""
        unanswered = self._unanswered()
        temperature = unanswered[0].temperature
        alike = [asked for asked in unanswered if asked.temperature == temperature]
        return alike[:max_batch]

    def _unanswered(self) -> list[Asked]:
        return [asked for asked in self.waiting if not asked.reply.done()]


def _digest_of(folder: str) -> str:
    """Read small files whole, samples of large ones; empty where the folder holds no model."""
    if not os.path.exists(os.path.join(folder, "config.json")):
        return ""
    digest = hashlib.sha256()
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*"))):
        if not os.path.isfile(path):
            continue
        size = os.path.getsize(path)
        digest.update(f"{os.path.basename(path)}:{size};".encode())
        with open(path, "rb") as file:
            step = max(SAMPLE_BYTES, size // SAMPLES)  # from the start of a sample to the next
            for offset in range(0, size, step):
                file.seek(offset)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]
