"""The evaluation job on files, as its user starts it."""

import csv
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geoloc.errors import UsageError
from geoloc.evaluation.protocol import Protocol
from geoloc.geo.distance import geodesic_km
from geoloc.pipeline.evaluation import evaluate_runs
from geoloc.pipeline.job_options import EvaluationOptions
from tests.conftest import REPOSITORY

CITIES = [(48.8566, 2.3522), (40.7128, -74.006), (-33.8688, 151.2093), (35.6762, 139.6503), (-1.2921, 36.8219)]


def write(path, head, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head.split(","), *rows])
    return str(path)


@pytest.fixture
def truth(tmp_path):
    rows = [(f"{i:03d}.jpg", f"author{i % 7}", *CITIES[i % 5]) for i in range(60)]
    return write(tmp_path / "truth.csv", "IMG_ID,AUTHOR,LAT,LON", rows)


@pytest.fixture
def predictions(tmp_path):
    """Of 60 photos: 10 missing, one not a number, the others up to 50 km off to the north; one too many."""
    rows = [(f"/photos/{i:03d}.jpg", CITIES[i % 5][0] + i % 10 / 20, CITIES[i % 5][1]) for i in range(50)]
    rows[7] = (rows[7][0], "nan", "nan")
    return write(tmp_path / "ours.csv", "uri,predicted_lat,predicted_lon", [*rows, ("/photos/stray.jpg", 0, 0)])


def run(*paths, **options):
    assert evaluate_runs(EvaluationOptions(tuple(paths), **options)) == 0
    with open(f"{paths[-1]}/table.csv") as file:
        return list(csv.DictReader(file))


