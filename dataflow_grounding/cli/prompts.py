"""`prompts`: the words that a model is asked in, to be read and to be changed."""

import os

import click

from dataflow_grounding._util.errors import GroundingError, InputError, errors_as
from dataflow_grounding._util.terminal import counted, say
from dataflow_grounding.cli.arguments import any_path, completed_from
from dataflow_grounding.data.rows import write_text
from dataflow_grounding.operators import OPERATOR_REGISTRY
from dataflow_grounding.tasks.prompts import prompt_names
from dataflow_grounding.tasks.ways_to_ask import forms_with_prompt
from dataflow_grounding.tasks.wording import SYSTEM_PROMPTS, ejected


@click.group("prompts")
def prompts() -> None:
    """Show the prompts, or copy them into a folder that a spec names as prompts.dir."""


@prompts.command("list")
def list_prompts() -> None:
    """List the prompts, and the operators that ask them."""
    width = max(map(len, prompt_names()))
    for name in prompt_names():
        say(f"{name:{width}}  {_use_of(name)}", err=False)


@prompts.command("show")
@click.argument("name", shell_complete=completed_from(prompt_names()))
def show_prompt(name: str) -> None:
    """Print the prompt NAME, to start a file of your own."""
    say(ejected(name).rstrip("\n"), err=False)


@prompts.command("eject")
@click.argument("folder", metavar="DIR", type=any_path)
@click.argument(
    "names", nargs=-1, metavar="[NAME ...]", shell_complete=completed_from(prompt_names())
)
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def eject_prompts(folder: str, names: tuple[str, ...], force: bool) -> None:
    """Copy prompts into DIR for editing: all, or those named. Name DIR as prompts.dir in the
    spec; files that you delete are asked in the shipped words.
    """
    texts = {os.path.join(folder, f"{name}.txt"): ejected(name) for name in names or prompt_names()}
    existing = [path for path in texts if os.path.lexists(path)]
    if existing and not force:
        raise InputError(f"{existing[0]} is there already: add --force, or name another folder")
    with errors_as(GroundingError, f"can't write into {folder}"):
        os.makedirs(folder, exist_ok=True)
    for path, text in texts.items():
        write_text(path, text)
    where = f"prompts.dir={os.path.abspath(folder)}"
    say(f"{counted(len(texts), 'prompt')} written into {folder}. In the spec: {where}", err=False)


def _use_of(name: str) -> str:
    if name in SYSTEM_PROMPTS:
        about = "no image" if name == "system_text_only" else "an image"
        return f"the system message of every question about {about}"
    forms = forms_with_prompt(name)
    if forms:
        return f"as phrase_grounding, with vlm.asking {' or '.join(forms)}"
    operators = []
    for class_name, operator in sorted(OPERATOR_REGISTRY.get_obj_map().items()):
        if name in getattr(operator, "tasks", ()):
            operators.append(class_name)
    if not operators:
        # PromptedVQAGenerator isn't in the registry here: it is registered when compat is imported.
        return "PromptedVQAGenerator"
    return ", ".join(operators)
