"""``report.html``: one file that opens anywhere, without network: a map, the counts, what failed and why."""

import base64
import functools
import io
import re
import shlex
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from bokeh.models import ColorBar, ColumnDataSource, HoverTool, LinearColorMapper
from bokeh.plotting import figure

from geoloc.candidates.options import Prices
from geoloc.errors import PhotoError
from geoloc.geo.distance import THRESHOLDS_KM
from geoloc.geo.places import place_text, places
from geoloc.geo.precision import coordinates_text, headline
from geoloc.photos.decoder import Decoder
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.fetch import Fetcher, FetchOptions
from geoloc.photos.manifest import MANIFEST_FOLDER, Manifest
from geoloc.photos.sources import Found
from geoloc.photos.views import View
from geoloc.results import trips
from geoloc.results.page import CellSums, render, with_finer, world_map
from geoloc.results.parts import Each, Parts
from geoloc.results.summary import Summary
from geoloc.schema import CLOCKS_FILE
from geoloc.settings import flattened
from geoloc.storage import Folder, S3Options, SourceS3Options, split_s3

SINGLE_POINTS = 20_000
"""More located photos than this are drawn as cells of a grid."""
CELL_DEGREES = 0.5
FINE_DEGREES, FINE_CELLS, NEAR_DEGREES = (0.01, 0.02, 0.05, 0.1, 0.2), 60_000, 40
"""Cells of a grid that is drawn where fewer degrees than that are in sight: the finest that has no more cells than that."""
NAMES = 3
"""Of photos at one place, that hovering shows."""
GALLERY = 300
"""Photos shown with a thumbnail: all of a small archive, a spread of a large one."""
THUMBNAIL_PX, THUMBNAIL_SECONDS = 200, 5
PALETTE = ["#440154", "#3b528b", "#21918c", "#5ec962", "#b8de29"]
KEPT_COLOUR = "#d1495b"
MOST_CLOCKS = 200
_CONTAINED = re.compile(r"\.(tar|parquet)/", re.IGNORECASE)
COLUMNS = ["id", "uri", "status", "lat", "lon", "radius_km", "confidence", "method", "place"]
COLUMNS += ["estimate_lat", "estimate_lon", "because"]


def write_report(folder: Folder, parts: Parts, summary: Summary, record: dict, each: Each = map) -> None:
    """Draw the run's results into ``folder``. ``record`` is its run.json."""
    many = summary.statuses["located"] + summary.statuses["kept"] > SINGLE_POINTS
    points = None if many else _Points.of(parts)
    finest = CellSums.joined(each(functools.partial(_cell_sums, parts), parts.names())) if many else None
    page = render(
        "results",
        "report.html",
        {"chart": _map(points, finest)},
        summary=summary,
        thresholds=THRESHOLDS_KM,
        record=record,
        settings=flattened(record["settings"]),
        gallery=_gallery(
            folder, parts, summary.rows, Fetcher(FetchOptions(attempts=3, retry_s=10, s3=_photos_s3(folder, record)))
        ),
        aggregated=many,
        found=_found(record.get("listing")),
        asked=summary.generation_text(_prices(record)),
        days=points.days[: trips.MOST_DAYS] if points else [],
        more_days=max(0, len(points.days) - trips.MOST_DAYS) if points else 0,
        clocks=_clocks(folder),
        restore=_restore(parts) if summary.error_kinds["archived"] else None,
    )
    folder.write("report.html", page)


@dataclass(frozen=True)
class _Points:
    """Of photos that have a place."""

    lat: np.ndarray
    lon: np.ndarray
    confidence: np.ndarray
    """NaN for a photo that was kept."""
    labels: list[dict]
    """What hovering shows."""
    lines: list[tuple[list[float], list[float]]]
    """Longitudes and latitudes of trips."""
    days: list[dict]
    """Where cameras were on them."""

    @classmethod
    def of(cls, parts: Parts) -> "_Points":
        columns = list(dict.fromkeys([*COLUMNS, *trips.COLUMNS]))
        tables = [table.filter(table["lat"].is_valid()) for table in parts.tables(columns)]
        if not sum(table.num_rows for table in tables):
            return cls(*np.zeros((3, 0)), [], [], [])
        rows = pa.concat_tables(tables)
        arrays = (rows[name].to_numpy() for name in ("lat", "lon", "confidence"))
        return cls(*arrays, [_label(row) for row in rows.to_pylist()], trips.lines(rows), trips.days(rows))


def _cell_sums(parts: Parts, name: str) -> CellSums:
    """Of the photos of a file that have a place, by the smallest cells."""
    columns = ("lat", "lon", "confidence")
    table = parts.read(name, list(columns))
    table = table.filter(table["lat"].is_valid())
    return CellSums.of(*(table[column].to_numpy() for column in columns), FINE_DEGREES[0])


def _clocks(folder: Folder) -> list[dict]:
    """Clocks that differ, in words, those of most photos first."""
    try:
        rows = pq.read_table(io.BytesIO(folder.read(CLOCKS_FILE))).to_pylist()
    except FileNotFoundError:
        return []
    for row in rows:
        row["name"] = (
            " ".join(text for text in (row["camera"], row["camera_serial"]) if text) or "a camera without name"
        )
        row["ahead"] = _ahead(row["ahead_minutes"])
        row["of"] = "UTC" if row["of_utc"] else f"the clock of {row['seen_with']}"
    return sorted(rows, key=lambda row: -row["photos"])[:MOST_CLOCKS]


def _ahead(minutes: float) -> str:
    """
    >>> _ahead(330.0), _ahead(-61.5), _ahead(-11666088.0)
    ('5:30 h ahead', '1:02 h behind', '8,101 days 10:48 h behind')
    """
    total = round(abs(minutes))
    days, rest = divmod(total, 1440)
    text = f"{rest // 60}:{rest % 60:02d} h {'ahead' if minutes > 0 else 'behind'}"
    return f"{days:,} days {text}" if days else text


