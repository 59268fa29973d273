"""Wheels of what is installed here, for a pip that asks no index: to read what an index has of each
package takes it longer than to install them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LEFT_OUT = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "__pycache__", "tests"}


def pack(requirements: Iterable[str], folder: Path) -> None:
    """Write wheels of these, and of all that they need, to `folder`, which is made."""
    folder.mkdir(parents=True)
    wanted = [Requirement(line) for line in requirements]
    seen = set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {extra for of, extra in seen if of == name}:
            seen.add((name, extra))
            installed = distribution(name)
            if not extra:
                write(installed, folder)
            needed = [Requirement(line) for line in installed.requires or ()]
            wanted += [one for one in needed if is_wanted(one, extra)]


def is_wanted(requirement: Requirement, extra: str = "") -> bool:
    """Whether it is one of this system, and of this extra."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def write(installed: Distribution, folder: Path) -> None:
    """The wheel of a distribution: its files, bar its tests and what pip made when it installed it."""
    about = installed.read_text("WHEEL") or ""
    [*_, tag] = [line.removeprefix("Tag: ") for line in about.splitlines() if "Tag: " in line]
    name = canonicalize_name(installed.name).replace("-", "_")
    files = [
        file
        for file in installed.files or ()
        if file.parts[0] != ".." and LEFT_OUT.isdisjoint(file.parts)
    ]
    [info] = {file.parts[0] for file in files if file.parts[0].endswith(".dist-info")}
    with zipfile.ZipFile(folder / f"{name}-{installed.version}-{tag}.whl", "w") as wheel:
        for file in files:
            wheel.write(str(installed.locate_file(file)), str(file))
        lines = [f"{file},,\n" for file in [*files, f"{info}/RECORD"]]
        wheel.writestr(f"{info}/RECORD", "".join(lines))
