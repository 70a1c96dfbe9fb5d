"""Photos of an archive locate each other, in a whole run."""

import dataclasses
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from geoloc.context.archive import compact, numbered, timed
from geoloc.context.company import CompanyOptions
from geoloc.estimate.confidence import Confidence
from geoloc.geo.distance import geodesic_km
from geoloc.pipeline import context as stage
from geoloc.pipeline.archive import geotag_archive
from geoloc.pipeline.context import JointStage, Memory
from geoloc.pipeline.job_options import ArchiveOptions, TrackOptions
from geoloc.recipes.options import RecipeOptions
from geoloc.results import joint
from geoloc.results.parts import Parts
from geoloc.schema import JOINT, RESULT
from geoloc.storage import Folder


def rows_of(options: ArchiveOptions) -> pa.Table:
    return pa.concat_tables(Parts(Folder(options.output) / "geotags").tables()).sort_by("uri")


def stamps(options: ArchiveOptions) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in Path(options.output, "geotags").glob("*.parquet")}


@pytest.fixture(scope="module")
def options(toy, toy_index, tmp_path_factory, ray_cluster) -> ArchiveOptions:
    output = tmp_path_factory.mktemp("together") / "out"
    return ArchiveOptions(str(toy / "archive"), str(output), RecipeOptions(recipe="lite", index=str(toy_index)))


@pytest.fixture(scope="module")
def alone(options) -> pa.Table:
    assert geotag_archive(dataclasses.replace(options, context="off")) == 0
    return rows_of(options)


@pytest.fixture(scope="module")
def together(alone, options) -> pa.Table:
    """Of the same run, gone on with."""
    assert geotag_archive(options) == 0
    return rows_of(options)


def test_neighbours_leave_no_photo_in_another_city(alone, together, toy):
    truth = {row["uri"]: row for row in pa.csv.read_csv(toy / "truth.csv").to_pylist()}
    moved = [row for row in together.to_pylist() if row["because"]]
    assert len(moved) > 20
    true = np.array([[truth[row["uri"]][axis] for axis in ("lat", "lon")] for row in moved])
    km = geodesic_km(*np.array([[row["lat"], row["lon"]] for row in moved]).T, *true.T)
    km_alone = geodesic_km(*np.array([[row["alone_lat"], row["alone_lon"]] for row in moved]).T, *true.T)
    assert np.mean(km < 200) >= np.mean(km_alone < 200)
    assert np.mean(km < 25) > 0.9
    assert np.mean(km <= np.array([row["radius_km"] for row in moved])) > 0.7


def test_each_row_keeps_its_own_answer(alone, together):
    before, after = alone.to_pylist(), together.to_pylist()
    for one, other in zip(before, after, strict=True):
        if other["because"]:
            own = [one[name] for name in ("estimate_lat", "estimate_lon", "radius_km", "confidence")]
            assert own == [other[f"alone_{name}"] for name in ("lat", "lon", "radius_km", "confidence")]
            assert other["confidence"] == other["confidence_25km"]
            assert other["confidence_1km"] <= other["confidence_25km"] <= other["confidence_2500km"]
            assert other["geometry"] is not None
        else:
            assert {k: v for k, v in one.items() if k not in JOINT} == {
                k: v for k, v in other.items() if k not in JOINT
            }
        assert one["candidates"] == other["candidates"]


def test_what_a_camera_knew_stays_and_is_doubted_at_most(alone, together):
    kept = together.filter(pa.compute.equal(together["status"], "kept"))
    assert kept.num_rows > 3
    assert kept.select(["lat", "lon"]).equals(
        alone.filter(pa.compute.equal(alone["status"], "kept")).select(["lat", "lon"])
    )
    assert kept["because"].null_count == kept.num_rows
    assert kept["gps_doubt"].null_count < kept.num_rows


def test_it_is_told_why(together):
    reasons = together["because"].drop_null().to_pylist()
    assert any("known place of IMG_" in reason and "minutes" in reason for reason in reasons)


