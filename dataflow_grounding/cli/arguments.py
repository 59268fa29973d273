"""Arguments that several commands take."""

from __future__ import annotations

import click

spec_option = click.option(
    "-e",
    "--experiment_spec",
    "spec_paths",
    required=True,
    multiple=True,
    metavar="SPEC",
    type=click.Path(),
    help="The spec, a YAML file; given several times, later ones override earlier ones.",
)
