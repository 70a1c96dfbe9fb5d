"""The whole job, on a real Ray cluster, from and to a real HTTP S3 server."""

import csv
import dataclasses
import io
import json
import re
import shutil
import threading
import time
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from geoloc.errors import SourceFailingError, UsageError
from geoloc.geo.distance import haversine_km
from geoloc.photos.decode import PhotoFile
from geoloc.photos.selection import ListingOptions
from geoloc.photos.sources import Source
from geoloc.pipeline import archive, tasks
from geoloc.pipeline.archive import geotag_archive
from geoloc.pipeline.calibration import calibrate
from geoloc.pipeline.job_options import (
    ArchiveOptions,
    CalibrationOptions,
    IndexOptions,
    PublicationOptions,
    TrackOptions,
)
from geoloc.pipeline.options import PhotoOptions
from geoloc.pipeline.publication import open_run, publish_again
from geoloc.pipeline.references import build_index
from geoloc.recipes.options import RecipeOptions
from geoloc.results.options import ExportOptions
from geoloc.storage import Folder, S3Options
from geoloc.toy.archive import _exif, write_archive
from geoloc.toy.models import write_clip
from tests.conftest import ray_workers, with_recipe
from tests.photos.test_metadata import ATTRIBUTES, takeout, xmp

EVERYTHING = ExportOptions(("geojson", "csv", "xmp"), 30_000)

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def options(toy, toy_index, tmp_path) -> ArchiveOptions:
    return ArchiveOptions(str(toy / "archive"), str(tmp_path / "out"), method(toy_index), context="off")


def method(index) -> RecipeOptions:
    return RecipeOptions(recipe="lite", index=str(index), candidates=10)


