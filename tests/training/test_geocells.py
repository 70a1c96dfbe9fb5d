"""Training geocells on a real cluster, and archives that are located by them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

from geoloc.errors import UsageError
from geoloc.geo.distance import geodesic_km
from geoloc.geocells.division import Division
from geoloc.geocells.methods import GeocellChoices
from geoloc.geocells.model import Geocells
from geoloc.index.store import Index, read_info
from geoloc.pipeline.archive import geotag_archive
from geoloc.pipeline.job_options import ArchiveOptions
from geoloc.recipes.options import RecipeOptions
from geoloc.results.parts import Parts
from geoloc.storage import Folder
from geoloc.training.cell_steps import CellExamples, CellTrainee
from geoloc.training.geocells import train_geocells
from geoloc.training.job_options import GeocellJobOptions
from geoloc.training.options import GeocellTrainingOptions
from tests.conftest import kill_workers

pytestmark = pytest.mark.usefixtures("ray_cluster")

CELLS = GeocellChoices(most=(40, 20, 10), fewest=1)
TRAINING = GeocellTrainingOptions(
    epochs=40, batch_size=20, lr=3e-3, gamma=0.95, validation_share=0.1, checkpoint_steps=15
)


@pytest.fixture(scope="module")
def options(toy_index, tmp_path_factory) -> GeocellJobOptions:
    output = tmp_path_factory.mktemp("geocells") / "out"
    return GeocellJobOptions(str(toy_index), str(output), CELLS, TRAINING)


@pytest.fixture(scope="module")
def trained(options, request) -> Folder:
    """With a worker that is killed on the way, where there is time for that: the ranker's is in any case."""
    slow = request.config.getoption("--slow")
    killed = kill_workers(Path(options.output), 18) if slow else []
    assert train_geocells(options) == 0
    assert bool(killed) == slow
    return Folder(options.output)


def test_the_curve_is_that_of_a_run_that_was_never_killed(trained, toy_index):
    """Which is run here, without Ray."""
    index, cells = Index(toy_index), CELLS.options()
    division = Division.of(index.lat, index.lon, cells)
    known = CellExamples(index.vectors, index.lat, index.lon, division.cells(index.lat, index.lon), division)
    torch.manual_seed(0)
    model = Geocells(1280, [len(one) for one in division.partitions], cells.head, cells.width)
    alone = CellTrainee(model, cells, TRAINING, known, torch.device("cpu"))
    for number in range(alone.steps):
        alone.step(number)
        if alone.finished:
            break
    curves = json.loads(trained.read("progress.json"))
    for name in ("history", "validations"):
        ours, expected = ([point["loss"] for point in points] for points in (curves[name], getattr(alone, name)))
        assert ours == pytest.approx(expected, rel=2e-2)
    assert curves["history"][-1]["loss"] < curves["history"][0]["loss"] / 2


def test_it_leaves_an_index_of_cells(trained, toy_index):
    info, index = read_info(trained), Index(Path(trained.path()))
    assert (info.kind, info.weights, info.dimension) == ("cells", read_info(Folder(str(toy_index))).weights, 1280)
    cells = pq.read_table(trained.path("cells.parquet"))
    finest = cells.filter(pa.compute.equal(cells["level"], 2))
    assert [f"s2:{token}" for token in finest["token"].to_pylist()] == index.uri.to_pylist()
    np.testing.assert_allclose(index.lat, finest["lat"])
    np.testing.assert_allclose(np.linalg.norm(index.vectors, axis=1), 1, rtol=1e-5)
    assert all(index.thumbnail(row)[:2] == b"\xff\xd8" for row in range(info.rows))
    assert {place["country"] for place in index.place.to_pylist()} != {None}
    assert b"Geocells: geosurge" in trained.read("report.html")
    assert not trained.filesystem.exists(trained.path("train"))


def test_an_archive_is_located_by_cells(trained, toy, tmp_path, caplog):
    caplog.set_level("INFO", "geoloc")
    recipe = RecipeOptions(recipe="geosurge", encoder="lite", index=trained.uri, candidates=5)
    assert geotag_archive(ArchiveOptions(str(toy / "archive"), str(tmp_path / "out"), recipe, context="off")) == 0
    rows = pa.concat_tables(Parts(Folder(str(tmp_path / "out" / "geotags"))).tables()).to_pylist()
    truth = {row["uri"].rsplit("/", 1)[-1]: row for row in pa.csv.read_csv(toy / "truth.csv").to_pylist()}
    located = [row for row in rows if row["status"] == "located"]
    index = Index(Path(trained.path()))
    assert len(located) > 30
    for row in located:
        candidates = row["candidates"]
        assert len(candidates) == 5
        assert all(candidate["reference"].startswith("s2:") for candidate in candidates)
        probabilities = np.exp(40 * np.array([candidate["similarity"] for candidate in candidates]))
        assert (np.diff(probabilities) <= 0).all()
        assert probabilities.sum() <= 1 + 1e-5
        best = candidates[0]
        assert (row["lat"], row["lon"]) == (index.lat[best["reference_id"]], index.lon[best["reference_id"]])
        assert best["extent_km"] == pytest.approx(index.extent_km[best["reference_id"]])
        assert row["radius_km"] >= best["extent_km"] - 1e-3  # nobody knows where in the cell
    true = [truth[row["uri"].rsplit("/", 1)[-1]] for row in located]
    lat, lon, true_lat, true_lon = (
        np.array([row[a] for row in rows]) for rows in (located, true) for a in ("lat", "lon")
    )
    assert np.mean(geodesic_km(lat, lon, true_lat, true_lon) < 200) > 0.5


def test_what_cannot_be_trained(options, trained, tmp_path, caplog):
    def refused(match, **changes):
        with pytest.raises(UsageError, match=match):
            train_geocells(dataclasses.replace(options, **({"output": str(tmp_path / "new")} | changes)))

    def training(**changes):
        return dataclasses.replace(TRAINING, **changes)

    refused(r"--batch-size 64: SOURCE .* has only 54 photos beside the 6", training=training(batch_size=64))
    refused(r"--lr 0: must be above 0", output=str(tmp_path / "a"), training=training(lr=0))
    refused(r"--workers 3: must .* divide", training=training(workers=3))
    refused(r"--most 10 20", cells=dataclasses.replace(CELLS, most=(10, 20)))
    refused(r"no cell has more than 50 of the 60 photos", output=str(tmp_path / "b"), cells=GeocellChoices("planet"))
    refused(r"SOURCE .*: is an index of cells", source=trained.uri)
    refused(r"SOURCE /nowhere|--index /nowhere", source="/nowhere")
    caplog.set_level("INFO", "geoloc")
    assert train_geocells(options) == 0
    assert "The geocells are trained" in caplog.text
    Path(options.output, "index.json").rename(tmp_path / "index.json")
    refused(
        r"OUTPUT .* holds a run with other settings: lr was 0.003, is now 1",
        output=options.output,
        training=training(lr=1),
    )
    (tmp_path / "index.json").rename(Path(options.output, "index.json"))


def test_a_recipe_of_cells_wants_cells(toy, toy_index, tmp_path):
    for index, found in ((None, "is not given"), (str(toy_index), "is an index of photos")):
        recipe = RecipeOptions(recipe="planet", encoder="lite" if index else "geoclip", index=index)
        options = ArchiveOptions(str(toy / "archive"), str(tmp_path / "out"), recipe, context="off")
        with pytest.raises(
            UsageError, match=f"{found}, and recipe planet wants cells: a folder from train_geocells.py"
        ):
            geotag_archive(options)
