"""Which of several ways of asking is best: compared picture by picture, within a budget.

Pure arithmetic: who asks tells the scores. The default stays unless the paired evidence is against
it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import NamedTuple

_REACH_OF_95_PERCENT = 1.96
"""The standard errors on both sides of a mean within which 95 % of a normal distribution lie."""
_ROUNDING = 1e-9
"""Added before a quotient is cut to a whole number: 2.9999999999 is 3."""


@dataclass(frozen=True)
class Rules:
    """When a way leaves the race, and when one replaces the default.

    Attributes:
        round_size: Pictures that all ways still in the race are asked about before any is judged.
        replaces_at: Chance of being better than the default, from 0 to 1, at which a way replaces
            it after up to 40 pictures.
        strict_at: The same after 80 pictures or more; between 40 and 80 it rises evenly. So many
            pictures find a much better way all the same, and nearly equal ones are chosen less.
        settles_at: The same, for a race that ends before all pictures were seen.
        leaves_at: Standard errors below the leader at which a way leaves.
        surprise: Gain over the default, from 0 to 1, that the pictures to come may bring at most:
            a way that would be less than a standard error above it even then leaves.
        prior_spread: Standard deviation of a paired difference that is assumed beforehand.
        prior_weight: Pictures that the assumption counts for; it tempers luck on the first ones.
        spreads: Standard deviations of the ways' true means that are held possible, each with its
            weight. Of ways that all do nearly alike, the highest is likely to be luck.
    """

    round_size: int = 8
    replaces_at: float = 0.84
    strict_at: float = 0.92
    settles_at: float = 0.995
    leaves_at: float = 2.5
    surprise: float = 0.3
    prior_spread: float = 0.25
    prior_weight: int = 5
    spreads: Mapping[float, float] = field(
        default_factory=lambda: {0.005: 1.0, 0.02: 1.0, 0.04: 1.0, 0.08: 2.0, 0.16: 2.0}
    )

    def chance_to_replace(self, pictures: int) -> float:
        """Return the chance at which a way replaces the default after so many pictures.

        It is `replaces_at` up to 40 of them, `strict_at` from 80 on, unless that is less.

        Example:
            >>> [round(Rules().chance_to_replace(pictures), 3) for pictures in (8, 40, 60, 80)]
            [0.84, 0.84, 0.88, 0.92]
        """
        strict = max(self.strict_at, self.replaces_at)
        share = min(max((pictures - 40) / 40, 0.0), 1.0)
        return self.replaces_at + share * (strict - self.replaces_at)


@dataclass(frozen=True)
class Comparison:
    """A way beside another on the pictures that both were asked about.

    Attributes:
        pictures: How many these are.
        gain: Mean of the paired differences of scores, in [-1, 1].
        error: Standard error of the gain; infinite without pictures.
    """

    pictures: int
    gain: float
    error: float

    @property
    def z(self) -> float:
        """The gain in standard errors; 0 where there is none, as without pictures."""
        return self.gain / self.error if self.gain else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the gain, within [-1, 1]."""
        reach = _REACH_OF_95_PERCENT * self.error
        return max(self.gain - reach, -1.0), min(self.gain + reach, 1.0)


