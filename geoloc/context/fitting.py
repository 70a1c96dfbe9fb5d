"""What can be learned of a collection without any truth: how its gaps compare with those learned from, and how often the
system that located its photos is right.

The second from neighbours that agree. Where two photos were taken so close in order that their places lie within 25 km of
each other with probability p (transition), their estimates do so, if each is near the truth with probability a and errors
are shared (two pictures of one thing) with probability c, with probability about p (a² + (1 - a²) c); a fix and an
estimate with probability p a.
"""

from dataclasses import replace

import numpy as np

from geoloc.context.chains import Evidence
from geoloc.context.emission import PRIOR_PHOTOS, Emission
from geoloc.context.kernels import chords2, kernel_densities, mass_within
from geoloc.context.together import Model, locate_together
from geoloc.context.transition import Transition
from geoloc.geo.distance import EARTH_RADIUS_KM

NEAR_KM = 25
SHARED_ERRORS = 0.12
"""c: with it, the accuracies of seven published systems are found to 0.05."""
CONNECTED = 0.6
"""p, from which on a pair is counted."""
PAIRS = 20_000
"""That are looked at: the first ones."""
FIX_PAIRS = 200
"""That say more than estimates do."""
SAMPLE = 4000
"""Photos that gaps are compared by: the first ones."""
OFFSETS = np.arange(-3, 10)
"""Decades tried."""
SHARED_DECADES, MOVING_DECADES = 1.0, -1.0
"""From the likeliest offset, by estimates and by fixes, to the one that serves best, on public sequences in the order of their
numbers and of their ranks alike. Neighbours share errors, which look like photos of one place; and who returns to
where he was is nearer than chains believe."""


def fitted(evidence: Evidence, model: Model, unit_known: bool) -> Model:
    """The model for these photos. ``unit_known``: gaps are what the model takes them for, unless many fixes say otherwise."""
    offset = _by_fixes(evidence, model.transition)
    if offset is None and not unit_known:
        offset = _by_estimates(evidence, model)
    model = replace(model, transition=model.transition.moved(offset or 0.0))
    share = near_share(evidence, model.transition, model.emission)
    return replace(model, emission=model.emission.with_near(share))


def _by_fixes(evidence: Evidence, transition: Transition) -> float | None:
    """The offset, in decades, by which the ways between neighbours that are both fixed are likeliest; None for fewer than
    FIX_PAIRS."""
    pairs = np.flatnonzero(~np.isnan(evidence.log_gap))
    pairs = pairs[evidence.fixed[pairs] & evidence.fixed[pairs - 1]][:PAIRS]
    if len(pairs) < FIX_PAIRS:
        return None
    ways = ((evidence.fixes[pairs] - evidence.fixes[pairs - 1]) ** 2).sum(-1) * EARTH_RADIUS_KM**2
    densities, tried = kernel_densities(ways), np.arange(OFFSETS[0], OFFSETS[-1], 0.25)
    weights = (transition.weights(evidence.log_gap[pairs] + one) for one in tried)
    likelihoods = [np.log((weight * densities).sum(-1)).sum() for weight in weights]
    return float(tried[int(np.argmax(likelihoods))]) + MOVING_DECADES


def _by_estimates(evidence: Evidence, model: Model) -> float:
    """The offset by which chains of estimates are likeliest, if nothing is known of any place."""
    sample = evidence.part(slice(0, SAMPLE))
    if (sample.shares > 0).any(1).sum() > sample.fixed.sum():
        sample = replace(sample, fixes=np.zeros_like(sample.fixes))
    if np.isnan(sample.log_gap).all():
        return 0.0
    tried = [replace(model, transition=model.transition.moved(float(decades))) for decades in OFFSETS]
    likelihoods = np.array([locate_together(sample, one).likelihood for one in tried])
    best = int(np.clip(likelihoods.argmax(), 1, len(OFFSETS) - 2))
    before, here, after = likelihoods[best - 1 : best + 2]
    bend = before - 2 * here + after
    between = float(np.clip((before - after) / (2 * bend), -1, 1)) if bend < 0 else 0.0  # the vertex of a parabola
    return float(OFFSETS[best]) + between + SHARED_DECADES


def near_share(evidence: Evidence, transition: Transition, prior: Emission) -> float:
    """How often a photo's first candidate is near (within 25 km of) the truth, from a prior that counts like 30 photos."""
    own = evidence.shares[:, 0] > 0
    first = evidence.candidates[:, 0]
    place = np.where(evidence.fixed[:, None], evidence.fixes, first)
    has, estimates = evidence.fixed | own, (~evidence.fixed).astype(int)
    later = np.flatnonzero(~np.isnan(evidence.log_gap))
    later = later[has[later] & has[later - 1] & (estimates[later] + estimates[later - 1] > 0)]
    close = (transition.weights(evidence.log_gap[later]) * mass_within(np.array([NEAR_KM]))).sum(1)
    later, close = later[close > CONNECTED][:PAIRS], close[close > CONNECTED][:PAIRS]
    known = np.flatnonzero(evidence.fixed & own)[:PAIRS]  # each of which is a pair of its own
    agree = np.concatenate([_near(place[later], place[later - 1]), _near(first[known], evidence.fixes[known])])
    close = np.concatenate([close, np.ones(len(known))])
    witnesses = np.concatenate([estimates[later] + estimates[later - 1], np.ones(len(known), int)])
    shares, before = np.linspace(0.02, 0.98, 97)[:, None], prior.near
    right = shares**witnesses
    probability = close * (right + (witnesses == 2) * (1 - right) * SHARED_ERRORS) + 0.003
    likelihood = np.where(agree, np.log(probability), np.log1p(-np.minimum(probability, 0.997))).sum(1)
    likelihood += PRIOR_PHOTOS * (before * np.log(shares[:, 0]) + (1 - before) * np.log1p(-shares[:, 0]))
    return float(shares[likelihood.argmax(), 0])


def _near(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return chords2(a[:, None], b[:, None])[:, 0, 0] < NEAR_KM**2