def test_again_nothing_changes_and_off_takes_it_all_back(together, options, alone):
    before = stamps(options)
    assert geotag_archive(options) == 0
    assert stamps(options) == before
    assert geotag_archive(dataclasses.replace(options, context="off")) == 0
    assert rows_of(options).equals(alone)
    assert geotag_archive(options) == 0
    assert rows_of(options).equals(together)


def test_what_is_cut_off_is_told_anew(together, options, monkeypatch):
    """After the first file that "off" has changed."""
    write = Parts.write

    def once(self, name: str, table: pa.Table) -> None:
        write(self, name, table)
        raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr(Parts, "write", once)
        with pytest.raises(InterruptedError):
            geotag_archive(dataclasses.replace(options, context="off"))
    assert not rows_of(options).equals(together)
    assert geotag_archive(options) == 0
    assert rows_of(options).equals(together)


def test_a_track_locates_what_was_taken_on_the_way(together, options, toy, tmp_path):
    truth = pa.csv.read_csv(toy / "truth.csv").to_pylist()
    of = {row["uri"]: row for row in truth}
    points = "".join(
        f'<trkpt lat="{of[row["uri"]]["lat"]}" lon="{of[row["uri"]]["lon"]}"><time>{row["taken_at"].isoformat()}Z</time></trkpt>'
        for row in sorted(together.to_pylist(), key=lambda row: str(row["taken_at"]))
        if row["taken_at"]
    )
    (tmp_path / "tracks").mkdir()
    (tmp_path / "tracks" / "walk.gpx").write_text(
        f'<gpx version="1.1" creator="x"><trk><trkseg>{points}</trkseg></trk></gpx>'
    )
    shutil.copytree(options.output, tmp_path / "out")
    (camera,) = set(together["camera"].drop_null().to_pylist())
    tracks = TrackOptions(str(tmp_path / "tracks"), (f"{camera}=+00:00",))
    with_track = dataclasses.replace(options, output=str(tmp_path / "out"), tracks=tracks)
    assert geotag_archive(with_track) == 0
    rows = rows_of(with_track).to_pylist()
    by_track = [row for row in rows if (row["because"] or "").startswith("track walk.gpx, at that moment")]
    moved = [row for row in rows if row["because"]]
    assert len(by_track) > 0.7 * len(moved)
    true = np.array([[of[row["uri"]][axis] for axis in ("lat", "lon")] for row in by_track])
    assert (
        geodesic_km(*np.array([[row["estimate_lat"], row["estimate_lon"]] for row in by_track]).T, *true.T).max() < 0.1
    )
    kept = [(row["uri"], row["lat"]) for row in rows if row["status"] == "kept"]
    assert kept == [(row["uri"], row["lat"]) for row in together.to_pylist() if row["status"] == "kept"]


def synthetic(folder: Folder, families: int = 6) -> Parts:
    """Two cameras a family, and a file for each second one of them."""
    parts, random, number = Parts(folder / "geotags"), np.random.default_rng(0), 0
    for family in range(families):
        rows = []
        for camera in range(2):
            start = NOON + timedelta(days=int(random.integers(900)))
            for i in range(40):
                lat, kept = 40 + family + i * 0.01, i % 7 == 0
                lists = [{"lat": lat + random.normal(0, 0.02), "lon": 2.0}, {"lat": 10.0, "lon": 20.0}]
                lists = [
                    one | {"score": 0.5 - 0.3 * k, "similarity": 0.5, "reference_id": k} for k, one in enumerate(lists)
                ]
                rows.append(
                    {
                        "id": number,
                        "uri": f"/f{family}/a/{camera}-{i}.jpg",
                        "camera": f"C{camera}",
                        "lat": lat,
                        "lon": 2.0,
                    }
                    | {"status": "kept" if kept else "located", "taken_at": start + timedelta(minutes=13 * i)}
                    | {"candidates": None if kept else lists, "width": 1}
                )
                number += 1
        table = Confidence(5.0).renew(pa.Table.from_pylist(rows, RESULT))
        parts.add(table.slice(0, 50))
        parts.add(table.slice(50))
    return parts


def told(folder: Folder, parts: Parts, photos: int) -> int:
    """The number of files that were written."""
    return JointStage(parts, Confidence(5.0), CompanyOptions(), Memory(folder), photos, {}).done(parts.names())


