"""References of a spec: what they fill in is bounded, whatever a stranger's spec makes of them, and
usual ones work.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.spec._references import MOST, check_references
from tests.support.workplace import command

LEVELS = 12
Leaf = Callable[[str], Any]

BOMBS: dict[str, Leaf] = {
    "a text": lambda key: f"${{x.{key}}}" * 10,
    "with spaces": lambda key: f"${{ x.{key} }}" * 10,
    "in brackets": lambda key: f"${{x[{key}]}}" * 10,
    "of its own block": lambda key: f"${{.{key}}}" * 10,
    "a list": lambda key: [f"${{x.{key}}}"] * 10,
    "a list, of the block above": lambda key: [f"${{..{key}}}"] * 10,
    "a block": lambda key: {str(n): f"${{x.{key}}}" for n in range(10)},
    "defaults of variables": lambda key: f"${{oc.env:NOT_SET,${{x.{key}}}}}" * 10,
    "defaults in quotes": lambda key: f"${{oc.env:NOT_SET,'${{x.{key}}}'}}" * 10,
    "OmegaConf's own resolvers": lambda key: f"${{oc.select:x.{key}}}" * 10,
    "what is decoded": lambda key: f"${{oc.decode:'${{x.{key}}}'}}" * 10,
    "what is created": lambda key: f"${{oc.create:${{x.{key}}}}}" * 10,
}


def written(folder: Path, name: str, value: Any) -> str:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def bomb(leaf: Leaf) -> dict[str, Any]:
    levels = {f"k{level}": leaf(f"k{level + 1}") for level in range(LEVELS)}
    return {
        "x": {**levels, f"k{LEVELS}": "y" * 40},
        "results_dir": "out",
        "autolabel_type": "image_grounding",
    }


@pytest.mark.slow
@pytest.mark.parametrize("leaf", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_in_a_line_at_once(leaf: Leaf, tmp_path: Path) -> None:
    done = command(["generate", "-e", written(tmp_path, "spec.yaml", bomb(leaf))])
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert "spec.yaml: " in done.err
    assert "reference" in done.err


@pytest.mark.slow
def test_a_bomb_in_parts_is_refused_too(tmp_path: Path) -> None:
    """The second file goes over a reference of the first, which would be filled in for it."""
    whole = bomb(BOMBS["a text"])
    first = written(tmp_path, "one.yaml", {"x": whole["x"], "image_grounding": "${x.k0}"})
    second = written(tmp_path, "two.yaml", {"image_grounding": {"vlm": {"backend": "embedded"}}})
    done = command(["generate", "-e", first, "-e", second])
    assert (done.code, done.err.count("\n")) == (2, 1), done


LONG: dict[str, str] = {
    "a number to the base 60": "x: " + ":".join(["59"] * 1_000_000),
    "a negative one": "x: -" + ":".join(["59"] * 1_000_000),
    "a hexadecimal number": "x: 0x" + "f" * 10_000_000,
    "digits": "x: " + "9" * 10_000_000,
    "references that never end": "x: '" + "${" * 500_000 + "'",
    "a reference's arguments": "x: '${y:[" + "1," * 1_000_000 + "]}'",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_text_that_takes_long_to_make_sense_of_is_refused_by_its_line(
    text: str, tmp_path: Path
) -> None:
    """To make sense of it first would take hours, but for the hexadecimal number."""
    done = command(
        ["generate", "-e", written(tmp_path, "spec.yaml", f"results_dir: out\n{text}\n")]
    )
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert "spec.yaml: line 2: " in done.err


def test_a_long_text_without_references_is_none_of_these(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "spec.yaml",
        {"results_dir": "out", "autolabel_type": "image_grounding", "x": "9 " * 9_000},
    )
    assert "x is not a key of the spec" in command(["check", "-e", path]).err


USUAL = {
    "root": "/data",
    "a": "${root}/a",
    "b": ["${a}/x", "${b[0]}/y"],
    "c": {
        "d": "${.e}",
        "e": "${..root}",
        "f": "${oc.env:NOT_SET,${root}}",
        "g": "${oc.decode:${oc.env:NOT_SET,3}}",
    },
    "h": "${c}",
    "i": "\\${root}",
    "j": "${oc.env:NOT_SET,'a b'} ${root}",
    "k": ["${root}"] * 500,
}


@pytest.mark.slow
def test_usual_references_are_filled_in() -> None:
    config = OmegaConf.create(USUAL)
    check_references(config)
    filled: Any = OmegaConf.to_container(config, resolve=True)
    assert filled["b"] == ["/data/a/x", "/data/a/x/y"]
    assert filled["h"] == filled["c"] == {"d": "/data", "e": "/data", "f": "/data", "g": 3}
    assert (filled["i"], filled["j"], filled["k"]) == ("${root}", "a b /data", ["/data"] * 500)


def test_references_of_hydra_in_a_block_that_is_left_out_do_no_harm() -> None:
    check_references(
        OmegaConf.create({"hydra": {"run": {"dir": "${now:%Y-%m-%d}/${hydra:job.name}"}}})
    )


KEYS = [f"k{n}" for n in range(6)]
reference = st.sampled_from(
    [*(f"${{{key}}}" for key in KEYS), *(f"${{.{key}}}" for key in KEYS), "${k0.k1}", "text"]
)
texts = st.lists(reference, max_size=6).map("".join)
values = st.one_of(
    texts, st.lists(texts, max_size=4), st.dictionaries(st.sampled_from(KEYS), texts, max_size=4)
)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=6))
def test_what_is_let_through_fills_in_no_more_than_was_reckoned(spec: dict[str, Any]) -> None:
    config = OmegaConf.create(spec)
    try:
        check_references(config)
        filled = OmegaConf.to_container(config, resolve=True)
    except (SpecError, OmegaConfBaseException, RecursionError, TypeError):
        return
    assert len(json.dumps(filled)) <= len(json.dumps(spec)) * 10 + MOST


@pytest.mark.parametrize(
    ("name", "env_file"),
    [("NOBODYS_BASE_URL", " write it into a .env file,"), ("NOBODYS_URL", "")],
    ids=["one that a .env file may set", "one that it may not"],
)
def test_a_variable_that_is_not_set_is_named_with_its_line_and_key(
    tmp_path: Path, name: str, env_file: str
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "results_dir: out\nimage_grounding:\n  vlm:\n    openai:\n"
        f"      base_url: ${{oc.env:{name}}}\n",
        "utf-8",
    )
    done = command(["check", "-e", str(spec)])
    assert done.code == 2
    assert (
        f"{spec}, line 5: image_grounding.vlm.openai.base_url takes the variable {name},"
        f" which is not set: export {name}=...,{env_file} or write"
        f" ${{oc.env:{name},''}} where it may be missing\n" in done.err
    )
    assert "KeyError" not in done.err
