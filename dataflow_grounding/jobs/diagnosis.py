"""What `doctor` tells: what is installed, which keys are set, and what an endpoint does."""

import difflib
import importlib.metadata
import os
import platform
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from dataflow_grounding._util.errors import EndpointRefused, GroundingError, RecordError
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.data.results_folder import run_in, stated_in
from dataflow_grounding.engine.plain_questions import picture_of_square
from dataflow_grounding.engine.unreadable import has_unreadable_counts, too_many_unreadable
from dataflow_grounding.engine.workers import run_blocking
from dataflow_grounding.jobs.schema_question import schema_kept
from dataflow_grounding.jobs.serving_of_spec import serving_of
from dataflow_grounding.serving import Reply, Serving
from dataflow_grounding.serving.serving import reply_of
from dataflow_grounding.spec import Spec
from dataflow_grounding.spec.environment import GEMINI_KEYS
from dataflow_grounding.tasks import Request, expression_extraction
from dataflow_grounding.trust.choice import choice_of

T = TypeVar("T")

# the package's extra → what it installs
EXTRAS = {
    "gemini": "google-genai",
    "gs": "gcsfs",
    "hf": "huggingface_hub",
    "ray": "ray",
    "s3": "s3fs",
    "datasets": "datasets",
    "parquet": "pyarrow",
    "supervision": "supervision",
    "local": "transformers",
    "webdataset": "webdataset",
}
# the environment variables that say who is asked
NAMES = (
    "DF_BASE_URL",
    "DF_MODEL",
    "DF_API_KEY",
    "DF_BOX_FORMAT",
    "OPENAI_BASE_URL",
    "OPENAI_API_KEY",
    "GOOGLE_GEMINI_BASE_URL",
    *GEMINI_KEYS,
)

MOST_MODELS = 20  # of an endpoint, that are named
MOST_CHARACTERS = 100  # of a model's name, that are shown
NOT_READABLE = "not readable"


def installation() -> JsonObject:
    """Return versions, extras and the environment; of variables only whether each is set."""
    extras: dict[str, str | None] = dict.fromkeys(EXTRAS)
    for extra, package in EXTRAS.items():
        with suppress(importlib.metadata.PackageNotFoundError):
            extras[extra] = importlib.metadata.version(package)
    return {
        "version": __version__,
        "python": platform.python_version(),
        "extras": extras,
        "environment": {name: bool(os.environ.get(name)) for name in NAMES},
    }


def endpoint_of_spec(spec: Spec, *, send: bool) -> JsonObject:
    """Return what `endpoint_of` says, with backend, box format, and what the last run tells."""
    servings = [serving_of(vlm, spec.block.workflow, spec.folders) for vlm in spec.block.vlms]
    choice = choice_of(servings[0])
    choice.recall(os.path.join(spec.results_dir, ".ckpt"))
    box_format = "to be calibrated" if choice.pending else choice.format.name
    facts = {
        "backend": spec.block.vlm.backend,
        "box_format": box_format,
        **endpoint_of(*servings, send=send),
    }
    last_run = _unreadable_in_last_run(spec, servings[0].model)
    if last_run:
        facts["last_run"] = last_run
    return facts


def _unreadable_in_last_run(spec: Spec, model: str) -> str:
    """Return a sentence on the last run's unreadable replies; "" if they were few."""
    run = run_in(spec.results_dir)
    vlm_then: JsonObject = next(iter(stated_in(run, "vlm")), {})  # a run has one such block
    asking_then = vlm_then.get("asking") or "auto"
    # A run of another model, or with another form of asking, says nothing of the spec's replies.
    is_of_model = run.get("model") == model
    was_asked_alike = asking_then == spec.block.vlm.asking
    if not is_of_model or not was_asked_alike:
        return ""
    summary = run.get("summary")
    if not isinstance(summary, dict) or not has_unreadable_counts(summary):
        return ""  # `run.json` may be damaged
    return too_many_unreadable(summary)


def endpoint_of(serving: Serving, *others: Serving, send: bool) -> JsonObject:
    """Return facts about a serving, and how it answered two questions if `send`; or `problems`."""
    obstacles: list[str] = []
    for checked in (serving, *others):
        obstacles += checked.obstacles()
    facts = {
        "endpoint": serving.endpoint,
        "model": serving.model,
        "problems": list(dict.fromkeys(obstacles)),
        **serving.facts(),
    }
    if not send or obstacles:
        return facts
    return {**facts, **_ask_endpoints(serving)}


def _ask_endpoints(serving: Serving) -> JsonObject:
    parts = serving.endpoints()
    if len(parts) == 1:
        return _ask_about_square(serving)
    # Several servers are asked one by one: each may have its own fault.
    answers = []
    problems: list[str] = []
    for part, weight in parts:
        answer = {"endpoint": part.endpoint, "weight": weight, **_ask_about_square(part)}
        answers.append(answer)
        problems += answer.get("problems", ())
    return {"endpoints": answers, "problems": problems}


def _ask_about_square(serving: Serving) -> JsonObject:
    """Return what came of two questions about a small picture: `problems`, or how it answered."""
    image = picture_of_square(serving.image_limits)
    request = expression_extraction(image, "A blue square on a white ground.")
    start = time.monotonic()
    try:
        reply = _asked(serving, lambda: reply_of(serving, request))
    except GroundingError as error:
        return {"problems": [f"{error}{_models_instead(serving, error)}"]}
    seconds = round(time.monotonic() - start, 2)
    facts: dict[str, object] = {"seconds": seconds, "usage": vars(reply.usage)}
    # Which fields of a request the endpoint takes: known now that it has answered.
    takes = serving.facts().get("takes")
    if takes is not None:
        facts["takes"] = takes
    if serving.tasks is None:  # it answers any question, also one that isn't a task of ours
        facts["schema"] = _asked(serving, lambda: schema_kept(serving, image))
    return {**facts, "reply": _verdict_on(reply, request)}


def _asked(serving: Serving, ask: Callable[[], Awaitable[T]]) -> T:
    """Return what `ask` returns, and close the serving."""

    async def answer() -> T:
        async with aclosing(serving):
            return await ask()

    return run_blocking(answer)


def _verdict_on(reply: Reply, request: Request[Any]) -> str:
    try:
        _, notes = request.read(reply.text)
        # A note says what had to be mended or passed over to read the reply.
        verdict = f"readable ({', '.join(map(str, notes))})" if notes else "as asked for"
    except RecordError as error:
        verdict = f"{NOT_READABLE}: {error}"
    if not reply.usage.input_tokens:
        verdict += "; it reports no token counts, so costs are unknown"
    return verdict


def _models_instead(serving: Serving, error: GroundingError) -> str:
    """Return in words which models the endpoint has; "" if the name isn't why it refused."""
    if not isinstance(error, EndpointRefused):
        return ""
    if error.certain:  # it is about another thing, such as the key
        return ""
    names = [excerpt(name, MOST_CHARACTERS) for name in _asked(serving, serving.list_models)]
    if not names or serving.model in names:
        return ""
    most_similar = difflib.get_close_matches(serving.model, names, 1)  # one name, or none
    names = list(dict.fromkeys([*most_similar, *names]))
    more = f", … ({len(names):,})" if len(names) > MOST_MODELS else ""
    return f" It has {', '.join(names[:MOST_MODELS])}{more}."
