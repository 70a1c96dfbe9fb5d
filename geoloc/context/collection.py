"""A collection of photos, in any order, and the places that they give each other."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from geoloc.context.chains import Evidence, Order, vectors_or_zeros
from geoloc.context.company import Company, Meeting
from geoloc.context.confidence import Confidence
from geoloc.context.kernels import chords2
from geoloc.context.together import RADII_KM, Joint, Model, locate_together

AT_ONCE = 50_000
"""Photos, of whole chains, whose states are held at a time."""
FIRST = 0.85
"""Chosen on six published systems' estimates as candidates of one photo, the first being one or another's."""
CONTRADICTED_KM = 1.0
"""A fix further than this from where its chain has the photo is contradicted."""


@dataclass(frozen=True)
class Collection:
    """n photos."""

    chain: np.ndarray
    """(n,) integers, equal for photos of one camera, owner or album."""
    position: np.ndarray
    """(n,) when, in minutes, or which number of a sequence; NaN where it is not known."""
    timed: bool
    """Positions are minutes."""
    known: np.ndarray
    """(n, 2) latitude and longitude of photos whose place is known; NaN elsewhere."""
    candidates: np.ndarray
    """(n, c, 2) a photo's own, best first; NaN where there are fewer."""
    shares: np.ndarray
    """(n, c) how likely each is the nearest to the truth: they sum to 1, or to 0 without candidates."""
    company: Company | None = None
    """Who may have been with whom, of photos that are timed."""

    def __len__(self) -> int:
        return len(self.chain)

    def part(self, rows: np.ndarray) -> "Collection":
        """Of some photos, whoever they were with."""
        names = ("chain", "position", "known", "candidates", "shares")
        return replace(self, company=None, **{name: getattr(self, name)[rows] for name in names})


@dataclass(frozen=True)
class Parameters:
    """What has been learned of a collection."""

    model: Model
    confidence: Confidence
    confidence_of_others: Confidence | None = None
    """Of chains without any known place; None for the same."""


@dataclass(frozen=True)
class Together:
    """The joint answers of n photos, in the collection's order."""

    lat: np.ndarray
    """(n,) degrees; that of a photo whose place is known is as it was; NaN where nothing says where."""
    lon: np.ndarray
    within: np.ndarray
    """(n, len(RADII_KM)) probability that the truth is so near to the answer; NaN where it is known, or nothing is."""
    radius_km: np.ndarray
    heard: np.ndarray
    """(n,) bool: another photo had a say."""
    source: np.ndarray
    """(n,) the photo whose place, or candidate, the answer is; -1 where it is a track's, or there is none."""
    track: np.ndarray
    """(n,) the track whose point it is, or lies between two of; -1 for others."""
    gap: np.ndarray
    """(n,) how much later than its source the photo was taken, by its clock: minutes, or numbers; NaN where that is not known."""
    doubt: np.ndarray
    """(n,) of known places: probability that the photo was elsewhere, by its neighbours; NaN for others."""
    parameters: Parameters
    meetings: list[Meeting] = field(default_factory=list)
    """Of its chains with each other, and with tracks."""

    @property
    def answered(self) -> np.ndarray:
        """(n,) bool."""
        return ~np.isnan(self.lat)


def in_order(collection: Collection, model: Model) -> tuple[Order, Evidence]:
    """Its photos by chains and positions, and what is known of them."""
    order = Order.of(collection.chain, collection.position, model.smallest_gap, model.unknown_gap)
    return order, Evidence(
        order.chain,
        order.log_gap,
        vectors_or_zeros(*np.moveaxis(collection.known[order.rows], -1, 0)),
        vectors_or_zeros(*np.moveaxis(collection.candidates[order.rows], -1, 0)),
        collection.shares[order.rows],
    )


def located(collection: Collection, parameters: Parameters, at_once: Callable[..., Iterable[Joint]] = map) -> Together:
    """Chain by chain, whoever they were with. ``at_once`` is ``map``, or one that works on pieces in several places."""
    n = len(collection)
    lat, lon, radius_km, doubt = (np.full(n, np.nan) for _ in range(4))
    within, source, heard = np.full((n, len(RADII_KM)), np.nan), np.full(n, -1), np.zeros(n, bool)
    is_known = ~np.isnan(collection.known[:, 0])
    others = ~np.isin(collection.chain, np.unique(collection.chain[is_known]))
    for rows, one, joint in joints(collection, parameters.model, at_once):
        some, fixed = joint.located, one.fixed
        heard[rows] = joint.heard
        source[rows[some]] = rows[joint.sources[some]]
        lat[rows[some]], lon[rows[some]] = _degrees(joint.places[some])
        unknown = some & ~fixed
        for those, confidence in (
            (unknown & ~others[rows], parameters.confidence),
            (unknown & others[rows], parameters.confidence_of_others or parameters.confidence),
        ):
            within[rows[those]] = confidence.of(joint.within[those], joint.by_itself[those], joint.kinds[those])
            radius_km[rows[those]] = confidence.radius_km(within[rows[those]])
        doubt[rows[fixed]] = _doubt(joint, one, fixed)
    lat[is_known], lon[is_known] = collection.known[is_known].T
    source[is_known] = np.flatnonzero(is_known)
    own = (source == np.arange(n)) & ~is_known
    lat[own], lon[own] = _nearest_own(collection.candidates[own], lat[own], lon[own])
    gap = np.where(source >= 0, collection.position - collection.position[source], np.nan)
    return Together(lat, lon, within, radius_km, heard, source, np.full(n, -1), gap, doubt, parameters)


