"""The places that the photos of a collection give each other."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from geoloc.context.collection import Collection, Parameters, Together, located
from geoloc.context.company import Acquaintances, Guests
from geoloc.context.fitting import NEAR_KM
from geoloc.context.learning import learned
from geoloc.context.together import RADII_KM, Joint

_OF_PHOTOS = ("lat", "lon", "within", "radius_km", "heard", "source", "track", "gap", "doubt")


def locate_collection(
    collection: Collection, parameters: Parameters | None = None, at_once: Callable[..., Iterable[Joint]] = map
) -> Together:
    """Chain by chain, and then, of photos that are timed, those chains anew that were in company, with what the others saw.

    ``parameters``: learned of this collection where None. ``at_once`` is ``map``, or one that works on pieces in several
    places.

    >>> paris, unknown = [[48.86, 2.35]], [[np.nan, np.nan]]
    >>> album = Collection(
    ...     chain=np.zeros(2, int), position=np.array([0.0, 3.0]), timed=True, known=np.array(paris + unknown),
    ...     candidates=np.full((2, 1, 2), np.nan), shares=np.zeros((2, 1)),
    ... )
    >>> together = locate_collection(album)
    >>> together.lat.round(2), together.source
    (array([48.86, 48.86]), array([0, 0]))
    """
    parameters = parameters or learned(collection)
    apart = located(collection, parameters, at_once)
    if not collection.timed or collection.company is None or not len(collection):
        return apart
    places, known = np.stack([apart.lat, apart.lon], axis=1), ~np.isnan(collection.known[:, 0])
    sure = apart.within[:, RADII_KM.index(NEAR_KM)]
    acquaintances = Acquaintances(collection.company, collection.chain, collection.position, places, sure, known)
    meetings = acquaintances.meetings(parameters.model.transition)
    guests = acquaintances.guests(meetings)
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
    joint = located(whole, apart.parameters, at_once)
    source = np.concatenate([rows, guests.row, [-1]])[joint.source[:n]]
    track = np.concatenate([np.full(n, -1), guests.track, [-1]])[joint.source[:n]]
    changed = {name: getattr(apart, name).copy() for name in _OF_PHOTOS}
    for name, values in changed.items():
        values[rows] = {"source": source, "track": track}.get(name, getattr(joint, name)[:n])
    return replace(apart, **changed)
