"""What can be learned of a collection from itself: its unit of time, its system's accuracy, and how sure its answers are.

The last from photos whose place is known, if there are many: bursts, days and trips of them are hidden as a whole, for single
ones are given away by those beside them, and the answers compared with the truth. Each counts by how often photos of
unknown place are as far from the next known one: w(bin) = share of unknown photos in it / share of hidden ones.
"""

import numpy as np

from geoloc.context.collection import Collection, Parameters, alone, hidden, in_order, joints
from geoloc.context.confidence import Confidence
from geoloc.context.defaults import for_minutes, for_numbers, shipped_confidence
from geoloc.context.fitting import fitted, near_share
from geoloc.context.together import Model
from geoloc.context.units import units
from geoloc.geo.distance import EARTH_RADIUS_KM, unit_vectors

LEAST_KNOWN, LEAST_DAYS = 300, 30
"""Photos of known place that have an estimate too, and days of them, from which on confidences are an archive's own."""
MOST = 20_000
"""Photos that are looked at: those of the first chains that have such."""
SHARES = {"burst": 0.5, "day": 0.5, "trip": 0.3}
GAPS = np.array([1, 30, 360, 1440, 14 * 1440, np.inf])
"""Minutes: bins of the way to the next known photo."""
MOST_WEIGHT = 10.0
WORSE = 0.1
"""Share of estimates that are near the truth by which others' may be worse, and are told with the same confidence."""


def learned(collection: Collection, model: Model | None = None) -> Parameters:
    """``model``: what its gaps are known to mean; else that is learned where they are no minutes."""
    shipped = Parameters(model or (for_minutes() if collection.timed else for_numbers()), shipped_confidence())
    if not len(collection):
        return shipped
    _, evidence = in_order(collection, shipped.model)
    parameters = Parameters(fitted(evidence, shipped.model, collection.timed or model is not None), shipped.confidence)
    own = _confidence(collection, parameters)
    alike = own == shipped.confidence or _alike(collection, parameters.model)
    return Parameters(parameters.model, own, None if alike else shipped.confidence)


def _alike(collection: Collection, model: Model) -> bool:
    """Whether estimates of chains without any known place are about as good as others', by how far neighbours agree: an old camera's
    may be worse than a telephone's, of which the confidence was learned."""
    with_known = np.isin(collection.chain, np.unique(collection.chain[~np.isnan(collection.known[:, 0])]))
    if with_known.all():
        return True
    shares = []
    for rows in (np.flatnonzero(with_known), np.flatnonzero(~with_known)):
        _, evidence = in_order(hidden(collection.part(rows), np.arange(len(rows))), model)
        shares.append(near_share(evidence, model.transition, model.emission))
    return shares[1] >= shares[0] - WORSE


def _confidence(collection: Collection, parameters: Parameters) -> Confidence:
    shipped = parameters.confidence
    both = ~np.isnan(collection.known[:, 0]) & ~np.isnan(alone(collection)[:, 0])
    if not collection.timed or both.sum() < LEAST_KNOWN or len(np.unique(units(collection, "day")[both])) < LEAST_DAYS:
        return shipped
    sample = _chains_with(collection, both)
    both = ~np.isnan(sample.known[:, 0]) & ~np.isnan(alone(sample)[:, 0])
    within, by_itself, kind, km, gap = [], [], [], [], []
    for number, (by, share) in enumerate(SHARES.items()):
        codes = units(sample, by)
        chosen = both & (np.random.default_rng(number).random(int(codes.max()) + 1) < share)[codes]
        given = hidden(sample, np.flatnonzero(chosen))
        to_known = _to_known(given)
        for rows, _, joint in joints(given, parameters.model):
            at = np.flatnonzero(chosen[rows] & joint.located)
            within.append(joint.within[at])
            by_itself.append(joint.by_itself[at])
            kind.append(joint.kinds[at])
            places = np.einsum("nd,nd->n", joint.places[at], unit_vectors(*sample.known[rows[at]].T))
            km.append(np.arccos(np.clip(places, -1, 1)) * EARTH_RADIUS_KM)
            gap.append(to_known[rows[at]])
    weights = _weights(np.concatenate(gap), _to_known(collection)[np.isnan(collection.known[:, 0])])
    columns = (np.concatenate(values) for values in (within, by_itself, kind, km))
    return Confidence.fitted(*columns, weights, shipped)


def _chains_with(collection: Collection, rows: np.ndarray) -> Collection:
    of = np.flatnonzero(np.isin(collection.chain, np.unique(collection.chain[rows])))
    order = np.lexsort((collection.position[of], collection.chain[of]))
    return collection.part(of[order[:MOST]])


def _to_known(collection: Collection) -> np.ndarray:
    """(n,) minutes from each photo to the next known one of its chain; inf where there is none."""
    known = ~np.isnan(collection.known[:, 0]) & ~np.isnan(collection.position)
    order = np.lexsort((collection.position[known], collection.chain[known]))
    chain, position = collection.chain[known][order], collection.position[known][order]
    if not len(chain):
        return np.full(len(collection), np.inf)
    keys, at = np.unique(chain, return_inverse=True)
    own = np.searchsorted(keys, collection.chain)
    own = np.where((own < len(keys)) & (keys[np.minimum(own, len(keys) - 1)] == collection.chain), own, -1)
    span = np.nanmax(collection.position) - np.nanmin(collection.position) + 4e7  # so that chains lie apart
    places = np.sort(at * span + position)
    mine = own * span + np.nan_to_num(collection.position, nan=np.inf)
    after = np.clip(np.searchsorted(places, mine), 0, len(places) - 1)
    gap = np.minimum(np.abs(places[after] - mine), np.abs(places[np.maximum(after - 1, 0)] - mine))
    return np.where((own >= 0) & (gap < 3e7), gap, np.inf)


def _weights(hidden_gap: np.ndarray, unknown_gap: np.ndarray) -> np.ndarray:
    """(m,) for each hidden photo."""
    if not len(unknown_gap):
        return np.ones(len(hidden_gap))
    bins = [np.searchsorted(GAPS, gap) for gap in (hidden_gap, unknown_gap)]
    share = [np.bincount(one, minlength=len(GAPS)) / len(one) for one in bins]
    weight = np.minimum(share[1] / np.maximum(share[0], 1e-9), MOST_WEIGHT)
    return weight[bins[0]]
