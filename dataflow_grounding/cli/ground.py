"""`ground`: find phrases in one image."""

from __future__ import annotations

import os

import click

from dataflow_grounding.cli.arguments import spec_option_for
from dataflow_grounding.display import marks_of
from dataflow_grounding.errors import GroundingError, RecordError, SpecError
from dataflow_grounding.image_files import decode
from dataflow_grounding.jobs.serving_from_environment import serving_from_environment
from dataflow_grounding.jobs.spec_run import grounder_of_spec
from dataflow_grounding.operators import PhraseGrounder
from dataflow_grounding.terminal import say_json


@click.command("ground")
@click.argument("image", metavar="IMAGE")
@click.argument("phrases", nargs=-1, required=True, metavar="PHRASE...")
@spec_option_for("Use the vlm block of this spec")
@click.option("--draw", "draw_path", metavar="FILE", help="Write the picture with the boxes drawn in.")
def command(image: str, phrases: tuple[str, ...], spec_paths: tuple[str, ...], draw_path: str | None) -> int:
    """Print the boxes of each PHRASE in IMAGE as one JSON object: pixels, [x1, y1, x2, y2], of the upright image.

    Asks the endpoint of DF_API_KEY, DF_BASE_URL and DF_MODEL, or of a spec; without either, the embedded grounder.
    """
    if blank := [number for number, phrase in enumerate(phrases, 1) if not phrase.strip()]:
        raise SpecError(f"phrase {blank[0]} is an empty text: say what to look for")
    if draw_path:
        _check_writable(draw_path)
    grounder = grounder_of_spec(spec_paths) if spec_paths else PhraseGrounder(serving_from_environment())
    if obstacles := grounder.serving.obstacles():
        raise SpecError("\n".join(obstacles))
    try:
        record = grounder({"image_path": image, "expressions": list(phrases)})
    except RecordError as error:
        raise GroundingError(str(error)) from None
    say_json(record, indent=1)
    if draw_path:
        _draw(image, record["expressions"], draw_path)
    return 0


def _check_writable(path: str) -> None:
    """Raises SpecError, before anything is paid for."""
    from PIL import Image

    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise SpecError(f"can't write {path}: there is no folder {folder}")
    if os.path.isdir(path) or not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise SpecError(f"can't write {path}: choose another file")
    if os.path.splitext(path)[1].lower() not in Image.registered_extensions():
        raise SpecError(f"can't write {path}: its ending should name a kind of picture, as .png or .jpg")


def _draw(image: str, expressions: list[dict[str, object]], path: str) -> None:
    from dataflow_grounding.drawing import draw_marks

    try:
        draw_marks(decode(image), marks_of(expressions)).save(path)
    except (OSError, ValueError) as error:
        raise GroundingError(f"can't write {path}: {error}") from None
