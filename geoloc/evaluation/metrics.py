"""How good a run is, and how sure that is: accuracies, errors and scores with bootstrap intervals, runs compared in pairs.

Resampling is by group (the author of photos, where authors are known): photos of one author are not independent, and
intervals that ignore it are too narrow.
"""

from dataclasses import dataclass, field

import numpy as np

from geoloc.evaluation.protocol import Protocol, geoguessr_score
from geoloc.geo.distance import THRESHOLDS_KM

LEVEL = 0.95
REPLICATES = 1_000
_WORK = 4e8
"""Resampled groups in all; so many groups that this means fewer replicates need no more."""
ACCURACIES = [f"acc_{threshold}km" for threshold in THRESHOLDS_KM]


@dataclass(frozen=True)
class Judged:
    """A run against the truth, n photos."""

    run: str
    km: np.ndarray
    """(n,) the error; infinite where there is no answer."""
    shares: dict[str, np.ndarray] = field(default_factory=dict)
    """Further yes-or-no metrics (n,), such as ``country_acc``: 1 right, 0 wrong, NaN does not count."""


@dataclass(frozen=True)
class Figure:
    value: float
    low: float
    high: float
    """Ends of the 95 % interval."""


@dataclass(frozen=True)
class Measured:
    run: str
    n: int
    missing: int
    figures: dict[str, Figure]
    """``acc_1km`` … and the other shares in percent; ``median_km`` and ``mean_km`` of the answered photos;
    ``geoguessr``, the mean score, 0 for an unanswered photo."""
    against: dict[str, Figure]
    """The same, minus the first run's, photo for photo; empty for the first."""


def measure(runs: list[Judged], protocol: Protocol, groups: np.ndarray | None = None, seed: int = 0) -> list[Measured]:
    """Judge runs over the same n photos. ``groups`` (n,) are integers, equal for photos that depend on each other."""
    n = len(runs[0].km)
    groups = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    tallies = [_Tally(run, protocol, groups) for run in runs]
    count = int(groups.max()) + 1
    replicates = int(np.clip(_WORK / count, 100, REPLICATES))
    random = np.random.default_rng(seed)
    everyone = np.ones(count)
    values = [tally.figures(everyone) for tally in tallies]
    samples: list[list[dict]] = [[] for _ in tallies]
    for _ in range(replicates):
        weight = np.bincount(random.integers(count, size=count), minlength=count).astype(np.float64)
        for sample, tally in zip(samples, tallies, strict=True):
            sample.append(tally.figures(weight))
    first = samples[0]
    return [
        Measured(
            tally.run,
            n,
            tally.missing,
            _figures(value, sample),
            {} if tally is tallies[0] else _differences(value, sample, values[0], first),
        )
        for tally, value, sample in zip(tallies, values, samples, strict=True)
    ]


class _Tally:
    """Every figure is a ratio of sums over photos, but the median; sums over a group's photos are taken once."""

    def __init__(self, run: Judged, protocol: Protocol, groups: np.ndarray) -> None:
        self.run = run.run
        answered = np.isfinite(run.km)
        self.missing = int((~answered).sum())
        ratios = {
            name: (100 * protocol.within(run.km, threshold), None)
            for name, threshold in zip(ACCURACIES, THRESHOLDS_KM, strict=True)
        }
        ratios["mean_km"] = (np.where(answered, run.km, 0), answered)
        ratios["geoguessr"] = (geoguessr_score(run.km), None)
        for name, right in run.shares.items():
            ratios[name] = (100 * np.nan_to_num(right), np.isfinite(right))
        count = int(groups.max()) + 1
        self._size = np.bincount(groups, minlength=count)
        self._sums = {
            name: tuple(None if values is None else np.bincount(groups, values, count) for values in ratio)
            for name, ratio in ratios.items()
        }
        order = np.argsort(run.km, kind="stable")[: int(answered.sum())]
        self._sorted_km, self._sorted_group = run.km[order], groups[order]

    def figures(self, weight: np.ndarray) -> dict[str, float]:
        everyone = weight @ self._size
        figures = {"median_km": self._median(weight)}
        for name, (above, below) in self._sums.items():
            count = everyone if below is None else weight @ below
            figures[name] = float(weight @ above / count) if count else float("nan")
        return figures

    def _median(self, weight: np.ndarray) -> float:
        reached = np.cumsum(weight[self._sorted_group])
        if not len(reached) or not reached[-1]:
            return float("nan")
        low, high = (
            np.searchsorted(reached, reached[-1] / 2, "left"),
            np.searchsorted(reached, reached[-1] / 2, "right"),
        )
        return float((self._sorted_km[low] + self._sorted_km[high]) / 2)


def _figures(value: dict, sample: list[dict]) -> dict[str, Figure]:
    return {name: Figure(value[name], *_ends([s[name] for s in sample])) for name in value}


def _differences(value: dict, sample: list[dict], base: dict, base_sample: list[dict]) -> dict[str, Figure]:
    common = [name for name in value if name in base]
    return {
        name: Figure(
            value[name] - base[name],
            *_ends([s[name] - b[name] for s, b in zip(sample, base_sample, strict=True)]),
        )
        for name in common
    }


def _ends(values: list[float]) -> tuple[float, float]:
    finite = np.array(values)[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)
