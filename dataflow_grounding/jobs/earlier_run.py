"""What an earlier run of a results folder asked, and how its replies are found again.

Versions of this package have put different things into the key of a stored reply. So that none is
paid for again, a serving gets the identities of then as further ones.
"""

import os
from typing import Any

from dataflow_grounding.data.records import read_object
from dataflow_grounding.jobs.serving_of_spec import settings_that_count
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.spec import Spec

RUN_JSON = "run.json"
MOST_ADDRESSES = 16
"""So many earlier addresses of a results folder are remembered: each costs a look into the store.
"""


class EarlierRun:
    """The last run of a results folder, by its `run.json`; an empty one where there is none.

    Args:
        spec: The spec that is to run now.
        serving: The serving that is to be asked now.

    Attributes:
        model: The model that was asked; None where that isn't known.
        endpoint: Its address, likewise.
        addresses: Where earlier runs asked the model, the last first, MOST_ADDRESSES at most. The
            present address isn't among them.
        settings: The settings with which replies were asked for that have none in their key. Where
            nothing is known they are taken to be the present ones.
    """

    def __init__(self, spec: Spec, serving: Serving) -> None:
        self._before = read_object(os.path.join(spec.results_dir, RUN_JSON))
        self.model = self._before.get("model")
        self.endpoint = self._before.get("endpoint")
        self.addresses = self._addresses_besides(serving.endpoint)
        self.settings = self._settings_of(spec.autolabel_type, serving)

    def lend_replies(self, serving: Serving) -> None:
        """Let a serving find the replies that earlier versions of this package have stored."""
        self._lend_replies_of_addresses(serving)
        self._lend_replies_without_settings(serving)

    def _addresses_besides(self, present: str) -> list[str]:
        earlier = self._before.get("endpoints_before")
        named = [self.endpoint, *(earlier if isinstance(earlier, list) else [])]
        addresses = [address for address in named if isinstance(address, str)]
        others = [address for address in addresses if address != present]
        return list(dict.fromkeys(others))[:MOST_ADDRESSES]

    def _settings_of(self, pipeline: str, serving: Serving) -> Any:
        # `run.json` has the settings, or still the spec of an earlier version.
        if "settings_before" in self._before:
            return self._before["settings_before"]
        try:
            return settings_that_count(self._before["spec"][pipeline]["vlm"]["settings"])
        except (KeyError, TypeError, AttributeError):
            return dict(serving.stated_settings)

    def _lend_replies_of_addresses(self, serving: Serving) -> None:
        # An earlier version had the endpoint's address in a reply's key; by now the model's name
        # will do. Nothing is lent where the present key has the address, too.
        identity_there = serving.identity_there()
        if identity_there == serving.identity():
            return
        identities = list(serving.other_identities)
        for address in self.addresses:
            # `run.json` joins the addresses of several endpoints; the key just had these words
            is_several = " + " in address
            endpoint = "several endpoints" if is_several else address
            identities.append({**identity_there, "endpoint": endpoint})
        serving.other_identities = identities

    def _lend_replies_without_settings(self, serving: Serving) -> None:
        # A user's serving had no settings in its key. Only replies that were asked for with the
        # present ones count.
        identity = serving.identity()
        if "settings" not in identity or self.settings != identity["settings"]:
            return
        without_settings = serving.identity_there()
        del without_settings["settings"]
        serving.other_identities = [*serving.other_identities, without_settings]
