"""``report.html``: one file that opens anywhere, without network: a map, the counts, what failed and why."""

import base64
import shlex
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from bokeh.models import ColorBar, ColumnDataSource, HoverTool, LinearColorMapper
from bokeh.plotting import figure

from geoloc.errors import PhotoError
from geoloc.geo.distance import THRESHOLDS_KM
from geoloc.geo.places import place_text, places
from geoloc.geo.precision import coordinates_text, headline
from geoloc.photos.decode import PhotoFile
from geoloc.photos.fetch import Fetcher, FetchOptions
from geoloc.photos.sources import Found
from geoloc.photos.views import thumbnail, thumbnail_scale
from geoloc.results.page import grid_cells, render, world_map
from geoloc.results.parts import Parts
from geoloc.results.summary import Summary
from geoloc.storage import Folder, split_s3

SINGLE_POINTS = 20_000
"""More located photos than this are drawn as cells of a grid."""
CELL_DEGREES = 0.5
GALLERY = 300
"""Photos shown with a thumbnail: all of a small archive, a spread of a large one."""
THUMBNAIL_PX = 200
PALETTE = ["#440154", "#3b528b", "#21918c", "#5ec962", "#b8de29"]
KEPT_COLOUR = "#d1495b"
COLUMNS = ["id", "uri", "status", "lat", "lon", "radius_km", "confidence", "method", "place"]
COLUMNS += ["estimate_lat", "estimate_lon"]


def write_report(folder: Folder, parts: Parts, summary: Summary, record: dict) -> None:
    """Draw the run's results into ``folder``. ``record`` is its run.json."""
    points = _Points.of(parts)
    page = render(
        "results",
        "report.html",
        {"chart": _map(points)},
        summary=summary,
        thresholds=THRESHOLDS_KM,
        record=record,
        gallery=_gallery(parts, summary.rows, Fetcher(FetchOptions(s3=folder.s3))),
        aggregated=points.many,
        found=_found(record.get("listing")),
        restore=_restore(parts) if summary.error_kinds["archived"] else None,
    )
    folder.write("report.html", page)


@dataclass(frozen=True)
class _Points:
    lat: np.ndarray
    lon: np.ndarray
    confidence: np.ndarray
    """NaN for a photo that was kept."""
    labels: list[dict]
    """What hovering shows; empty where there are too many to show singly."""

    @classmethod
    def of(cls, parts: Parts) -> "_Points":
        lat, lon, confidence, labels = [], [], [], []
        for table in parts.tables(COLUMNS):
            table = table.filter(table["lat"].is_valid())
            lat.append(table["lat"].to_numpy())
            lon.append(table["lon"].to_numpy())
            confidence.append(table["confidence"].to_numpy())
            if len(labels) <= SINGLE_POINTS:
                labels += [_label(row) for row in table.to_pylist()]
        arrays = (np.concatenate([np.zeros(0), *column]) for column in (lat, lon, confidence))
        return cls(*arrays, labels)

    @property
    def many(self) -> bool:
        """Too many to draw singly."""
        return len(self.lat) > SINGLE_POINTS


def _found(listing: dict | None) -> list[str]:
    """What the listing came upon beside photos, in words."""
    counters = ("left_out", "litter")
    return Found(**{k: Counter(v) if k in counters else v for k, v in listing.items()}).lines() if listing else []


def _restore(parts: Parts) -> str:
    """The command that brings the first archived photo back, to be adapted to the others."""
    for table in parts.tables(["uri", "error_kind"]):
        for uri in table.filter(pc.equal(table["error_kind"], "archived"))["uri"].to_pylist():
            bucket, key = split_s3(uri)
            return (
                f"aws s3api restore-object --bucket {shlex.quote(bucket)} --key {shlex.quote(key)} "
                '--restore-request \'{"Days":7,"GlacierJobParameters":{"Tier":"Bulk"}}\''
            )
    return ""


