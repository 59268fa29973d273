"""References of a spec that can't be filled in, and those of Hydra."""

from __future__ import annotations

from pathlib import Path

from tests.support.workplace import Workplace, command


def test_references_of_hydra_in_its_own_block_do_no_harm(workplace: Workplace) -> None:
    workplace.many(1)
    spec = workplace.spec()
    over = workplace.folder / "over.yaml"
    over.write_text("hydra: {run: {dir: '${now:%Y-%m-%d}/${hydra:job.name}'}}\n", "utf-8")
    assert command(["check", "-e", str(spec), "-e", str(over)]).code == 0


def test_a_variable_that_is_not_set_is_named_with_its_line_and_key(tmp_path: Path) -> None:
    name = "NOBODYS_BASE_URL"
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
        f" which is not set: export {name}=..., write it into a .env file, or write"
        f" ${{oc.env:{name},''}} where it may be missing\n" in done.err
    )
    assert "KeyError" not in done.err
