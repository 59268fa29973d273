"""What an earlier run of a results folder asked, and how its replies are found again.

Versions of this package have put different things into the key of a stored reply. So that none is
paid for again, a serving gets the identities of then as further ones.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dataflow_grounding.jobs.serving_of_spec import settings_that_count
from dataflow_grounding.serving.serving import Serving

RUN_JSON = "run.json"
MOST_ADDRESSES = 16
"""How many earlier addresses of a results folder are remembered: each costs a look into the store.
"""


class EarlierRun(NamedTuple):
    """The last run of a results folder, by its `run.json`.

    Attributes:
        model: The model that was asked; None if that isn't known.
        endpoint: Its address, likewise.
        addresses: Where earlier runs asked the model, the last first, MOST_ADDRESSES at most. The
            present address isn't among them.
        settings: The settings of replies that have none in their key. If they aren't known, they
            count as the present ones.
    """

    model: Any
    endpoint: Any
    addresses: list[str]
    settings: Any


def with_earlier_replies(serving: Serving, pipeline: str, facts: Mapping[str, Any]) -> EarlierRun:
    """Let a serving find the replies that earlier runs of a results folder have stored.

    Args:
        serving: What will be asked.
        pipeline: The spec's `autolabel_type`.
        facts: The folder's `run.json`; empty where there is none.

    Returns:
        What the last of the earlier runs says of itself.
    """
    before = EarlierRun(
        facts.get("model"),
        facts.get("endpoint"),
        _other_addresses(serving.endpoint, facts),
        _settings_before(facts, pipeline, serving),
    )
    identity = serving.identity()
    identity_there = serving.identity_there()
    if identity_there != identity:
        # An earlier version had the endpoint's address in a reply's key; by now the model's name
        # will do. Nothing is lent where the present key has the address, too.
        for address in before.addresses:
            # `run.json` joins the addresses of several endpoints; the key just had these words
            endpoint = "several endpoints" if " + " in address else address
            _lend(serving, {**identity_there, "endpoint": endpoint})
    if "settings" in identity and before.settings == identity["settings"]:
        # A user's serving had no settings in its key. Only replies that were asked for with the
        # present ones count.
        _lend(serving, {key: identity_there[key] for key in identity_there if key != "settings"})
    return before


def _lend(serving: Serving, identity: dict[str, Any]) -> None:
    serving.other_identities = [*serving.other_identities, identity]


def _other_addresses(present_address: str, facts: Mapping[str, Any]) -> list[str]:
    earlier = facts.get("endpoints_before")
    named = [facts.get("endpoint"), *(earlier if isinstance(earlier, list) else [])]
    addresses = [address for address in named if isinstance(address, str)]
    others = [address for address in addresses if address != present_address]
    return list(dict.fromkeys(others))[:MOST_ADDRESSES]


def _settings_before(facts: Mapping[str, Any], pipeline: str, serving: Serving) -> Any:
    # `run.json` has the settings, or still the spec of an earlier version.
    if "settings_before" in facts:
        return facts["settings_before"]
    try:
        return settings_that_count(facts["spec"][pipeline]["vlm"]["settings"])
    except (KeyError, TypeError, AttributeError):
        return dict(serving.stated_settings)
