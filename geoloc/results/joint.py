"""What a photo's neighbours say of it, put into rows of results, and taken out again."""

import numpy as np
import pyarrow as pa

from geoloc.estimate.confidence import ANSWERED, Confidence
from geoloc.geo.places import places
from geoloc.results.geoparquet import with_geometry
from geoloc.schema import CONFIDENCES, JOINT, RESULT

TOLD = pa.schema(
    {
        "id": pa.int64(),
        "same": pa.bool_(),  # nothing of its household has changed: the row stays as it is
        **{name: pa.float64() for name in ("estimate_lat", "estimate_lon", "radius_km", "confidence", "gps_doubt")},
        **dict.fromkeys(CONFIDENCES.values(), pa.float64()),
        "because": pa.string(),
    }
)
"""What neighbours say."""
_ALONE = {
    "alone_lat": "estimate_lat",
    "alone_lon": "estimate_lon",
    "alone_radius_km": "radius_km",
    "alone_confidence": "confidence",
}
_CHANGED = ("lat", "lon", "estimate_lat", "estimate_lon", "radius_km", "confidence", *CONFIDENCES.values())


def up_to_date(before: pa.Table, joint: pa.Table, confidence: Confidence) -> pa.Table:
    """Rows of RESULT with what is said of them in ``joint``, of TOLD by ascending ids, and with nothing else that was said before."""
    at, said = rows_of(before["id"].to_numpy(), joint["id"].to_numpy())
    same = said & joint["same"].to_numpy()[at] if len(joint) else said
    after = with_geometry(_with_joint(alone(before, confidence), joint, at, said & ~same, confidence))
    if not same.any():
        return after
    both = pa.concat_tables([after, before.select(after.column_names).cast(after.schema)])
    rows = np.arange(before.num_rows)
    return both.take(pa.array(np.where(same, rows + before.num_rows, rows)))


def rows_of(ids: np.ndarray, sorted_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each is, and whether it is there."""
    if not len(sorted_ids):
        return np.zeros(len(ids), np.int64), np.zeros(len(ids), bool)
    at = np.minimum(np.searchsorted(sorted_ids, ids), len(sorted_ids) - 1)
    return at, sorted_ids[at] == ids


def alone(table: pa.Table, confidence: Confidence) -> pa.Table:
    """As before any photo had a say on another."""
    told = table["because"].null_count < table.num_rows
    for name in JOINT:
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.nulls(table.num_rows, field.type))
    return confidence.renew(table) if told else table


def _with_joint(table: pa.Table, joint: pa.Table, at: np.ndarray, said: np.ndarray, confidence: Confidence) -> pa.Table:
    """Rows of RESULT, those of which something is ``said`` with it."""
    if not said.any():
        return table
    values = {
        name: joint[name].to_numpy(zero_copy_only=False)[at]
        for name in joint.column_names
        if name not in ("id", "same")
    }
    status = np.array(table["status"].to_pylist(), object)
    moved, kept = said & np.isin(status, ANSWERED), said & (status == "kept")
    new = {name: table[name].to_numpy(zero_copy_only=False).copy() for name in _CHANGED}
    for name, before in _ALONE.items():
        new[name] = np.where(moved, table[before].to_numpy(zero_copy_only=False), np.nan)
    for name in ("estimate_lat", "estimate_lon", "radius_km", "confidence", *CONFIDENCES.values()):
        new[name] = np.where(moved, values[name], new[name])
    status[moved] = np.where(
        confidence.is_sure({name: values[name][moved] for name in CONFIDENCES.values()}), "located", "uncertain"
    )
    answered = moved & (status == "located")
    for axis in ("lat", "lon"):
        new[axis] = np.where(answered, new[f"estimate_{axis}"], np.where(moved, np.nan, new[axis]))
    new |= {"status": status, "because": np.where(moved, values["because"], None)}
    new["gps_doubt"] = np.where(kept, values["gps_doubt"], np.nan)
    columns = {name: table[name] for name in table.column_names}
    columns |= {name: pa.array(values, RESULT.field(name).type, from_pandas=True) for name, values in new.items()}
    columns["place"] = places().lookup(new["lat"], new["lon"])
    return pa.table(columns)
