"""Which photos a heavy ranker is worth its price for: those whose answers before it say that it may put them right.

Learned from photos of known place that were located both ways. The gain of one is 1 where the heavy ranker's answer is within 25 km
of the truth and the light one's is not, -1 the other way round, and 0 where it changes nothing that counts. A softmax regression over
the light answer's candidates (geoloc.estimate.calibration.features) expects it; photos of which more is expected than a threshold are
ranked. The regression is fitted on half of the photos and the threshold chosen on the other half, by

* a share: of those photos, so many are ranked;
* a risk: the largest threshold of which it can be said, with probability CERTAINTY, that no more than so many points of accuracy are
  lost. What is lost is bounded from above: right answers of the heavy ranker that are not asked for count, and wrong ones that are
  spared do not, so that it grows with the threshold, and thresholds can be tested one after the other (learn then test, with
  Clopper and Pearson's bound, of so many photos as would say as much if they were independent: n over the design effect).
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa

from geoloc.errors import UsageError
from geoloc.estimate.calibration import features
from geoloc.estimate.record import read_record
from geoloc.estimate.softmax import SoftmaxRegression
from geoloc.estimate.spread import NEAR_KM
from geoloc.ranking.candidates import padded
from geoloc.settings import differences
from geoloc.storage import S3Options

FORMAT = 1
FILE = "gate.json"
MIN_PHOTOS, LEAST_HALF = 200, 0.3
"""Photos in both runs; and the share of them that a half by photographers has: with less, halves are of photos."""
CERTAINTY = 0.95
ONE_PHOTOGRAPHER = "photos, because one photographer has most of them"
_GAINS = np.array([-1.0, 0.0, 1.0])


@dataclass(frozen=True)
class Gate:
    """``gate.json``."""

    applies_to: dict
    """The light run's settings that decide its answers, and the heavy ranker's, by their names."""
    scale: float
    """Of the light run's scores."""
    mean: list[float]
    std: list[float]
    weights: list[list[float]]
    expected: list[float]
    """(n,) of the photos that thresholds are chosen by, ascending."""
    gained: list[bool]
    """(n,) whether the heavy ranker alone was right about each."""
    effective: float
    """So many independent photos say as much as these n do: a photographer's hang together."""
    evidence: dict = field(default_factory=dict)
    """Of those photos: accuracies of both, and of gates of several shares."""
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        return hashlib.blake2b(self.to_json(), digest_size=8).hexdigest()

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    def expect(self, table: np.ndarray) -> np.ndarray:
        """The gain (n,) that features (n, f) promise."""
        model = SoftmaxRegression(np.array(self.mean), np.array(self.std), np.array(self.weights))
        return model.probabilities(table) @ _GAINS

    def threshold_of_share(self, share: float) -> float:
        """Above which so many of the photos lie."""
        ranked = round(share * len(self.expected))
        return -np.inf if ranked >= len(self.expected) else self.expected[len(self.expected) - ranked - 1]

    def threshold_of_risk(self, points: float) -> float:
        """The largest at which, with probability CERTAINTY, at most so many points of accuracy at 25 km are lost to ranking all.

        Raises UsageError where there are too few photos to promise that of any.
        """
        from scipy.stats import beta  # a second to import, and only a risk needs it

        n, effective = len(self.expected), self.effective
        lost = np.cumsum(self.gained) * effective / n  # of photos up to each being passed by
        bound = np.where(lost < effective, beta.ppf(CERTAINTY, lost + 1, np.maximum(effective - lost, 1e-9)), 1.0)
        kept = int(np.argmax(np.append(bound > points / 100, True)))
        if kept == 0 and beta.ppf(CERTAINTY, 1, effective) > points / 100:
            least = int(np.ceil(np.log(1 - CERTAINTY) / np.log1p(-points / 100) * n / effective))
            raise UsageError(
                f"--heavy-risk {points:g}: the gate's {n:,} photos are too few to promise that; it needs {least:,}, twice as many "
                "in both runs of train_gate.py"
            )
        while 0 < kept < n and self.expected[kept] == self.expected[kept - 1]:
            kept -= 1  # equals are passed by together, or not at all
        return self.expected[kept - 1] if kept else -np.inf

    def check(self, settings: dict, option: str) -> None:
        """Raises UsageError where it was learned from other answers."""
        if differing := differences(self.applies_to, settings):
            raise UsageError(
                f"{option}: was learned from other runs ({'; '.join(differing)}); train it again (train_gate.py)"
            )


