"""Which cameras, and logs, were together, when, and what their clocks differed by.

Two lists of sightings (when, by a clock, somebody was where) are compared. If the two were together and the clock of the
first was ahead by δ, the place of a sighting at t lies from that of the other's nearest sighting to t - δ as one person's
next place lies from the last (geoloc.context.transition); if not, as from any of the other's. Its evidence is

    r(δ) = log (a (b T(d; g) + (1 - b) M) + (1 - a) / A) - log (a M + (1 - a) / A),   M = Σ_j b_j T(d_j; g) / Σ_j b_j

with d the distance, g the gap in time, d_j those to all of the other's sightings, A the Earth's area, and a and b how
likely the two places are right. M makes a home that both always come back to say nothing of when they were there. Where a clock has
been told, all that is asked is whether they were together, and where they were far from each other the first's own other sightings are
half of M: somebody who never left home was not in company with one who saw Rome.

Beside it, moments at which both saw one place are counted: where more fall within a minute at δ than within any minute
round it, as many as c for λ expected, that is evidence of c log(c/λ) - c + λ.

Over the spells of the first (photos without a long pause) a hidden Markov chain holds (together or apart, δ): they may part
and meet again, and a clock may be set, rarely.
"""

from dataclasses import dataclass, replace

import numpy as np

from geoloc.context.kernels import ANYWHERE, chords2, kernel_densities
from geoloc.context.transition import Transition
from geoloc.geo.distance import EARTH_RADIUS_KM

PAUSE = 480.0
"""Minutes without a photo end a spell."""
MOMENT, STAY = 3.0, 20.0
"""Minutes: photos of one place that are closer are one sighting, for what happened at one moment, and for who was where."""
REACH = 720.0
"""Minutes: sightings further apart say nothing of each other."""
MOST, COMPARED, SAMPLE = 20_000, 6_000, 300
"""Sightings looked at: by time, by place with each other, and for where somebody is at any time; spread evenly."""
SAME_PLACE_KM, OFTEN = 1.0, 500
"""What is one place; and one that the other was at so often that seeing it says nothing of when, such as home."""
FAR_KM = 100.0
"""From each other, of whom one cannot have been with the other, whatever an estimate's error."""
AT_ONCE = 0.75
"""Minutes between photos of one moment."""
BLUR_KM = (0.1, 10.0)
"""Between places of which both are known, and of which one is an estimate."""
EVIDENCE, BOUND = 0.35, 5.0
"""Power, and the most either way, of one sighting's: those beside each other are not independent."""
EVIDENCE_AT_ONCE = 0.5
"""Power, of what was seen at one moment: photos come in bursts, and bursts fall together by chance."""
TOGETHER, TOGETHER_IF_TOLD = 0.3, 0.93
"""Before anything is known; and of a log with a camera whose clock somebody has told, for that is why it was told."""
PART, SET = 0.05, 0.0005
"""From spell to spell: that they part, and that a clock is set. They meet as often as they part."""
ZONES = np.arange(-14 * 60, 14 * 60 + 1, 15.0)
_AS_EXPECTED, _ZONE, _DRIFT, _ANY = 0.85, 0.1, 0.045, 0.005
"""That a clock is as it should be, is some zone's, is within half an hour of either, or was never set."""
_UTC_ZONE = 0.001
"""In place of _ZONE, where both clocks say what they are ahead of UTC."""
_DRIFTS, _EVER = 30.0, 50 * 365 * 1440.0
"""Minutes."""
_LEAST_EXPECTED = 0.25
"""Moments a spell, at an offset that is wrong."""
_PAIRS_AT_ONCE = 40_000
_PEAKS, _ROUND = 10, np.arange(-8.0, 9.0)
"""Looked at: differences that many pairs have, and minutes round each."""
ABOUT_LOGS = 5.0
"""Minutes that an offset from a log can be off by."""
ABOUT = 15.0
"""Minutes that an offset may be off by, for two to have been together."""


@dataclass(frozen=True)
class Sightings:
    """Of one camera or log, in the order of their times."""

    minutes: np.ndarray
    """(m,) by its clock."""
    places: np.ndarray
    """(m, 3) unit vectors."""
    sure: np.ndarray
    """(m,) probability that the place is about right; 0 where there is none, and its vector is zeros."""
    is_fix: np.ndarray
    """(m,) bool: it is known, not estimated."""

    def __len__(self) -> int:
        return len(self.minutes)

    def part(self, rows: np.ndarray) -> "Sightings":
        return Sightings(*(value[rows] for value in vars(self).values()))

    def some(self, most: int) -> "Sightings":
        """So many at most, spread evenly."""
        return self.part(np.linspace(0, len(self) - 1, min(len(self), most)).astype(int))

    def thinned(self, apart: float, most: int) -> "Sightings":
        """So many at most, one each ``apart`` minutes unless it is elsewhere."""
        moved = ((np.diff(self.places, axis=0) ** 2).sum(1) * EARTH_RADIUS_KM**2) > SAME_PLACE_KM**2
        bucket = np.floor(self.minutes / apart)
        keep = (
            np.flatnonzero(np.concatenate([[True], (np.diff(bucket) != 0) | moved])) if len(self) else np.zeros(0, int)
        )
        if len(keep) > most:
            keep = keep[np.linspace(0, len(keep) - 1, most).astype(int)]
        return self.part(keep)


