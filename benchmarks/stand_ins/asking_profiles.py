"""Models whose accuracy depends on how they are asked, with one difficulty of a phrase for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import yaml

SHIPPED = Path(__file__).with_suffix(".yaml")
FURTHER = Path(__file__).with_name("further_profiles.yaml")
"""Models that the rules of the race were not made by."""
RHO = 0.6
"""Correlation of how hard a phrase is asked in one form and in another (Gaussian copula)."""


@dataclass(frozen=True)
class Profile:
    """A model: form → share of phrases answered right, the default first."""

    name: str
    accuracy: Mapping[str, float]

    @property
    def default(self) -> str:
        """The form in use."""
        return next(iter(self.accuracy))

    @property
    def best(self) -> float:
        """The highest accuracy of all forms."""
        return max(self.accuracy.values())

    def scores(
        self, chance: np.random.Generator, pictures: int, phrases: int, rho: float = RHO
    ) -> dict[str, np.ndarray]:
        """Return each form's share of right phrases, of each picture."""
        shared = chance.standard_normal((pictures, phrases))
        scores = {}
        for form, accuracy in self.accuracy.items():
            own = chance.standard_normal((pictures, phrases))
            ease = np.sqrt(rho) * shared + np.sqrt(1 - rho) * own
            scores[form] = (ease < NormalDist().inv_cdf(accuracy)).mean(axis=1)
        return scores


def read_profiles(path: Path = SHIPPED) -> list[Profile]:
    """Return the profiles of a YAML file: name → {form: accuracy between 0 and 1}.

    Raises SystemExit for a file that has none.
    """
    table = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(table, dict) or not table:
        raise SystemExit(f"{path}: write a mapping, name: {{form: accuracy}}")
    profiles = []
    for name, accuracy in table.items():
        is_table = isinstance(accuracy, dict) and len(accuracy) > 1
        if not is_table or not all(0 < share < 1 for share in accuracy.values()):
            raise SystemExit(f"{path}: {name} needs two forms or more, each between 0 and 1")
        profiles.append(Profile(str(name), accuracy))
    return profiles
