"""A row of results as the service tells it."""

import shapely.geometry
from pydantic import BaseModel

from geoloc.geo.circle import circle
from geoloc.geo.places import place_text, places
from geoloc.geo.precision import coordinates_text, headline
from geoloc.schema import CONFIDENCES


class Estimate(BaseModel):
    lat: float
    lon: float
    radius_km: float
    """Holds the true place with 90 % probability, if calibrated."""
    confidence: float
    """That the error is below 25 km; no probability unless calibrated."""
    calibrated: bool
    confidences: dict[str, float] | None
    """By threshold, if calibrated."""
    headline: str
    """Where that is, in words no more precise than the radius."""
    coordinates: str
    """Latitude and longitude, likewise."""
    place: str | None
    """The names at the estimate itself, which may be far from the photo's place where the radius is large."""
    method: str


class Candidate(BaseModel):
    rank: int
    lat: float
    lon: float
    score: float
    similarity: float
    source: str
    place: str | None
    reference_id: int
    thumbnail: str | None
    """Where its picture is; null in a gallery of coordinates."""


class Answer(BaseModel):
    estimate: Estimate
    candidates: list[Candidate]
    """Best first."""
    width: int
    height: int
    timings_ms: dict[str, float]
    map: dict | None = None
    """GeoJSON: the estimate, its circle and the candidates."""


def answer(row: dict, candidates: int, with_map: bool) -> Answer:
    """Of a row of LOCATED that is no failure."""
    place = row["place"] or places().lookup([row["estimate_lat"]], [row["estimate_lon"]])[0].as_py()
    estimate = Estimate(
        lat=row["estimate_lat"],
        lon=row["estimate_lon"],
        radius_km=row["radius_km"],
        confidence=row["confidence"],
        calibrated=row[next(iter(CONFIDENCES.values()))] is not None,
        confidences=_confidences(row),
        headline=headline(place, row["radius_km"]),
        coordinates=coordinates_text(row["estimate_lat"], row["estimate_lon"], row["radius_km"]),
        place=place_text(place),
        method=row["method"],
    )
    listed = [_candidate(rank, found) for rank, found in enumerate(row["candidates"][:candidates], 1)]
    seconds = {
        name[:-2]: row[name] for name in ("decode_s", "embed_s", "retrieve_s", "generate_s", "rank_s") if row.get(name)
    }
    return Answer(
        estimate=estimate,
        candidates=listed,
        width=row["width"],
        height=row["height"],
        timings_ms={name: round(1000 * value, 1) for name, value in seconds.items()},
        map=_map(estimate, listed) if with_map else None,
    )


def _confidences(row: dict) -> dict[str, float] | None:
    found = {f"{threshold}km": row[name] for threshold, name in CONFIDENCES.items()}
    return None if None in found.values() else found


def _candidate(rank: int, found: dict) -> Candidate:
    shown = found["reference"] is not None
    return Candidate(
        rank=rank,
        thumbnail=f"/v1/references/{found['reference_id']}/thumbnail" if shown else None,
        **{name: found[name] for name in ("lat", "lon", "score", "similarity", "source", "place", "reference_id")},
    )


def _map(estimate: Estimate, candidates: list[Candidate]) -> dict:
    def feature(geometry: dict, **properties: object) -> dict:
        return {"type": "Feature", "geometry": geometry, "properties": properties}

    def point(lat: float, lon: float) -> dict:
        return {"type": "Point", "coordinates": [lon, lat]}

    area = shapely.geometry.mapping(circle(estimate.lat, estimate.lon, estimate.radius_km))
    features = [
        feature(point(estimate.lat, estimate.lon), role="estimate", confidence=estimate.confidence),
        feature(area, role="radius", radius_km=estimate.radius_km),
        *(feature(point(c.lat, c.lon), role="candidate", rank=c.rank, score=c.score) for c in candidates),
    ]
    return {"type": "FeatureCollection", "features": features}
