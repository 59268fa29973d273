"""How many requests at once each endpoint took when a folder's last run ended.

The next run begins with that.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import Any

from dataflow_grounding._util.errors import StorageFailed
from dataflow_grounding.data.records import is_number
from dataflow_grounding.engine.facts import fact, keep_fact
from dataflow_grounding.engine.limiter import FoundPlaces, share_of
from dataflow_grounding.serving.serving import Serving

PLACES = "places"  # the name of the fact


@contextmanager
def resumed(folder: str, servings: Iterable[Serving]) -> Iterator[None]:
    """Begin with the places that the folder's last run left, and leave this one's at the end."""
    # {"9b1c…": {"places": 48.0, "refused_at": 60.0}}
    found_by_digest = dict(fact(folder, PLACES) or {})
    endpoint_by_digest = _remote_endpoints(servings)
    for digest, endpoint in endpoint_by_digest.items():
        found_last = _found(found_by_digest.get(digest))
        share = share_of(endpoint)
        # a process that has been through a run with it knows better itself
        if found_last is not None and not share.limiter.has_had_a_run:
            share.resume(found_last)
        share.limiter.has_had_a_run = True
    try:
        yield
    finally:
        for digest, endpoint in endpoint_by_digest.items():
            found_by_digest[digest] = share_of(endpoint).found._asdict()
        with suppress(StorageFailed):  # the next run finds out again
            keep_fact(folder, PLACES, found_by_digest)


def _remote_endpoints(servings: Iterable[Serving]) -> dict[str, Serving]:
    """Return those with an address, by digest; others answer within this process."""
    endpoint_by_digest: dict[str, Serving] = {}
    for serving in servings:
        for endpoint, _ in serving.endpoints():  # each with its weight
            if "://" in endpoint.endpoint:
                # the digest hides the address, which may be private
                text = f"{endpoint.endpoint} {endpoint.model} {endpoint.max_workers}"
                digest = blake2b(text.encode(), digest_size=16).hexdigest()
                endpoint_by_digest[digest] = endpoint
    return endpoint_by_digest


def _found(entry: Any) -> FoundPlaces | None:
    if not isinstance(entry, dict):
        return None
    places = _count(entry.get("places"))
    if places is None:
        return None
    return FoundPlaces(places, _count(entry.get("refused_at")))


def _count(value: Any) -> float | None:
    return float(value) if is_number(value) and value >= 1 else None
