"""Known places that are hidden, to see what neighbours make of such photos: singly, or together with those round them, which
give single photos away."""

import numpy as np
import pyarrow as pa

from geoloc.context.collection import Collection, alone, hidden, locate_collection
from geoloc.context.together import RADII_KM
from geoloc.errors import UsageError
from geoloc.evaluation.positions import Positions
from geoloc.schema import CONFIDENCES

BURST_MINUTES, DAY_MINUTES, TRIP_MINUTES = 5, 1440, 14 * 1440
"""Photos further apart are of another burst, or trip."""


def units(collection: Collection, by: str) -> np.ndarray:
    """(n,) integers, equal for photos that are hidden together, ``by`` photo, burst, day, trip or album. Raises UsageError for bursts, days and trips without times."""
    if by == "photo":
        return np.arange(len(collection))
    if by == "album":
        return collection.chain
    if not collection.timed:
        raise UsageError(f"--hide-by {by}: the photos have no times; there is photo and album")
    if by == "day":
        days = np.nan_to_num(np.floor(collection.position / DAY_MINUTES), nan=-1)
        return np.unique(np.stack([collection.chain, days]), axis=1, return_inverse=True)[1].ravel()
    order = np.lexsort((collection.position, collection.chain))
    new = np.diff(collection.chain[order], prepend=-1) != 0
    longest = BURST_MINUTES if by == "burst" else TRIP_MINUTES
    new |= ~(np.diff(collection.position[order], prepend=np.nan) <= longest)
    out = np.empty(len(order), np.int64)
    out[order] = np.cumsum(new)
    return out


def compare(
    collection: Collection, names: pa.Array, share: float, by: str, repeats: int
) -> tuple[dict[str, Positions], Positions]:
    """Answers for photos whose place was hidden, ``alone`` and ``together``, over ``repeats`` draws, and the truth, with the chain
    as the author. Raises UsageError."""
    if not 0 < share <= 1:
        raise UsageError(f"--hide {share}: must be above 0 and at most 1")
    if repeats < 1:
        raise UsageError(f"--repeats {repeats}: must be at least 1")
    codes, known = units(collection, by), ~np.isnan(collection.known[:, 0])
    if not known.any():
        raise UsageError("--hide: no photo's place is known, so there is none to hide")
    draws = []
    for seed in range(repeats):
        chosen = np.random.default_rng(seed).random(int(codes.max()) + 1) < share
        rows = np.flatnonzero(known & chosen[codes])
        if len(rows):
            draws.append((seed, rows, locate_collection(hidden(collection, rows))))
    if not draws:
        raise UsageError(f"--hide {share}: hides none of the {int(known.sum()):,} known places")
    rows = np.concatenate([rows for _, rows, _ in draws])
    ids = {"uri": pa.array([f"{seed}:{names[row]}" for seed, rows, _ in draws for row in rows.tolist()])}
    own = alone(collection)[rows]
    within = np.concatenate([together.within[rows] for _, rows, together in draws])
    extra = {name: within[:, RADII_KM.index(threshold)] for threshold, name in CONFIDENCES.items()}
    extra |= {"confidence": within[:, RADII_KM.index(25)]}
    extra |= {"radius_km": np.concatenate([together.radius_km[rows] for _, rows, together in draws])}
    lat, lon = (
        np.concatenate([getattr(together, axis)[rows] for _, rows, together in draws]) for axis in ("lat", "lon")
    )
    runs = {
        "alone": Positions("alone", ids, own[:, 0], own[:, 1]),
        "together": Positions("together", ids, lat, lon, extra=extra),
    }
    author = pa.array(collection.chain[rows].astype(str))
    return runs, Positions("hidden places", ids, *collection.known[rows].T, author=author)