class Race:
    """Ways of asking, compared on the same pictures in rounds.

    Args:
        default: The way that is in use.
        others: The ways that may replace it.
        pictures: How many pictures with gold there are.
        max_requests: How many requests may be sent.
        costs: Requests that a way takes for a picture; 1 where it isn't stated.
        rules: When a way leaves, and when one replaces the default.

    Raises:
        ValueError: A way is named twice, or there is no picture.

    Example:
        >>> race = Race("schema", ["lines"], pictures=20, max_requests=160)
        >>> while race.round:
        ...     for way in race.round.ways:
        ...         for picture in race.round.pictures:
        ...             race.tell(way, picture, 0.9 if way == "lines" else 0.5)
        ...     race.judge()
        >>> race.winner, race.requests
        ('lines', 16.0)
    """

    def __init__(
        self,
        default: str,
        others: Sequence[str],
        *,
        pictures: int,
        max_requests: int = 160,
        costs: Mapping[str, float] | None = None,
        rules: Rules = Rules(),
    ) -> None:
        self.ways = [default, *others]
        if len(set(self.ways)) < len(self.ways) or pictures < 1:
            raise ValueError("a race has ways of different names, and pictures")
        self.default = default
        self.pictures = pictures
        self.max_requests = max_requests
        self.rules = rules
        self.scores: dict[str, dict[int, float]] = {way: {} for way in self.ways}
        self.left: dict[str, str] = {}
        """Each way that left → why, in words."""
        self.requests = 0.0
        self.ended = ""
        """Why the race ended, in words; empty while it goes on."""
        self._costs = {way: (costs or {}).get(way, 1.0) for way in self.ways}
        self._seen = 0
        self.round = self._next_round()

    @property
    def running(self) -> list[str]:
        """The ways still in the race, the default first."""
        return [way for way in self.ways if way not in self.left]

    @property
    def winner(self) -> str:
        """The way to ask in: the default, unless another one has replaced it."""
        leader = self._leader()
        pictures = self.compare(leader, self.default).pictures
        if leader == self.default or self.chance(leader) < self.rules.chance_to_replace(pictures):
            return self.default
        return leader

    def tell(self, way: str, picture: int, score: float) -> None:
        """Take the score of a way's answer about a picture, from 0 to 1, in place of an earlier."""
        self.scores[way][picture] = score

    def drop(self, way: str, why: str) -> None:
        """Take a way out of the race that can't be asked in. The caller never names the default."""
        self.left[way] = why

    def mean(self, way: str) -> float | None:
        """Return the mean score of a way on the pictures that have one of it; None without any."""
        scores = self.scores[way]
        return sum(scores.values()) / len(scores) if scores else None

    def compare(self, way: str, other: str) -> Comparison:
        """Compare a way with another one on the pictures that both have scores of.

        The standard error is tempered by what the rules assume beforehand.
        """
        theirs = self.scores[other]
        differences = []
        for picture, score in self.scores[way].items():
            if picture in theirs:
                differences.append(score - theirs[picture])
        count = len(differences)
        if not count:
            return Comparison(0, 0.0, math.inf)
        gain = sum(differences) / count
        spread = sum((difference - gain) ** 2 for difference in differences)
        assumed = self.rules.prior_weight * self.rules.prior_spread**2
        variance = (spread + assumed) / (count + self.rules.prior_weight - 1)
        return Comparison(count, gain, math.sqrt(variance / count))

    def chance(self, way: str) -> float:
        """Return how likely a way is to be better than the default, from 0 to 1.

        Of many ways that are nearly equal, the one with the highest scores is likely to be luck. So
        the true means of all ways are taken to be normally distributed around one mean, and the
        way's gain is reduced by what of it is likely to be luck. How far true means spread isn't
        known. So the chance is computed for each spread in the rules, and the mean of these chances
        is returned, each weighted by the spread's weight in the rules times how likely the gains of
        all ways are under that spread (empirical Bayes). Without a picture that both were asked
        about, it is 0.5.
        """
        compared = self.compare(way, self.default)
        if not compared.pictures:
            return 0.5
        gains = self._gains()
        noise = compared.error**2 / 2
        weights = []
        chances = []
        for spread, weight in self.rules.spreads.items():
            real_part = spread**2 / (spread**2 + noise)  # of the gain; the rest is luck
            likely_gain = real_part * compared.gain
            # The way's true mean and the default's are uncertain by noise * real_part each.
            deviation = math.sqrt(2 * noise * real_part)
            chances.append(NormalDist().cdf(likely_gain / deviation))
            weights.append(weight * _likelihood(gains, spread))
        total = sum(weights)
        return sum(w * chance for w, chance in zip(weights, chances, strict=True)) / total

    def _gains(self) -> "list[Gain]":
        """Return the gains over the default of all ways that have one, and the default's own first.

        That one is 0, with the least noise of the others. Some other way has to have a gain.
        """
        gains = []
        for way in self.ways:
            compared = self.compare(way, self.default)
            if way != self.default and compared.pictures:
                # A gain is the difference of two means: half of its variance is the default's.
                gains.append(Gain(compared.gain, compared.error**2 / 2))
        least_noise = min(gain.noise for gain in gains)
        return [Gain(0.0, least_noise), *gains]

    def judge(self) -> None:
        """End the round: ways leave, and the next round is made, or the race ends.

        The round counts with the requests that were estimated for it. Nothing happens where the
        race has ended.
        """
        if self.round is None:
            return
        self.requests += self.round.cost
        self._seen += len(self.round.pictures)
        self._drop_beaten()
        self._drop_hopeless()
        self._drop_too_many()
        self.round = self._next_round()

    def end(self, why: str) -> None:
        """End the race at once, without judging its round, as where requests ran out in it."""
        self.ended = why
        self.round = None

    def _drop_beaten(self) -> None:
        """Drop the ways that are clearly worse than the leader; the default stays beside it."""
        leader = self._leader()
        for way in self.running:
            if way in (leader, self.default):
                continue
            if self.compare(way, leader).z <= -self.rules.leaves_at:
                self.left[way] = f"worse than {leader} after {self._seen} pictures"

    def _drop_hopeless(self) -> None:
        """Drop the ways that even the rules' `surprise` wouldn't carry past the default.

        That is a gain of so much on each picture to come. Once all were seen, none is dropped.
        """
        to_come = self.pictures - self._seen
        for way in self.running:
            if way == self.default or not to_come:
                continue
            beside = self.compare(way, self.default)
            sum_at_best = beside.gain * self._seen + self.rules.surprise * to_come
            error_at_end = beside.error * math.sqrt(self._seen / self.pictures)
            if sum_at_best / self.pictures < error_at_end:
                self.left[way] = f"no longer likely to replace {self.default}"

    def _drop_too_many(self) -> None:
        """Drop the lowest ways, up to half of them, till the budget carries the rest to the end.

        One way beside the default always stays.
        """
        others = [way for way in self.running if way != self.default]
        others.sort(key=lambda way: -self.compare(way, self.default).gain)
        least = math.ceil(len(others) / 2)
        while len(others) > max(least, 1) and not self._can_carry([self.default, *others]):
            self.left[others.pop()] = f"among the lowest after {self._seen} pictures"

    def _can_carry(self, ways: Sequence[str]) -> bool:
        """Return whether the budget allows these ways to be asked about all pictures to come."""
        to_come = self.pictures - self._seen
        each = sum(self._costs[way] for way in ways)
        return self.requests + each * to_come <= self.max_requests

    def _leader(self) -> str:
        """Return the way with the highest gain over the default; of equal ones, the first."""
        return max(self.running, key=lambda way: self.compare(way, self.default).gain)

    def _next_round(self) -> "Round | None":
        """Return what is to be asked next; None where the race is over, with the why in `ended`.

        A round has as many pictures as the rules say, or as are left, or as the budget allows.
        """
        ways = self.running
        each = sum(self._costs[way] for way in ways)
        affordable = int((self.max_requests - self.requests) / each + _ROUNDING)
        count = min(self.rules.round_size, self.pictures - self._seen, affordable)
        if len(ways) == 1:
            self.ended = "only the default is left"
        elif self._seen == self.pictures:
            self.ended = "all pictures were asked about"
        elif count < 1:
            self.ended = "the budget of requests was spent"
        elif self._is_settled():
            self.ended = "one way is clearly the best"
        if self.ended:
            return None
        pictures = range(self._seen, self._seen + count)
        return Round(ways, list(pictures), each * count)

    def _is_settled(self) -> bool:
        """Return whether the leader has replaced the default beyond doubt, and none comes near it.

        Ways that have left don't count.
        """
        leader = self._leader()
        if leader == self.default or self.chance(leader) < self.rules.settles_at:
            return False
        others = [way for way in self.running if way not in (leader, self.default)]
        return all(self.compare(leader, way).z >= self.rules.leaves_at for way in others)


