"""From how a photo's candidates lie to how probable an error below a threshold is, learned from photos of known place.

The error falls into one of six bins between the thresholds (1, 25, 200, 750, 2500 km). A softmax regression over
features of the candidates gives each bin its probability, so P(error < t) never falls as t grows. The radius is where
the same distribution reaches the coverage, stretched by one factor that split-conformal prediction chooses: over
photos like those it was fitted on, it holds the truth with at least that probability, whatever the regression misses.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field

import numpy as np

from geoloc.errors import UsageError
from geoloc.estimate.record import read_record
from geoloc.estimate.softmax import SoftmaxRegression
from geoloc.estimate.spread import NEAR_KM
from geoloc.evaluation.reliability import reliability
from geoloc.geo.distance import THRESHOLDS_KM, haversine_km
from geoloc.settings import differences
from geoloc.storage import S3Options

FORMAT = 1
MIN_PHOTOS = 100
FOLDS = 5
FARTHEST_KM = 20_015.0
"""Half the way round the Earth: no error is larger."""
_NEAREST_KM = 0.01


def features(scores: np.ndarray, similarity: np.ndarray, lat: np.ndarray, lon: np.ndarray, scale: float) -> np.ndarray:
    """What there is to know about n photos' answers, (n, f), from their candidates, all (n, k) in any order.

    ``softmax(scale * scores)`` weighs them; a score of -inf is no candidate, a similarity of -inf one that is generated. For each threshold the log odds of the
    weight, and the plain share, of candidates so near to the answer; the answer's similarity, its lead over the next
    candidate, the last, and the best one elsewhere (beyond 25 km).

    >>> features(*np.array([[[0.9, 0.4]], [[0.9, 0.4]], [[48.8, 48.9]], [[2.3, 2.4]]]), scale=10.0).shape
    (1, 14)
    """
    known = scores > -np.inf
    row, chosen = np.arange(len(scores)), np.argmax(scores, axis=1)
    lat, lon = np.where(known, lat, 0.0), np.where(known, lon, 0.0)
    km = haversine_km(lat[row, chosen][:, None], lon[row, chosen][:, None], lat, lon)
    km = np.where(known, km, np.inf)
    logits = scale * scores.astype(np.float64)
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    columns = []
    for threshold in THRESHOLDS_KM:
        near = np.clip((weight * (km <= threshold)).sum(axis=1), 0.005, 0.995)
        columns += [np.log(near / (1 - near)), (km <= threshold).sum(axis=1) / known.sum(axis=1)]
    similarity = np.where(known, similarity, -np.inf).astype(np.float64)
    answer = similarity[row, chosen]
    retrieved = similarity > -np.inf
    ordered = -np.sort(-similarity, axis=1)
    second = ordered[:, min(1, ordered.shape[1] - 1)]
    last = np.where(retrieved, similarity, np.inf).min(axis=1)
    elsewhere = np.where(km > NEAR_KM, similarity, -np.inf).max(axis=1)
    with np.errstate(invalid="ignore"):
        columns += [answer, answer - last, answer - second, answer - elsewhere]
    table = np.stack(columns, axis=1)
    return np.where(np.isfinite(table), table, 0.0)


@dataclass(frozen=True)
class Calibration:
    """``calibration.json``."""

    applies_to: dict
    """The settings of the run it was fitted on that decide estimates: encoder, index, chooser and so on."""
    mean: list[float]
    std: list[float]
    weights: list[list[float]]
    """(1 + features, bins): the first row is the bias."""
    coverage: float
    stretch: float
    """Of the radius."""
    evidence: dict = field(default_factory=dict)
    """What it was fitted on, and how it did on photos that it was not fitted on (cross-validated)."""
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        return hashlib.blake2b(self.to_json(), digest_size=8).hexdigest()

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    def predict(self, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From features (n, f): P(error < t) for THRESHOLDS_KM, (n, 5), rising along rows; and radii (n,), km."""
        below = _below(SoftmaxRegression(np.array(self.mean), np.array(self.std), np.array(self.weights)), table)
        return below, np.minimum(self.stretch * _reaching(below, self.coverage), FARTHEST_KM)

    def check(self, settings: dict, option: str) -> None:
        """Raises UsageError where a run with these settings has other scores than those it was fitted on."""
        if differing := differences(self.applies_to, settings):
            what = "; ".join(differing)
            raise UsageError(f"{option}: was made for other estimates ({what}); calibrate again with jobs/calibrate.py")


