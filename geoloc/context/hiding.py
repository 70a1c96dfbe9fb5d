"""Known places that are hidden, to see what neighbours make of such photos: singly, or together with those round them, which
give single photos away."""

import numpy as np
import pyarrow as pa

from geoloc.context.collection import Collection, alone, hidden
from geoloc.context.locating import locate_collection
from geoloc.context.together import RADII_KM
from geoloc.context.units import units
from geoloc.errors import UsageError
from geoloc.evaluation.positions import Positions
from geoloc.schema import CONFIDENCES


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