def test_one_run(predictions, truth, tmp_path, caplog):
    (row,) = run(predictions, truth, str(tmp_path / "out"))
    km = np.array([geodesic_km(CITIES[i % 5][0] + i % 10 / 20, 0, CITIES[i % 5][0], 0) for i in range(50) if i != 7])
    assert (row["run"], row["n"], row["missing"]) == ("ours", "60", "11")
    for threshold in (1, 25, 200, 750, 2500):
        assert float(row[f"acc_{threshold}km"]) == pytest.approx(100 * (km < threshold).sum() / 60, abs=1e-3)
        low, high = float(row[f"acc_{threshold}km_low"]), float(row[f"acc_{threshold}km_high"])
        assert low <= float(row[f"acc_{threshold}km"]) <= high
    assert float(row["median_km"]) == pytest.approx(np.median(km), abs=1e-3)
    assert float(row["mean_km"]) == pytest.approx(km.mean(), abs=1e-3)
    assert (row["distance"], row["rule"]) == ("geodesic", "<")
    assert float(row["country_acc"]) == pytest.approx(100 * 49 / 60, abs=1e-3)
    assert "10 photos of the truth have no row" in caplog.text
    assert "'/photos/stray.jpg'" in caplog.text
    results = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert len(results) == 60
    assert sum(r["error_km"] is not None for r in results) == 49
    assert {r["continent"] for r in results} == {"EU", "NA", "OC", "AS", "AF"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=.?https?:", page)
    assert "of 7 authors" in page


def test_several_runs_and_published_figures(predictions, truth, tmp_path):
    perfect = write(tmp_path / "perfect.csv", "id,lat,lon", [(f"{i:03d}.jpg", *CITIES[i % 5]) for i in range(60)])
    out = tmp_path / "out"
    rows = run(f"first={predictions}", f"second={perfect}", truth, str(out), dataset="im2gps3k")
    assert [row["run"] for row in rows] == ["first", "second"]
    assert (rows[1]["missing"], float(rows[1]["acc_1km"])) == ("0", 100)
    with (out / "differences.csv").open() as file:
        (difference,) = csv.DictReader(file)
    assert (difference["run"], difference["against"]) == ("second", "first")
    assert float(difference["acc_25km"]) == pytest.approx(100 - float(rows[0]["acc_25km"]), abs=1e-3)
    table = (out / "table.md").read_text()
    assert "| GeoRanker (GeoRanker, Table 1) |  |  | 18.79 | 45.05 | 61.49 | 76.31 | 89.29 |  |  |" in table
    assert "IM2GPS3K as published has 2,997 photos, this truth has 60" in table


def test_the_protocol_decides(tmp_path):
    truth = write(tmp_path / "t.csv", "id,lat,lon", [("a", 0.0, 10.0), ("b", 0.0, 179.9)])
    answers = write(tmp_path / "p.csv", "id,lat,lon", [("a", 0.2255, 10.0), ("b", 0.0, -179.9)])
    (row,) = run(answers, truth, str(tmp_path / "1"))
    assert float(row["acc_25km"]) == 100
    (row,) = run(answers, truth, str(tmp_path / "2"), protocol=Protocol("haversine", 6371))
    assert float(row["acc_25km"]) == 50
    assert row["distance"] == "haversine"


@pytest.mark.parametrize("swap_truth", [False, True])
def test_swapped_latitude_and_longitude_are_noticed(truth, tmp_path, caplog, swap_truth):
    names = ("lon", "lat") if not swap_truth else ("lat", "lon")
    answers = write(tmp_path / "p.csv", f"id,{','.join(names)}", [(f"{i:03d}.jpg", *CITIES[i % 5]) for i in range(60)])
    if swap_truth:
        truth = write(tmp_path / "s.csv", "id,lon,lat", [(f"{i:03d}.jpg", *CITIES[i % 5]) for i in range(60)])
    (row,) = run(answers, truth, str(tmp_path / "out"))
    assert float(row["acc_2500km"]) < 50
    assert "latitude and longitude look swapped, here or in the truth" in caplog.text
    assert ("no place on the Earth" in caplog.text) or swap_truth


def test_predictions_that_are_the_truth(truth, tmp_path, caplog):
    run(f"again={truth}", truth, str(tmp_path / "out"))
    assert "60 of 60 answers equal the truth exactly" in caplog.text


def test_longitudes_from_0_to_360(tmp_path):
    truth = write(tmp_path / "t.csv", "id,lat,lon", [("a", 40.0, -100.0)])
    answers = write(tmp_path / "p.csv", "id,lat,lon", [("a", 40.0, 260.0)])
    (row,) = run(answers, truth, str(tmp_path / "out"))
    assert (row["missing"], float(row["acc_1km"]), float(row["country_acc"])) == ("0", 100, 100)


def test_a_run_folder_with_confidences(tmp_path, random, caplog):
    """Kept photos are no predictions, uncertain ones no answers; radii and confidences are judged; candidates too."""
    n = 300
    lat, lon = random.uniform(-60, 60, n), random.uniform(-179, 179, n)
    off = random.uniform(0, 2, n)
    status = np.array(["located"] * n, object)
    status[:50], status[50:80] = "kept", "uncertain"
    answer = np.where(status == "uncertain", np.nan, lat + np.where(status == "kept", 0, off))
    candidates = [
        [
            {"lat": a + b, "lon": o, "score": 1.0, "similarity": 0.5},
            {"lat": a, "lon": o, "score": 0.5, "similarity": 0.4},
        ]
        for a, b, o in zip(lat, off, lon, strict=True)
    ]
    table = pa.table(
        {
            "id": range(n),
            "uri": [f"/p/{i}.jpg" for i in range(n)],
            "status": pa.array(status),
            "lat": pa.array(answer, from_pandas=True),
            "lon": pa.array(np.where(status == "uncertain", np.nan, lon), from_pandas=True),
            "radius_km": np.full(n, 111.0),
            "confidence": np.full(n, 0.5),
            "confidence_200km": np.full(n, 0.9),
            "candidates": candidates,
            "true_lat": lat,
            "true_lon": lon,
        }
    )
    (tmp_path / "run" / "geotags").mkdir(parents=True)
    for part in range(3):
        pq.write_table(table.slice(part * 100, 100), tmp_path / "run" / "geotags" / f"{part}.parquet")
    (row,) = run(str(tmp_path / "run"), str(tmp_path / "run"), str(tmp_path / "out"))
    assert (row["run"], row["n"], row["missing"]) == ("run", "250", "30")
    assert row["calibrated"] == "True"
    km = geodesic_km(lat + off, lon, lat, lon)[80:]
    assert float(row["coverage"]) == pytest.approx(100 * (km <= 111).mean(), abs=0.01)
    assert float(row["ece_200km"]) == pytest.approx(abs(0.9 - (km < 200).mean()), abs=1e-4)
    assert float(row["nearest_first"]) == 0
    assert "50 photos kept the GPS they carried" in caplog.text
    with (tmp_path / "out" / "candidates.csv").open() as file:
        recall = {r["k"]: float(r["recall_1km"]) for r in csv.DictReader(file)}
    assert recall["2"] == 100
    assert recall["1"] < 5


def test_files_of_one_name_are_told_apart_and_may_be_in_a_bucket(s3, predictions, truth, tmp_path):
    s3.create_bucket(Bucket="evaluation")
    for key in ("a/ours.csv", "b/ours.csv"):
        s3.upload_file(predictions, "evaluation", key)
    s3.upload_file(truth, "evaluation", "truth.csv")
    bucket = "s3://evaluation"
    paths = (f"{bucket}/a/ours.csv", f"{bucket}/b/ours.csv", f"{bucket}/truth.csv", f"{bucket}/out")
    assert evaluate_runs(EvaluationOptions(paths)) == 0
    table = s3.get_object(Bucket="evaluation", Key="out/table.csv")["Body"].read().decode()
    assert [row["run"] for row in csv.DictReader(table.splitlines())] == ["a/ours", "b/ours"]


def test_what_cannot_be_judged(predictions, truth, tmp_path):
    out = str(tmp_path / "out")
    with pytest.raises(UsageError, match="give PREDICTIONS, TRUTH and OUTPUT"):
        run(truth, out)
    with pytest.raises(UsageError, match=r"PREDICTIONS /nowhere.csv: no such file"):
        run("/nowhere.csv", truth, out)
    with pytest.raises(
        UsageError, match=r"TRUTH /nowhere/im2gps3k_places365.csv: no such file.*IM2GPS3K \(2,997 photos\)"
    ):
        run(predictions, "/nowhere/im2gps3k_places365.csv", out)
    with pytest.raises(UsageError, match="a run named 'x' is there already"):
        run(f"x={predictions}", f"x={predictions}", truth, out)
    nowhere = write(tmp_path / "nowhere.csv", "id,lat,lon", [("000.jpg", "", ""), ("001.jpg", 0, 0)])
    with pytest.raises(UsageError, match=r"no photo to judge. 2 photos of the truth have no valid position"):
        run(predictions, nowhere, out)


def test_the_command_line(predictions, truth, tmp_path):
    other = write(tmp_path / "other.csv", "id,lat,lon", [("x.jpg", 1, 2)])
    command = [sys.executable, "jobs/evaluate.py"]
    done = subprocess.run(
        [*command, other, truth, str(tmp_path / "out")], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "error: no photo is in both files" in done.stderr
    assert "Traceback" not in done.stderr
    done = subprocess.run(
        [*command, f"a={predictions}", truth, str(tmp_path / "out"), "--rule", "le"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "error <= threshold" in done.stderr
    assert "a: n 60, missing 11" in done.stderr
