"""What a model may write where JSON was asked for."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st


def any_json(*keys: str) -> st.SearchStrategy[Any]:
    """Any value, NaN too; objects have these keys, or any."""
    of_objects = st.sampled_from(keys) if keys else st.text(max_size=8)
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(of_objects, inner, max_size=4),
        max_leaves=12,
    )
