"""The log of replies: what was paid for, and what checks of the endpoint have said of it.

A line is a reply, `{"key": …, "of": group, …}`, or a check's result, `{"mark": group, "says":
"good", "up_to": 40}`. A group is a model, its settings and the format of its boxes. Whoever reads
the log in order knows which of a group's replies

- count: a check has gone well that was sent when the log held them, as the first 40 of the group,
- are open: they came later. They count, and make the next run begin with a check,
- are set aside: a check has failed while they were open, or before they came, in the same run.
  They count as lost; where the run only warns, as suspect.

A reply without a group has no boxes, and needs no check.
"""

import json
import re
from array import array
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.engine.keyed_log import CHECK, KeyedLog, key_of

# In a reply's text, a quote has a backslash before it, so that these are keys of the line.
_OF = re.compile(rb'"of": ?"([^"\\]*)"')
_MARK = re.compile(rb'"mark": ?"')
_SUSPECT = re.compile(rb'"suspect": ?true')


class _Group:
    """A group's replies in the order in which they came."""

    def __init__(self) -> None:
        self.count = 0  # how many came
        self.open = array("Q")  # byte offsets of the last ones, which no check was about

    def add(self, offset: int) -> None:
        self.count += 1
        self.open.append(offset)

    def settle(self, up_to: int) -> "array[int]":
        """Settle what is open of the first `up_to` replies, and return the offsets."""
        first_open = self.count - len(self.open)
        settled = self.open[: max(0, up_to - first_open)]
        del self.open[: len(settled)]
        return settled


class ReplyLog(KeyedLog):
    """The replies of a run; `others` are those of its other parts, which are only read."""

    def __init__(self, path: str, *, read_only: bool = False, others: Iterable[str] = ()) -> None:
        self._groups = defaultdict[str, _Group](_Group)
        self._set_aside: dict[int, str] = {}  # the group, by byte offset
        self._trusted: set[str] = set()  # groups whose set aside lines count, as suspect ones
        self._failed: set[str] = set()  # groups of which a check of this run has failed
        super().__init__(path, read_only=read_only)
        self.first_new = self.end  # where the lines of this run begin
        self.others = [ReplyLog(other, read_only=True) for other in others]

    def _look_at(self, line: bytes, offset: int) -> None:
        of = _OF.search(line)
        if of is not None:
            group = of[1].decode("utf-8", "replace")
            self._add(group, offset, _SUSPECT.search(line) is not None)
        elif _MARK.search(line):
            with suppress(ValueError, KeyError, TypeError):
                mark = json.loads(line)
                self._heed(str(mark["mark"]), mark["says"], int(mark["up_to"]))

    def _add(self, group: str, offset: int, is_suspect: bool) -> None:
        if is_suspect:
            self._set_aside[offset] = group
            self._groups[group].settle(self._groups[group].count)
            self._groups[group].count += 1
        else:
            self._groups[group].add(offset)

    def _heed(self, group: str, says: str, up_to: int) -> int:
        """Heed what a check says; return how many replies it was about."""
        settled = self._groups[group].settle(up_to)
        if says == "bad":
            self._set_aside.update((offset, group) for offset in settled)
        return len(settled)

    def get(self, key: str) -> JsonObject | None:
        """Return a key's last line; of another part of the run where this one has no answer."""
        line = self._own_line(key)
        if line is not None and not line.get("refusal"):
            return line
        return next(iter(self.every(key)), None)

    def get_new(self, key: str) -> JsonObject | None:
        """Return a key's last line, if it is of this run."""
        offset = self._offset_of(key)
        return None if offset is None or offset < self.first_new else self._own_line(key)

    def every(self, key: str) -> list[JsonObject]:
        """Return each log's last line of `key`; a refusal only where there is no answer."""
        answers: list[JsonObject] = []
        refusals: list[JsonObject] = []
        for log in [self, *self.others]:
            line = log._own_line(key)
            if line:
                lines = refusals if line.get("refusal") else answers
                lines.append(line)
        return answers or refusals[:1]

    def _own_line(self, key: str) -> JsonObject | None:
        """Return a key's last line, as a suspect one where it is set aside, or None."""
        offset = self._offset_of(key)
        if offset is None:
            return None
        line = self._line_of(key, offset)
        group = self._set_aside.get(offset)
        if line is None or group is None:
            return line
        return {**line, "suspect": True} if group in self._trusted else None

    def put(self, key: str, value: JsonObject) -> JsonObject:
        group = value.get("of")
        if group is None:
            return super().put(key, value)
        is_suspect = group in self._failed
        offset = self.end
        line = super().put(key, {**value, "suspect": True} if is_suspect else value)
        self._add(group, offset, is_suspect)
        return line

    def close(self) -> None:
        for other in self.others:
            other.close()
        super().close()


class Marks:
    """What checks say of one group's replies. Where `trusting`, a run takes replies that are set
    aside, as suspect ones.
    """

    def __init__(self, log: ReplyLog, group: str, trusting: bool) -> None:
        self._log = log
        self._group = group
        is_any_set_aside = group in log._set_aside.values()
        logs = [log, *log.others]
        self.relied_on = (trusting and is_any_set_aside) or any(
            log._groups[group].open for log in logs
        )
        """Whether this run takes replies of earlier runs that no check has found good."""
        if trusting:
            for each in logs:
                each._trusted.add(group)

    def here(self) -> int:
        """Return how many replies a check is about that is sent now."""
        return self._log._groups[self._group].count

    def good(self, up_to: int) -> None:
        """Note a check that went well, and was sent when there were so many replies."""
        self._write("good", up_to)

    def bad(self) -> int:
        """Note a failed check; return how many replies are set aside."""
        self._log._failed.add(self._group)
        return self._write("bad", self.here())

    def _write(self, says: str, up_to: int) -> int:
        mark = {"task": CHECK, "mark": self._group, "says": says, "up_to": up_to}
        self._log.put(key_of(f"mark {self._group}"), mark)
        return self._log._heed(self._group, says, up_to)
