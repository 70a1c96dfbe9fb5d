import csv
import html
import json
import re
import shlex
from concurrent.futures import ThreadPoolExecutor

import duckdb
import geopandas
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc.results.export import Export
from geoloc.results.geoparquet import with_geometry
from geoloc.results.options import ExportOptions
from geoloc.results.page import CellSums, grid_cells
from geoloc.results.parts import Parts
from geoloc.results.report import write_report
from geoloc.results.summary import COLUMNS, Summary
from geoloc.schema import RESULT
from geoloc.storage import Folder

PARIS = {"country_code": "FR", "country": "France", "region": "Ile-de-France", "city": "Paris", "city_km": 1.0}


def row(number: int, **values) -> dict:
    base = {"id": number, "uri": f"/photos/é #{number}.jpg", "status": "located", "lat": 48.85837, "lon": 2.294481}
    base |= {"radius_km": 12.5, "confidence": 0.75, "method": "top1", "place": PARIS, "candidates": [], "gps": "none"}
    base |= {"because": None}
    return base | values


ROWS = [
    row(0),
    row(1, lat=-33.8568, lon=-151.2153, place={**PARIS, "city": '<O\'Brien & "sons">'}),
    row(2, status="kept", method="exif", radius_km=None, confidence=None, candidates=None, gps="read"),
    {"id": 3, "uri": "/photos/bad.jpg", "status": "failed", "error_kind": "truncated", "error": "<b>cut</b> short"},
]


def results(rows: list[dict] = ROWS) -> pa.Table:
    schema = pa.schema([field for field in RESULT if field.name not in ("geometry", "bbox")])
    return with_geometry(pa.Table.from_pylist(rows, schema))


@pytest.fixture
def parts(tmp_path) -> Parts:
    parts = Parts(Folder(str(tmp_path / "geotags")))
    parts.add(results(ROWS[:2]))
    parts.add(results(ROWS[2:]))
    return parts


def test_geoparquet_is_read_by_geopandas_and_duckdb(parts, tmp_path):
    frame = geopandas.read_parquet(tmp_path / "geotags" / parts.names()[0])
    assert frame.crs.to_epsg() == 4326 or frame.crs.to_string() == "OGC:CRS84"
    everything = duckdb.sql(
        f"select id, status, lat, place.city as city, geometry is null from '{tmp_path}/geotags/*.parquet' order by id"
    ).fetchall()
    assert [(r[0], r[1]) for r in everything] == [(0, "located"), (1, "located"), (2, "kept"), (3, "failed")]
    assert [r[4] for r in everything] == [False, False, False, True]
    points = {
        r["id"]: r["geometry"]
        for name in parts.names()
        for r in geopandas.read_parquet(tmp_path / "geotags" / name).to_dict("records")
    }
    assert (points[1].x, points[1].y) == (-151.2153, -33.8568)
    assert points[3] is None


def test_the_report_tells_how_an_archived_photo_is_restored(parts, tmp_path, s3):
    """Its command's request, as the AWS tools read it, is one that a store takes."""
    key = '2019/it\'s a "cold" one.jpg'
    s3.create_bucket(Bucket="cold-storage")
    s3.put_object(Bucket="cold-storage", Key=key, Body=b"x", StorageClass="DEEP_ARCHIVE")
    failed = {"id": 4, "uri": f"s3://cold-storage/{key}", "status": "failed", "error_kind": "archived", "error": "cold"}
    parts.add(results([failed]))
    record = {
        "settings": {},
        "options": {"source": "s"},
        "recipe": {"name": "lite"},
        "last_work": {"photos": 0},
    }
    write_report(Folder(str(tmp_path)), parts, Summary.of(parts.tables(COLUMNS)), record)
    [command] = re.findall(r"<code>(aws s3api .*?)</code>", (tmp_path / "report.html").read_text())
    words = shlex.split(html.unescape(command))
    assert words[:3] == ["aws", "s3api", "restore-object"]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert (options["--bucket"], options["--key"]) == ("cold-storage", key)
    s3.restore_object(Bucket="cold-storage", Key=key, RestoreRequest=json.loads(options["--restore-request"]))
    assert "Restore" in s3.head_object(Bucket="cold-storage", Key=key)


