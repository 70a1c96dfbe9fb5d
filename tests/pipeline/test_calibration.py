"""Calibrating from a run folder; what calibrated runs then say is tested with the archive job."""

import json

import numpy as np
import pyarrow as pa
import pytest

from geoloc.errors import UsageError
from geoloc.estimate.calibration import read_calibration
from geoloc.pipeline.calibration import calibrate
from geoloc.pipeline.job_options import CalibrationOptions
from geoloc.results.parts import Parts
from geoloc.storage import Folder, S3Options

METHOD = {"encoder": "lite", "model": None, "scorers": ["top1"], "index": "i", "candidates": 2}
RECORD = {
    "settings": {"source": "/photos", "relocate": True, "method": METHOD},
    "score_scale": 40.0,
}


@pytest.fixture
def run(tmp_path, random):
    """200 photos of two candidates each, of which the first half has a known place, where the first candidate often is."""
    lat, lon = random.uniform(-60, 60, 200), random.uniform(-170, 170, 200)
    agree = random.uniform(size=200) < 0.5
    away = np.where(agree, 0.05, random.uniform(5, 20, 200))
    rows = [
        {
            "id": i,
            "uri": f"/photos/{i}.jpg",
            "status": "located",
            "lat": lat[i],
            "lon": lon[i],
            "candidates": [
                {"lat": lat[i], "lon": lon[i], "score": 0.9, "similarity": 0.9},
                {"lat": lat[i] + away[i], "lon": lon[i], "score": 0.8, "similarity": 0.8},
            ],
            "true_lat": lat[i] + away[i] / 2 if i < 150 else None,
            "true_lon": lon[i] if i < 150 else None,
        }
        for i in range(200)
    ]
    Parts(Folder(str(tmp_path / "run" / "geotags"))).add(pa.Table.from_pylist(rows))
    (tmp_path / "run" / "run.json").write_text(json.dumps(RECORD))
    return tmp_path / "run"


def test_it_names_what_it_is_for(run, caplog):
    caplog.set_level("INFO", "geoloc")
    assert calibrate(CalibrationOptions(str(run), coverage=0.8)) == 0
    calibration = read_calibration(str(run), S3Options())
    assert calibration.applies_to == METHOD
    assert (calibration.evidence["photos"], calibration.coverage) == (150, 0.8)
    assert calibration.evidence["expected_calibration_error"]["25km"] < 0.1
    assert "Calibrated on 150 photos" in caplog.text


def test_photos_that_are_in_the_index_themselves(run, tmp_path, caplog):
    """Their own place as the truth is what a photo says that found itself."""
    table = next(Parts(Folder(str(run / "geotags"))).tables())
    truth = table.select(["uri", "lat", "lon", "id"]).rename_columns(["uri", "lat", "lon", "author"])
    pa.csv.write_csv(truth.cast(truth.schema.set(3, pa.field("author", pa.string()))), tmp_path / "truth.csv")
    assert calibrate(CalibrationOptions(str(run), str(tmp_path / "truth.csv"), str(tmp_path / "out"))) == 0
    assert "200 of 200 photos found themselves among the references" in caplog.text
    assert read_calibration(str(tmp_path / "out"), S3Options()).evidence["groups"] == 200


def test_what_cannot_be_calibrated(run, tmp_path):
    def refused(match, **changes):
        with pytest.raises(UsageError, match=match):
            calibrate(CalibrationOptions(**({"run": str(run)} | changes)))

    refused(r"RUN /nowhere: has no run.json", run="/nowhere")
    refused(r"--coverage 1.5: must be from 0.5", coverage=1.5)
    (tmp_path / "few.csv").write_text("uri,lat,lon\n" + "".join(f"{i}.jpg,1,2\n" for i in range(99)))
    refused("at least 100 photos of known place with an estimate, there are 99", truth=str(tmp_path / "few.csv"))
    (tmp_path / "unplaced.csv").write_text("uri,lat,lon\n1.jpg,,\n2.jpg,0,0\n")
    refused("none of its located photos has a known place; .*--relocate", truth=str(tmp_path / "unplaced.csv"))
    (run / "run.json").write_text("{}")
    refused("cannot read run.json")
