"""Calling an operator: its columns, and the arguments that name them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from dataflow_grounding.data.records import JsonObject

if TYPE_CHECKING:
    from dataflow_grounding.operators.operator_base import Operator

OnError: TypeAlias = Literal["drop", "raise", "keep"]
"""What becomes of records in memory that fail, as `Operator.__call__` says."""
Rows: TypeAlias = "Sequence[JsonObject] | Iterator[JsonObject]"


@dataclass(frozen=True)
class Columns:
    """The columns of an operator: `columns.caption` is the column of the role `caption`."""

    by_role: Mapping[str, str]

    def __getattr__(self, role: str) -> str:
        # pickling and copying look for methods before there are any columns
        by_role: Mapping[str, str] = self.__dict__.get("by_role", {})
        if role not in by_role:
            raise AttributeError(f"no role {role!r}: there are {', '.join(by_role) or 'none'}")
        return by_role[role]


def roles_by_role_argument(operator: "Operator") -> dict[str, str]:
    """Return the roles by the arguments that name them: `input_caption_key` → `caption`."""
    roles: dict[str, str] = {}
    for prefix, columns in (("input", operator.input_keys), ("output", operator.output_keys)):
        for role in columns:
            # the argument of an input role `input` is `input_key`
            argument = f"{prefix}_key" if role == prefix else f"{prefix}_{role}_key"
            roles[argument] = role
    return roles


def roles_by_column_argument(operator: "Operator") -> dict[str, str]:
    """Return the roles by the arguments that name their default columns."""
    roles: dict[str, str] = {}
    for prefix, columns in (("input", operator.input_keys), ("output", operator.output_keys)):
        for role, column in columns.items():
            roles[f"{prefix}_{column}_key"] = role  # `input_image_path_key` → `image`
    return roles