def read_calibration(path: str, s3: S3Options, option: str = "--calibration") -> Calibration:
    """From the file, or from ``calibration.json`` in the folder. Raises UsageError."""
    return read_record(Calibration, path, "calibration.json", FORMAT, "calibrate.py", option, s3)


def fit(
    table: np.ndarray,
    km: np.ndarray,
    applies_to: dict,
    groups: np.ndarray | None = None,
    coverage: float = 0.9,
    seed: int = 0,
) -> Calibration:
    """Fit on features (n, f) of photos whose errors ``km`` (n,) are known.

    The stretch of the radius and ``evidence`` come from cross-validation in FOLDS folds, whole ``groups`` (n,) each,
    so nothing is judged by what it was fitted on. Raises UsageError for fewer than MIN_PHOTOS.
    """
    if len(km) < MIN_PHOTOS:
        raise UsageError(
            f"a calibration needs at least {MIN_PHOTOS} photos of known place with an estimate, there are {len(km)}"
        )
    groups = np.arange(len(km)) if groups is None else np.unique(groups, return_inverse=True)[1]
    fold = np.random.default_rng(seed).permutation(groups.max() + 1)[groups] % FOLDS
    below = np.zeros((len(km), len(THRESHOLDS_KM)))
    for number in range(FOLDS):
        held_out = fold == number
        if held_out.any():
            below[held_out] = _below(_fitted(table[~held_out], km[~held_out]), table[held_out])
    ratio = np.sort(np.maximum(km, _NEAREST_KM) / _reaching(below, coverage))
    rank = int(np.ceil((len(km) + 1) * coverage)) - 1
    stretch = float(ratio[min(rank, len(km) - 1)])
    model = _fitted(table, km)
    evidence = {"photos": len(km), "groups": int(groups.max()) + 1, "expected_calibration_error": _errors(below, km)}
    return Calibration(
        applies_to, model.mean.tolist(), model.std.tolist(), model.weights.tolist(), coverage, stretch, evidence
    )


def _errors(below: np.ndarray, km: np.ndarray) -> dict[str, float]:
    return {
        f"{threshold}km": round(reliability(below[:, number], km < threshold).error, 4)
        for number, threshold in enumerate(THRESHOLDS_KM)
    }


def _fitted(table: np.ndarray, km: np.ndarray) -> SoftmaxRegression:
    bins = np.digitize(km, THRESHOLDS_KM)  # a bin starts at its threshold: error < t is strict
    return SoftmaxRegression.fitted(table, bins, len(THRESHOLDS_KM) + 1)


def _below(model: SoftmaxRegression, table: np.ndarray) -> np.ndarray:
    """P(error < t) for THRESHOLDS_KM, (n, 5), rising along rows."""
    return model.probabilities(table).cumsum(axis=1)[:, :-1].clip(0, 1)


def _reaching(below: np.ndarray, share: float) -> np.ndarray:
    """Where P(error < r) reaches the share, (n,), between the thresholds linearly in log r."""
    edges = np.log([_NEAREST_KM, *THRESHOLDS_KM, FARTHEST_KM])
    reached = np.column_stack([np.zeros(len(below)), below, np.ones(len(below))])
    upper = np.argmax(reached >= share, axis=1)
    row = np.arange(len(below))
    low, high = reached[row, upper - 1], reached[row, upper]
    part = (share - low) / np.maximum(high - low, 1e-12)
    return np.exp(edges[upper - 1] + part * (edges[upper] - edges[upper - 1]))