def _where(row: dict) -> dict:
    """Place and coordinates in words: a photo's own as it has them, an estimate's no more precisely than its radius."""
    lat = row["estimate_lat"] if row["lat"] is None else row["lat"]
    lon = row["estimate_lon"] if row["lon"] is None else row["lon"]
    if row["status"] == "kept":
        return {"where": place_text(row["place"]) or "Open sea", "coordinates": f"{lat:.5f}, {lon:.5f}"}
    if lat is None:
        return {"where": None, "coordinates": None}
    place = row["place"] or places().lookup([lat], [lon])[0].as_py()
    radius = row["radius_km"]
    return {"where": headline(place, radius), "coordinates": coordinates_text(lat, lon, radius)}


def _label(row: dict) -> dict:
    kept = row["status"] == "kept"
    return _where(row) | {
        "name": row["uri"].rsplit("/", 1)[-1],
        "sure": "own GPS" if kept else f"confidence {row['confidence']:.2f}, radius {row['radius_km']:,.0f} km",
    }


def _map(points: _Points) -> figure:
    plot = world_map()
    mapper = LinearColorMapper(PALETTE, low=0, high=1, nan_color=KEPT_COLOUR)
    data = _cells(points) if points.many else _singles(points)
    colour = {"field": "confidence", "transform": mapper}
    dots = plot.scatter(
        "lon",
        "lat",
        source=ColumnDataSource(data),
        size="size",
        color=colour,
        line_color="white",
        line_width=0.4,
        alpha=0.85,
    )
    tips = [("photos", "@count"), ("mean confidence", "@confidence{0.00}")] if points.many else None
    tips = tips or "<b>@name</b><br>@where<br>@sure<br>@coordinates"
    plot.add_tools(HoverTool(renderers=[dots], tooltips=tips))
    plot.add_layout(ColorBar(color_mapper=mapper, title="confidence", height=14, width=220), "below")
    return plot


def _singles(points: _Points) -> dict:
    labels = {key: [label[key] for label in points.labels] for key in ("name", "where", "sure", "coordinates")}
    size = np.full(len(points.lat), 9 if len(points.lat) < 2_000 else 6)
    return {"lat": points.lat, "lon": points.lon, "confidence": points.confidence, "size": size} | labels


def _cells(points: _Points) -> dict:
    """One dot a grid cell: at the mean of its photos, as large as they are many, as bright as they are sure."""
    cells = grid_cells(points.lat, points.lon, points.confidence, CELL_DEGREES)
    return cells | {"confidence": cells.pop("value")}


def _gallery(parts: Parts, rows: int, fetcher: Fetcher) -> list[dict]:
    step = max(1, rows // GALLERY)
    chosen, seen = [], 0
    for table in parts.tables([*COLUMNS, "gps", "gps_problem", "error_kind", "error"]):
        wanted = np.arange(-seen % step, table.num_rows, step)
        chosen += table.take(pa.array(wanted)).to_pylist()
        seen += table.num_rows
    chosen = sorted(chosen[:GALLERY], key=lambda row: row["id"])
    photos = [
        {"uri": row["uri"], "size": None, "etag": None, "archived": row["error_kind"] == "archived"} for row in chosen
    ]
    for row, (_, fetched) in zip(chosen, fetcher.stream(photos), strict=True):
        row |= {"name": row["uri"].rsplit("/", 1)[-1]} | _where(row)
        row["thumbnail"] = _data_uri(fetched.data)
    return chosen


def _data_uri(data: bytes | PhotoError) -> str | None:
    try:
        if isinstance(data, PhotoError):
            raise data
        photo = PhotoFile(data)
        small = thumbnail(photo.picture(thumbnail_scale(photo.width, photo.height, THUMBNAIL_PX)), THUMBNAIL_PX)
    except PhotoError:
        return None
    return "data:image/jpeg;base64," + base64.b64encode(small).decode()