@dataclass(frozen=True)
class Worth:
    """A gate with what it is to let pass."""

    gate: Gate
    above: float
    """Gain that has to be expected of a photo."""

    def __call__(self, candidates: pa.ListArray) -> np.ndarray:
        """(n,) bool, by lists of a light answer's candidates (schema.CANDIDATE), of which none is empty."""
        _, fields = padded(candidates, ["score", "similarity", "lat", "lon"])
        return self.gate.expect(features(*fields.values(), self.gate.scale)) > self.above


def read_gate(path: str, s3: S3Options) -> Gate:
    """From the file, or from ``gate.json`` in the folder. Raises UsageError."""
    return read_record(Gate, path, FILE, FORMAT, "train_gate.py", "--heavy-gate", s3)


def fit_gate(
    table: np.ndarray,
    light_km: np.ndarray,
    heavy_km: np.ndarray,
    applies_to: dict,
    scale: float,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> Gate:
    """On features (n, f) of light answers, whose errors, and the heavy ranker's, are known (n,); whole ``groups`` (n,) are in one half.

    Raises UsageError for fewer than MIN_PHOTOS.
    """
    if len(table) < MIN_PHOTOS:
        raise UsageError(
            f"a gate needs at least {MIN_PHOTOS} photos of known place in both runs, there are {len(table):,}"
        )
    right, right_heavy = light_km < NEAR_KM, heavy_km < NEAR_KM
    gain = right_heavy.astype(int) - right.astype(int)
    by = "photos" if groups is None else "photographers"
    groups = np.arange(len(table)) if groups is None else np.unique(groups, return_inverse=True)[1]
    fitting = _half(groups, seed)
    if not LEAST_HALF < fitting.mean() < 1 - LEAST_HALF:
        by, groups = ONE_PHOTOGRAPHER, np.arange(len(table))
        fitting = _half(groups, seed)
    model = SoftmaxRegression.fitted(table[fitting], gain[fitting] + 1, 3)
    expected = model.probabilities(table[~fitting]) @ _GAINS
    order = np.argsort(expected, kind="stable")
    held_out = gain[~fitting][order]
    return Gate(
        applies_to,
        scale,
        model.mean.tolist(),
        model.std.tolist(),
        model.weights.tolist(),
        expected[order].tolist(),
        (held_out > 0).tolist(),
        len(held_out) / _design_effect(gain[~fitting] > 0, groups[~fitting]),
        _evidence(right[~fitting], right_heavy[~fitting], held_out) | {"halves": by},
    )


def _half(groups: np.ndarray, seed: int) -> np.ndarray:
    """(n,) bool, about half of the photos, whole groups: one after the other, in a drawn order, goes where there are fewer."""
    sizes = np.bincount(groups)
    chosen, here, there = np.zeros(len(sizes), bool), 0, 0
    for group in np.random.default_rng(seed).permutation(len(sizes)):
        chosen[group] = here <= there
        here, there = here + sizes[group] * chosen[group], there + sizes[group] * ~chosen[group]
    return chosen[groups]


def _design_effect(right: np.ndarray, groups: np.ndarray) -> float:
    """By how much the variance of a share is larger than that of as many independent photos (clustered); 1 at least,
    and, where nothing is right, as if a photographer's photos were one."""
    n, share = len(right), right.mean()
    _, group = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group)
    if share in (0.0, 1.0):
        return float((sizes**2).sum() / n)
    clustered = (np.bincount(group, right - share) ** 2).sum() / n**2 * len(sizes) / max(1, len(sizes) - 1)
    return float(max(1.0, clustered / (share * (1 - share) / n)))


SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


def _evidence(right: np.ndarray, right_heavy: np.ndarray, gain: np.ndarray) -> dict:
    """Percent below 25 km; ``gain`` in the order of what was expected. At random, a share gains that share of the whole."""
    n, light = len(right), 100 * float(right.mean())
    best = np.sort(gain)
    by_share = {}
    for share in SHARES:
        ranked = round(share * n)
        by_share[f"{share:g}"] = {
            "gate": round(light + 100 * float(gain[n - ranked :].sum()) / n, 2),
            "random": round(light + share * 100 * float(gain.mean()), 2),
            "oracle": round(light + 100 * float(best[n - ranked :].sum()) / n, 2),
        }
    heavy = round(100 * float(right_heavy.mean()), 2)
    return {"photos": n, "acc_25km": {"light": round(light, 2), "heavy": heavy}, "acc_25km_by_share": by_share}