@pytest.fixture(scope="module")
def finished(toy, toy_index, ray_cluster, tmp_path_factory) -> Path:
    """The output of a run on the toy archive."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    assert geotag_archive(ArchiveOptions(str(toy / "archive"), str(folder), method(toy_index), context="off")) == 0
    return folder


def test_a_plan_locates_some_which_the_run_then_has(options, caplog, monkeypatch):
    monkeypatch.setattr(archive, "SAMPLE", 12)
    planned = dataclasses.replace(options, plan=True)
    with monkeypatch.context() as patched:  # a plan that dies is begun again
        patched.setattr(archive.Stream, "work", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            geotag_archive(planned)
    with caplog.at_level("INFO"):
        assert geotag_archive(planned) == 0
    assert "Photos: 40" in caplog.text
    assert re.search(r"decoding: at most [\d,.]+ photos/s", caplog.text)
    assert "28 photos to do: at least" in caplog.text
    assert caplog.text.count("(this bounds it)") == 1
    written = {row["id"]: row for row in results(options)}
    assert len(written) == 12
    caplog.clear()
    with caplog.at_level("INFO"):
        assert geotag_archive(planned) == 0  # by what was done, and nothing is done again
    assert "are located first" not in caplog.text
    assert "28 photos to do: at least" in caplog.text
    assert geotag_archive(options) == 0
    rows = results(options)
    assert len(rows) == 40
    assert {row["id"]: row for row in rows if row["id"] in written} == written


@pytest.fixture
def done(options, finished) -> ArchiveOptions:
    """A copy of it, to go on with."""
    shutil.copytree(finished, options.output)
    return options


def results(options: ArchiveOptions) -> list[dict]:
    folder = Folder(options.output)
    tables = [
        pq.read_table(folder.path(f"geotags/{n}"), filesystem=folder.filesystem) for n in (folder / "geotags").names()
    ]
    return sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: row["id"])


def upload(s3, bucket: str, folder, prefix: str) -> None:
    s3.create_bucket(Bucket=bucket)
    for path in folder.rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), bucket, f"{prefix}{path.relative_to(folder)}")


@pytest.fixture(scope="module")
def bucket(s3, toy, toy_index, tmp_path_factory) -> str:
    upload(s3, "archive", toy / "archive", "photos/")
    upload(s3, "indexes", toy_index, "toy/")
    return "s3://archive/photos/"


def test_from_bucket_to_bucket(bucket, s3, toy, toy_index, monkeypatch, tmp_path):
    """Every photo has one row, and the rows are right; then the bucket changes, and only what changed is done again."""
    monkeypatch.setenv("GEOLOC_CACHE", str(tmp_path / "cache"))
    options = ArchiveOptions(
        bucket,
        "s3://archive/run",
        method("s3://indexes/toy"),
        exports=ExportOptions(("geojson", "xmp"), 30_000),
    )
    assert geotag_archive(options) == 0
    rows = results(options)
    assert [row["id"] for row in rows] == list(range(40))
    with (toy / "truth.csv").open() as file:
        truth = {row["uri"].removeprefix(f"{toy.resolve()}/archive/"): row for row in csv.DictReader(file)}
    rows_by_name = {row["uri"].removeprefix(bucket): row for row in rows}
    assert rows_by_name.keys() == truth.keys()
    near = 0
    for name, row in rows_by_name.items():
        place = truth[name]
        if row["status"] == "failed":
            assert row["error_kind"] in ("empty", "not_an_image", "truncated", "corrupt")
            assert row["lat"] is None
            continue
        km = haversine_km(row["lat"], row["lon"], float(place["lat"]), float(place["lon"]))
        if row["status"] == "kept":
            assert (row["method"], km < 0.01) == ("exif", True)
        else:
            near += km < 60
            assert len(row["candidates"]) == 10
            own = ("alone_lat", "alone_lon") if row["because"] else ("lat", "lon")
            assert (row["candidates"][0]["lat"], row["candidates"][0]["lon"]) == tuple(row[name] for name in own)
            assert row["candidates"][0]["score"] >= row["candidates"][9]["score"]
            assert 0 < row["confidence"] <= 1.0001
        assert row["camera"] == "Toy Camera 1"
        assert (row["width"], row["height"]) == (320, 240)
    statuses = [row["status"] for row in rows]
    assert near / statuses.count("located") > 0.8
    assert {"kept", "located", "failed"} == set(statuses)
    names = {entry["Key"] for entry in s3.list_objects_v2(Bucket="archive", Prefix="run/")["Contents"]}
    assert {"run/_SUCCESS", "run/report.html", "run/run.json", "run/geotags.geojson"} <= names
    assert sum(name.endswith(".xmp") for name in names) == statuses.count("located")
    assert [name for name in names if "/lease/" in name] == ["run/lease/000001.json"]
    assert (
        "test"
        not in json.loads(s3.get_object(Bucket="archive", Key="run/run.json")["Body"].read())["options"]["s3"].values()
    )

    files = (Folder(options.output) / "geotags").names()
    assert geotag_archive(options) == 0
    assert (Folder(options.output) / "geotags").names() == files

    first, second = rows[0]["uri"], next(row["uri"] for row in rows[1:] if row["status"] == "located")
    s3.copy_object(Bucket="archive", Key="photos/new.jpg", CopySource=second.removeprefix("s3://"))
    s3.put_object(Bucket="archive", Key=first.removeprefix("s3://archive/"), Body=b"no photo any more")
    assert geotag_archive(options) == 0
    rows = results(options)
    assert len(rows) == len({row["uri"] for row in rows}) == 41
    assert [row["id"] for row in rows] == [*range(1, 40), 40, 41]
    by_uri = {row["uri"]: row for row in rows}
    assert by_uri[first]["error_kind"] == "not_an_image"
    assert by_uri["s3://archive/photos/new.jpg"]["candidates"] == by_uri[second]["candidates"]


def test_photos_that_vanish_or_change_after_the_listing(options, toy, tmp_path):
    folder = tmp_path / "vanishing"
    shutil.copytree(toy / "archive", folder)
    options = with_recipe(options, source=str(folder), chooser="density")
    open_run(Folder(options.output)).list_photos(Source(str(folder), S3Options()))
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    paths[0].unlink()
    paths[1].write_bytes(b"other")
    assert geotag_archive(options) == 0
    rows = {row["uri"]: row for row in results(options)}
    assert len(rows) == 40
    assert rows[str(paths[0])]["error_kind"] == "not_found"
    assert rows[str(paths[1])]["error_kind"] == "changed"


def test_relocating_reports_its_own_accuracy(options, caplog, toy):
    options = with_recipe(options, source=str(toy / "truth.csv"), relocate=True)
    caplog.set_level("INFO", "geoloc")
    assert geotag_archive(options) == 0
    rows = results(options)
    assert "kept" not in {row["status"] for row in rows}
    assert all(row["true_lat"] is not None for row in rows)
    assert "Accuracy on the 40 photos whose place is known" in caplog.text
    assert "Accuracy on photos whose place is known" in (Folder(options.output).read("report.html")).decode()
    query = f"select count(*) from '{options.output}/geotags/*.parquet' where geometry is not null"
    assert duckdb.sql(query).fetchall()[0][0] == sum(row["status"] == "located" for row in rows)


@pytest.mark.slow
def test_an_actor_killed_twice_costs_no_photo(ray_cluster, planet, toy_index, tmp_path):
    write_archive(tmp_path / "archive", tmp_path / "truth.csv", planet, 250)
    options = ArchiveOptions(str(tmp_path / "archive"), str(tmp_path / "out"), method(toy_index), context="off")
    killed = []

    def kill_models() -> None:
        parts = tmp_path / "out" / "geotags"
        while len(killed) < 2:
            time.sleep(0.2)
            written = len(list(parts.glob("*.parquet"))) if parts.exists() else 0
            for process in ray_workers("ModelActor")[:1]:
                if written > len(killed):
                    process.kill()
                    killed.append(process.pid)

    thread = threading.Thread(target=kill_models, daemon=True)
    thread.start()
    assert geotag_archive(options) == 0
    assert len(killed) == len(set(killed)) == 2
    assert [row["id"] for row in results(options)] == list(range(250))


@pytest.mark.slow
def test_all_photos_failing_is_a_failure_with_results(options, tmp_path):
    (tmp_path / "junk").mkdir()
    for number in range(5):
        (tmp_path / "junk" / f"{number}.jpg").write_bytes(b"junk")
    options = with_recipe(options, source=str(tmp_path / "junk"))
    assert geotag_archive(options) == 1
    assert [row["error_kind"] for row in results(options)] == ["not_an_image"] * 5
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.slow
def test_geoclip_needs_no_reference_photos(tmp_path, toy, toy_tower, small_gallery):
    """With a gallery; the weights of the image tower are random here, so only the plumbing is right."""
    recipe = RecipeOptions(model=write_clip(tmp_path / "clip"), chooser="verification")
    options = ArchiveOptions(str(toy / "archive"), str(tmp_path / "out"), recipe, context="off")
    assert geotag_archive(options) == 0
    rows = [row for row in results(options) if row["status"] == "located"]
    assert len(rows) > 25
    assert all(row["candidates"][0]["reference"] is None for row in rows)
    assert all(
        row["candidates"][0]["similarity"] == pytest.approx(row["candidates"][0]["score"], abs=1e-4) for row in rows
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "s3://no-such-bucket-at-all/x"}, "no such bucket"),
        ({"source": "/no/such/folder"}, "no such folder"),
        ({"index": "/no/such/index"}, r"no index\.json"),
        ({"index": None}, "encoder lite has no gallery"),
        ({"candidates": 61}, "--candidates 61: the index has only 60 rows"),
        ({"candidates": 0}, "--candidates 0"),
        ({"chooser": "verification"}, "no location space"),
        ({"encoder": "geoclip"}, "cannot load the image model ViT-L-14-quickgelu"),
        ({"exports": ExportOptions(("kml",))}, "--export kml"),
        ({"exports": ExportOptions((), -1)}, "--export-max-radius-km -1: must be above 0"),
        ({"tracks": TrackOptions("/nowhere"), "context": "auto"}, r"--tracks /nowhere: holds no \.gpx"),
        ({"tracks": TrackOptions(clock_offset=("X=1h",)), "context": "auto"}, "--clock-offset X=1h: must be"),
        ({"tracks": TrackOptions("/nowhere"), "context": "off"}, "--context off: looks at no --tracks"),
        ({"listing": ListingOptions(limit=0)}, "--limit 0: must be at least 1"),
        ({"listing": ListingOptions(limit=1, sample=1)}, "--limit 1: goes not with --sample 1"),
        ({"photos": PhotoOptions(retry=("often",))}, "--retry often: there is permanent, access, passing, none, "),
        ({"density_sigma_km": 0, "chooser": "density"}, "--density-sigma-km 0"),
        ({"density_sigma_km": 9}, "--density-sigma-km 9: is about the chooser density"),
        ({"recipe": "best"}, "--recipe best: there is geoclip, .*, lite; or name a .yaml file"),
        ({"ranker_adapter": "x"}, "--ranker-adapter x: recipe lite has no GeoRanker; --recipe georanker-retrieved has"),
        ({"min_confidence": "25km:0.5"}, "--min-confidence 25km:0.5: speaks of probabilities; add --calibration"),
        ({"min_confidence": "0.5", "calibration": "x"}, "--min-confidence 0.5: is not THRESHOLD:PROBABILITY"),
        ({"calibration": "/nowhere"}, "no such file; make it with"),
    ],
)
def test_what_cannot_work_stops_before_any_photo(options, change, message, s3):
    options = with_recipe(options, **change)
    with pytest.raises(UsageError, match=message):
        geotag_archive(options)
    assert not (Folder(options.output) / "geotags").names()


def test_wrong_credentials(options, s3, tmp_path, monkeypatch):
    (tmp_path / "aws").write_text("[nobody]\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(UsageError, match=r"SOURCE s3://archive/photos.*credentials"):
        geotag_archive(with_recipe(options, source="s3://archive/photos"))


def test_an_output_that_cannot_be_written(options, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"OUTPUT .*/file/out: cannot write there"):
        geotag_archive(with_recipe(options, output=str(tmp_path / "file" / "out")))


def test_an_index_of_another_encoder(options, shared_data):
    other = f"local-dir:{shared_data.parent}/models/lite-clip"
    with pytest.raises(UsageError, match=r"was built with encoder lite, model pypi:.* not with lite, local-dir"):
        geotag_archive(with_recipe(options, model=other))


def test_a_damaged_index(options, tmp_path, toy_index):
    shutil.copytree(toy_index, tmp_path / "index")
    data = bytearray((tmp_path / "index" / "vectors.npy").read_bytes())
    data[-1] ^= 255
    (tmp_path / "index" / "vectors.npy").write_bytes(data)
    with pytest.raises(UsageError, match=r"vectors\.npy is damaged"):
        geotag_archive(with_recipe(options, index=str(tmp_path / "index")))


def test_an_index_is_the_same_however_it_is_built(toy, toy_index, tmp_path):
    """Against the fixture: other batches, other parts, from a table; same rows, same order, same vectors."""
    from geoloc.index.store import Index
    from geoloc.pipeline.options import ClusterOptions

    table = tmp_path / "refs.parquet"
    index = Index(toy_index)
    columns = {"uri": index.uri, "lat": index.lat, "lon": index.lon, "city": ["Somewhere", *[None] * 59]}
    broken = {
        "uri": [str(tmp_path / "none.jpg"), str(toy / "truth.csv")],
        "lat": [1.0, 1.0],
        "lon": [2.0, 2.0],
        "city": [None] * 2,
    }
    pq.write_table(pa.concat_tables([pa.table(columns), pa.table(broken).cast(pa.table(columns).schema)]), table)
    options = IndexOptions(str(table), str(tmp_path / "index"), "lite", cluster=ClusterOptions(batch_size=7))
    assert build_index(options) == 0
    again = Index(tmp_path / "index")
    assert again.uri.equals(index.uri)
    assert np.abs(again.vectors - index.vectors).max() < 1e-5
    assert np.allclose(again.lat, index.lat, atol=1e-9)
    assert again.thumbnail(5) == index.thumbnail(5)
    assert again.place[0]["city"].as_py() == "Somewhere"
    skipped = pq.read_table(tmp_path / "index" / "skipped.parquet").to_pylist()
    assert sorted(row["error_kind"] for row in skipped) == ["not_an_image", "not_found"]
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == [
        "candidates.parquet",
        "index.json",
        "lease",
        "skipped.parquet",
        "thumbnails.bin",
        "vectors.npy",
    ]
    assert build_index(options) == 0


def test_photos_without_a_place_make_no_index(tmp_path, toy):
    write = tmp_path / "plain"
    write.mkdir()
    from PIL import Image

    Image.new("RGB", (8, 8)).save(write / "a.jpg")
    with pytest.raises(UsageError, match="no photo could be indexed: no_position 1"):
        build_index(IndexOptions(str(write), str(tmp_path / "index"), "lite"))


@pytest.mark.slow
def test_confidences_are_calibrated_changed_and_taken_back(planet, toy_index, tmp_path, caplog):
    """On results that are there, without locating again."""
    caplog.set_level("INFO", "geoloc")
    write_archive(tmp_path / "archive", tmp_path / "truth.csv", planet, 150, seed=5)
    first = ArchiveOptions(
        str(tmp_path / "truth.csv"), str(tmp_path / "a"), method(toy_index), relocate=True, context="off"
    )
    assert geotag_archive(first) == 0
    raw = results(first)
    assert all(row["confidence_25km"] is None for row in raw)
    assert "Confidences: uncalibrated" in caplog.text

    assert calibrate(CalibrationOptions(first.output)) == 0
    calibrated = with_recipe(first, calibration=first.output)
    assert geotag_archive(calibrated) == 0
    assert "Nothing to do" in caplog.text
    rows = results(calibrated)
    for row, before in zip(rows, raw, strict=True):
        assert (row["lat"], row["lon"], row["status"]) == (before["lat"], before["lon"], before["status"])
        if row["status"] == "located":
            confidences = [row[f"confidence_{t}km"] for t in (1, 25, 200, 750, 2500)]
            assert confidences == sorted(confidences)
            assert row["confidence"] == row["confidence_25km"]
    assert "calibrated on" in (tmp_path / "a" / "report.html").read_text()

    sure = np.median([row["confidence_25km"] for row in rows if row["status"] == "located"])
    abstaining = with_recipe(calibrated, min_confidence=f"25km:{sure:.4f}", exports=EVERYTHING)
    assert geotag_archive(abstaining) == 0
    statuses = [row["status"] for row in results(abstaining)]
    assert 0.3 < statuses.count("uncertain") / statuses.count("located") < 3
    for renewed, before in zip(results(abstaining), raw, strict=True):
        assert (renewed["estimate_lat"], renewed["estimate_lon"]) == (before["lat"], before["lon"])
        assert (renewed["lat"] is None) == (renewed["geometry"] is None) == (renewed["status"] != "located")

    assert geotag_archive(first) == 0
    assert results(first) == raw

    other = with_recipe(calibrated, output=str(tmp_path / "c"), chooser="density")
    with pytest.raises(UsageError, match=r"--calibration .*scorers was \['top1'\], is now \['density'\]"):
        geotag_archive(other)


@pytest.fixture
def family(tmp_path, toy) -> Path:
    """A folder with a photo of every state of position, and what lies beside photos in real archives."""
    photos = [p for p in sorted((toy / "archive").rglob("*.jpg")) if p.stat().st_size > 5_000]
    picture = next(
        p for p in photos if PhotoFile(p.read_bytes()).carried.metadata().position.state == "none"
    ).read_bytes()
    image = Image.open(io.BytesIO(picture))
    folder = tmp_path / "family"
    (folder / "@eaDir").mkdir(parents=True)

    def write(name: str, **options) -> None:
        image.save(folder / name, "JPEG", quality=90, **options)

    write("none_20190704_153001.jpg")
    write("exif.jpg", exif=_exif(-33.8568, 151.2153, 0))
    write("xmp.jpg", xmp=xmp(ATTRIBUTES))
    write("beside.jpg")
    (folder / "beside.jpg.xmp").write_bytes(xmp(ATTRIBUTES))
    write("takeout.jpg")
    (folder / "takeout.jpg.supplemental-metadata.json").write_bytes(takeout())
    write("zero.jpg", exif=_exif(0, 0, 0))
    write("contradicting.jpg", exif=_exif(48.8, 2.3, 0), xmp=xmp(ATTRIBUTES))
    write("@eaDir/exif.jpg")
    (folder / "clip.mov").write_bytes(b"")
    return folder


def test_what_an_archive_knows_is_heard(options, family, caplog, tmp_path):
    caplog.set_level("INFO", "geoloc")
    options = with_recipe(options, source=str(family), exports=EVERYTHING)
    assert geotag_archive(options) == 0
    rows = {row["uri"].rsplit("/", 1)[-1].split("_")[0].removesuffix(".jpg"): row for row in results(options)}
    kept = {name: row["exif_from"] for name, row in rows.items() if row["status"] == "kept"}
    assert kept == {
        "exif": "exif",
        "xmp": "xmp",
        "beside": "beside.jpg.xmp",
        "takeout": "takeout.jpg.supplemental-metadata.json",
    }
    for name in kept:
        assert (rows[name]["lat"], rows[name]["lon"]) == pytest.approx((-33.8568, 151.2153), abs=1e-6)
    states = {name: row["gps"] for name, row in rows.items() if row["status"] == "located"}
    assert states == {"none": "none", "zero": "implausible", "contradicting": "unreadable"}
    assert (rows["none"]["taken_at"], rows["none"]["taken_from"]) == (datetime(2019, 7, 4, 15, 30, 1), "file name")
    assert rows["takeout"]["taken_utc_offset"] == 0
    with open(tmp_path / "out" / "geotags.csv") as file:
        assert [line["SourceFile"].rsplit("/", 1)[-1] for line in csv.DictReader(file)] == ["none_20190704_153001.jpg"]
    assert [path.name for path in (tmp_path / "out" / "xmp").iterdir()] == ["none_20190704_153001.jpg.xmp"]
    page = (tmp_path / "out" / "report.html").read_text()
    for words in (
        "1 files left out as litter: 1 @eaDir",
        "1 files of other types left out: 1 .mov (video)",
        "2 sidecars beside photos are read",
    ):
        assert words in caplog.text
        assert words in page
    assert "2 photos carry a position that was not read (1 unreadable, 1 implausible)" in caplog.text
    assert "exif: 48.80000, 2.30000, but xmp: -33.85680, 151.21530" in page
    assert json.loads(Folder(options.output).read("run.json"))["listing"]["litter"] == {"@eaDir": 1}

    # a person adds a position beside a photo: it is heard, and our sidecar goes
    (family / "none_20190704_153001.xmp").write_bytes(xmp(ATTRIBUTES))
    assert geotag_archive(options) == 0
    row = next(row for row in results(options) if "none" in row["uri"])
    assert (row["status"], row["exif_from"]) == ("kept", "none_20190704_153001.xmp")
    assert list((tmp_path / "out" / "xmp").iterdir()) == []
    assert len(results(options)) == 7


@pytest.mark.slow
def test_exclusions_take_rows_out_and_bring_them_back(options, family):
    options = with_recipe(options, source=str(family), exports=EVERYTHING)
    assert geotag_archive(options) == 0
    assert len(results(options)) == 7
    fewer = with_recipe(options, listing=ListingOptions(exclude=("*o*",)))
    assert geotag_archive(fewer) == 0
    assert sorted(row["uri"].rsplit("/", 1)[-1] for row in results(options)) == ["beside.jpg", "exif.jpg", "xmp.jpg"]
    assert geotag_archive(options) == 0
    assert len(results(options)) == 7


def test_exports_are_made_again_alone_and_taken_back(done, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO", "geoloc")
    out = tmp_path / "out"
    (out / "report.html").unlink()
    again = PublicationOptions(str(out), exports=dataclasses.replace(EVERYTHING, xmp_names="photo.xmp"))
    assert publish_again(again) == 0
    assert (out / "report.html").exists()
    located = sum(row["status"] == "located" for row in results(done))
    assert len(list((out / "xmp").rglob("*.xmp"))) == located
    assert f"Export csv: {located:,} written" in caplog.text
    names, table = {path.name for path in (out / "xmp").rglob("*.xmp")}, (out / "geotags.csv").read_bytes()
    assert publish_again(PublicationOptions(str(out))) == 0  # as they were made, whatever is usual
    assert {path.name for path in (out / "xmp").rglob("*.xmp")} == names
    assert (out / "geotags.csv").read_bytes() == table
    with monkeypatch.context() as patched:
        patched.setattr(tasks, "AT_ONCE", 10)  # as a large run: by tasks
        shutil.rmtree(out / "xmp")
        assert publish_again(again) == 0
    assert {path.name for path in (out / "xmp").rglob("*.xmp")} == names
    assert (out / "geotags.csv").read_bytes() == table
    assert publish_again(PublicationOptions(str(out), take_back=(str(out / "xmp"),))) == 0
    assert publish_again(PublicationOptions(str(out))) == 0
    assert list((out / "xmp").rglob("*.xmp")) == []
    (out / "_SUCCESS").unlink()
    with pytest.raises(UsageError, match="is not finished"):
        publish_again(again)


def test_a_source_out_of_reach_stops_the_run(options, tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    for number in range(2_000):
        (folder / f"{number:04d}.jpg").write_bytes(b"x")
    options = with_recipe(options, source=str(folder))
    open_run(Folder(options.output)).list_photos(Source(str(folder), S3Options()))
    for path in folder.iterdir():
        path.rename(path.with_suffix(".moved"))
    message = r"[\d,]+ of the last 1,0\d\d photos could not be had \(not_found [\d,]+\): stopped"
    with pytest.raises(SourceFailingError, match=message):
        geotag_archive(options)
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    for path in folder.iterdir():
        path.rename(path.with_suffix(".jpg"))
    assert geotag_archive(options) == 1  # they are no photos
    assert {row["error_kind"] for row in results(options)} == {"not_an_image"}
    assert len(results(options)) == 2_000


@pytest.mark.slow
def test_what_was_forbidden_is_tried_again(options, toy, tmp_path):
    folder = tmp_path / "locked"
    shutil.copytree(toy / "archive", folder)
    options = with_recipe(options, source=str(folder))
    open_run(Folder(options.output)).list_photos(Source(str(folder), S3Options()))
    photo = next(path for path in sorted(folder.rglob("*.jpg")) if path.stat().st_size > 5_000)
    photo.rename(tmp_path / "away")
    assert geotag_archive(options) == 0
    assert next(row for row in results(options) if row["uri"] == str(photo))["error_kind"] == "not_found"
    (tmp_path / "away").rename(photo)
    never = with_recipe(options, photos=PhotoOptions(retry=("none",)))
    assert geotag_archive(never) == 0
    assert next(row for row in results(options) if row["uri"] == str(photo))["error_kind"] == "not_found"
    assert geotag_archive(options) == 0
    assert next(row for row in results(options) if row["uri"] == str(photo))["status"] in ("located", "kept")


@pytest.mark.slow
def test_a_part_that_was_cut_is_done_again(done, tmp_path, caplog):
    part = max((tmp_path / "out" / "geotags").glob("*.parquet"), key=lambda path: path.stat().st_size)
    part.write_bytes(part.read_bytes()[:-100])
    assert geotag_archive(done) == 0
    assert f"{part.name} is damaged or not of this run: set aside" in caplog.text
    assert [row["id"] for row in results(done)] == list(range(40))