def all_rows(parts: Parts) -> pa.Table:
    return pa.concat_tables(parts.tables()).sort_by("id")


def test_households_that_are_dealt_out_by_the_cluster_say_the_same(tmp_path, monkeypatch, ray_cluster):
    monkeypatch.setattr(stage, "LEARNED_OF", 80)
    here, there = (synthetic(Folder(str(tmp_path / name))) for name in ("here", "there"))
    assert told(here.folder.parent()[0], here, 480) == 12
    with monkeypatch.context() as patched:
        patched.setattr(stage, "AT_ONCE", 100)
        assert told(there.folder.parent()[0], there, 480) == 12
    rows, others = all_rows(here), all_rows(there)
    assert rows["because"].null_count < 100
    told_so = [
        name for name in rows.column_names if name.startswith("confidence") or name in ("radius_km", "gps_doubt")
    ]
    for name in told_so:  # single precision, summed in other company
        np.testing.assert_allclose(rows[name].to_numpy(), others[name].to_numpy(), rtol=1e-4, atol=1e-5)
    assert rows.drop_columns(told_so).equals(others.drop_columns(told_so))


def test_an_increment_changes_its_household_alone(tmp_path):
    folder = Folder(str(tmp_path))
    parts = synthetic(folder)
    assert told(folder, parts, 480) == 12
    assert told(folder, parts, 480) == 0
    before = {name: parts.read(name) for name in parts.names()}
    more = [{"uri": f"/f3/a/0-9{i}.jpg", "id": 1000 + i} for i in range(3)]
    row = next(iter(before.values())).slice(1, 1).to_pylist()[0]
    row |= {"camera": "C0", "taken_at": NOON, "because": None, "status": "located", "gps_doubt": None}
    parts.add(pa.Table.from_pylist([row | one for one in more], RESULT))
    assert 1 <= told(folder, parts, 483) <= 3
    for name, table in before.items():
        if not any(uri.startswith("/f3/") for uri in table["uri"].to_pylist()):
            assert parts.read(name).equals(table)


def test_rows_that_were_written_anew_are_told_again(tmp_path):
    folder = Folder(str(tmp_path))
    parts = synthetic(folder, 2)
    told(folder, parts, 160)
    whole = all_rows(parts)
    name = parts.names()[0]
    parts.write(name, joint.alone(parts.read(name), Confidence(5.0)))
    assert told(folder, parts, 160) == 1
    assert all_rows(parts).equals(whole)


def archive_rows(*rows: dict) -> pa.Table:
    return compact(
        pa.Table.from_pylist([{"id": number, "status": "located"} | row for number, row in enumerate(rows)], RESULT)
    )


NOON = datetime(2019, 7, 4, 12)


def test_chains_are_cameras():
    rows = archive_rows(
        {"uri": "/a/1.jpg", "taken_at": NOON, "camera": "X", "camera_serial": "7"},
        {"uri": "/b/2.jpg", "taken_at": NOON, "camera": "X", "camera_serial": "7"},
        {"uri": "/a/3.jpg", "taken_at": NOON, "camera": "X"},
        {"uri": "/a/4.jpg", "taken_at": NOON, "camera": "X"},
        {"uri": "/b/5.jpg", "taken_at": NOON, "camera": "X"},
        {"uri": "/a/6.jpg", "taken_at": NOON, "camera": "X", "owner": "Ada"},
        {"uri": "/b/7.jpg", "taken_at": NOON, "camera": "X", "owner": "Ada"},
        {"uri": "/a/8.jpg", "taken_at": NOON},
        {"uri": "/b/9.jpg", "taken_at": NOON},
        {"uri": "/b/10.jpg", "taken_at": None},
        {"uri": "/b/11.jpg", "taken_at": NOON, "status": "failed"},
    )
    used, collection = timed(rows, 1.0)
    assert used.tolist() == list(range(9))
    chains = collection.chain.tolist()
    assert chains[0] == chains[1]
    assert chains[2] == chains[3]
    assert chains[5] == chains[6]
    assert len({chains[number] for number in (0, 2, 4, 5, 7, 8)}) == 6


