"""What speaks for a place among those a photo may be: features that need no picture, of lists of neighbours and of regions.

After the one-step reranker of pinpoint-rl. For every kind of index (``photos``, ``gallery``):

``rank``      1 / which of that kind's places it is; 0 where it is none of its first

for every list (its index's kind in the name, numbered where there are several):

``best``      the best similarity within 1 km, minus the list's best; where there is none so near, the list's last stands for it
``near``      ln(1 + hits within 1 km)
``around``    ln(1 + hits within 25 km)
``from_top``  ln(1 + km to the list's most similar hit)

and ``region``, ln(P + 0.01) of its region by its neighbours' vote. Of GeoCLIP's gallery, internet photos and street view these are
fifteen, as in pinpoint-rl, which has its region by a learned head as well, and not how far street view's most similar is.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from geoloc.candidates.pool import Hits, Pool, kinds_of, log_prior
from geoloc.geo.distance import EARTH_RADIUS_KM, unit_vectors

NEAR_KM, AROUND_KM = 1.0, 25.0
RANK, OF_A_LIST, REGION = "rank", ("best", "near", "around", "from_top"), "region"


def feature_names(kinds: Sequence[str]) -> list[str]:
    """For lists from indexes of these kinds, in the order of ``evidence``'s last axis.

    >>> feature_names(["gallery", "photos"])[:6]
    ['gallery rank', 'photos rank', 'gallery best', 'gallery near', 'gallery around', 'gallery from_top']
    >>> feature_names(["photos", "photos"])[5]
    'photos 2 best'
    """
    counted: Counter[str] = Counter()
    names = [f"{kind} {RANK}" for kind in kinds_of(kinds)]
    for kind in kinds:
        counted[kind] += 1
        called = kind if counted[kind] == 1 else f"{kind} {counted[kind]}"
        names += [f"{called} {name}" for name in OF_A_LIST]
    return [*names, REGION]


def evidence(lists: Sequence[Hits], pool: Pool, probability: np.ndarray) -> np.ndarray:
    """Features (n, p, f) float32 of n photos' p places, by their lists and by P(region) (n, regions); 0 where there is no place."""
    places = unit_vectors(pool.lat, pool.lon)
    rank = np.divide(1.0, pool.rank, out=np.zeros(pool.rank.shape), where=pool.rank > 0)
    columns = list(np.moveaxis(rank, 2, 0))
    for hits in lists:
        columns += _of_list(hits, places)
    columns.append(log_prior(probability, pool.region))
    features = np.stack(columns, axis=2).astype(np.float32)
    features[pool.row < 0] = 0
    return features


def _of_list(hits: Hits, places: np.ndarray) -> list[np.ndarray]:
    """OF_A_LIST, arrays (n, p); ``places`` (n, p, 3)."""
    there = hits.there
    cosine = np.matmul(places, hits.at.transpose(0, 2, 1))  # (n, p, d)
    near = cosine >= np.cos(NEAR_KM / EARTH_RADIUS_KM)
    first = near.argmax(axis=2)  # hits are in the order of their similarity
    known, photo = np.take_along_axis(near, first[:, :, None], axis=2)[:, :, 0], np.arange(len(there))
    last = np.maximum(there.sum(axis=1) - 1, 0)
    best, worst = hits.similarity[:, 0], hits.similarity[photo, last]
    similarity = np.where(known, np.take_along_axis(hits.similarity, first, axis=1), worst[:, None]) - best[:, None]
    chord = np.sqrt(np.maximum(2 - 2 * cosine[:, :, 0], 0))
    km = 2 * EARTH_RADIUS_KM * np.arcsin(np.minimum(chord / 2, 1))
    any_there = there.any(axis=1, keepdims=True)
    return [
        np.where(any_there, similarity, 0),
        np.log1p(np.count_nonzero(near, axis=2)),
        np.log1p(np.count_nonzero(cosine >= np.cos(AROUND_KM / EARTH_RADIUS_KM), axis=2)),
        np.where(any_there, np.log1p(km), 0),
    ]
