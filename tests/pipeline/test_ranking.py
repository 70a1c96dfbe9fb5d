"""The archive job with a ranker, on a real cluster."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from geoloc.errors import UsageError
from geoloc.estimate.gate import fit_gate
from geoloc.pipeline.archive import geotag_archive
from geoloc.pipeline.job_options import ArchiveOptions
from geoloc.recipes.options import RecipeOptions
from geoloc.results.parts import Parts
from geoloc.storage import Folder
from geoloc.toy.archive import write_archive
from tests.conftest import with_recipe

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def options(planet, toy_index, toy_base, toy_adapter, tmp_path_factory) -> ArchiveOptions:
    root = tmp_path_factory.mktemp("ranked")
    write_archive(root / "archive", root / "truth.csv", planet, 24)
    Image.new("RGB", (2100, 10), "teal").save(root / "archive" / "ribbon.png")
    recipe = {"recipe": "georanker-retrieved", "encoder": "lite", "index": str(toy_index), "candidates": 8}
    recipe |= {"ranker_model": str(toy_base), "ranker_adapter": str(toy_adapter)}
    return ArchiveOptions(str(root / "archive"), str(root / "out"), RecipeOptions(**recipe), context="off")


def test_an_archive_is_ranked(options, caplog):
    caplog.set_level("INFO", "geoloc")
    assert geotag_archive(options) == 0
    rows = pa.concat_tables(Parts(Folder(options.output) / "geotags").tables()).to_pylist()
    methods = Counter(row["method"] for row in rows if row["status"] == "located")
    assert methods.pop("top1 (ranking failed)") == 1
    assert set(methods) == {"georanker"}
    for row in rows:
        if row["method"] == "georanker":
            scores = [candidate["score"] for candidate in row["candidates"]]
            assert len(scores) == 6
            assert scores == sorted(scores, reverse=True)
            assert row["lat"] == row["candidates"][0]["lat"]
    [ribbon] = [row for row in rows if row["uri"].endswith("ribbon.png")]
    assert (ribbon["status"], ribbon["error_kind"]) == ("located", "no_picture")
    assert "1 georanker actor (CPU" in caplog.text
    assert "Answers by: georanker" in caplog.text
    assert b"ranking failed" in Folder(options.output).read("report.html")


def test_it_goes_on_only_with_the_same_ranker(options):
    for change, match in (
        ({"ranker_max_pixels": 3136}, "georanker.prompt.max_pixels was 7056, is now 3136"),
        ({"skip_ranking_within_km": 25.0}, "georanker.skip_within_km was None, is now 25.0"),
        (
            {"recipe": "lite", "ranker_model": None, "ranker_adapter": None},
            r"method.georanker is gone; method.scorers was \['top1', 'georanker'\], is now \['top1'\]",
        ),
    ):
        with pytest.raises(UsageError, match=match):
            geotag_archive(with_recipe(options, **change))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"recipe": "lite"}, r"--ranker-model .*: recipe lite has no GeoRanker; --recipe georanker-retrieved has"),
        ({"ranker_model": None}, "--ranker-model: a recipe with georanker needs it"),
        ({"ranker_adapter": None}, "--ranker-adapter: a recipe with georanker needs it"),
        (
            {"ranker_candidates": 7},
            "--candidates 8: the ranker's prompt tells 2 of them as negatives, and it cannot rank 7",
        ),
        ({"skip_ranking_within_km": -1.0}, "--skip-ranking-within-km -1.0"),
        ({"ranker_model": "/nowhere"}, "--ranker-model /nowhere: cannot load its processor"),
        ({"ranker_adapter": "/nowhere"}, "--ranker-adapter /nowhere: cannot read it"),
    ],
)
def test_a_ranker_that_cannot_be_used(options, tmp_path, change, match):
    with pytest.raises(UsageError, match=match):
        geotag_archive(with_recipe(options, output=str(tmp_path / "out"), **change))


@pytest.mark.slow
def test_a_gate_lets_those_pass_that_promise_something(options, tmp_path):
    """It applies to the run that is there, and to no other."""
    settings = json.loads(Folder(options.output).read("run.json"))["settings"]["method"]
    weights = settings["weights"]
    light = {name: value for name, value in settings.items() if name != "georanker"}
    light |= {"scorers": ["top1"], "weights": {"encoder": weights["encoder"]}}
    random = np.random.default_rng(0)
    table = random.normal(0, 1, (400, 14))
    unsure = table[:, 0] < 0  # the log odds of the weight within 1 km of the answer
    applies_to = light | {"heavy": {"georanker": {"weights": weights["georanker"]} | settings["georanker"]}}
    gate = fit_gate(table, np.where(unsure, 300.0, 3.0), np.full(400, 3.0), applies_to, 40.0)
    Folder(str(tmp_path)).write("gate.json", gate.to_json())
    gated = with_recipe(options, heavy_gate=str(tmp_path), heavy_share=0.5)
    gated = dataclasses.replace(gated, output=str(tmp_path / "out"))
    assert geotag_archive(gated) == 0
    rows = pa.concat_tables(Parts(Folder(gated.output) / "geotags").tables()).to_pylist()
    methods = Counter(row["method"] for row in rows if row["status"] == "located")
    assert methods["georanker"] > 0
    assert methods["top1 (not worth ranking)"] > 0
    assert set(methods) <= {"georanker", "top1 (not worth ranking)", "top1 (ranking failed)"}
    for changes, message in (
        ({"ranker_max_pixels": 3136}, "was learned from other runs .*prompt.max_pixels was 7056, is now 3136"),
        ({"candidates": 9}, "was learned from other runs .*candidates was 8, is now 9"),
        ({"heavy_share": None}, "needs --heavy-share or --heavy-risk, one of them"),
        ({"heavy_share": 1.5}, "--heavy-share 1.5: must be above 0"),
        ({"heavy_gate": None}, "--heavy-share 0.5: add --heavy-gate"),
        ({"heavy_share": None, "heavy_risk": 0.1}, "--heavy-risk 0.1: .* too few to promise that"),
    ):
        with pytest.raises(UsageError, match=message):
            geotag_archive(dataclasses.replace(with_recipe(gated, **changes), output=str(tmp_path / "other")))
