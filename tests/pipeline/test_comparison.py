"""Models judged on a data set, on a real Ray cluster."""

import csv
import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest

from geoloc.encoders.config import lite
from geoloc.errors import UsageError
from geoloc.estimate.locator import Locator
from geoloc.estimate.options import LocatorOptions
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.load import LoadOptions, PhotoLoader
from geoloc.pipeline.evaluation import evaluate_runs
from geoloc.pipeline.job_options import EvaluationOptions
from geoloc.pipeline.options import LocateOptions
from geoloc.recipes.options import RankerOverrides
from geoloc.storage import Folder

pytestmark = pytest.mark.usefixtures("ray_cluster")


def tables(folder):
    return {name: list(csv.DictReader((folder / name).open())) for name in ("table.csv", "candidates.csv")}


def answers(folder, run):
    rows = pq.read_table(folder / "results.parquet").to_pylist()
    return {row["id"]: (row["lat"], row["lon"]) for row in rows if row["run"] == run and row["lat"] is not None}


def archive_answers(toy, toy_index, folder):
    """What the archive job's own object says of the same photos."""
    locator = Locator.load(LocatorOptions(lite(), (Folder(str(toy_index)),), candidates=10))
    photos = pq.read_table(folder / "out" / "located" / "encoder-0" / "photos.parquet")
    photos = photos.add_column(0, "id", [np.arange(photos.num_rows)])
    batches = PhotoLoader(LoadOptions(DecodeOptions(locator.retriever.view))).load(photos)
    rows = [row for batch in batches for row in locator.locate(batch).to_pylist()]
    return {row["uri"].rsplit("/", 1)[-1]: (row["lat"], row["lon"]) for row in rows if row["lat"] is not None}


def test_every_configuration_in_one_pass(toy, toy_index, tmp_path, caplog):
    """All choosers of the encoder, several numbers of candidates, and somebody's predictions beside them."""
    caplog.set_level("INFO", "geoloc")
    truth = tmp_path / "truth.csv"
    rows = list(csv.DictReader((toy / "truth.csv").open()))
    with truth.open("w", newline="") as file:  # by file name, and a photo that is not there
        names = [(row["uri"].rsplit("/", 1)[-1], row["lat"], row["lon"]) for row in rows]
        csv.writer(file).writerows([("IMG_ID", "LAT", "LON"), *names, ("lost.jpg", 1, 2)])
    index = RankerOverrides(index=str(toy_index))
    locate = LocateOptions(str(toy / "archive"), ("lite",), index, ("top1", "density"), (1, 10))
    options = EvaluationOptions((f"peer={toy / 'truth.csv'}", str(truth), str(tmp_path / "out")), locate=locate)
    assert evaluate_runs(options) == 0
    found = {row["run"]: row for row in tables(tmp_path / "out")["table.csv"]}
    assert list(found) == ["peer", "top1 of 1", "top1 of 10", "density of 1", "density of 10"]
    assert {row["n"] for row in found.values()} == {"41"}
    assert 1 <= int(found["top1 of 1"]["missing"]) < 6
    assert found["peer"]["missing"] == "1"
    accuracies = [f"acc_{t}km" for t in (1, 25, 200, 750, 2500)]
    assert [found["top1 of 1"][a] for a in accuracies] == [found["top1 of 10"][a] for a in accuracies]
    assert float(found["top1 of 10"]["acc_200km"]) > 70
    recall = {(r["run"], r["k"]): float(r["recall_25km"]) for r in tables(tmp_path / "out")["candidates.csv"]}
    assert recall["top1 of 10", "1"] == pytest.approx(float(found["top1 of 1"]["acc_25km"]), abs=1e-3)
    assert recall["density of 10", "10"] >= recall["density of 10", "1"]
    assert "'lost.jpg'" in caplog.text
    assert archive_answers(toy, toy_index, tmp_path) == answers(tmp_path / "out", "top1 of 10")

    caplog.clear()
    assert evaluate_runs(options) == 0  # what was located is not located again
    assert "photos/s" not in caplog.text
    with pytest.raises(UsageError, match=r"methods.density of 1 is gone; .*methods.lite is new"):
        evaluate_runs(EvaluationOptions(options.paths, locate=LocateOptions(locate.images, ("lite",), index)))
    turned = dataclasses.replace(locate, choosers=locate.choosers[::-1])
    with pytest.raises(UsageError, match=r"recipes was \['top1 of 1', .*, is now \['density of 1'"):
        evaluate_runs(dataclasses.replace(options, locate=turned))
    named = (f"lite={toy / 'truth.csv'}", *options.paths[1:])
    with pytest.raises(UsageError, match=r"PREDICTIONS: a run named 'lite' is there already"):
        evaluate_runs(EvaluationOptions(named, locate=LocateOptions(locate.images, ("lite",), index)))


def test_photos_that_are_not_there(toy, toy_index, tmp_path):
    (tmp_path / "empty").mkdir()
    index = RankerOverrides(index=str(toy_index))
    locate = LocateOptions(str(tmp_path / "empty"), ("lite",), index)
    with pytest.raises(UsageError, match=r"--images .*: no photos there"):
        evaluate_runs(EvaluationOptions((str(toy / "truth.csv"), str(tmp_path / "out")), locate=locate))
    for change, message in (
        ({"choosers": ("guess",)}, "--chooser guess"),
        ({"candidates": (0,)}, "--candidates 0"),
        ({"overrides": RankerOverrides()}, "--index: encoder lite has no gallery"),
        ({"recipes": ("lite", "lite")}, "--recipes: two of them are called lite"),
        ({"recipes": ()}, "--recipes: names none"),
        ({"density_sigma_km": 9}, "--density-sigma-km 9: is about the chooser density"),
    ):
        options = LocateOptions(**({"images": str(toy / "archive"), "recipes": ("lite",), "overrides": index} | change))
        with pytest.raises(UsageError, match=message):
            evaluate_runs(EvaluationOptions((str(toy / "truth.csv"), str(tmp_path / "out")), locate=options))
