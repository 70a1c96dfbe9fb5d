"""How sure an answer is: from the probability of the states round it to how often such answers are right.

A chain's posterior is too sure, because neighbours share their errors. For each radius r a logistic curve, one for answers
that are a fix and one for those that are a candidate, maps the probability p_r of the states within r, and the probability
q_r that what the answer is of would be so near by itself, to the share of answers that were within r of the truth:

    P(error <= r) = σ(a_r + b_r · logit(p_r) + c_r · logit(q_r))
"""

from dataclasses import dataclass, replace

import numpy as np

from geoloc.context.states import CANDIDATE
from geoloc.context.together import RADII_KM
from geoloc.geo.distance import EARTH_RADIUS_KM

COVERAGE = 0.9
"""Probability with which a radius holds the truth."""
_LEAST = 1e-4
_RIDGE, _PRIOR_RIDGE = 1.0, 20.0


@dataclass(frozen=True)
class Confidence:
    coefficients: tuple[tuple[tuple[float, float, float], ...], ...]
    """By kind of the answer (FIX, CANDIDATE) and radius (RADII_KM): a, b, c."""
    reached: float = COVERAGE
    """Of such probabilities, the one at whose radius COVERAGE of the truth lies within: curves are fitted one by one, and radii lie
    between them."""

    def of(self, within: np.ndarray, by_itself: np.ndarray, kind: np.ndarray) -> np.ndarray:
        """(n, radii) probabilities that the truth is within RADII_KM of the answer, which grow with the radius; of Joint's values
        (n, radii), (n, radii) and (n,)."""
        curves = np.array(self.coefficients)[kind]
        logits = np.einsum("nrf,nrf->nr", curves, _features(within, by_itself))
        return np.maximum.accumulate(1 / (1 + np.exp(-logits)), axis=1)

    def radius_km(self, within: np.ndarray) -> np.ndarray:
        """(n,) where such probabilities are reached, between radii by the logarithm; half way round the Earth where they are not."""
        radii = np.log(np.append(RADII_KM, np.pi * EARTH_RADIUS_KM))
        within = np.concatenate([within, np.ones((len(within), 1))], axis=1)
        reached = (within >= self.reached).argmax(1)
        rows, before = np.arange(len(within)), np.maximum(reached - 1, 0)
        low, high = within[rows, before], within[rows, reached]
        share = np.where(reached > 0, (self.reached - low) / np.maximum(high - low, 1e-9), 1)
        return np.exp(radii[before] + np.clip(share, 0, 1) * (radii[reached] - radii[before]))

    @classmethod
    def fitted(
        cls,
        within: np.ndarray,
        by_itself: np.ndarray,
        kind: np.ndarray,
        km: np.ndarray,
        weights: np.ndarray | None = None,
        prior: "Confidence | None" = None,
    ) -> "Confidence":
        """On answers (n,) whose errors, km, are known, with Joint's values of them, each counting so much (once), from a ``prior`` that
        few answers do not move (none: everything is as likely as not)."""
        curves, features = [], _features(within, by_itself)
        weights = np.ones(len(km)) if weights is None else weights
        for one in range(CANDIDATE + 1):
            rows = kind == one
            before = np.zeros((len(RADII_KM), 3)) if prior is None else np.array(prior.coefficients[one])
            pull = _RIDGE if prior is None else _PRIOR_RIDGE
            curves.append(
                [
                    _curve(features[rows, r], km[rows] <= radius, weights[rows], before[r], pull)
                    for r, radius in enumerate(RADII_KM)
                ]
            )
        found = cls(tuple(tuple(curve) for curve in curves))
        return found if prior is None else found._covering(found.of(within, by_itself, kind), km, weights)

    def _covering(self, within: np.ndarray, km: np.ndarray, weights: np.ndarray) -> "Confidence":
        low, high = 0.5, 0.99
        for _ in range(12):
            middle = replace(self, reached=(low + high) / 2)
            covered = np.average(km <= middle.radius_km(within), weights=weights)
            low, high = (middle.reached, high) if covered < COVERAGE else (low, middle.reached)
        return replace(self, reached=high)


def _features(within: np.ndarray, by_itself: np.ndarray) -> np.ndarray:
    """(n, radii, 3)."""
    return np.stack([np.ones(within.shape), _logit(within), _logit(by_itself)], axis=-1)


def _logit(probability: np.ndarray) -> np.ndarray:
    bounded = np.clip(probability.astype(np.float64), _LEAST, 1 - _LEAST)
    return np.log(bounded / (1 - bounded))


def _curve(
    features: np.ndarray, right: np.ndarray, weights: np.ndarray, prior: np.ndarray, pull: float
) -> tuple[float, float, float]:
    """By Newton's method, with a pull towards the prior; what speaks for an answer cannot speak against it."""
    used, curve = np.ones(features.shape[1], bool), prior.copy()
    while True:
        curve[:] = np.where(used, prior, 0)
        for _ in range(50):
            p = 1 / (1 + np.exp(-np.clip(features @ curve, -30, 30)))
            gradient = features[:, used].T @ (weights * (right - p)) - pull * (curve - prior)[used]
            slope = weights * p * (1 - p)
            hessian = (features[:, used] * slope[:, None]).T @ features[:, used] + pull * np.eye(used.sum())
            step = np.linalg.solve(hessian, gradient)
            curve[used] += step / max(1.0, np.abs(step).max())
        against = used & (curve < 0) & (np.arange(len(curve)) > 0)
        if not against.any():
            return tuple(curve.tolist())
        used &= ~against