@pytest.mark.parametrize(("other", "chains"), [((48.9, 2.4), 1), ((40.7, -74.0), 20)])
def test_photos_of_several_people_are_left_alone(other, chains):
    """Two phones of one model, in one folder, at the same hours: in one city, or in two."""
    rows = [
        {"uri": f"/a/{number}.jpg", "taken_at": NOON + timedelta(minutes=9 * number), "status": "kept"}
        | dict(zip(("lat", "lon"), other if number % 2 else (48.85, 2.35), strict=True))
        for number in range(20)
    ]
    _, collection = timed(archive_rows(*rows), 1.0)
    assert len(set(collection.chain.tolist())) == chains


def test_clocks_are_utc_where_it_is_told_for_all_of_a_camera():
    rows = archive_rows(
        {"uri": "1", "taken_at": NOON, "camera": "X", "taken_utc_offset": 120},
        {"uri": "2", "taken_at": NOON, "camera": "X", "taken_utc_offset": 60},
        {"uri": "3", "taken_at": NOON, "camera": "Y", "taken_utc_offset": 120},
        {"uri": "4", "taken_at": NOON, "camera": "Y"},
    )
    position = timed(rows, 1.0)[1].position
    assert position[1] - position[0] == 60
    assert position[3] - position[2] == 0


@pytest.mark.parametrize(
    "clock", [datetime(1970, 1, 1, 5), datetime(1980, 1, 1), datetime(2000, 1, 1) + timedelta(seconds=20)]
)
def test_clocks_that_were_never_set_tell_no_time(clock):
    used, _ = timed(
        archive_rows({"uri": "1", "taken_at": clock}, {"uri": "2", "taken_at": datetime(2000, 1, 1, 9)}), 1.0
    )
    assert used.tolist() == [1]


def test_file_numbers_stand_for_times():
    rows = archive_rows(
        {"uri": "s3://b/trip/DSC_0412.JPG"},
        {"uri": "s3://b/trip/DSC_0410.JPG"},
        {"uri": "s3://b/other/DSC_0410.JPG"},
        {"uri": "s3://b/trip/81017e90.jpg"},
        {"uri": "s3://b/trip/IMG_0411.jpg", "taken_at": NOON},
    )
    used, collection = numbered(rows, 1.0)
    assert used.tolist() == [0, 1, 2]
    assert collection.position.tolist() == [412, 410, 410]
    assert collection.chain[0] == collection.chain[1] != collection.chain[2]


def test_candidates_weigh_as_in_the_rows():
    lists = [{"lat": 1.0, "lon": 2.0, "score": 0.9}, {"lat": 3.0, "lon": 4.0, "score": 0.4}, {"lat": 5.0, "lon": 6.0}]
    kept = {"status": "kept", "lat": 7.0, "lon": 8.0}
    rows = archive_rows({"uri": "1", "taken_at": NOON, "candidates": lists}, {"uri": "2", "taken_at": NOON, **kept})
    _, collection = timed(rows, 2.0)
    weight = np.exp(2 * 0.9) / (np.exp(2 * 0.9) + np.exp(2 * 0.4))
    first = 0.85 + 0.15 * weight  # besides its score's share, the first has 85 %
    np.testing.assert_allclose(collection.shares, [[first, 1 - first], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(collection.candidates[0], [[1, 2], [3, 4]])
    np.testing.assert_allclose(collection.known, [[np.nan, np.nan], [7, 8]])


def test_a_position_that_may_be_far_off_is_an_estimate_to_its_neighbours():
    kept = {"status": "kept", "lat": 7.0, "lon": 8.0, "taken_at": NOON}
    rows = archive_rows({"uri": "1", **kept, "gps_error_m": 5000.0}, {"uri": "2", **kept, "gps_error_m": 9.0})
    _, collection = timed(rows, 1.0)
    np.testing.assert_array_equal(collection.known, [[np.nan, np.nan], [7, 8]])
    np.testing.assert_array_equal(collection.candidates[0, 0], [7, 8])
    assert collection.shares[:, 0].tolist() == [1, 0]
