"""`ground`: find phrases in one image."""

import hashlib
import os
from contextlib import suppress

import click

from dataflow_grounding._util.environment import cache_folder
from dataflow_grounding._util.errors import GroundingError, SpecError
from dataflow_grounding._util.terminal import counted, say, say_json
from dataflow_grounding.cli.arguments import any_path, spec_option_for
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.jobs.serving_of_spec import serving_from_environment
from dataflow_grounding.jobs.spec_run import grounder_of_spec
from dataflow_grounding.operators import PhraseGrounder


@click.command("ground")
@click.argument("image", metavar="IMAGE", type=any_path)
@click.argument("phrases", nargs=-1, required=True, metavar="PHRASE...")
@spec_option_for("Use the vlm block of this spec")
@click.option(
    "--draw",
    "draw_path",
    metavar="FILE",
    type=any_path,
    help="Write a copy of the picture with the boxes drawn in.",
)
@click.option("--json", is_flag=True, expose_value=False, help="Changes nothing: it prints JSON.")
@click.option(
    "--no-cache", is_flag=True, help="Ask again instead of using kept replies, and keep none."
)
def command(
    image: str,
    phrases: tuple[str, ...],
    spec_paths: tuple[str, ...],
    draw_path: str | None,
    no_cache: bool,
) -> None:
    """Print the boxes of each PHRASE in IMAGE as one JSON object: pixels, [x1, y1, x2, y2], of the
    upright image.

    Asks the endpoint of DF_API_KEY, DF_BASE_URL and DF_MODEL, or of a spec; without either, the
    embedded grounder. Replies are kept in the user's cache folder, so that the same question is
    paid for once.
    """
    for number, phrase in enumerate(phrases, 1):
        if not phrase.strip():
            raise SpecError(f"phrase {number} is an empty text: say what to look for")
    if draw_path and os.path.exists(draw_path) and os.path.samefile(draw_path, image):
        raise SpecError(f"can't write {draw_path}: it is the picture itself, choose another file")
    grounder = _grounder_of(spec_paths)
    keeps_replies = not no_cache and not grounder.serving.free
    options = RunOptions(replies=_cache_of(image) if keeps_replies else None)
    with holding(current_options, options):  # the grounder takes its options from there
        record = grounder({"image_path": image, "expressions": list(phrases)})
    say_json(record, indent=1)
    if draw_path:  # where it can't be written, the same command asks for nothing again
        try:
            record.draw().save(draw_path)
        except (OSError, ValueError) as error:  # ValueError: its ending is of no kind of picture
            raise GroundingError(f"can't write {draw_path}: {error}") from None
        _, boxes = record.counts()
        say(f"{draw_path}: {counted(boxes, 'box')} drawn")


def _grounder_of(spec_paths: tuple[str, ...]) -> PhraseGrounder:
    if spec_paths:
        grounder = grounder_of_spec(spec_paths)
    else:
        grounder = PhraseGrounder(serving_from_environment())
    obstacles = grounder.serving.obstacles()
    if obstacles:
        raise SpecError("\n".join(obstacles))
    return grounder


def _cache_of(image: str) -> str | None:
    """None where the cache folder can't be made: then nothing is kept."""
    folder = os.path.join(cache_folder(), "ground")
    with suppress(OSError):
        os.makedirs(folder, exist_ok=True)
        digest = hashlib.sha256(os.path.abspath(image).encode()).hexdigest()
        # 80 bits of it tell any number of pictures apart.
        return os.path.join(folder, f"{digest[:20]}.jsonl")
    return None