@dataclass(frozen=True)
class Clock:
    """What is known of how far one clock is ahead of another before anything is seen."""

    expected: float = 0.0
    """Minutes."""
    zone_spread: float | None = None
    """Hours, where all that is known is that the expected is about that of the place's zone."""
    told: bool = False
    """It is as expected for certain."""
    both_utc: bool = False
    """Both say what they are ahead of UTC, so that they hardly differ: where one seems to be a day late, it came by a day later."""

    def offsets(self, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(k,) offsets to be looked at, minutes, with those ``found``, and the logarithm of each's probability."""
        if self.told:
            return np.array([self.expected]), np.zeros(1)
        if self.both_utc:
            found = found[np.abs(found - self.expected) <= _DRIFTS]
        usual = ZONES + (0.0 if self.zone_spread else self.expected)
        whole = np.where(ZONES % 60 == 0, 1.0, np.where(ZONES % 30 == 0, 0.1, 0.02))
        if self.zone_spread:
            near = np.exp(-0.5 * ((usual - self.expected) / (60 * self.zone_spread)) ** 2)
            probability = _AS_EXPECTED * _share(whole * near) + _ZONE * _share(whole)
        else:
            probability = (_UTC_ZONE if self.both_utc else _ZONE) * _share(whole)
            probability[np.abs(usual - self.expected).argmin()] += _AS_EXPECTED
        found = np.unique(np.round((found[:, None] + _ROUND).ravel()))
        found = found[np.abs(found[:, None] - usual).min(1) > 0.5]
        drifts = (probability * (np.abs(found[:, None] - usual) <= _DRIFTS)).sum(1) / (2 * _DRIFTS)
        rare = _DRIFT * drifts / (_AS_EXPECTED + _ZONE) + (0 if self.both_utc else _ANY / _EVER)
        offsets = np.concatenate([usual, found])
        return offsets, np.log(np.concatenate([probability, rare]))


TOLD_MOMENTS, TOLD_MOMENTS_ODD = 4, 10
"""From which on an offset is found, and not only likely: one that zones differ by, and any other."""


@dataclass(frozen=True)
class Spell:
    """A while in which two were together."""

    start: float
    """Minutes, by the first's clock."""
    stop: float
    offset: float
    """Minutes that the first's clock was ahead."""
    give_or_take: float
    """Minutes, with a probability of nine in ten."""
    probability: float
    """That they were together, and their clocks differed by about that (ABOUT)."""
    moments: int
    """Of the first's photos, those that were taken where the other was at that moment, if the offset is right."""

    @property
    def told(self) -> bool:
        """Whether the offset can be relied on."""
        least = TOLD_MOMENTS_ODD if self.offset % 15 else TOLD_MOMENTS
        return self.give_or_take <= ABOUT_LOGS and self.moments >= least


def spells(
    first: Sightings,
    second: Sightings,
    transition: Transition,
    clock: Clock,
    of_log: bool = False,
    sure: float = 0.9,
) -> list[Spell]:
    """In the order of their times, those of at least a probability; those that follow each other with one offset are one.

    ``transition`` is that of minutes. ``of_log``: the second was looked at all the time, so that what both saw at one moment says
    nothing of their clocks to a few minutes.
    """
    if not len(first) or not len(second):
        return []
    new = np.flatnonzero(np.diff(first.minutes, prepend=-np.inf) > PAUSE)
    ends = list(zip(first.minutes[new], first.minutes[np.append(new[1:], len(first)) - 1], strict=True))
    pairs = _Pairs.of(first.thinned(MOMENT, COMPARED), second.thinned(MOMENT, COMPARED), [start for start, _ in ends])
    first, second = first.thinned(STAY, MOST), second.thinned(MOMENT, MOST)
    offsets, prior = clock.offsets(_peaks(pairs.difference))
    of_spell = np.searchsorted([start for start, _ in ends], first.minutes, "right") - 1
    by_spell, compared = np.zeros((2, len(new), len(offsets)))
    evidence, near = _evidence(first, second, offsets, transition, own=clock.told)
    np.add.at(by_spell, of_spell, evidence)
    np.add.at(compared, of_spell, near)
    moments = pairs.count(offsets, AT_ONCE, len(new))
    if not of_log:
        by_spell += _coincidences(moments, pairs.count(offsets, _DRIFTS, len(new)))
    before = TOGETHER_IF_TOLD if clock.told and of_log else TOGETHER
    together = _together(by_spell, prior - np.logaddexp.reduce(prior), before)
    found = _spells(ends, offsets, together, compared > 0, moments, sure)
    return [replace(one, give_or_take=max(one.give_or_take, ABOUT_LOGS)) for one in found] if of_log else found


@dataclass(frozen=True)
class _Pairs:
    """Sightings of one place, by both."""

    difference: np.ndarray
    """(p,) by how many minutes the first's was later, by its clock; sorted."""
    row: np.ndarray
    other: np.ndarray
    spell: np.ndarray
    """(p,) of the first's."""

    @classmethod
    def of(cls, first: Sightings, second: Sightings, starts: list[float]) -> "_Pairs":
        first, second = (one.part(one.sure > 0) for one in (first, second))
        near = np.zeros((len(first), len(second)), bool)
        for start in range(0, len(first), 256):
            part = slice(start, start + 256)
            squared = chords2(first.places[part].astype(np.float32), second.places.astype(np.float32))
            near[part] = squared < SAME_PLACE_KM**2
        near[near.sum(1) > OFTEN] = False
        rows, others = np.nonzero(near)
        differences = first.minutes[rows] - second.minutes[others]
        order = np.argsort(differences)
        spell = np.searchsorted(starts, first.minutes[rows], "right") - 1
        return cls(differences[order], rows[order], others[order], spell[order])

    def count(self, offsets: np.ndarray, reach: float, spells: int) -> np.ndarray:
        """(spells, k): pairs within so many minutes of each offset, no sighting in two of them."""
        out = np.zeros((spells, len(offsets)), np.int64)
        low, high = (np.searchsorted(self.difference, offsets + way * reach) for way in (-1, 1))
        for k in np.flatnonzero(high > low).tolist():
            part = slice(low[k], high[k])
            counts = []
            for one in (self.row, self.other):
                each = np.unique(self.spell[part] * (1 << 32) + one[part])
                counts.append(np.bincount(each >> 32, minlength=spells))
            out[:, k] = np.minimum(*counts)
        return out


def _share(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum()


def _peaks(differences: np.ndarray) -> np.ndarray:
    """(p,) round which most differences lie."""
    inside = np.searchsorted(differences, differences + 2 * AT_ONCE, "right") - np.arange(len(differences))
    peaks: list[float] = []
    for start in np.argsort(-inside, kind="stable"):
        if any(abs(differences[start] - peak) <= _ROUND[-1] - 2 * AT_ONCE for peak in peaks):
            continue  # its middle is in that one's round: not worth a median
        middle = float(np.median(differences[start : start + inside[start]]))
        if all(abs(middle - peak) > _ROUND[-1] for peak in peaks):
            peaks.append(middle)
            if len(peaks) == _PEAKS:
                break
    return np.array(peaks)


def _coincidences(inside: np.ndarray, around: np.ndarray) -> np.ndarray:
    """(spells, k) evidence of photos taken at one moment, by how many there are, and round it."""
    expected = np.maximum(around * AT_ONCE / _DRIFTS, _LEAST_EXPECTED)
    evidence = inside * np.log(np.maximum(inside, 1) / expected) - inside + expected
    return np.where(inside > expected, EVIDENCE_AT_ONCE * evidence, 0.0)


def _evidence(
    first: Sightings, second: Sightings, offsets: np.ndarray, transition: Transition, own: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(m, k), and whether there is another sighting near enough in time to tell. ``own``: if they were apart, the first, where it was far
    from the other, was as likely where it itself is at other times as where the other is. Near it, its own estimates, which share their
    errors, would speak against company for being nearer to each other."""
    anywhere = second.some(SAMPLE)
    mine = first.some(SAMPLE)
    usual, own_usual = np.empty((2, len(first), 8))
    for start in range(0, len(first), 128):
        part = slice(start, start + 128)
        usual[part] = _usual(first.part(part), anywhere)
        own_usual[part] = _usual(first.part(part), mine) if own else usual[part]
    out, told = np.zeros((len(first), len(offsets))), np.zeros((len(first), len(offsets)), bool)
    step = max(1, _PAIRS_AT_ONCE // len(offsets))
    for start in range(0, len(first), step):
        one = first.part(slice(start, start + step))
        near, gap = _nearest(second.minutes, one.minutes[:, None] - offsets)
        row, k = np.nonzero(gap <= REACH)
        near, gap = near[row, k], gap[row, k]
        squared = ((one.places[row] - second.places[near]) ** 2).sum(1) * EARTH_RADIUS_KM**2
        weights = transition.weights(np.log10(np.maximum(gap, 0.3)))
        then = (_kernels(squared, one.is_fix[row] & second.is_fix[near]) * weights).sum(1)
        far = squared > FAR_KM**2
        ever = np.where(far[:, None], (usual + own_usual)[start + row] / 2, usual[start + row])
        ever = (ever * weights).sum(1)
        right, others_right = one.sure[row], second.sure[near]
        wrong = (1 - right) * ANYWHERE
        ratio = np.log((right * (others_right * then + (1 - others_right) * ever) + wrong) / (right * ever + wrong))
        told[start + row, k] = True
        out[start + row, k] = EVIDENCE * np.clip(ratio, -BOUND, BOUND)
    return out, told


def _usual(at: Sightings, anywhere: Sightings) -> np.ndarray:
    """(m, kernels): the density of the second's sightings, at any time, where the first's are."""
    densities = _kernels(chords2(at.places, anywhere.places), at.is_fix[:, None] & anywhere.is_fix)
    return np.einsum("msk,s->mk", densities, anywhere.sure / max(anywhere.sure.sum(), 1e-9))


def _kernels(squared: np.ndarray, both_fixes: np.ndarray) -> np.ndarray:
    exact, blurred = (kernel_densities(squared, blur) for blur in BLUR_KM)
    return np.where(both_fixes[..., None], exact, blurred)


def _nearest(times: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    after = np.clip(np.searchsorted(times, at), 0, len(times) - 1)
    before = np.maximum(after - 1, 0)
    near = np.where(np.abs(times[before] - at) <= np.abs(times[after] - at), before, after)
    return near, np.abs(times[near] - at)


def _together(evidence: np.ndarray, prior: np.ndarray, before: float) -> np.ndarray:
    """(spells, k): probability that the two were together then, and their clocks so far apart. Forward-backward, in logarithms."""
    n = len(evidence)
    emission = np.stack([np.zeros_like(evidence), evidence], axis=1)  # apart, together
    states = np.log([1 - before, before])[:, None] + prior
    meet = PART * before / (1 - before)
    change = np.log([[1 - meet, meet], [PART, 1 - PART]])

    def step(values: np.ndarray, change: np.ndarray) -> np.ndarray:
        """From (2, k) to the next spell's."""
        mixed = np.logaddexp(values[0] + change[0][:, None], values[1] + change[1][:, None])
        return np.logaddexp(np.log1p(-SET) + mixed, np.log(SET) + np.logaddexp.reduce(mixed, axis=1)[:, None] + prior)

    forward = np.empty((n, *states.shape))
    forward[0] = states + emission[0]
    for i in range(1, n):
        forward[i] = step(forward[i - 1], change) + emission[i]
        forward[i] -= forward[i].max()
    backward = np.zeros(states.shape)
    out = np.empty(evidence.shape)
    for i in range(n - 1, -1, -1):
        both = forward[i] + backward
        out[i] = np.exp(both[1] - np.logaddexp.reduce(both.ravel()))
        ahead = emission[i] + backward
        again = np.logaddexp.reduce(ahead + prior, axis=1)[:, None]
        ahead = np.logaddexp(np.log1p(-SET) + ahead, np.log(SET) + again)
        backward = np.logaddexp(change[:, 0][:, None] + ahead[0], change[:, 1][:, None] + ahead[1])
        backward -= backward.max()
    return out


def _spells(
    ends: list[tuple[float, float]],
    offsets: np.ndarray,
    together: np.ndarray,
    compared: np.ndarray,
    moments: np.ndarray,
    sure: float,
) -> list[Spell]:
    found: list[Spell] = []
    best = together.argmax(1)
    off = np.abs(offsets[:, None] - offsets)
    probability = np.minimum((together @ (off <= ABOUT))[np.arange(len(best)), best], 1.0)
    open_ = False
    for i, ((start, stop), chosen) in enumerate(zip(ends, best, strict=True)):
        if probability[i] < sure or not compared[i, chosen]:
            open_ = False
            continue
        one = Spell(
            float(start),
            float(stop),
            float(offsets[chosen]),
            _reach(off[chosen], together[i]),
            float(probability[i]),
            int(moments[i, chosen]),
        )
        if open_ and found[-1].offset == one.offset:
            last = found.pop()
            probable, seen = min(last.probability, one.probability), last.moments + one.moments
            one = replace(last, stop=one.stop, probability=probable, moments=seen)
        found.append(one)
        open_ = True
    return found


def _reach(off: np.ndarray, probability: np.ndarray) -> float:
    """Within which nine tenths of the probability about an offset lie."""
    order = np.argsort(off)
    order = order[off[order] <= ABOUT]
    sums = np.cumsum(probability[order])
    return float(off[order][np.searchsorted(sums, 0.9 * sums[-1])])
