"""`init`, `default_specs`: write what a user begins with."""

import os
import shlex
import shutil
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import click

from dataflow_grounding._util.errors import GroundingError, InputError, SpecError, errors_as
from dataflow_grounding._util.nearest import nearest
from dataflow_grounding._util.terminal import counted, say
from dataflow_grounding.cli.arguments import any_path, completed_from
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.data.rows import copy_file, write_text
from dataflow_grounding.jobs.registry import PIPELINES
from dataflow_grounding.spec.endpoints import ENDPOINTS
from dataflow_grounding.spec.environment import backend_of_keys
from dataflow_grounding.spec.templates import shortened, template_of, with_settings

_MODULE = "auto_label"  # the only `module_name`, as TAO calls it, that these pipelines are of


@click.command("init")
@click.argument("folder", default=".", metavar="[DIR]", type=any_path)
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def init(folder: str, force: bool) -> None:
    """Write pipelines, example data and specs into DIR, for you to edit. Existing files stay
    without --force.
    """
    targets = {os.path.join(folder, name): source for source, name in _shipped_files()}
    kept_count = 0
    for target, source in targets.items():
        if os.path.exists(target) and not force:
            kept_count += 1
            say(f"kept    {target}", err=False)
            continue
        with errors_as(GroundingError, f"can't write {target}"):
            os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
            copy_file(source, target)
        say(f"wrote   {target}", err=False)
    counts = f"{counted(len(targets) - kept_count, 'file')} written"
    if kept_count:
        counts += f", {kept_count} kept"
    script = os.path.join(folder, "api_pipelines", "image_grounding_api_pipeline.py")
    spec = os.path.join(folder, "image_grounding.yaml")
    say(f"{counts}. Next:\n  {_python_command()} {shlex.quote(script)}", err=False)
    say(f"or, from a spec:\n  dataflowgrounding generate -e {shlex.quote(spec)}", err=False)


def _python_command() -> str:
    """With pipx or uv, the Python that has this package isn't the one on the path."""
    python_on_path = shutil.which("python") or ""
    if os.path.dirname(python_on_path) == os.path.dirname(sys.executable):
        return "python"
    return shlex.quote(sys.executable)


def _shipped_files() -> Iterator[tuple[str, str]]:
    """Each file's path, and where it goes: files of `init_template` to the top."""
    for folder in ("api_pipelines", "example_data", "init_template"):
        target_folder = "" if folder == "init_template" else folder
        top = _shipped_folder(folder)
        for source in sorted(top.rglob("*"), key=lambda path: (path.parent, path.name)):
            if source.is_file() and source.suffix != ".pyc":
                yield str(source), os.path.join(target_folder, source.relative_to(top))


def _shipped_folder(name: str) -> Path:
    package = Path(__file__).parents[1]
    in_wheel = package / "_shipped" / name
    in_repository = package.parent / name
    for folder in (in_wheel, in_repository):
        if folder.is_dir():
            return folder
    raise InputError(f"this installation has no {name}: install dataflow-grounding again")


@click.command("default_specs")
@click.option(
    "--backend",
    type=click.Choice(["openai", "gemini", "local", "embedded"]),
    help=(
        "Who answers; without it, whom the environment names (DF_BASE_URL, DF_MODEL, a provider's"
        " key)."
    ),
)
@click.option(
    "--endpoint",
    metavar="NAME",
    shell_complete=completed_from(ENDPOINTS),
    help=f"The settings of a server or provider: {', '.join(ENDPOINTS)}.",
)
@click.option("--all", "every_key", is_flag=True, help="Every key; without it, the usual ones.")
@click.argument("arguments", nargs=-1, metavar="[results_dir=DIR] [autolabel_type=NAME]")
def default_specs(
    backend: str | None, endpoint: str | None, every_key: bool, arguments: tuple[str, ...]
) -> None:
    """Write DIR/NAME.yaml for each pipeline, or only for NAME; DIR is the current folder unless
    given. Each key has a comment; a key that isn't in the file has its default.
    """
    if endpoint is not None and backend:
        raise SpecError("--endpoint states the backend: leave --backend out")
    if endpoint is not None and endpoint not in ENDPOINTS:
        known = f"{', '.join(ENDPOINTS)}{nearest(endpoint, ENDPOINTS)}"
        raise SpecError(f"endpoint {endpoint!r} is not one of {known}")
    settings = _settings_of(backend) if endpoint is None else ENDPOINTS[endpoint]
    folder, names = _folder_and_pipelines(arguments)
    paths = {name: os.path.join(folder, f"{name}.yaml") for name in names}  # by pipeline
    for path in paths.values():
        if os.path.exists(path):
            raise SpecError(f"{path} already exists: move it away, or choose another results_dir")
    for name, path in paths.items():
        text = with_settings(template_of(name), settings)
        write_text(path, text if every_key else shortened(text, name, settings))
        say(path, err=False)
    is_endpoint_chosen = endpoint is not None or backend or backend_of_keys()
    if not is_endpoint_chosen:
        say("The environment names no endpoint, so these ask Gemini: see --backend, --endpoint.")
    first = shlex.quote(next(iter(paths.values())))
    say(f"Give each ??? a value, there or as KEY=VALUE; then: dataflowgrounding check -e {first}")


def _settings_of(backend: str | None) -> JsonObject:
    """{"vlm": {"backend": "gemini", "gemini": {"model": "gemini-2.5-pro"}}}"""
    backend = backend or backend_of_keys() or "gemini"
    model = os.environ.get("DF_MODEL", "").strip()
    # For `openai` the template's comment says that a run takes DF_MODEL's.
    if backend == "gemini" and model:
        return {"vlm": {"backend": backend, "gemini": {"model": model}}}
    return {"vlm": {"backend": backend}}


def _folder_and_pipelines(arguments: tuple[str, ...]) -> tuple[str, Collection[str]]:
    """From `results_dir=DIR` and `autolabel_type=NAME`; all pipelines without a NAME.

    `module_name` may be given, too, as TAO's users do.
    """
    settings = {"autolabel_type": "", "results_dir": "", "module_name": _MODULE}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name not in settings:
            known = ", ".join(settings)
            raise SpecError(f"{name!r} is not one of {known}{nearest(name, settings)}")
        if not equals:
            raise SpecError(f"{name} should have a value: {name}=VALUE")
        settings[name] = value
    pipeline = settings["autolabel_type"]
    if pipeline and pipeline not in PIPELINES:
        raise SpecError(
            f"autolabel_type {pipeline!r} is not one of {', '.join(PIPELINES)}"
            f"{nearest(pipeline, PIPELINES)}"
        )
    if settings["module_name"] != _MODULE:
        raise SpecError(
            f"module_name {settings['module_name']!r} can't be written: there is {_MODULE} alone"
        )
    folder = settings["results_dir"] or "."
    return folder, [pipeline] if pipeline else PIPELINES
