"""What `doctor` tells: what is installed, which keys are set, and what an endpoint takes, by asking
it once.
"""

import importlib.metadata
import os
import platform
import tempfile
import time
from contextlib import aclosing, suppress
from typing import Any

from dataflow_grounding._util.errors import GroundingError, RecordError
from dataflow_grounding._util.version import __version__
from dataflow_grounding.calibration.choice import choice_of
from dataflow_grounding.data.records import Record
from dataflow_grounding.engine.blocking import run_blocking
from dataflow_grounding.images.image import open_image
from dataflow_grounding.jobs.serving_of_spec import serving_of
from dataflow_grounding.serving import Reply, Serving
from dataflow_grounding.spec import Spec
from dataflow_grounding.spec.environment import GEMINI_KEYS
from dataflow_grounding.tasks import expression_extraction

EXTRAS = {
    "gemini": "google-genai",
    "gs": "gcsfs",
    "hf": "huggingface_hub",
    "ray": "ray",
    "s3": "s3fs",
    "datasets": "datasets",
    "parquet": "pyarrow",
    "supervision": "supervision",
    "notebook": "anywidget",
    "local": "transformers",
}
NAMES = (
    *("DF_BASE_URL", "DF_MODEL", "DF_API_KEY", "DF_BOX_FORMAT"),
    *("OPENAI_BASE_URL", "OPENAI_API_KEY", "GOOGLE_GEMINI_BASE_URL", *GEMINI_KEYS),
)


def installation() -> dict[str, Any]:
    """Versions, extras (None: not installed), and which names the environment has; never their
    values.
    """
    return {
        "version": __version__,
        "python": platform.python_version(),
        "extras": {extra: _version(package) for extra, package in EXTRAS.items()},
        "environment": {name: bool(os.environ.get(name)) for name in NAMES},
    }


def endpoint_of_spec(spec: Spec, *, send: bool) -> dict[str, Any]:
    """What keeps the spec's endpoint from being asked, or, with `send`, how it answered a small
    picture.
    """
    servings = [serving_of(vlm, spec.block.workflow, spec.folders) for vlm in spec.block.vlms]
    choice = choice_of(servings[0])
    choice.recall(os.path.join(spec.results_dir, ".ckpt"))
    box_format = "to be calibrated" if choice.pending else choice.format.name
    return {
        "backend": spec.block.vlm.backend,
        "box_format": box_format,
        **endpoint_of(*servings, send=send),
    }


def endpoint_of(serving: Serving, *others: Serving, send: bool) -> dict[str, Any]:
    """The same of a serving; what keeps the `others` from being asked keeps it, too."""
    problems = list(dict.fromkeys(text for each in (serving, *others) for text in each.obstacles()))
    found = {
        "endpoint": serving.endpoint,
        "model": serving.model,
        "problems": problems,
        **serving.facts(),
    }
    if not send or problems:
        return found
    if len(parts := serving.endpoints()) == 1:
        return {**found, **_asked(serving)}
    each = [{"endpoint": one.endpoint, "weight": weight, **_asked(one)} for one, weight in parts]
    return {
        **found,
        "endpoints": each,
        "problems": [text for one in each for text in one.get("problems", ())],
    }


def _asked(serving: Serving) -> dict[str, Any]:
    from PIL import Image as Pillow

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "square.png")
        picture = Pillow.new("RGB", (64, 64), "white")
        picture.paste("navy", (16, 16, 48, 48))
        picture.save(path)
        image = open_image(Record({"image_path": path}), "image_path", serving.image_limits)
        request = expression_extraction(image, "A blue square on a white ground.")

        async def ask() -> Reply:
            async with aclosing(serving):
                answer = await serving.answer(request)
                return Reply(answer) if isinstance(answer, str) else answer

        start = time.monotonic()
        try:
            reply = run_blocking(ask)
        except GroundingError as error:
            return {"problems": [str(error)]}
    found: dict[str, Any] = {
        "seconds": round(time.monotonic() - start, 2),
        "usage": vars(reply.usage),
    }
    found["takes"] = serving.facts().get("takes", "JSON schemas, a system message")
    try:
        _, notes = request.read(reply.text)
        found["reply"] = "as asked for" if not notes else f"readable ({', '.join(map(str, notes))})"
    except RecordError as error:
        found["reply"] = f"not readable: {error}"
    if not reply.usage.input_tokens:
        found["reply"] += "; it reports no token counts, so costs are unknown"
    return found


def _version(package: str) -> str | None:
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None
