"""The page of dependencies names exactly those of pyproject.toml."""

from __future__ import annotations

import re

import pytest

from tests.support.workplace import REPOSITORY

PAGE = (REPOSITORY / "docs" / "dependencies.md").read_text(encoding="utf-8")
PROJECT = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")


def listed(heading: str) -> dict[str, str]:
    """The packages in the first column of a section's table, and the rest of their rows."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|(.*)\|$", section, re.MULTILINE)
    return {name: rest for names, rest in rows for name in re.findall("`([^`]*)`", names)}


def required(key: str) -> list[str]:
    """The packages of a list in pyproject.toml, without their versions."""
    [inner] = re.findall(rf"^{key} = \[(.*?)\]$", PROJECT, re.MULTILINE | re.DOTALL)
    return re.findall(r'"([\w-]+)', inner)


@pytest.mark.parametrize(("heading", "key"), [("Core", "dependencies"), ("Development", "dev")])
def test_every_dependency_is_in_the_page_and_every_one_there_is_required(
    heading: str, key: str
) -> None:
    assert sorted(listed(heading)) == sorted(required(key))


def test_every_extra_is_in_the_page_with_its_name() -> None:
    section = PROJECT.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = [name for name in re.findall(r"^(\w+) = \[", section, re.MULTILINE) if name != "dev"]
    found = {package: extra for extra in extras for package in required(extra)}
    assert sorted(listed("Extras")) == sorted(found)
    for package, rest in listed("Extras").items():
        assert rest.strip().startswith(f"`{found[package]}` |")


def test_the_packages_that_users_know_are_in_the_core_install() -> None:
    assert {"pandas", "openai", "pillow", "opencv-python-headless", "jsonlines", "pyyaml"} <= set(
        required("dependencies")
    )
