"""Which box format a model writes: the contract table, the user's own rows, and the words of
`vlm.box_format`.
"""

import difflib
import fnmatch
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.tables import load_table
from dataflow_grounding.boxes._model_names import bare_names, is_of_family, squeezed
from dataflow_grounding.boxes.coordinates import ORDERS, SCALES, BoxFormat, frame_of

_PLAIN = re.compile(
    rf"(?P<order>{'|'.join(ORDERS)})_(?P<scale>px|[1-9]\d{{0,5}})(?:@(?P<frame>\S+))?"
)


@lru_cache(maxsize=1)
def known_formats() -> Mapping[str, BoxFormat]:
    """Return the contract table: family name → its format, as written in box_formats.yaml."""
    families: dict[str, dict[str, Any]] = load_table(__package__, "box_formats.yaml")["families"]
    return {name: _format_from_row(name, row) for name, row in families.items()}


def find_box_format(name: str, model: str, rows: Sequence[Mapping[str, Any]] = ()) -> BoxFormat:
    """Return the box format that a spec's `vlm.box_format` names.

    `name` is `auto` (by the model's name, also behind router prefixes and with dates or
    quantisation after it), a plain format such as `xyxy_px`, `yxyx_1000`, `xyxy_512` or
    `xyxy_px@smart_resize_28`, or a family of the contract table. `rows` are the user's own, looked
    at first: mappings with `models`, `order`, `scale`, and optionally `name`, `key`, `frame`,
    `offset`, `bins`, `words`. Raises SpecError for an unknown name or, for `auto`, model: never a
    guess.
    """
    wanted = name.strip().lower()
    if wanted == "calibrated":
        why = f"no calibration is stored for {model!r}; state a format instead"
        raise SpecError(f"vlm.box_format is 'calibrated', but {why}")
    named = {
        **known_formats(),
        **{found.name.lower(): found for found in reversed(_own_formats(rows))},
    }
    found = format_of_model(model, rows) if wanted == "auto" else named.get(wanted)
    if wanted == "auto" and not (found and found.verified):
        hint = f" (candidate: {found.name}, which nobody has confirmed)" if found else ""
        others = (
            "(or yxyx_1000, xyxy_px, xyxy_1, or a family such as gemini, qwen2.5-vl or qwen3-vl)"
        )
        how = f"state it, as in vlm.box_format: xyxy_1000 {others}"
        raise SpecError(f"it is not known how the model {model!r} writes boxes{hint}: {how}")
    if found:
        if not found.boxes:
            raise SpecError(
                f"models of the family {found.name!r} answer with {found.key}s, not boxes: use"
                " another model"
            )
        return found
    if plain := _PLAIN.fullmatch(wanted):
        scale = plain["scale"] if plain["scale"] == "px" else int(plain["scale"])
        return _format_from_row(
            wanted, {"order": plain["order"], "scale": scale, "frame": plain["frame"] or "sent"}
        )
    known = [*named, *map("_".join, product(ORDERS, map(str, SCALES))), "auto", "calibrated"]
    close = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    nearest = f": did you mean {close[0]!r}?" if close else "."
    raise SpecError(
        f"unknown vlm.box_format {name!r}{nearest} Use auto, a plain format ({', '.join(ORDERS)}"
        " with px or a whole number, as in xyxy_1000), or a family such as gemini or qwen2.5-vl"
    )


def format_of_model(model: str, rows: Sequence[Mapping[str, Any]] = ()) -> BoxFormat | None:
    """Return the format of the user's own row, or else of the contract table's, that the model's
    name falls under.

    It may be an unconfirmed candidate (`verified`), or one of points (`boxes`). Raises SpecError
    for a bad row.
    """
    names = bare_names(model)
    patterns = ((squeezed(pattern), row) for row in _own_formats(rows) for pattern in row.models)
    own = (pair for pair in patterns if fnmatch.filter(names, pair[0]))
    families = known_formats().values()
    of_family = (
        (squeezed(name), row)
        for row in families
        for name in row.models
        if is_of_family(model, name)
    )
    for found in (own, of_family):  # the longest beginning wins: "gpt-5.2" is none of the "gpt-5"
        if best := max(found, key=lambda pair: len(pair[0]), default=None):
            return best[1]
    return None


def _own_formats(rows: Sequence[Mapping[str, Any]]) -> list[BoxFormat]:
    return [
        _format_from_row(str(row.get("name", f"row {i}")), row)
        for i, row in enumerate(rows, start=1)
    ]


def _format_from_row(name: str, row: Mapping[str, Any]) -> BoxFormat:
    try:
        _check_row(row)
        order, models = row.get("order", "xyxy"), row.get("models") or ()
        given = {
            **row,
            "name": name,
            "order": order,
            "key": "box_2d" if order == "yxyx" else "bbox_2d",
        }
        given |= {
            key: str(row[key])
            for key in ("key", "frame", "words", "source", "date")
            if row.get(key)
        }
        given |= {"offset": float(row.get("offset", 0.0))}
        given |= {"models": (models,) if isinstance(models, str) else tuple(map(str, models))}
        found = BoxFormat(**given)
        frame_of(found.frame, (1, 1))
        return found
    except (TypeError, ValueError, AttributeError) as error:
        raise SpecError(f"box format {name!r}: {error}") from None


def _check_row(row: Mapping[str, Any]) -> None:
    """Raises ValueError: a misspelt `order` would be read as the usual one, and every box would be
    silently wrong.
    """
    scale = row.get("scale")
    known_scale = scale in ("px", "grid_32") or (type(scale) is int and 0 < scale < 10**6)
    if row.get("order", "xyxy") not in ORDERS or not known_scale:
        scales = "scale px, grid_32 or a whole number from 1 to 999999"
        raise ValueError(f"order must be one of {', '.join(ORDERS)}; {scales}")
    for key in row:
        if key not in BoxFormat.__dataclass_fields__:
            raise ValueError(
                f"{key!r} is not a key of a row; the keys are"
                f" {', '.join(BoxFormat.__dataclass_fields__)}"
            )
    for key in ("bins", "verified", "boxes"):
        if not isinstance(row.get(key, False), bool):
            raise ValueError(f"{key} must be true or false, not {row[key]!r}")
    if not math.isfinite(float(row.get("offset", 0.0))):
        raise ValueError("offset must be a finite number")
    if row.get("bins") and scale == 1:
        raise ValueError("with bins, scale must be above 1")