def joints(
    collection: Collection, model: Model, at_once: Callable[..., Iterable[Joint]] = map
) -> Iterator[tuple[np.ndarray, Evidence, Joint]]:
    """Whole chains, some AT_ONCE photos at a time: which of the collection's they are, what is known of them, what they say together."""
    order, evidence = in_order(collection, model)
    pieces = [slice(*ends) for ends in _pieces(order.chain)]
    evidences = [evidence.part(piece) for piece in pieces]
    joined = at_once(partial(locate_together, model=model), evidences)
    for piece, one, joint in zip(pieces, evidences, joined, strict=True):
        yield order.rows[piece], one, joint


def _pieces(chain: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of whole chains, some AT_ONCE photos each."""
    starts = np.append(np.flatnonzero(np.diff(chain, prepend=-1)), len(chain))
    cuts, last = [0], 0
    for start in starts[1:]:
        if start - last >= AT_ONCE or start == len(chain):
            cuts.append(int(start))
            last = start
    return list(itertools.pairwise(cuts))


def _doubt(joint: Joint, evidence: Evidence, fixed: np.ndarray) -> np.ndarray:
    squared = chords2(joint.states.points[fixed], evidence.fixes[fixed, None].astype(np.float32))[..., 0]
    return 1 - (joint.probability[fixed] * (squared <= CONTRADICTED_KM**2)).sum(1)


def _degrees(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y, z = points.astype(np.float64).T
    return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


def _nearest_own(candidates: np.ndarray, lat: np.ndarray, lon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The candidates as they were given, which unit vectors in single precision have lost half a metre of."""
    off = np.abs(candidates - np.stack([lat, lon], -1)[:, None]).sum(-1)
    chosen = np.nan_to_num(off, nan=np.inf).argmin(1)
    return tuple(candidates[np.arange(len(chosen)), chosen].T)


def shares_of(scores: np.ndarray, present: np.ndarray) -> np.ndarray:
    """(n, c) how likely each of a photo's candidates is the nearest to the truth, by their scores, on any scale, or, where
    they have none (NaN), by their order: the r-th counts 1/r.

    >>> shares_of(np.array([[np.nan, np.nan]]), np.array([[True, True]])).round(2)
    array([[0.95, 0.05]])
    """
    scored = (present & np.isfinite(scores)).sum(1) == present.sum(1)
    by_order = present / np.arange(1, present.shape[1] + 1)
    filled = np.where(present & scored[:, None], scores, np.nan)
    with np.errstate(invalid="ignore"):
        spread = np.nanmax(filled, axis=1, initial=-np.inf) - np.nanmin(filled, axis=1, initial=np.inf)
    told = spread[np.isfinite(spread) & (spread > 0)]
    spread = np.median(told) if len(told) else 1.0
    top = np.nanmax(filled, axis=1, initial=-np.inf, keepdims=True)
    by_score = np.where(present & scored[:, None], np.exp(2 * (np.nan_to_num(filled - top)) / spread), 0)
    weights = np.where(scored[:, None], by_score, by_order)
    return favouring_first(weights / np.maximum(weights.sum(1, keepdims=True), 1e-12))


def favouring_first(shares: np.ndarray) -> np.ndarray:
    """(n, c) shares of which the first candidate has FIRST besides: scores tell too little between candidates, and the places of
    others agree with neighbours' by chance."""
    favoured = (1 - FIRST) * shares
    favoured[:, 0] += FIRST * shares.sum(1)
    return favoured


def alone(collection: Collection) -> np.ndarray:
    """(n, 2): each photo's own estimate, NaN where it has none."""
    return collection.candidates[:, 0]


def hidden(collection: Collection, rows: np.ndarray) -> Collection:
    """The same, with the places of some not known."""
    known = collection.known.copy()
    known[rows] = np.nan
    return replace(collection, known=known)
