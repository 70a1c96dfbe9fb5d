"""Generated candidates beside retrieved ones: where they are the same place they are one candidate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geoloc.candidates.replies import Answer
from geoloc.geo.distance import haversine_km
from geoloc.geo.places import place_text, places


@dataclass(frozen=True)
class Generated:
    answer: Answer
    prompt: str
    """Its name."""
    reason: str | None = None


def merge(there: Sequence[dict], generated: Sequence[Generated], within_km: float) -> list[dict]:
    """A photo's candidates (schema.CANDIDATE): those that are there as they are, then those generated ones that are other places.

    A generated one within so many km of one before it, retrieved or generated, joins the nearest: its prompt is added there.
    Retrieved ones stay apart, however near: each is a photo of its own, which a ranker looks at.

    >>> at = lambda lat, prompt: Generated(Answer(lat, 0.0), prompt)
    >>> found = merge([], [at(1.0, "zero-shot"), at(2.0, "zero-shot"), at(1.0003, "references-5")], within_km=0.1)
    >>> [(c["lat"], c["prompts"]) for c in found]
    [(1.0, ['zero-shot', 'references-5']), (2.0, ['zero-shot'])]
    """
    merged = [{"prompts": None, "reason": None} | candidate for candidate in there]
    new: list[dict] = []
    generated_before = sum(candidate["reference_id"] is None for candidate in there)
    for one in generated:
        lat, lon = (np.array([candidate[axis] for candidate in merged]) for axis in ("lat", "lon"))
        km = haversine_km(one.answer.lat, one.answer.lon, lat, lon) if merged else np.zeros(0)
        if len(km) and km.min() <= within_km:
            same = merged[int(km.argmin())]
            same["prompts"] = [*(same["prompts"] or []), one.prompt]
            same["reason"] = same["reason"] or one.reason
            continue
        place = {
            "lat": one.answer.lat,
            "lon": one.answer.lon,
            "source": one.answer.source,
            "rank": generated_before + len(new),
        }
        nothing = dict.fromkeys(("score", "similarity", "reference_id", "reference", "place"))
        new.append(nothing | place | {"prompts": [one.prompt], "reason": one.reason})
        merged.append(new[-1])
    if new:
        names = places().lookup(*([candidate[axis] for candidate in new] for axis in ("lat", "lon"))).to_pylist()
        for candidate, name in zip(new, names, strict=True):
            candidate["place"] = place_text(name)
    return merged
