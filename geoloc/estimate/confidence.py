"""How sure the answers are, in the result's columns: calibrated where there is a calibration, else by spread alone."""

from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from geoloc.estimate.abstention import Abstention
from geoloc.estimate.calibration import Calibration, features
from geoloc.estimate.spread import NEAR_KM, estimate
from geoloc.geo.places import places
from geoloc.ranking.candidates import padded
from geoloc.schema import CONFIDENCES

ANSWERED = ("located", "uncertain")


@dataclass(frozen=True)
class Confidence:
    scale: float
    """Of the last scorer's scores (Scorer.scale)."""
    calibration: Calibration | None = None
    abstention: Abstention | None = None

    def state(self) -> dict:
        """What decides the columns, of given candidates: results that have been told with the same are up to date."""
        return {
            "calibration": self.calibration.fingerprint if self.calibration else None,
            "min_confidence": asdict(self.abstention) if self.abstention else None,
            "evidence": self.calibration.evidence if self.calibration else None,
        }

    def columns(
        self,
        scores: np.ndarray,
        similarity: np.ndarray,
        lat: np.ndarray,
        lon: np.ndarray,
        extent_km: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """For n photos with candidates (n, k): the result's columns about their answers, (n,) each.

        A score of -inf is no candidate; every photo has at least one. ``extent_km`` as in ``estimate``.
        """
        known = scores > -np.inf
        lat, lon = np.where(known, lat, 0.0), np.where(known, lon, 0.0)
        spread = estimate(scores, self.scale, lat, lon, extent_km)
        row = np.arange(len(scores))
        columns = {
            "status": np.full(len(scores), "located", object),
            "estimate_lat": lat[row, spread.chosen],
            "estimate_lon": lon[row, spread.chosen],
            "confidence": spread.confidence,
            "radius_km": spread.radius_km,
        }
        columns |= {name: np.full(len(scores), np.nan) for name in CONFIDENCES.values()}
        if self.calibration:
            below, columns["radius_km"] = self.calibration.predict(features(scores, similarity, lat, lon, self.scale))
            columns |= dict(zip(CONFIDENCES.values(), below.T, strict=True))
            columns["confidence"] = columns[CONFIDENCES[NEAR_KM]]
        columns["status"][~self.is_sure(columns)] = "uncertain"
        answer = columns["status"] == "located"
        columns["lat"] = np.where(answer, columns["estimate_lat"], np.nan)
        columns["lon"] = np.where(answer, columns["estimate_lon"], np.nan)
        return columns

    def is_sure(self, columns: dict[str, np.ndarray]) -> np.ndarray:
        """(n,) bool, of columns of the result: whether they are to be answers."""
        if self.abstention is None:
            return np.ones(len(next(iter(columns.values()))), bool)
        return columns[CONFIDENCES[self.abstention.threshold_km]] >= self.abstention.probability

    def renew(self, results: pa.Table) -> pa.Table:
        """Rows of RESULT with these columns computed anew from their candidates; rows without an answer stay."""
        rows = np.flatnonzero(np.isin(np.array(results["status"].to_pylist(), object), ANSWERED))
        if not len(rows):
            return results
        candidates = results["candidates"].combine_chunks().take(pa.array(rows))
        _, fields = padded(candidates, ["score", "similarity", "lat", "lon", "extent_km"])
        fields["extent_km"] = np.maximum(fields["extent_km"], 0)  # of points, null
        columns = self.columns(*fields.values())
        columns["place"] = places().lookup(columns["lat"], columns["lon"])
        for name, values in columns.items():
            field = results.schema.field(name)
            results = results.set_column(
                results.schema.get_field_index(name), field, _replaced(results[name].combine_chunks(), rows, values)
            )
        return results


def _replaced(column: pa.Array, rows: np.ndarray, values: np.ndarray | pa.Array) -> pa.Array:
    """The column with other values in some of its rows; NaN becomes null."""
    new = pa.array(values, column.type, from_pandas=True) if isinstance(values, np.ndarray) else values
    at = np.arange(len(column))
    at[rows] = len(column) + np.arange(len(rows))
    return pa.concat_arrays([column, new]).take(pa.array(at))
