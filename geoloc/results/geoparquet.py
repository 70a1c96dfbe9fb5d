"""GeoParquet 1.1: points as WKB, longitude before latitude in the geometry alone."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.schema import RESULT


def wkb_points(lat: np.ndarray, lon: np.ndarray) -> pa.Array:
    """Little-endian WKB points (n,); null where a coordinate is NaN.

    >>> wkb_points(np.array([48.85, np.nan]), np.array([2.35, np.nan])).is_valid().to_pylist()
    [True, False]
    """
    points = np.zeros(len(lat), [("order", "u1"), ("type", "<u4"), ("x", "<f8"), ("y", "<f8")])
    points["order"], points["type"], points["x"], points["y"] = 1, 1, lon, lat
    missing = np.isnan(lat) | np.isnan(lon)
    size = points.dtype.itemsize
    offsets = pa.py_buffer(np.arange(0, (len(points) + 1) * size, size, dtype=np.int32))
    array = pa.Array.from_buffers(pa.binary(), len(points), [None, offsets, pa.py_buffer(points.tobytes())])
    return pc.if_else(pa.array(missing), None, array)


def boxes(lat: np.ndarray, lon: np.ndarray) -> pa.StructArray:
    """Bounding boxes of points (n,), by which readers pass over what is elsewhere (GeoParquet's covering); null for NaN.

    >>> boxes(np.array([48.85]), np.array([2.35]))[0].as_py()
    {'xmin': 2.35, 'ymin': 48.85, 'xmax': 2.35, 'ymax': 48.85}
    """
    known = np.isfinite(lat) & np.isfinite(lon)
    edges = {"xmin": lon, "ymin": lat, "xmax": lon, "ymax": lat}
    arrays = [pa.array(values, pa.float64(), from_pandas=True) for values in edges.values()]
    return pa.StructArray.from_arrays(arrays, list(edges), mask=pa.array(~known))


def with_geometry(table: pa.Table) -> pa.Table:
    """A table of RESULT completed by ``geometry`` and ``bbox``, and by the file metadata that makes it GeoParquet.

    >>> with_geometry(pa.Table.from_pylist([{"lat": 48.85, "lon": 2.35}], RESULT))["bbox"][0]["xmin"]
    <pyarrow.DoubleScalar: 2.35>
    """
    lat, lon = (table[name].to_numpy() for name in ("lat", "lon"))
    columns = {name: table[name] for name in table.column_names}
    columns |= {"geometry": wkb_points(lat, lon), "bbox": boxes(lat, lon)}
    known = np.isfinite(lat) & np.isfinite(lon)
    covering = {edge: ["bbox", edge] for edge in ("xmin", "ymin", "xmax", "ymax")}
    column = {"encoding": "WKB", "geometry_types": ["Point"], "covering": {"bbox": covering}}
    if known.any():
        column["bbox"] = [float(f(a[known])) for f in (np.min, np.max) for a in (lon, lat)]
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    schema = RESULT.with_metadata({"geo": json.dumps(geo)})
    return pa.table({name: columns[name] for name in RESULT.names}, schema=schema)
