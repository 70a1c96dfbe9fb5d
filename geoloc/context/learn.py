"""Learn what geoloc.context ships from public sequences of photos: ``parameters.json``.

python -m geoloc.context.learn yfcc26k_sequences.csv im2gps3k_dev.csv

The first has album, sequence, lat, lon: how far apart an author's photos lie. The second has besides, for each of several
systems, its estimates in <system>_lat, <system>_lon: how far they are off, and how sure answers are.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from geoloc.context.chains import Evidence, Order, vectors_or_zeros
from geoloc.context.confidence import Confidence
from geoloc.context.defaults import TEMPER
from geoloc.context.emission import Emission
from geoloc.context.fitting import fitted
from geoloc.context.together import RADII_KM, Model, locate_together
from geoloc.context.transition import Transition, learned
from geoloc.geo.distance import EARTH_RADIUS_KM

SHARES = (0.0, 0.02, 0.1, 0.3)
"""Of photos whose place is known, among which answers' confidence is learned."""
FOLDS = 5


def learn(sequences: pa.Table, predictions: pa.Table) -> dict:
    """The parameters, as they are shipped."""
    transition = replace(_moves(sequences), temper=TEMPER)
    systems = [name.removesuffix("_lat") for name in predictions.column_names if name.endswith("_lat")]
    truth = _vectors(predictions, "")
    errors = {system: _squared(_vectors(predictions, f"{system}_"), truth) for system in systems}
    weights = [Emission.of_errors(squared[~np.isnan(squared)]).weights for squared in errors.values()]
    model = Model(transition, Emission(tuple(np.mean(weights, axis=0).tolist())))
    answers = [_answers(predictions, system, share, model) for system in systems for share in SHARES]
    known = [np.concatenate(values) for values in zip(*answers, strict=True)]
    _tell(*known)
    return {
        "transition": {"intercepts": transition.intercepts, "slopes": transition.slopes},
        "emission": model.emission.weights,
        "confidence": Confidence.fitted(*known[:-1]).coefficients,
    }


def _moves(sequences: pa.Table) -> Transition:
    order = _order(sequences)
    places = _vectors(sequences, "")[order.rows]
    later = np.flatnonzero(~np.isnan(order.log_gap))
    return learned(order.log_gap[later], _squared(places[later], places[later - 1]))


def _answers(predictions: pa.Table, system: str, share: float, model: Model) -> tuple[np.ndarray, ...]:
    """Of photos whose place was hidden: the posterior within RADII_KM, the kind, the error, the album."""
    order, truth = _order(predictions), _vectors(predictions, "")
    known = np.random.default_rng(0).random(len(truth)) < share
    own = np.where(known[:, None], 0, _vectors(predictions, f"{system}_"))
    evidence = Evidence(
        order.chain,
        order.log_gap,
        np.where(known[:, None], truth, 0)[order.rows],
        own[order.rows][:, None],
        own.any(1)[order.rows][:, None].astype(float),
    )
    joint = locate_together(evidence, fitted(evidence, model, unit_known=True))
    hidden = ~known[order.rows] & joint.located
    km = EARTH_RADIUS_KM * 2 * np.arcsin(np.minimum(np.linalg.norm(joint.places - truth[order.rows], axis=1) / 2, 1))
    return joint.within[hidden], joint.by_itself[hidden], joint.kinds[hidden], km[hidden], order.chain[hidden]


def _tell(within: np.ndarray, by_itself: np.ndarray, kind: np.ndarray, km: np.ndarray, album: np.ndarray) -> None:
    """Over albums left out."""
    said, fold = np.empty_like(by_itself), np.random.default_rng(0).permutation(album.max() + 1)[album] % FOLDS
    for one in range(FOLDS):
        rest = fold != one
        confidence = Confidence.fitted(within[rest], by_itself[rest], kind[rest], km[rest])
        said[~rest] = confidence.of(within[~rest], by_itself[~rest], kind[~rest])
    radius = Confidence.radius_km(said)
    print(
        f"{len(km):,} answers, albums left out: {np.mean(km <= radius):.1%} within their radius, median {np.median(radius):,.0f} km"
    )
    for r, radius_km in enumerate(RADII_KM):
        right = km <= radius_km
        brier = np.mean((said[:, r] - right) ** 2)
        print(f"within {radius_km:g} km: said {said[:, r].mean():.1%}, true {right.mean():.1%}, Brier {brier:.3f}")


def _order(table: pa.Table) -> Order:
    groups = table["album"].combine_chunks().dictionary_encode().indices.to_numpy()
    return Order.of(groups, table["sequence"].to_numpy().astype(float), 1, 1e9)


def _vectors(table: pa.Table, prefix: str) -> np.ndarray:
    return vectors_or_zeros(*(table[f"{prefix}{axis}"].to_numpy() for axis in ("lat", "lon")))


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """km²; NaN where either is no place."""
    squared = ((a - b) ** 2).sum(-1) * EARTH_RADIUS_KM**2
    return np.where(a.any(-1) & b.any(-1), squared, np.nan)


if __name__ == "__main__":
    tables = [pa.csv.read_csv(path) for path in sys.argv[1:3]]
    parameters = learn(*tables) | {"learned_from": [Path(path).name for path in sys.argv[1:3]]}
    Path(__file__).with_name("parameters.json").write_text(json.dumps(parameters, indent=1) + "\n")