def _likelihood(gains: "Sequence[Gain]", spread: float) -> float:
    """Return how likely these gains are, up to a factor, if the true means spread so far.

    Each gain is normal around the true means' common mean, with `spread` squared and its own noise
    as variance. The common mean may be anything: the likelihood is integrated over it.

    Args:
        gains: Of all ways.
        spread: Standard deviation of the true means around their common mean.
    """
    variances = [spread**2 + gain.noise for gain in gains]
    precision = sum(1 / variance for variance in variances)
    pairs = list(zip(gains, variances, strict=True))
    likeliest_mean = sum(gain.seen / variance for gain, variance in pairs) / precision
    # Over the common mean the product of the gains' densities is a normal one, of this precision
    # around the likeliest mean: its integral has the factor 1 / √precision.
    log = -math.log(precision) / 2
    for gain, variance in pairs:
        log -= (math.log(variance) + (gain.seen - likeliest_mean) ** 2 / variance) / 2
    return math.exp(log)


class Gain(NamedTuple):
    """How much better than the default a way was seen to do.

    Attributes:
        seen: The difference of their mean scores, in [-1, 1].
        noise: Variance by luck of the way's own mean.
    """

    seen: float
    noise: float


@dataclass(frozen=True)
class Round:
    """What is to be asked before ways are judged again.

    Attributes:
        ways: The ways that are asked.
        pictures: Numbers of the pictures that each is asked about, from 0.
        cost: Requests that it takes, as estimated.
    """

    ways: Sequence[str]
    pictures: Sequence[int]
    cost: float
