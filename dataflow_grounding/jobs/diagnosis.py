"""What `doctor` tells: what is installed, which keys are set, and what an endpoint does.

The last is found out by asking it twice.
"""

import difflib
import importlib.metadata
import os
import platform
import time
from contextlib import aclosing, suppress
from typing import Any

from dataflow_grounding._util.addresses import is_remote
from dataflow_grounding._util.errors import EndpointRefused, GroundingError, RecordError
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.records import read_object
from dataflow_grounding.data.results_folder import RUN_JSON, stated_in
from dataflow_grounding.engine.plain_questions import picture_of_square
from dataflow_grounding.engine.unreadable import are_unreadable_facts, too_many_unreadable
from dataflow_grounding.engine.workers import run_blocking
from dataflow_grounding.jobs.schema_question import schema_kept
from dataflow_grounding.jobs.serving_of_spec import serving_of
from dataflow_grounding.serving import Reply, Serving
from dataflow_grounding.serving.serving import reply_of
from dataflow_grounding.spec import Spec
from dataflow_grounding.spec.environment import GEMINI_KEYS
from dataflow_grounding.tasks import expression_extraction
from dataflow_grounding.trust.choice import choice_of

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
"""How the verdict on a reply begins where it can't be read."""


def installation() -> dict[str, Any]:
    """Return versions, extras and the environment, as JSON.

    An extra has the version of what it installs, None if that isn't installed. For the
    environment's variables it says only whether each is set and not empty: they may hold keys.
    """
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


def endpoint_of_spec(spec: Spec, *, send: bool) -> dict[str, Any]:
    """Return the facts about a spec's endpoint: `backend`, `box_format` and those of `endpoint_of`.

    The latter include what keeps the other models that the spec names from being asked. `last_run`
    is a sentence, there only where many replies of the last run in the spec's results folder could
    not be read.

    Args:
        spec: The spec.
        send: Whether the model is asked two questions about a small picture, unless something
            keeps it from being asked. Else nothing is sent.
    """
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
    # Return a sentence where many replies of the last run in the spec's folder were unreadable.
    # Else it is "", as it is where that run asked another model, or asked for boxes in another form
    # than the spec has by now. `run.json` may be damaged: what isn't as a run leaves it is passed
    # over. Only files of this machine are looked at.
    if is_remote(spec.results_dir):
        return ""
    run = read_object(os.path.join(spec.results_dir, RUN_JSON))
    asking_then = next((vlm.get("asking") for vlm in stated_in(run, "vlm")), None) or "auto"
    if run.get("model") != model or asking_then != spec.block.vlm.asking:
        return ""
    summary = run.get("summary")
    if not isinstance(summary, dict) or not are_unreadable_facts(summary):
        return ""
    return too_many_unreadable(summary)


def endpoint_of(serving: Serving, *others: Serving, send: bool) -> dict[str, Any]:
    """Return facts about a serving: `problems` that keep it from being asked, or how it answered.

    Args:
        serving: The serving.
        others: Those that are asked with it. What keeps one of them from being asked is a problem
            of the serving, too.
        send: Whether to ask it two questions about a small picture, if there is no problem.

    Returns:
        `endpoint`, `model`, `problems` and what the serving says of itself; where it was asked, how
        it answered. Of several endpoints, `endpoints` has that for each, and `problems` those of
        all.
    """
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
    parts = serving.endpoints()
    if len(parts) == 1:
        return {**facts, **_ask_about_square(serving)}
    answers = []
    problems: list[str] = []
    for part, weight in parts:
        answer = {"endpoint": part.endpoint, "weight": weight, **_ask_about_square(part)}
        answers.append(answer)
        problems += answer.get("problems", ())
    return {**facts, "endpoints": answers, "problems": problems}


def _ask_about_square(serving: Serving) -> dict[str, Any]:
    # Ask a serving about a small picture, and return how it answers. That is `seconds`, `usage`,
    # `takes` (what it accepts, in words, where the serving knows), `schema` (whether it keeps to
    # one, where it may be asked anything) and `reply`, a verdict in words; or `problems` where
    # there is no answer.
    image = picture_of_square(serving.image_limits)
    request = expression_extraction(image, "A blue square on a white ground.")

    async def ask() -> Reply:
        """Return the serving's reply, which may be a text alone, and close the serving."""
        async with aclosing(serving):
            return await reply_of(serving, request)

    async def ask_with_schema() -> str:
        """Return whether the serving keeps to a schema, and close it."""
        async with aclosing(serving):
            return await schema_kept(serving, image)

    start = time.monotonic()
    try:
        reply = run_blocking(ask)
    except GroundingError as error:
        return {"problems": [f"{error}{_models_instead(serving, error)}"]}
    seconds = round(time.monotonic() - start, 2)
    facts: dict[str, Any] = {"seconds": seconds, "usage": vars(reply.usage)}
    takes = serving.facts().get("takes")
    if takes is not None:
        facts["takes"] = takes
    if serving.tasks is None:
        facts["schema"] = run_blocking(ask_with_schema)
    try:
        _, notes = request.read(reply.text)
        verdict = f"readable ({', '.join(map(str, notes))})" if notes else "as asked for"
    except RecordError as error:
        verdict = f"{NOT_READABLE}: {error}"
    if not reply.usage.input_tokens:
        verdict += "; it reports no token counts, so costs are unknown"
    return {**facts, "reply": verdict}


def _models_instead(serving: Serving, error: GroundingError) -> str:
    # A model with a similar name comes first, and at most MOST_MODELS are named. It is "" if the
    # endpoint names none, or has this one after all. If the error is no refusal, or one of any
    # request, as for a wrong key, it is "" and nothing is asked.
    if not isinstance(error, EndpointRefused) or error.certain:
        return ""

    async def ask() -> list[str]:
        """Return the names of the endpoint's models, and close the serving."""
        async with aclosing(serving):
            return await serving.list_models()

    names = [excerpt(name, MOST_CHARACTERS) for name in run_blocking(ask)]
    if not names or serving.model in names:
        return ""
    likely = difflib.get_close_matches(serving.model, names, 1)
    names = list(dict.fromkeys([*likely, *names]))
    more = f", … ({len(names):,})" if len(names) > MOST_MODELS else ""
    return f" It has {', '.join(names[:MOST_MODELS])}{more}."
