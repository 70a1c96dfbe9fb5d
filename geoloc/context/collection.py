"""A collection of photos, in any order, and the places that they give each other."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from geoloc.context.chains import Evidence, Order, vectors_or_zeros
from geoloc.context.company import Acquaintances, Company, Guests, Meeting
from geoloc.context.defaults import for_minutes, for_numbers, shipped_confidence
from geoloc.context.fitting import NEAR_KM, fitted
from geoloc.context.kernels import chords2
from geoloc.context.together import RADII_KM, Joint, Model, locate_together

AT_ONCE = 200_000
"""Photos, of whole chains, whose states are held at a time: some 600 bytes each."""
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
    model: Model
    """With what was learned of this collection."""
    meetings: list[Meeting] = field(default_factory=list)
    """Of its chains with each other, and with tracks."""

    @property
    def answered(self) -> np.ndarray:
        """(n,) bool."""
        return ~np.isnan(self.lat)


def locate_collection(
    collection: Collection, model: Model | None = None, at_once: Callable[..., Iterable[Joint]] = map
) -> Together:
    """Chain by chain, with the model (default: the shipped one) fitted to the collection. ``at_once`` is ``map``, or one that works
    on pieces in several places.

    >>> paris, unknown = [[48.86, 2.35]], [[np.nan, np.nan]]
    >>> album = Collection(
    ...     chain=np.zeros(2, int), position=np.array([0.0, 3.0]), timed=True, known=np.array(paris + unknown),
    ...     candidates=np.full((2, 1, 2), np.nan), shares=np.zeros((2, 1)),
    ... )
    >>> together = locate_collection(album)
    >>> together.lat.round(2), together.source
    (array([48.86, 48.86]), array([0, 0]))
    """
    unit_known = collection.timed or model is not None
    model = model or (for_minutes() if collection.timed else for_numbers())
    if len(collection):
        _, evidence = _in_order(collection, model)
        model = fitted(evidence, model, unit_known)
    apart = _located(collection, model, at_once)
    if not collection.timed or collection.company is None:
        return apart
    places, known = np.stack([apart.lat, apart.lon], axis=1), ~np.isnan(collection.known[:, 0])
    sure = apart.within[:, RADII_KM.index(NEAR_KM)]
    known_to = Acquaintances(collection.company, collection.chain, collection.position, places, sure, known)
    meetings = known_to.meetings(model.transition)
    guests = known_to.guests(meetings)
    together = _in_company(collection, guests, apart, at_once) if guests else apart
    return replace(together, meetings=meetings)


def _in_company(
    collection: Collection, guests: Guests, apart: Together, at_once: Callable[..., Iterable[Joint]]
) -> Together:
    """Chains that have guests anew, with them."""
    rows = np.flatnonzero(np.isin(collection.chain, guests.chain))
    photo, n = guests.row >= 0, len(rows)
    of_photos = collection.known[guests.row], collection.candidates[guests.row], collection.shares[guests.row]
    known = np.where(photo[:, None], of_photos[0], guests.place)
    candidates = np.where(photo[:, None, None], of_photos[1], np.nan)
    shares = np.where(photo[:, None], of_photos[2], 0.0)
    whole = Collection(
        np.concatenate([collection.chain[rows], guests.chain]),
        np.concatenate([collection.position[rows], guests.position]),
        True,
        np.concatenate([collection.known[rows], known]),
        np.concatenate([collection.candidates[rows], candidates]),
        np.concatenate([collection.shares[rows], shares]),
    )
    joint = _located(whole, apart.model, at_once)
    source = np.concatenate([rows, guests.row, [-1]])[joint.source[:n]]
    track = np.concatenate([np.full(n, -1), guests.track, [-1]])[joint.source[:n]]
    changed = {name: getattr(apart, name).copy() for name in _OF_PHOTOS}
    for name, values in changed.items():
        values[rows] = {"source": source, "track": track}.get(name, getattr(joint, name)[:n])
    return replace(apart, **changed)


_OF_PHOTOS = ("lat", "lon", "within", "radius_km", "heard", "source", "track", "gap", "doubt")


def _in_order(collection: Collection, model: Model) -> tuple[Order, Evidence]:
    order = Order.of(collection.chain, collection.position, model.smallest_gap, model.unknown_gap)
    return order, Evidence(
        order.chain,
        order.log_gap,
        vectors_or_zeros(*np.moveaxis(collection.known[order.rows], -1, 0)),
        vectors_or_zeros(*np.moveaxis(collection.candidates[order.rows], -1, 0)),
        collection.shares[order.rows],
    )


def _located(collection: Collection, model: Model, at_once: Callable[..., Iterable[Joint]]) -> Together:
    order, evidence = _in_order(collection, model)
    n = len(collection)
    lat, lon, radius_km, doubt = (np.full(n, np.nan) for _ in range(4))
    within, source, heard = np.full((n, len(RADII_KM)), np.nan), np.full(n, -1), np.zeros(n, bool)
    pieces, confidence = [slice(*ends) for ends in _pieces(order.chain)], shipped_confidence()
    evidences = [evidence.part(piece) for piece in pieces]
    for piece, one, joint in zip(
        pieces, evidences, at_once(partial(locate_together, model=model), evidences), strict=True
    ):
        rows, some, fixed = order.rows[piece], joint.located, one.fixed
        heard[rows] = joint.heard
        source[rows[some]] = rows[joint.sources[some]]
        lat[rows[some]], lon[rows[some]] = _degrees(joint.places[some])
        hidden = some & ~fixed
        within[rows[hidden]] = confidence.of(joint.within[hidden], joint.by_itself[hidden], joint.kinds[hidden])
        radius_km[rows[hidden]] = confidence.radius_km(within[rows[hidden]])
        doubt[rows[fixed]] = _doubt(joint, one, fixed)
    is_known = ~np.isnan(collection.known[:, 0])
    lat[is_known], lon[is_known] = collection.known[is_known].T
    source[is_known] = np.flatnonzero(is_known)
    own = (source == np.arange(n)) & ~is_known
    lat[own], lon[own] = _nearest_own(collection.candidates[own], lat[own], lon[own])
    gap = np.where(source >= 0, collection.position - collection.position[source], np.nan)
    return Together(lat, lon, within, radius_km, heard, source, np.full(n, -1), gap, doubt, model)


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
