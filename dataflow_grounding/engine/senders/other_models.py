"""Which models answer: a gateway may have another one answer than the one asked for."""

import re
from collections import Counter

from dataflow_grounding._util.secrets import blotted
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import say
from dataflow_grounding.serving.serving import Reply

MOST_TOLD = 3  # other models that are told of: more names than that say nothing
ANSWERED_BY = "answered_by "
"""With what the counts of replies by model begin, before the model's name."""
# What another name of the same model may have: the provider before it, a date, version or variant
# after it (`openai/gpt-4o-2024-08-06`, `gemini-2.5-flash-001`, `qwen2.5vl:latest`).
_PROVIDER = re.compile(r"^.*/|^(?:us|eu|apac|global)\.(?=.*\.)")
_VERSION = re.compile(r"(?:[-@:](?:latest|free|nitro|floor|20\d\d-\d\d-\d\d|\d{3,8}))+$")


class Answerers:
    """Counts which models answer, and tells of other ones than the one asked for."""

    def __init__(self, asked: str, counts: Counter[str]) -> None:
        self._asked = asked
        self._counts = counts
        self.others: list[str] = []  # that were warned of

    def add(self, reply: Reply, address: str) -> None:
        """Count a reply by its model, and warn once of each that isn't the one asked for: of an
        alias, too, because nobody else can tell it from another model.
        """
        name = blotted(reply.model)
        if reply.by_fallback:  # as the gateway says itself
            name = f"{name or self._asked} (fallback)"
        if not name:
            return
        self._counts[f"{ANSWERED_BY}{name}"] += 1
        if not is_same_model(name, self._asked):
            self._warn_once(name, address)

    def _warn_once(self, name: str, address: str) -> None:
        if name in self.others or len(self.others) >= MOST_TOLD:
            return
        self.others.append(name)
        say(
            f"Warning: {name} answers at {address}, where {self._asked} was asked for. Its replies"
            " count: if they shouldn't, stop the run and switch off the gateway's fallbacks"
            f" (LiteLLM's by disable_fallbacks: true in {setting('vlm.openai.extra_body')})."
        )


def is_same_model(one: str, other: str) -> bool:
    """Return whether names are of one model, as `gpt-4o` and `openai/gpt-4o-2024-08-06`."""
    if one == other:  # as nearly always
        return True
    one = _PROVIDER.sub("", one.lower())
    other = _PROVIDER.sub("", other.lower())
    if one == other:
        return True
    # two names with different versions are of two models
    return _VERSION.sub("", one) == other or one == _VERSION.sub("", other)
