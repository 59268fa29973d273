"""How many requests at once each endpoint took when a folder's last run ended: the next run begins
with that.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import Any

from dataflow_grounding.data.records import is_number, read_object, write_bytes
from dataflow_grounding.engine.limiter import Found, Limiter, limiter_of
from dataflow_grounding.serving.base import Serving

FILE = "concurrency.json"


@contextmanager
def resumed(folder: str, servings: Iterable[Serving]) -> Iterator[None]:
    """Within it, endpoints begin with what the last run in this checkpoint folder left; what comes
    of it is left then.

    Only where endpoint, model and `max_workers` are the same; a process that knows more of an
    endpoint by now, from a run before, goes by that. A worker's limits are leased, and kept by whom
    it leases them from.
    """
    if Limiter.lease is not None:
        yield
        return
    path = os.path.join(folder, FILE)
    left = read_object(path)
    endpoints = {
        _name(one): one
        for serving in servings
        for one, _ in serving.endpoints()
        if "://" in one.endpoint
    }
    for name, serving in endpoints.items():
        found, share = _found(left.get(name)), limiter_of(serving)
        if found is not None and not share.limiter.known:
            share.resume(found)
        share.limiter.known = True
    try:
        yield
    finally:
        for name, serving in endpoints.items():
            left[name] = limiter_of(serving).found._asdict()
        with suppress(OSError):  # the next run finds out anew
            write_bytes(path, json.dumps(left, indent=1).encode())


def _name(serving: Serving) -> str:
    """Tells endpoints, models and limits apart, without the address, which may be nobody's
    business.
    """
    return blake2b(
        f"{serving.endpoint} {serving.model} {serving.max_workers}".encode(), digest_size=16
    ).hexdigest()


def _found(entry: Any) -> Found | None:
    """What a file says of an endpoint, if that can be."""
    if not isinstance(entry, dict):
        return None
    places, refused_at = (_count(entry.get(name)) for name in ("places", "refused_at"))
    return None if places is None else Found(places, refused_at)


def _count(value: Any) -> float | None:
    return float(value) if is_number(value) and value >= 1 else None