def test_geoparquet_metadata():
    geo = json.loads(results().schema.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["encoding"] == "WKB"
    assert geo["columns"]["geometry"]["bbox"] == pytest.approx([-151.2153, -33.8568, 2.294481, 48.85837])
    assert "bbox" not in json.loads(results(ROWS[3:]).schema.metadata[b"geo"])["columns"]["geometry"]


def test_a_part_is_named_by_its_rows(parts):
    before = parts.names()
    parts.add(results(ROWS[:2][::-1]))
    assert parts.names() == before
    assert sorted(np.concatenate(list(dict(parts.ids()).values()))) == [0, 1, 2, 3]


def export(name, parts, folder, source="/photos", calibrated=False, **options):
    return Export(ExportOptions(export=(name,), **options), Folder(str(folder)), source, calibrated).write(name, parts)


def parts_of(folder, *tables) -> Parts:
    parts = Parts(Folder(str(folder / "parts")))
    for table in tables:
        parts.add(table)
    return parts


def test_covering_boxes_let_readers_skip(parts, tmp_path):
    paris = (2, 48, 3, 49)
    names = {
        name: geopandas.read_parquet(tmp_path / "geotags" / name, bbox=paris)["id"].tolist() for name in parts.names()
    }
    assert sorted(id for ids in names.values() for id in ids) == [0, 2]
    inside = duckdb.sql(
        f"select id from '{tmp_path}/geotags/*.parquet' where bbox.xmin > 2 and bbox.ymax < 49 order by id"
    )
    assert inside.fetchall() == [(0,), (2,)]


def test_geojson(parts, tmp_path):
    export("geojson", parts, tmp_path)
    collection = json.loads((tmp_path / "geotags.geojson").read_text())
    assert len(geopandas.read_file(tmp_path / "geotags.geojson")) == len(collection["features"])  # GDAL's own reading
    features = {feature["id"]: feature for feature in collection["features"]}
    assert features[0]["geometry"] == {"type": "Point", "coordinates": [2.29, 48.86]}  # 12.5 km allow two decimals
    assert features[2]["geometry"] == {"type": "Point", "coordinates": [2.294481, 48.85837]}  # its own
    assert features[3]["geometry"] is None
    assert features[3]["properties"]["error_kind"] == "truncated"
    assert list(tmp_path.glob(".export-*")) == []


def test_csv_has_exiftools_headings(parts, tmp_path):
    export("csv", parts, tmp_path)
    with (tmp_path / "geotags.csv").open() as file:
        lines = {line["SourceFile"]: line for line in csv.DictReader(file)}
    assert set(lines) == {"/photos/é #0.jpg", "/photos/é #1.jpg"}
    line = lines["/photos/é #1.jpg"]
    assert (line["GPSLatitude"], line["GPSLatitudeRef"]) == ("33.8600000", "S")
    assert (line["GPSLongitude"], line["GPSLongitudeRef"], line["GPSHPositioningError"]) == (
        "151.2200000",
        "W",
        "12500",
    )
    assert line["XMP-photoshop:Country"] == "France"


def test_csv_of_a_bucket_names_files_below_a_root(tmp_path):
    parts = parts_of(tmp_path, results([row(0, uri="s3://bucket/photos/a/b.jpg")]))
    for root, name in ((None, "a/b.jpg"), ("/mnt/photos/", "/mnt/photos/a/b.jpg")):
        export("csv", parts, tmp_path, "s3://bucket/photos", csv_root=root)
        with (tmp_path / "geotags.csv").open() as file:
            assert [line["SourceFile"] for line in csv.DictReader(file)] == [name]


@pytest.mark.parametrize("name", ["csv", "geojson"])
def test_a_large_run_is_exported_in_several_files_and_none_of_before_stays(name, tmp_path, monkeypatch):
    parts = parts_of(tmp_path, *(results([row(2 * n), row(2 * n + 1)]) for n in range(5)))
    (tmp_path / f"geotags-20261101.{name}").write_text("somebody's")
    export(name, parts, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("geotags*")) == [f"geotags-20261101.{name}", f"geotags.{name}"]
    (tmp_path / f"geotags-20261101.{name}").unlink()
    monkeypatch.setattr("geoloc.results.export.FILE_ROWS", 5)
    with ThreadPoolExecutor(2) as pool:  # as tasks of a cluster do it
        done = Export(ExportOptions(), Folder(str(tmp_path)), "/photos", False).write(name, parts, pool.map)
    made = sorted(tmp_path.glob("geotags*"))
    assert [path.name for path in made] == [f"geotags-0000{n}.{name}" for n in range(3)]
    photos = [line for path in made for line in path.read_text().splitlines() if "é #" in line]
    assert (done["written"], len(set(photos))) == (10, 10)
    monkeypatch.undo()
    export(name, parts, tmp_path)
    assert [path.name for path in tmp_path.glob("geotags*")] == [f"geotags.{name}"]


STATES = [
    row(0),
    row(1, gps="read"),
    row(2, gps="unreadable"),
    row(3, gps="implausible"),
    row(4, radius_km=30.0),
    row(5, radius_km=14_301.0),
    row(6, status="uncertain", lat=None, lon=None),
]


@pytest.mark.parametrize(
    ("options", "calibrated", "kept"),
    [
        ({}, False, {0}),
        ({}, True, {0, 4}),
        ({"export_max_radius_km": 20_000.0}, False, {0, 4, 5}),
        ({"overwrite_unreadable_gps": True}, False, {0, 2, 3}),
    ],
)
def test_nothing_is_exported_over_what_is_known_nor_beyond_the_radius(options, calibrated, kept, tmp_path):
    parts = parts_of(tmp_path, results(STATES[:3]), results(STATES[3:]))
    for name in ("csv", "xmp"):
        done = export(name, parts, tmp_path, calibrated=calibrated, **options)
        assert done["written"] == len(kept)
        assert done["held back, having a position of their own"] == 1
        assert done.total() == 6  # the uncertain one is no estimate
    with (tmp_path / "geotags.csv").open() as file:
        assert {int(line["SourceFile"][-5]) for line in csv.DictReader(file)} == kept
    assert {int(path.name[-9]) for path in (tmp_path / "xmp").iterdir()} == kept
    done = export("geojson", parts, tmp_path, calibrated=calibrated, **options)
    features = json.loads((tmp_path / "geotags.geojson").read_text())["features"]
    assert len(features) == 7
    held_back = [f["id"] for f in features if f["properties"]["held_back"]]
    assert len(held_back) == done.total() - done["written"]
    assert all(f["geometry"] is None for f in features if f["id"] in held_back)


def test_report_is_no_more_precise_than_the_radius(tmp_path):
    parts = Parts(Folder(str(tmp_path / "geotags")))
    parts.add(results([row(0, radius_km=14_301.0), row(1, radius_km=600.0), row(2, radius_km=2.0)]))
    record = {
        "settings": {},
        "options": {"source": "s"},
        "recipe": {"name": "lite"},
        "last_work": {"photos": 0},
    }
    write_report(Folder(str(tmp_path)), parts, Summary.of(parts.tables(COLUMNS)), record)
    page = (tmp_path / "report.html").read_text()
    assert "Somewhere on Earth" in page
    assert "Somewhere in France" in page
    assert "Paris, Ile-de-France, France" in page
    assert "48.8584, 2.2945" not in page.replace("48.858, 2.294", "")


def test_summary_counts_and_judges(parts):
    rows = [
        row(0, true_lat=48.85837, true_lon=2.294481),
        row(1, lat=0.0, lon=0.0, true_lat=0.2255, true_lon=0.0),  # 24.93 km by geodesic, 25.07 by haversine
        row(2, lat=0.0, lon=0.0, true_lat=45.0, true_lon=0.0),
        row(3, status="kept", true_lat=1.0, true_lon=1.0),
        {"id": 4, "uri": "x", "status": "failed", "error_kind": "empty", "error": "", "true_lat": 1.0, "true_lon": 1.0},
        {"id": 5, "uri": "y", "status": "failed", "error_kind": "empty", "error": ""},
    ]
    summary = Summary.of([results(rows[:2]).select(COLUMNS), results(rows[2:]).select(COLUMNS)])
    assert summary.statuses == {"located": 3, "kept": 1, "failed": 2}
    assert summary.error_kinds == {"empty": 2}
    assert summary.judged == 4
    assert [summary.within[t] for t in (1, 25, 200, 750, 2500)] == [1, 2, 2, 2, 2]
    assert summary.median_km == pytest.approx(24.9345, rel=1e-3)
    assert "25 km 50.0 %" in "\n".join(summary.lines())


def test_report_is_one_file_that_needs_no_network(parts, tmp_path):
    summary = Summary.of(parts.tables(COLUMNS))
    record = {
        "settings": {"encoder": "lite"},
        "options": {"source": "<s3>"},
        "recipe": {"name": "lite"},
        "last_work": {"photos": 0},
    }
    write_report(Folder(str(tmp_path)), parts, summary, record)
    page = (tmp_path / "report.html").read_text()
    assert "&lt;b&gt;cut&lt;/b&gt; short" in page
    assert "&lt;s3&gt;" in page
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=.?https?:", page)
    assert "not calibrated" in page


@given(st.integers(0, 3), st.integers(1, 4), st.randoms(use_true_random=False))
def test_cells_that_are_summed_part_by_part_are_those_of_all(parts, times, random):
    points = [
        np.array(
            [[random.uniform(-90, 90), random.uniform(-180, 180), random.choice([0.5, np.nan])] for _ in range(30)]
        )
        for _ in range(parts)
    ]
    together = np.concatenate([np.zeros((0, 3)), *points]).T
    whole = grid_cells(*together, 7.5 * times)
    joined = CellSums.joined(CellSums.of(*some.T, 7.5) for some in points).coarser(times).means()
    for name, values in whole.items():
        np.testing.assert_allclose(joined[name], values)


def test_report_of_many_is_no_larger_than_its_grid(tmp_path, random):
    parts = Parts(Folder(str(tmp_path / "geotags")))
    lat, lon = random.normal(48, 3, 60_000), random.normal(5, 3, 60_000)
    for start in range(0, 60_000, 20_000):
        rows = [
            row(i, uri="", lat=float(lat[i]), lon=float(lon[i]), candidates=None) for i in range(start, start + 20_000)
        ]
        parts.add(results(rows))
    summary = Summary.of(parts.tables(COLUMNS))
    record = {
        "settings": {},
        "options": {"source": "s"},
        "recipe": {"name": "lite"},
        "last_work": {"photos": 0},
    }
    write_report(Folder(str(tmp_path)), parts, summary, record)
    assert "photos of half a degree" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "report.html").stat().st_size < 8_000_000


def test_report_of_failures_alone(tmp_path):
    parts = Parts(Folder(str(tmp_path / "geotags")))
    parts.add(results(ROWS[3:]))
    record = {"settings": {}, "options": {"source": "s"}, "recipe": {"name": "lite"}, "last_work": {}}
    write_report(Folder(str(tmp_path)), parts, Summary.of(parts.tables(COLUMNS)), record)
    assert "truncated" in (tmp_path / "report.html").read_text()
