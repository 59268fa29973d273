"""What `doctor` tells: what is installed, which keys are set, and what an endpoint takes, by asking it once."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import tempfile
import time
from contextlib import suppress
from typing import Any

from dataflow_grounding.engine.blocking import run_blocking
from dataflow_grounding.errors import GroundingError, RecordError
from dataflow_grounding.images import open_image
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.records import Record
from dataflow_grounding.serving import Reply, Serving
from dataflow_grounding.tasks import expression_extraction
from dataflow_grounding.version import __version__

EXTRAS = {"gemini": "google-genai", "parquet": "pyarrow", "supervision": "supervision"}
NAMES = ("GOOGLE_API_KEY", "OPENAI_API_KEY", "DF_API_KEY", "DF_BASE_URL", "DF_MODEL", "GOOGLE_GEMINI_BASE_URL")


def installation() -> dict[str, Any]:
    """Versions, extras (None: not installed), and which names the environment has; never their values."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "extras": {extra: _version(package) for extra, package in EXTRAS.items()},
        "environment": {name: bool(os.environ.get(name)) for name in NAMES},
    }


def endpoint_of(run: SpecRun, *, send: bool) -> dict[str, Any]:
    """What keeps the spec's endpoint from being asked, or, with `send`, how it answered a small picture."""
    serving = run.serving
    found: dict[str, Any] = {"backend": run.block.vlm.backend, "endpoint": serving.endpoint, "model": serving.model}
    if run.box_format is not None:
        found["box_format"] = "to be calibrated" if run.calibrates else run.box_format.format.name
    found["problems"] = run.job.obstacles()
    found |= serving.facts()
    if send and not found["problems"]:
        found |= _asked(serving)
    return found


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
            try:
                answer = await serving.answer(request)
                return Reply(answer) if isinstance(answer, str) else answer
            finally:
                await serving.aclose()

        start = time.monotonic()
        try:
            reply = run_blocking(ask)
        except GroundingError as error:
            return {"problems": [str(error)]}
    found: dict[str, Any] = {"seconds": round(time.monotonic() - start, 2), "usage": vars(reply.usage)}
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
