"""`init`: write editable pipelines, example data and a spec into a folder."""

import os
import shlex
import shutil
import sys

import click

from dataflow_grounding.errors import GroundingError
from dataflow_grounding.shipped import shipped_files
from dataflow_grounding.terminal import counted, say


@click.command("init")
@click.argument("folder", default=".", metavar="[DIR]")
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
def command(folder: str, force: bool) -> int:
    """Write pipelines, example data and a spec into DIR, to be edited. Files that are there stay, without --force."""
    written, kept = 0, 0
    for source, name in shipped_files():
        target = os.path.join(folder, name)
        if os.path.exists(target) and not force:
            say(f"kept    {target}", err=False)
            kept += 1
            continue
        try:
            os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
            shutil.copyfile(source, target)
        except OSError as error:
            raise GroundingError(f"can't write {target}: {error.strerror or error}") from None
        say(f"wrote   {target}", err=False)
        written += 1
    counts = f"{counted(written, 'file')} written{f', {kept} kept' if kept else ''}. Next:"
    script = os.path.join(folder, "api_pipelines", "image_grounding_api_pipeline.py")
    spec = os.path.join(folder, "image_grounding.yaml")
    here = os.path.dirname(shutil.which("python") or "") == os.path.dirname(sys.executable)  # not so with pipx or uv
    say(f"{counts}\n  {'python' if here else shlex.quote(sys.executable)} {shlex.quote(script)}", err=False)
    say(f"or, from a spec:\n  dataflowgrounding generate -e {shlex.quote(spec)}", err=False)
    return 0
