"""`init`: write editable pipelines, example data and a spec into a folder."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from dataflow_grounding.errors import GroundingError, InputError
from dataflow_grounding.terminal import counted, say

_FOLDERS = ("api_pipelines", "example_data", "init_template")


@click.command("init")
@click.argument("folder", default=".", metavar="[DIR]")
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
def command(folder: str, force: bool) -> int:
    """Write pipelines, example data and a spec into DIR, to be edited. Files that are there stay, without --force."""
    written, kept = 0, 0
    for source, name in _shipped_files():
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


def _shipped_files() -> Iterator[tuple[str, str]]:
    """Each file, and its name in a new working folder; what's in `init_template` goes to the top. Raises InputError."""
    for folder in _FOLDERS:
        top, into = _find(folder), "" if folder == "init_template" else folder
        for path, names, files in os.walk(top):
            names[:] = sorted(name for name in names if name != "__pycache__")
            for name in sorted(files):
                if not name.endswith(".pyc"):
                    source = os.path.join(path, name)
                    yield source, os.path.join(into, os.path.relpath(source, top))


def _find(folder: str) -> str:
    """Beside the package in a repository, inside it when installed from a wheel."""
    package = Path(__file__).parents[1]
    for top in (package / "_shipped" / folder, package.parent / folder):
        if top.is_dir():
            return str(top)
    raise InputError(f"this installation has no {folder}: install dataflow-grounding again")