def _photos_s3(folder: Folder, record: dict) -> S3Options:
    return SourceS3Options(**(record.get("options") or {}).get("source_s3", {})).over(folder.s3)


def _prices(record: dict) -> Prices:
    generation = (record.get("recipe") or {}).get("generation") or {}
    return Prices(**generation.get("prices", {}))


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
        "because": row["because"] or "",
    }


def _map(points: _Points | None, finest: CellSums | None) -> figure:
    """Of either."""
    plot = world_map()
    mapper = LinearColorMapper(PALETTE, low=0, high=1, nan_color=KEPT_COLOUR)
    if points and points.lines:
        plot.multi_line(*map(list, zip(*points.lines, strict=True)), color="#5b6770", alpha=0.45, line_width=1.2)
    levels = [_singles(points)] if points else [_cells(finest, CELL_DEGREES), _fine_cells(finest)]
    dots = [
        plot.scatter(
            "lon",
            "lat",
            source=ColumnDataSource(data | {"marker": np.where(np.isnan(data["confidence"]), "diamond", "circle")}),
            size="size",
            marker="marker",
            color={"field": "confidence", "transform": mapper},
            line_color="white",
            line_width=0.4,
            alpha=0.85,
        )
        for data in levels
    ]
    if finest:
        with_finer(plot, *dots, NEAR_DEGREES)
    tips = [("photos", "@count"), ("mean confidence", "@confidence{0.00}")] if finest else None
    tips = tips or "<b>@name</b><br>@where<br>@sure<br>@coordinates<br>@because"
    plot.add_tools(HoverTool(renderers=dots, tooltips=tips))
    plot.add_layout(ColorBar(color_mapper=mapper, title="confidence", height=14, width=220), "below")
    return plot


def _singles(points: _Points) -> dict:
    """A dot for each place; of photos that share one, with their number and the first few names."""
    places, which = np.unique(np.stack([points.lat, points.lon]), axis=1, return_inverse=True)
    starts = np.searchsorted(np.sort(which), np.arange(places.shape[1]))
    here = np.split(np.argsort(which, kind="stable"), starts)[1:]
    labels = [[points.labels[number] for number in numbers] for numbers in here]
    names = [", ".join(label["name"] for label in one[:NAMES]) for one in labels]
    more = [f" and {len(one) - NAMES:,} more: {len(one):,} photos here" if len(one) > NAMES else "" for one in labels]
    sure = [np.nanmean(points.confidence[n]) if np.isfinite(points.confidence[n]).any() else np.nan for n in here]
    return {
        "lat": places[0],
        "lon": places[1],
        "confidence": np.array(sure),
        "size": (9 if len(points.lat) < 2_000 else 6) + 4 * np.log10([len(numbers) for numbers in here]),
        "name": [f"{name}{rest}" for name, rest in zip(names, more, strict=True)],
    } | {key: [one[0][key] for one in labels] for key in ("where", "sure", "coordinates", "because")}


def _cells(finest: CellSums, degrees: float) -> dict:
    """One dot a grid cell: at the mean of its photos, as large as they are many, as bright as they are sure."""
    cells = finest.coarser(round(degrees / FINE_DEGREES[0])).means()
    return cells | {"confidence": cells.pop("value")}


def _fine_cells(finest: CellSums) -> dict:
    for degrees in FINE_DEGREES:
        cells = _cells(finest, degrees)
        if len(cells["lat"]) <= FINE_CELLS:
            break
    return cells


def _gallery(folder: Folder, parts: Parts, rows: int, fetcher: Fetcher) -> list[dict]:
    step = max(1, rows // GALLERY)
    chosen, seen = [], 0
    for name, count in zip(parts.names(), parts.each(parts.rows), strict=True):
        wanted = np.arange(-seen % step, count, step)
        seen += count
        if len(wanted):
            table = parts.read(name, [*COLUMNS, "gps", "gps_problem", "error_kind", "error"])
            chosen += table.take(pa.array(wanted)).to_pylist()
    chosen = sorted(chosen[:GALLERY], key=lambda row: row["id"])
    photos = [
        {"uri": row["uri"], "size": None, "etag": None, "archived": row["error_kind"] == "archived"} for row in chosen
    ]
    _put_in_containers(Manifest(folder / MANIFEST_FOLDER), chosen, photos)
    with Decoder(DecodeOptions(View(1), max_seconds=THUMBNAIL_SECONDS, thumbnail_px=THUMBNAIL_PX)) as decoder:
        for row, (_, fetched) in zip(chosen, fetcher.stream(photos), strict=True):
            row |= {"name": row["uri"].rsplit("/", 1)[-1]} | _where(row)
            row["thumbnail"] = None if isinstance(fetched.data, PhotoError) else _data_uri(fetched.data, decoder)
    return chosen


def _put_in_containers(manifest: Manifest, rows: list[dict], photos: list[dict]) -> None:
    """Of those that lie in a tar or in a table, where: the manifest knows."""
    for row, photo in zip(rows, photos, strict=True):
        if _CONTAINED.search(row["uri"]):
            part = next(part for part in manifest.parts if 0 <= row["id"] - part.first_id < part.rows)
            at = row["id"] - part.first_id
            [known] = manifest.slice(part, at, at + 1).select(["container", "offset", "size"]).to_pylist()
            photo |= known


def _data_uri(data: bytes, decoder: Decoder) -> str | None:
    small = decoder.examine(data).get("thumbnail")
    return small and "data:image/jpeg;base64," + base64.b64encode(small).decode()
