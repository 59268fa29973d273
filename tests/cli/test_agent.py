"""What a coding agent is told, held against the code."""

from __future__ import annotations

import re

from dataflow_grounding.cli.main import COMMANDS
from dataflow_grounding.jobs.registry import PIPELINES, kind_named
from dataflow_grounding.operators import OPERATOR_REGISTRY
from dataflow_grounding.spec.schema import VlmBlock
from tests.support.workplace import Workplace, command

PIECES = re.compile(r"[A-Za-z]{1,7}|\d{1,3}|[^\w\s]|_|\n")
"""Shorter than the tokens of common tokenizers, so that there are more of them."""


def page() -> str:
    done = command(["agent", "context"])
    assert done.code == 0, done
    return done.out


def test_it_is_at_most_5000_tokens() -> None:
    assert 1500 < len(PIECES.findall(page())) <= 5000


def test_every_command_key_and_operator_is_in_it() -> None:
    text = page()
    for name in COMMANDS:
        assert re.search(rf"^- {name}\b", text, re.MULTILINE), name
    jobs = map(kind_named, PIPELINES)
    for block in (VlmBlock, *(job.block.model_fields["workflow"].annotation for job in jobs)):
        for key in block.model_fields:
            assert re.search(rf"^ +{key}:", text, re.MULTILINE), key
    for name, cls in OPERATOR_REGISTRY:
        if cls.__module__.startswith("dataflow_grounding.operators"):
            assert f"- {name}(" in text


def test_the_fields_that_it_names_are_those_of_a_real_record(workplace: Workplace) -> None:
    workplace.many(1)
    done = workplace.run(**{"workflow.verify": "reground", "workflow.samples": 2})
    assert done.code == 0, done
    [record] = workplace.annotations()
    text = page()
    assert record["expressions"]
    for expression in record["expressions"]:
        assert expression["instances"]
        for name in (*expression, *expression["instances"][0], *expression["verification"]):
            assert re.search(rf"\b{name}\b", text), name
